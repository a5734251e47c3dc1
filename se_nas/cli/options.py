"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Position = Annotated[
    str | None,
    typer.Option(
        help="Where SE goes in a block: standard, pre, post, identity, conv3x3; the family's by default."
    ),
]
Device = Annotated[str, typer.Option(help="auto (cuda, then mps, then cpu), cpu, cuda, cuda:1 or mps.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]
RunPath = Annotated[Path, typer.Argument(help="A run folder, such as runs/NAME.", show_default=False)]
