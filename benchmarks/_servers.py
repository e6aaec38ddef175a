"""The servers of the benchmarks as processes: HierRouter's, LiteLLM's proxy, and the stub."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from hierrouter.config import EncoderConfig, PoolConfig
from hierrouter.learning.features import Features
from hierrouter.learning.heads import Heads
from hierrouter.learning.projection import Projection
from hierrouter.learning.router import Router, RouterInfo
from hierrouter.learning.stages import stage_count
from hierrouter.pool.open import identity
from hierrouter.routes.encoder import encoder_identity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hierrouter.routes.outcomes import Moves

HERE = Path(__file__).parent
START_S = 300.0
QUESTIONS = [f"Question {number}: what is {number} times seven?" for number in range(8)]
"""The few that are asked over and over."""


class Server:
    """A process that answers at a port, and what it has used."""

    def __init__(self, process: subprocess.Popen[Any], port: int) -> None:
        self.port = port
        self._process = psutil.Process(process.pid)

    def processor_s(self) -> float:
        """Processor seconds so far, of children too."""
        times = [each.cpu_times() for each in self._all()]
        ended = self._process.cpu_times()
        every = sum(each.user + each.system for each in times)
        return float(every + ended.children_user + ended.children_system)

    def memory(self) -> float:
        """Bytes in memory now, of children too."""
        return float(sum(each.memory_info().rss for each in self._all()))

    def _all(self) -> list[psutil.Process]:
        return [self._process, *self._process.children(recursive=True)]


@contextlib.contextmanager
def stub(gap_ms: float = 0.0) -> Iterator[Server]:
    """The model server that costs next to nothing."""
    command = [sys.executable, str(HERE / "_stub.py"), "--gap-ms", str(gap_ms)]
    with _running(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Server(process, int(process.stdout.readline()))


@contextlib.contextmanager
def hierrouter(router: Router, folder: Path, upstream: Server | None = None) -> Iterator[Server]:
    """`hierrouter serve`.

    Args:
        router: what it serves.
        folder: for the router.
        upstream: what answers for all of its models; none: they run in the server.
    """
    router.save(folder / "router", [], "A router with arbitrary weights.\n")
    command = [str(Path(sys.executable).with_name("hierrouter")), "serve", "--port", "0"]
    command += ["--router", str(folder / "router")]
    if upstream is not None:
        for name in router.info.models:
            command += ["--endpoint", f"{name}=http://127.0.0.1:{upstream.port}/v1"]
    with _running(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"serving at http://\S+?:(\d+)/openai/v1", line):
                # A full pipe would stop it.
                threading.Thread(target=process.stderr.read, daemon=True).start()
                yield Server(process, int(found[1]))
                return
        raise SystemExit("HierRouter's server did not start:\n" + "".join(lines))


@contextlib.contextmanager
def litellm(venv: Path, folder: Path, upstream: Server) -> Iterator[Server]:
    """LiteLLM's proxy, one worker, without keys, with its defaults.

    Args:
        venv: its environment.
        folder: for its configuration and log.
        upstream: what answers.
    """
    (folder / "litellm.yaml").write_text(
        "model_list:\n"
        "  - model_name: stub\n"
        "    litellm_params:\n"
        f"      {{model: openai/stub, api_base: 'http://127.0.0.1:{upstream.port}/v1'}}\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(venv / "bin" / "litellm"), "--config", str(folder / "litellm.yaml")]
    command += ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    quiet = {
        # Prices of models from the package instead of the network.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        # As its makers advise for production.
        "LITELLM_LOG": "ERROR",
        # It starts without a key only when it is told so.
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        "OPENAI_API_KEY": "none",
    }
    log = folder / "litellm.log"
    with (
        log.open("w") as to,
        _running(command, stdout=to, stderr=to, env={**os.environ, **quiet}) as process,
    ):
        ends = time.monotonic() + START_S
        while time.monotonic() < ends and process.poll() is None:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=5)
                yield Server(process, port)
                return
            time.sleep(0.2)
        raise SystemExit("LiteLLM's proxy did not start:\n" + log.read_text()[-2000:])


def litellm_venv(folder: Path) -> str:
    """Makes LiteLLM's environment where there is none yet; returns the exact version."""
    python = folder / "bin" / "python"
    if not (folder / "bin" / "litellm").exists():
        print(f"installing litellm[proxy] into {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "litellm[proxy]"], check=True)
    code = "from importlib.metadata import version; print(version('litellm'))"
    done = subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def make_router(pool: Mapping[str, Any], moves: Moves = "early_exit") -> Router:
    """A router with arbitrary weights for a pool, given as in a configuration."""
    config = PoolConfig.model_validate(pool)
    encoder = encoder_identity(config.encoder)
    width = encoder.get("dimensions") or 768
    policy = _arbitrary_weights(width, config)
    names = [spec.name for spec in config.models]
    info = RouterInfo(
        models=tuple(names),
        hops=config.hops,
        moves=moves,
        metric="accuracy",
        view="paper",
        policy="decomposed",
        activation="tanh",
        alpha_range=(0.0, 1.0),
        cost_unit_usd=0.001,
        encoder={"config": config.encoder.model_dump(mode="json"), "identity": encoder},
        dimensions={
            "embedding": width,
            "state": policy.features.blocks[-1].stop,
            "actions": 2 * len(names) + 1,
        },
        config={"pool": config.model_dump(mode="json")},
        weights={spec.name: identity(spec)["weights_digest"] for spec in config.models},
        scorer_version=1,
        query_digest="",
        tree_digest="",
        training_query_hashes=(),
        data_seed=0,
        training_seed=0,
        validation={},
    )
    return Router(info, policy)


def _arbitrary_weights(width: int, pool: PoolConfig) -> Heads:
    """A policy of the usual size: six tasks, at most 256 components each, 64 centres."""
    rng = np.random.default_rng(0)
    tasks, kept, centres = 6, min(256, width), 64

    def draw(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return np.asarray(rng.normal(size=shape) / shape[-1] ** 0.5, dtype=np.float32)

    def projection() -> Projection:
        return Projection(draw(width), draw(kept, width), np.ones((), np.float32))

    features = Features(
        projection(), projection(), draw(tasks, kept), draw(tasks), draw(centres, width)
    )
    stages = stage_count(len(pool.models), pool.hops)
    whole = (stages, 2 * len(pool.models) + 1, features.blocks[-1].stop)
    return Heads(features, draw(*whole), draw(*whole), np.asarray(0.05, np.float32))


def scripted_pool(encoder: str) -> dict[str, Any]:
    """Three models for which servers answer."""
    model = {"model": "stub", "backend": "scripted", "scripted": {}}
    names = ("small", "medium", "large")
    return {
        "models": [
            {**model, "name": name, "base_rate": 0.001 * 2**number}
            for number, name in enumerate(names)
        ],
        "hops": 2,
        # Narrow, so that newest vectors, which the server keeps, are soon as many as they get.
        "encoder": EncoderConfig(model=encoder, dimensions=64).model_dump(),
    }


@contextlib.contextmanager
def _running(command: Sequence[str], **how: Any) -> Iterator[subprocess.Popen[Any]]:
    """A process that ends with the block."""
    process: subprocess.Popen[Any] = subprocess.Popen(command, **how)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
