#!/usr/bin/env bash
# Builds the image and runs the whole pipeline in it: every component in a container of its own, as a
# user without rights, on a read-only file system, with a real MLflow server on loopback. Then the
# image serves the router that came out of it.
#
#   tests/e2e/container.sh
#
# Needs docker, or podman as root. Variables: IMAGE (to take one that is built, set BUILD=no), BASE and
# IMAGE_ARGS (as for `make image`), PYTHON (where hierrouter is installed with the extra kubeflow).
set -euo pipefail
cd "$(dirname "$0")/../.."

IMAGE=${IMAGE:-localhost/hierrouter:test}
PYTHON=${PYTHON:-$PWD/.venv/bin/python}
DEBIAN=localhost/hierrouter-base:bookworm
work=$(mktemp -d /tmp/hierrouter-container.XXXXXX)
pids=()
server=

finish() {
  if [ -n "$server" ]; then "$engine" rm --force "$server" >/dev/null 2>&1 || true; fi
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap finish EXIT

step() { printf '\n== %s\n' "$*"; }

free_port() {
  "$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# A base where no registry is reached: Debian's own, as the official Python image has it.
debian_base() {
  command -v debootstrap >/dev/null || { echo "no registry is reached; install debootstrap, or set BASE" >&2; exit 1; }
  local root=$work/root
  debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$root" >"$work/debootstrap.log" ||
    { tail -n 3 "$work/debootstrap.log" >&2; exit 1; }
  rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}/*
  tar -C "$root" -c . | podman import - "$DEBIAN" >/dev/null
  rm -rf "$root"
}

if docker info >/dev/null 2>&1; then
  engine=docker
else
  command -v podman >/dev/null || { echo "neither docker nor podman answers here; install one" >&2; exit 1; }
  engine=podman
  # What also works where there is no systemd and no bridge network.
  export CONTAINERS_CONF=$work/containers.conf
  {
    printf '[containers]\nnetns = "host"\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
    printf '[engine]\nevents_logger = "file"\n'
    if command -v runc >/dev/null; then printf 'runtime = "runc"\n'; fi
  } >"$CONTAINERS_CONF"
  export DOCKER_HOST=unix://$work/engine.sock
  podman system service --time=0 "$DOCKER_HOST" 2>"$work/engine.log" &
  pids+=($!)
fi

if [ "${BUILD:-yes}" = yes ]; then
  step "the image"
  if [ -z "${BASE:-}" ] && ! "$engine" pull --quiet docker.io/library/python:3.11-slim-bookworm >/dev/null 2>&1; then
    "$engine" image inspect "$DEBIAN" >/dev/null 2>&1 || debian_base
    BASE=$DEBIAN
  fi
  started=$SECONDS
  make image IMAGE="$IMAGE" BUILDER="$engine" ${BASE:+BASE="$BASE"} IMAGE_ARGS="${IMAGE_ARGS:-}" >"$work/build.log" 2>&1 ||
    { tail -n 20 "$work/build.log" >&2; exit 1; }
  echo "built in $((SECONDS - started)) s"
fi

step "what it is"
"$engine" image inspect "$IMAGE" --format \
  'size {{.Size}} bytes, user {{.Config.User}}, commit {{index .Config.Labels "org.opencontainers.image.revision"}}'
"$engine" run --rm --read-only --tmpfs /tmp "$IMAGE" sh -euc '
  test "$(id -u)" != 0
  ! touch /opt/hierrouter/x 2>/dev/null
  hierrouter --version
  python -c "import torch; print(\"torch\", torch.__version__)"
  du -sm /opt/hierrouter | sed "s/\t.*/ MB in \/opt\/hierrouter/"'

# Whoever runs this as root runs the rest as somebody else: components must do without.
person=()
if [ "$(id -u)" = 0 ]; then
  person=(setpriv --reuid 1000 --regid 1000 --clear-groups)
  chown 1000:1000 "$work"
fi
chmod 755 "$work"
if [ "$engine" = podman ]; then chmod 666 "$work/engine.sock"; fi

step "MLflow"
port=$(free_port)
export HOME=$work MLFLOW_TRACKING_URI=http://127.0.0.1:$port HIERROUTER_HOME=$work/home
"${person[@]}" "$PYTHON" -m mlflow server --host 127.0.0.1 --port "$port" --workers 1 \
  --backend-store-uri "sqlite:///$work/mlflow.db" --artifacts-destination "$work/served" \
  >"$work/mlflow.log" 2>&1 &
pids+=($!)
curl --silent --retry 60 --retry-delay 1 --retry-connrefused "$MLFLOW_TRACKING_URI/health" ||
  { tail -n 5 "$work/mlflow.log" >&2; echo "MLflow does not start (can user 1000 run $PYTHON?)" >&2; exit 1; }
echo " $MLFLOW_TRACKING_URI"

step "the pipeline, in the image"
started=$SECONDS
"${person[@]}" "$PYTHON" pipelines/train_eval.py local --config "${CONFIG:-configs/scripted.yaml}" \
  --set data.queries_per_task=40 --set training.iterations=5 --set training.rollouts=32 \
  --out "$work/out" --param shards=2 --param seeds=1,2 --image "$IMAGE"
echo "ran in $((SECONDS - started)) s"

step "in MLflow"
"${person[@]}" "$PYTHON" - <<'PYTHON'
import mlflow

client = mlflow.MlflowClient()
experiment = client.get_experiment_by_name("hierrouter")
runs = client.search_runs([experiment.experiment_id])
assert len(runs) == 3, f"a parent and two seeds were expected, not {len(runs)} runs"
names = ("router", "random", "best_single", "best_path_per_task", "oracle")
print(f"{'run':<36}{'status':<10}" + "".join(f"{name:>20}" for name in names))
for run in runs:
    rewards = "".join(f"{run.data.metrics[f'{name}/reward']:>20.3f}" for name in names)
    print(f"{run.info.run_name:<36}{run.info.status:<10}{rewards}")
    assert run.info.status == "FINISHED"
version = client.get_model_version_by_alias("hierrouter", "champion")
print(f"registered models:/hierrouter/{version.version}")
PYTHON

step "the server, in the image"
port=$(free_port)
url=http://127.0.0.1:$port
key=$("$PYTHON" -c 'import secrets; print(secrets.token_hex(24))')
# MLflow and the port are on this machine's loopback, with docker, too.
server=$("$engine" run --detach --read-only --tmpfs /tmp --cap-drop ALL --network host \
  --env MLFLOW_TRACKING_URI="$MLFLOW_TRACKING_URI" --env HIERROUTER_API_KEYS="$key" "$IMAGE" \
  hierrouter serve --router models:/hierrouter@champion --port "$port")
curl --silent --fail --output /dev/null \
  --retry 120 --retry-delay 1 --retry-connrefused "$url/v2/health/ready" ||
  { "$engine" logs "$server" >&2; exit 1; }
"$engine" exec "$server" python -m hierrouter.serving.health
echo "healthy at $url"
status=$(curl --silent --output /dev/null --write-out '%{http_code}' "$url/openai/v1/models")
[ "$status" = 401 ] || { echo "without a key it answers $status" >&2; exit 1; }
question='Topic: sums. Marker: jade. What is 17 plus 25?'
curl --silent --show-error --fail "$url/openai/v1/chat/completions" \
  -H "authorization: Bearer $key" -H 'content-type: application/json' \
  -d "{\"model\": \"hierrouter\", \"messages\": [{\"role\": \"user\", \"content\": \"$question\"}]}" \
  >"$work/answer.json" || { "$engine" logs "$server" >&2; exit 1; }
"$PYTHON" - "$work/answer.json" <<'PYTHON'
import json
import sys
from pathlib import Path

answer = json.loads(Path(sys.argv[1]).read_text())
told = answer["hierrouter"]
assert answer["choices"][0]["message"]["content"], answer
print(f"route {told['route']}, version {told['router']['version']}, ${told['cost_usd']:.6f}")
PYTHON
"$engine" stop -t 60 "$server" >/dev/null
code=$("$engine" inspect --format '{{.State.ExitCode}}' "$server")
[ "$code" = 0 ] || { "$engine" logs "$server" >&2; echo "it ended with $code" >&2; exit 1; }
echo "told to stop, it ended in good order"
