"""The command that trains a network of a run on a full recipe: retrain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from se_nas.cli import app
from se_nas.cli.config_options import DescribedCommand
from se_nas.cli.options import (
    Formats,
    Json,
    MaybeRunPath,
    OutFolder,
    Pick,
    ReplaceExport,
    Standalone,
    Storage,
    Study,
    Weights,
)
from se_nas.cli.sources import with_weights


@app.command(cls=DescribedCommand)
def retrain(
    out: OutFolder,
    run: MaybeRunPath = None,
    storage: Storage = None,
    study: Study = None,
    runs: Weights = Path("runs"),
    pick: Pick = "best",
    data: Annotated[
        str | None, typer.Option(help="Data set, as in a search; by default the run's.", show_default=False)
    ] = None,
    val_data: Annotated[str | None, typer.Option(show_default=False)] = None,
    test_data: Annotated[
        str | None, typer.Option(help="Test data, used once, at the end.", show_default=False)
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Epochs; by default those of the recipe, or of the run if it used more.",
            show_default=False,
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            "--preset",
            help="Training preset: tiny, finetune or imagenet-a3; by default the run's recipe.",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(show_default=False)] = None,
    input_size: Annotated[int | None, typer.Option(show_default=False)] = None,
    from_weights: Annotated[
        bool,
        typer.Option(
            "--from-weights",
            help="Start from the pick's trained weights, not from where the search's candidates started.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of initialisation and data order.")] = 0,
    device: Annotated[str, typer.Option()] = "auto",
    strict: Annotated[bool, typer.Option("--strict")] = False,
    format: Formats = None,
    standalone: Standalone = False,
    force: ReplaceExport = False,
    log: Annotated[
        list[str] | None,
        typer.Option(
            help="Log the training to wandb, mlflow or tensorboard, or to package.module:Class, which is called"
            " after every epoch; repeatable."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Train a network of the front on a full recipe and export it. If interrupted, repeat the command to continue.

    Example:  se-nas retrain runs/resnet50-digits-1 --pick knee --epochs 100 --out knee-100
    """
    from se_nas.cli import tables
    from se_nas.cli.progress import command_progress
    from se_nas.retraining import retrain as train_pick

    progress = command_progress()
    try:
        exported = train_pick(
            with_weights(run, storage, study, runs),
            pick,
            out=out,
            data=data,
            val_data=val_data,
            test_data=test_data,
            epochs=epochs,
            recipe=recipe,
            batch_size=batch_size,
            input_size=input_size,
            from_weights=from_weights,
            seed=seed,
            device=device,
            strict=strict,
            format=["timm", *(format or ())],
            standalone=standalone,
            force=force,
            log=log or None,
            progress=progress,
        )
    finally:
        progress.close()
    tables.print_json(exported.to_dict()) if json else tables.print_text(str(exported))
