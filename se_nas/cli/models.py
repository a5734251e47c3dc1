"""Commands about backbones and search spaces: inspect, spaces, profile."""

from __future__ import annotations

from typing import Annotated

import typer

from se_nas.cli import app
from se_nas.cli.options import Device, Json, Position


@app.command()
def inspect(
    backbone: Annotated[str, typer.Argument(help="A timm model name.", show_default=False)],
    position: Position = None,
    input_size: Annotated[int | None, typer.Option(help="Height and width of the images in pixels.")] = None,
    reduction: Annotated[
        str, typer.Option(help="Reduction ratios γ to price, separated by commas.")
    ] = "4,8,16,32",
    json: Json = False,
) -> None:
    """List the sites of a backbone and what SE at each would add.

    Example:  se-nas inspect resnet50 --reduction 8,16
    """
    from se_nas.cli import tables
    from se_nas.cli.inspection import inspect_backbone

    table = inspect_backbone(backbone, position, input_size, reduction)
    tables.print_json(table.to_dict()) if json else tables.print_sites(table)


@app.command()
def spaces(json: Json = False) -> None:
    """List the search spaces that ship with se-nas.

    Example:  se-nas spaces
    """
    from se_nas.cli import tables
    from se_nas.space import shipped_spaces

    found = shipped_spaces()
    tables.print_json(found) if json else tables.print_pairs(found.items())


@app.command()
def profile(
    backbone: Annotated[str, typer.Argument(help="A timm model name.", show_default=False)],
    space: Annotated[str, typer.Option(help="Search space whose costs are ranged.")] = "per_block",
    input_size: Annotated[int, typer.Option(help="Height and width of the images in pixels.")] = 224,
    latency_batch: Annotated[int, typer.Option(min=1, help="Batch size at which latency is measured.")] = 1,
    device: Device = "auto",
    max_seconds: Annotated[float, typer.Option(help="Time limit of the measurement in seconds.")] = 300.0,
    json: Json = False,
) -> None:
    """Measure what SE costs on this device, site by site, and the range of each cost over a space.

    Example:  se-nas profile resnet18 --input-size 64
    """
    from se_nas.cli import tables
    from se_nas.cli.inspection import profile_backbone

    result = profile_backbone(backbone, space, input_size, latency_batch, device, max_seconds)
    tables.print_json(result.to_dict()) if json else tables.print_profile(result)
