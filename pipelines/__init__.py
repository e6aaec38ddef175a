"""The study as a Kubeflow pipeline: its definition, and how it is run, submitted and watched."""
