"""Commands that make runs: search and resume."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from se_nas.cli import INTERRUPTED, app
from se_nas.cli.options import RunPath


@app.command()
def search(
    backbone: Annotated[str | None, typer.Option(help="A timm model name.", show_default=False)] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="digits (default), a folder or tar of class folders, torch/NAME, hfds/NAME, wds/NAME."
        ),
    ] = None,
    val_data: Annotated[str | None, typer.Option(help="Validation data; split off by default.")] = None,
    test_data: Annotated[str | None, typer.Option(help="Test data, seen by finalists only.")] = None,
    space: Annotated[str | None, typer.Option(help="A shipped space (se-nas spaces) or a YAML file.")] = None,
    position: Annotated[
        str | None, typer.Option(help="Where SE goes in a block; the space's by default.")
    ] = None,
    objectives: Annotated[
        str | None, typer.Option(help="accuracy and one or two of latency, macs, params, by commas.")
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(help="pareto (default), tpe, nsga2, nsga3, gp, random, qmc, grid, module:Class."),
    ] = None,
    early_stopping: Annotated[str | None, typer.Option(help="off, curves or moasha.")] = None,
    trials: Annotated[int | None, typer.Option(help="Candidates to evaluate, baselines included.")] = None,
    stop_when_settled: Annotated[
        bool | None,
        typer.Option("--stop-when-settled", help="End when the sampler expects next to nothing more."),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Time for everything: 90s, 3m, 2h (8m where no --trials is given).")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="Training preset: tiny, finetune, imagenet-a3.")] = None,
    trainer: Annotated[
        str | None, typer.Option(help="package.module:function that trains instead of the own loop.")
    ] = None,
    log: Annotated[
        str | None, typer.Option(help="tensorboard, or package.module:Class that is told every epoch.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs a candidate; sized to the budget by default.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Training batch size.")] = None,
    compile: Annotated[
        str | None, typer.Option(help="auto (measured once whether it pays; default), off or on.")
    ] = None,
    input_size: Annotated[int | None, typer.Option(help="Height and width of the images in pixels.")] = None,
    latency_batch: Annotated[
        int | None, typer.Option(help="Batch size at which latency is measured.")
    ] = None,
    latency_backend: Annotated[
        str | None, typer.Option(help="torch (default), onnxruntime, or an entry point of se_nas.costs.")
    ] = None,
    latency_precision: Annotated[
        str | None, typer.Option(help="fp32 (default), bf16 or fp16, for the network that is timed.")
    ] = None,
    latency_channels_last: Annotated[
        bool | None, typer.Option("--latency-channels-last", help="Memory format of the network timed.")
    ] = None,
    latency_mode: Annotated[str | None, typer.Option(help="eager (default), compile or cudagraph.")] = None,
    latency_threads: Annotated[int | None, typer.Option(help="CPU threads of one timed inference.")] = None,
    latency_optimize: Annotated[
        bool | None, typer.Option("--latency-optimize", help="Rewrite networks for inference first.")
    ] = None,
    latency_width: Annotated[
        float | None, typer.Option(help="Wanted width of a latency ratio's interval (0.01).")
    ] = None,
    final_seeds: Annotated[
        int | None, typer.Option(help="Seeds that finalists are trained with (3).")
    ] = None,
    max_params: Annotated[str | None, typer.Option(help="Hard limit on parameters: 27M.")] = None,
    max_macs: Annotated[str | None, typer.Option(help="Hard limit on multiply-adds: 4.2G.")] = None,
    max_latency: Annotated[str | None, typer.Option(help="Hard limit on latency: 1.05x or 6.5ms.")] = None,
    pretrained: Annotated[
        bool | None, typer.Option("--pretrained", help="Start from timm's pretrained weights.")
    ] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Start from the weights in this file.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of initialisation, data order and sampler.")] = None,
    device: Annotated[str | None, typer.Option(help="auto (default), cpu, cuda, cuda:1 or mps.")] = None,
    per_gpu: Annotated[
        int | None, typer.Option(help="Candidates trained at a time on the device, a process each (1).")
    ] = None,
    keep: Annotated[str | None, typer.Option(help="Whose weights stay on disk: front, all or none.")] = None,
    strict: Annotated[bool | None, typer.Option("--strict", help="Stop at an unreadable image.")] = None,
    warm_start: Annotated[
        str | None, typer.Option(help="A run whose trials the sampler learns from.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run folder.")] = None,
    runs: Annotated[str | None, typer.Option(help="Folder of run folders (runs).")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file with the same keys; flags win.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print configuration and plan; write nothing.")
    ] = False,
) -> None:
    """Search for the SE blocks that pay.

    Example:  se-nas search --backbone resnet18 --data train.tar --budget 2h --max-latency 1.05x
    """
    given: dict[str, Any] = {name: value for name, value in locals().items() if value is not None}
    for own in ("config", "dry_run"):
        given.pop(own, None)
    from se_nas.cli.progress import make_progress
    from se_nas.study.config import SearchConfig
    from se_nas.study.plan import resolve
    from se_nas.study.session import start

    settings = SearchConfig.load(config, **given) if config else SearchConfig(**given)
    progress = make_progress()
    plan = resolve(settings, progress)
    progress.plan(plan.describe())
    if dry_run:
        from se_nas.cli import tables

        tables.print_config(settings)
        return
    _finish(start(plan, progress))


@app.command()
def resume(
    run: RunPath,
    budget: Annotated[
        str | None, typer.Option(help="A new time for everything, time spent included.")
    ] = None,
    trials: Annotated[int | None, typer.Option(help="A new number of candidates in all.")] = None,
    stop_when_settled: Annotated[
        bool | None,
        typer.Option(
            "--stop-when-settled/--no-stop-when-settled",
            help="End when the sampler expects next to nothing more, or not; by default as the run was begun.",
        ),
    ] = None,
) -> None:
    """Go on with a run where it stopped, also after it was killed.

    Example:  se-nas resume runs/resnet50-digits-1 --budget 30m
    """
    from se_nas.cli.progress import make_progress
    from se_nas.study.session import resume as go_on

    _finish(
        go_on(
            run,
            budget=budget,
            trials=trials,
            stop_when_settled=stop_when_settled,
            progress=make_progress(),
        )
    )


def _finish(run: Any) -> None:
    from se_nas.cli import tables
    from se_nas.run import CHECKPOINTS, HTML
    from se_nas.training.checkpoint import WEIGHTS

    tables.print_front(run.report)
    if run.interrupted:
        typer.echo(f"\nStopped. Go on with:  se-nas resume {run.path}")
        raise typer.Exit(INTERRUPTED)
    # A trainer of the user's own keeps no weights, and neither does --keep none.
    command = "export" if any((run.path / CHECKPOINTS).glob(f"*{WEIGHTS}")) else "retrain"
    typer.echo(
        f"\nrun     {run.path}\nreport  {run.path / HTML}\n"
        f"{command:<8}se-nas {command} {run.path} --pick best --out best"
    )
