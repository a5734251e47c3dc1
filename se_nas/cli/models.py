"""Commands about backbones and search spaces: inspect, spaces, profile."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from se_nas.cli import app
from se_nas.cli.config_options import DescribedCommand
from se_nas.cli.exit_codes import TABLE_FAILED
from se_nas.cli.options import Json, Position

if TYPE_CHECKING:
    from se_nas.cost import Profile


@app.command(cls=DescribedCommand)
def inspect(
    backbone: Annotated[str, typer.Argument(help="A timm model name.", show_default=False)],
    position: Position = None,
    input_size: Annotated[int | None, typer.Option()] = None,
    reduction: Annotated[
        str, typer.Option(help="Reduction ratios γ whose costs are listed, separated by commas.")
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


@app.command(cls=DescribedCommand)
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
    space: Annotated[str, typer.Option(help="Search space whose range of costs is computed.")] = "per_block",
    input_size: Annotated[int, typer.Option()] = 224,
    latency_batch: Annotated[
        list[int] | None,
        typer.Option(
            "--latency-batch",
            "--batch",
            min=1,
            help="Batch size at which latency is measured (default: 1); repeat it for several.",
        ),
    ] = None,
    num_classes: Annotated[int, typer.Option(min=1, help="Number of classes.")] = 1000,
    device: Annotated[str, typer.Option()] = "auto",
    latency_backend: Annotated[str, typer.Option()] = "torch",
    latency_precision: Annotated[str, typer.Option()] = "fp32",
    latency_channels_last: Annotated[bool, typer.Option("--latency-channels-last")] = False,
    latency_mode: Annotated[str, typer.Option()] = "auto",
    latency_threads: Annotated[int | None, typer.Option(min=1)] = None,
    latency_optimize: Annotated[bool, typer.Option("--latency-optimize")] = False,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Measure even if a saved latency table exists.")
    ] = False,
    max_seconds: Annotated[float, typer.Option(help="Time limit in seconds for the whole command.")] = 300.0,
    json: Json = False,
) -> None:
    """Measure what SE costs on this device, site by site, and the range of each cost over a space.

    On a GPU, measure at batch size 1 and at a large one: a small batch shows what each operation costs, a large
    one what computing costs.

    Example:  se-nas profile resnet18 --input-size 64 --batch 1 --batch 64
    """
    # What is imported takes its time, too.
    began = time.monotonic()
    from dataclasses import replace

    from se_nas.cli import tables
    from se_nas.cli.progress import command_progress
    from se_nas.cost import LatencySettings
    from se_nas.cost import profile as measure
    from se_nas.cost.latency.time_limit import TimeUpError
    from se_nas.errors import ConfigError

    if not max_seconds > 0:
        raise ConfigError(f"max_seconds is {max_seconds:g}; it must be above 0.")
    settings = LatencySettings(
        input_size=(3, input_size, input_size),
        num_classes=num_classes,
        device=device,
        precision=latency_precision,
        channels_last=latency_channels_last,
        mode=latency_mode,
        threads=latency_threads,
        optimize=latency_optimize,
        backend=latency_backend,
    )
    sizes, progress = latency_batch or [1], command_progress()
    results: list[Profile] = []
    failure = ""
    for size in sizes:
        typer.echo(f"batch size {size}", err=True)
        left = max_seconds - (time.monotonic() - began)
        try:
            if left <= 0:
                raise TimeUpError(f"the time limit of {max_seconds:g} s had passed before it was started.")
            result = measure(
                backbone,
                space=space,
                settings=replace(settings, batch_size=size),
                max_seconds=left / (len(sizes) - len(results)),
                refresh=refresh,
                progress=progress.networks_measured,
            )
        except TimeUpError as error:
            failure = str(error)
            break
        finally:
            progress.close()
        results.append(result)
    if json and results:
        found = [result.to_dict() for result in results]
        tables.print_json(found if len(sizes) > 1 else found[0])
    elif not json:
        for result in results:
            tables.print_profile(result)
    if failure:
        missing = ", ".join(map(str, sizes[len(results) :]))
        typer.echo(f"batch size {missing} was not measured: {failure}", err=True)
    if failure or not all(result.passed for result in results):
        raise typer.Exit(TABLE_FAILED)
