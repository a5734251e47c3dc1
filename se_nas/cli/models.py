"""Commands about backbones and search spaces: inspect, spaces, profile."""

from __future__ import annotations

from typing import Annotated

import typer

from se_nas.cli import app
from se_nas.cli.config_options import DescribedCommand
from se_nas.cli.options import Json, Position


@app.command(cls=DescribedCommand)
def inspect(
    backbone: Annotated[str, typer.Argument(help="A timm model name.", show_default=False)],
    position: Position = None,
    input_size: Annotated[int | None, typer.Option()] = None,
    reduction: Annotated[
        str, typer.Option(help="Reduction ratios γ to price, separated by commas.")
    ] = "4,8,16,32",
    json: Json = False,
) -> None:
    """List the sites of a backbone and what SE would add at each.

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


@app.command(cls=DescribedCommand)
def profile(
    backbone: Annotated[str, typer.Argument(help="A timm model name.", show_default=False)],
    space: Annotated[str, typer.Option(help="Search space over which costs range.")] = "per_block",
    input_size: Annotated[int, typer.Option()] = 224,
    latency_batch: Annotated[int, typer.Option(min=1)] = 1,
    num_classes: Annotated[int, typer.Option(min=1, help="Classes of the head.")] = 1000,
    device: Annotated[str, typer.Option()] = "auto",
    latency_backend: Annotated[str, typer.Option()] = "torch",
    latency_precision: Annotated[str, typer.Option()] = "fp32",
    latency_channels_last: Annotated[bool, typer.Option("--latency-channels-last")] = False,
    latency_mode: Annotated[str, typer.Option()] = "eager",
    latency_threads: Annotated[int | None, typer.Option(min=1)] = None,
    latency_optimize: Annotated[bool, typer.Option("--latency-optimize")] = False,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Measure even if there is a table of earlier measurements.")
    ] = False,
    max_seconds: Annotated[float, typer.Option(help="Time limit of the measurement in seconds.")] = 300.0,
    json: Json = False,
) -> None:
    """Measure what SE costs on this device, site by site, and the range of each cost over a space.

    Example:  se-nas profile resnet18 --input-size 64
    """
    from se_nas.cli import tables
    from se_nas.cost import LatencySettings
    from se_nas.cost import profile as measure

    settings = LatencySettings(
        input_size=(3, input_size, input_size),
        batch_size=latency_batch,
        num_classes=num_classes,
        device=device,
        precision=latency_precision,
        channels_last=latency_channels_last,
        mode=latency_mode,
        threads=latency_threads,
        optimize=latency_optimize,
        backend=latency_backend,
    )
    result = measure(
        backbone,
        space=space,
        settings=settings,
        max_seconds=max_seconds,
        refresh=refresh,
        progress=lambda text: typer.echo(text, err=True),
    )
    tables.print_json(result.to_dict()) if json else tables.print_profile(result)
