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
Formats = Annotated[
    list[str] | None,
    typer.Option("--format", help="Further formats beside timm's folder: onnx, pt2. Repeatable."),
]
Standalone = Annotated[
    bool, typer.Option("--standalone", help="Also write a model.py that needs torch and timm alone.")
]
ReplaceExport = Annotated[bool, typer.Option("--force", help="Replace an earlier export in that folder.")]
OutFolder = Annotated[Path, typer.Option(help="Folder to write.", show_default=False)]
Pick = Annotated[
    str, typer.Option(help="best, knee, cheapest, under:BUDGET, or the number or key of a trial.")
]
