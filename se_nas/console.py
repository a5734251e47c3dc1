"""Consoles of rich: as wide as the terminal, and wide in a pipe."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 160


def make_console(*, stderr: bool = False, width: int = PIPE_WIDTH) -> Console:
    """As wide as the terminal; in a pipe, whose lines may be of any length, ``width`` unless COLUMNS is set."""
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    return console if is_bounded(console) else Console(stderr=stderr, highlight=False, width=width)


def is_bounded(console: Console) -> bool:
    """Whether lines longer than the console's width would break, or somebody asked for that width."""
    return console.is_terminal or console.is_jupyter or os.environ.get("COLUMNS", "").isdigit()
