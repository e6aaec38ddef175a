"""Settings of every test process."""

import os

# Before torch is loaded: waiting threads sleep, so that tests stay quick on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# A test server runs no jobs in the background; starting their workers takes longer than the tests.
os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
