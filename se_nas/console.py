"""Consoles of rich: as wide as the terminal, and wide in a pipe."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from se_nas.wording import printable

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 160
COMMAND = "  se-nas "
"""Stands before a command in a text; its line is left to the terminal, so that it can be copied whole."""


def make_console(*, stderr: bool = False, width: int = PIPE_WIDTH) -> Console:
    """As wide as the terminal; in a pipe, whose lines may be of any length, ``width`` unless COLUMNS is set."""
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    return console if is_bounded(console) else Console(stderr=stderr, highlight=False, width=width)


def is_bounded(console: Console) -> bool:
    """Whether lines longer than the console's width would break, or somebody asked for that width."""
    return console.is_terminal or console.is_jupyter or os.environ.get("COLUMNS", "").isdigit()


def print_text(console: Console, text: str, *, style: str = "") -> None:
    """Lines of text; where lines are bounded they break between words, so that no number breaks."""
    from rich.text import Text

    for line in printable(text).split("\n"):
        console.print(Text(line, style=style), soft_wrap=COMMAND in line or not is_bounded(console))
