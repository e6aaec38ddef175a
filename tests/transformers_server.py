"""A real `transformers serve` process on loopback."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
import threading
from pathlib import Path


class Served:
    """A `transformers serve` process that has begun to listen."""

    def __init__(self, model: Path, home: Path) -> None:
        command = [Path(sysconfig.get_path("scripts")) / "transformers", "serve", model]
        self.process = subprocess.Popen(
            [*map(str, command), "--host", "127.0.0.1", "--port", "0", "--device", "cpu"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            # A cache of its own: what else lies on this machine is neither read nor listed.
            env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(home)},
        )
        assert self.process.stderr is not None
        self.said: list[str] = []
        for line in self.process.stderr:
            self.said.append(line)
            if listening := re.search(r"running on (http://\S+)", line):
                self.url = f"{listening[1]}/v1"
                break
        else:  # it has ended
            raise AssertionError("".join(self.said))
        self._reader = threading.Thread(target=self.said.extend, args=(self.process.stderr,))
        self._reader.start()

    def stop(self) -> None:
        self.process.kill()
        self._reader.join()
        self.process.wait()
