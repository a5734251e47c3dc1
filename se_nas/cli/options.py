"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Position = Annotated[
    str | None,
    typer.Option(
        help="Where SE goes in a block: standard, pre, post, identity or conv3x3; by default the usual position"
        " for the backbone's family."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]
Events = Annotated[
    bool,
    typer.Option(
        "--json", help="Print a line of JSON per event for other programs; progress goes to standard error."
    ),
]
RunPath = Annotated[Path, typer.Argument(help="A run folder, such as runs/NAME.", show_default=False)]
MaybeRunPath = Annotated[
    Path | None, typer.Argument(help="A run folder, such as runs/NAME.", show_default=False)
]
Storage = Annotated[
    str | None,
    typer.Option(help="Database that holds a study, instead of a run folder.", show_default=False),
]
Study = Annotated[str | None, typer.Option(help="Name of the study in that database.", show_default=False)]
Weights = Annotated[
    Path, typer.Option("--runs", help="With --study: where this machine's worker keeps its run folder.")
]
Formats = Annotated[
    list[str] | None,
    typer.Option("--format", help="Another format besides timm's folder: onnx or pt2; repeatable."),
]
Standalone = Annotated[
    bool, typer.Option("--standalone", help="Also write a model.py that needs only torch and timm.")
]
ReplaceExport = Annotated[
    bool,
    typer.Option("--force", rich_help_panel="Output", help="Replace an earlier export in that folder."),
]
OutFolder = Annotated[Path, typer.Option(help="Folder to write.", show_default=False)]
Pick = Annotated[
    str, typer.Option(help="Which candidate: best, knee, one-se, under:BUDGET, or a trial's number or key.")
]
