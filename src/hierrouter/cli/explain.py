"""Printing what every key of a configuration means."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from hierrouter.configfile import explain


def print_keys() -> None:
    """Prints every key with its type, default and meaning to standard output."""
    console = Console(highlight=False)
    for key, kind, default, meaning in explain():
        stated = f" = {default}" if default else ""
        console.print(f"[bold]{escape(key)}[/]  {escape(kind)}{escape(stated)}", soft_wrap=True)
        console.print(f"    {escape(meaning)}", soft_wrap=True)
