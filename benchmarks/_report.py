"""What every benchmark prints beside its figures: where, when and with what it ran."""

from __future__ import annotations

import platform
from datetime import date
from importlib.metadata import version

import numpy as np
import psutil

from hierrouter import __version__
from hierrouter.routes.journal import machine


def print_header(title: str, *packages: str) -> None:
    """Prints the title, machine, load, date and versions."""
    load = psutil.getloadavg()[0]
    print(title)
    print(f"  machine   {machine()}; load at the start {load:.1f}")
    print(f"  date      {date.today().isoformat()}")
    found = ", ".join(f"{name} {version(name)}" for name in packages)
    print(f"  versions  Python {platform.python_version()}, hierrouter {__version__}, {found}")
    print(flush=True)


def mean_interval(values: list[float]) -> str:
    """A mean with its 95 % interval (Student's t) and n."""
    from scipy.stats import t

    array = np.asarray(values, dtype=np.float64)
    half = t.ppf(0.975, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array))
    return f"{array.mean():.3f} (95 % {array.mean() - half:.3f} to {array.mean() + half:.3f})"
