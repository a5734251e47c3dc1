"""Commands that make runs: search, resume and worker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from se_nas.cli import app
from se_nas.cli.config_options import ConfigCommand, DescribedCommand
from se_nas.cli.exit_codes import INTERRUPTED, NOTHING_FINISHED, OK, SIGNALLED
from se_nas.cli.options import Events, RunPath
from se_nas.wording import counted


@app.command(cls=ConfigCommand)
def search(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="YAML file with the same keys; options replace its values."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print configuration and plan without measuring or reading images; write nothing.",
        ),
    ] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="With --dry-run: measure, and print how many candidates fit.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Start even if the budget is too short for two candidates.")
    ] = False,
    json: Events = False,
) -> None:
    """Search for the SE blocks that pay off.

    Example:  se-nas search --backbone resnet18 --data train.tar --budget 2h --max-latency 1.05x
    """
    from se_nas.cli import tables
    from se_nas.cli.events import emit
    from se_nas.cli.progress import command_progress, failures_as_events
    from se_nas.errors import ConfigError
    from se_nas.study.config import SearchConfig
    from se_nas.study.plan import resolve
    from se_nas.study.session import search as begin

    with failures_as_events(json):
        settings = SearchConfig.load(config, **ctx.obj) if config else SearchConfig(**ctx.obj)
        if measure and not dry_run:
            raise ConfigError("--measure goes with --dry-run; a search always measures.")
        progress = command_progress(json=json)
        if not dry_run:
            _finish(begin(settings, progress, force=force), json)
            return
        progress.plan(resolve(settings, progress, force=True, measure=measure).describe())
        if json:
            emit("configuration", config=settings.model_dump(mode="json"))
        else:
            tables.print_config(settings)


@app.command(cls=DescribedCommand)
def resume(
    run: RunPath,
    budget: Annotated[
        str | None, typer.Option(help="New total time budget; time already spent counts towards it.")
    ] = None,
    trials: Annotated[int | None, typer.Option(help="New total number of candidates.")] = None,
    stop_when_settled: Annotated[
        bool | None,
        typer.Option(
            "--stop-when-settled/--no-stop-when-settled",
            help="Whether to stop once the sampler expects almost no further improvement; by default as before.",
        ),
    ] = None,
    data: Annotated[str | None, typer.Option(help="Where the images are now, if they have moved.")] = None,
    val_data: Annotated[str | None, typer.Option(help="Where the validation data is now.")] = None,
    test_data: Annotated[str | None, typer.Option(help="Where the test data is now.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Where the weights file is now.")] = None,
    executor: Annotated[
        str | None,
        typer.Option(
            help="Where candidates train from now on: local, ray or ray://HOST:PORT; by default as before."
        ),
    ] = None,
    ray_resources: Annotated[
        str | None, typer.Option(help="Resources that each Ray actor reserves from now on.")
    ] = None,
    log: Annotated[
        list[str] | None,
        typer.Option(
            help="Log trials to wandb, mlflow or tensorboard from now on, earlier ones included; by default as"
            " before; repeatable."
        ),
    ] = None,
    json: Events = False,
) -> None:
    """Continue a run where it stopped, even if it was killed.

    Example:  se-nas resume runs/resnet50-digits-1 --budget 30m
    """
    from se_nas.cli.progress import command_progress, failures_as_events
    from se_nas.study.session import resume as go_on

    with failures_as_events(json):
        found = go_on(
            run,
            budget=budget,
            trials=trials,
            stop_when_settled=stop_when_settled,
            data=data,
            val_data=val_data,
            test_data=test_data,
            checkpoint=checkpoint,
            executor=executor,
            ray_resources=ray_resources,
            log=log or None,
            progress=command_progress(json=json),
        )
        _finish(found, json)


@app.command(cls=DescribedCommand)
def worker(
    storage: Annotated[str, typer.Option(show_default=False)],
    study: Annotated[str, typer.Option(show_default=False)],
    wait: Annotated[
        str | None,
        typer.Option(
            help="How long to wait for the study to be started and its server to answer, such as 10m; by default"
            " not at all."
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Where the images are on this machine, if elsewhere.")
    ] = None,
    val_data: Annotated[
        str | None, typer.Option(help="Where the validation data is on this machine.")
    ] = None,
    test_data: Annotated[str | None, typer.Option(help="Where the test data is on this machine.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Where the weights file is on this machine.")] = None,
    device: Annotated[str, typer.Option()] = "auto",
    runs: Annotated[str, typer.Option()] = "runs",
    latency_only: Annotated[
        bool,
        typer.Option(
            "--latency-only",
            help="Train nothing: only measure latency for a search started with --latency-on and this machine's"
            " host name.",
        ),
    ] = False,
    json: Events = False,
) -> None:
    """Take part in a search that shares its study in a database, until it is done.

    Workers may join and leave at any time, on any machine. Start the search itself with se-nas search --storage.

    Example:  se-nas worker --storage postgresql+psycopg://me@db.example/nas --study resnet50-pets
    """
    from se_nas.cli.progress import command_progress, failures_as_events
    from se_nas.errors import ConfigError
    from se_nas.study.address import check_address, check_study
    from se_nas.study.amounts import parse_duration

    paths = {"data": data, "val_data": val_data, "test_data": test_data, "checkpoint": checkpoint}
    with failures_as_events(json):
        try:
            seconds = 0.0 if wait is None else parse_duration(wait)
        except ValueError as error:
            raise ConfigError(f"wait is {wait!r}: {error}.") from None
        check_address(storage)
        check_study(study)
        if latency_only:
            _measure_latency(storage, study, device, seconds, json)
            return
        # After what can be refused at once: this takes seconds.
        from se_nas.study.session import work

        found = work(
            storage,
            study,
            wait=seconds,
            progress=command_progress(json=json),
            device=device,
            runs=runs,
            **{name: path for name, path in paths.items() if path is not None},
        )
        _finish(found, json)


def _measure_latency(storage: str, study: str, device: str, wait: float, json: bool) -> None:
    from se_nas.cli.events import emit
    from se_nas.cli.progress import command_progress
    from se_nas.study.interrupts import Interrupts
    from se_nas.study.latency_worker import measure_for

    progress = command_progress(json=json)
    with Interrupts(progress.message) as interrupts:
        count = measure_for(
            storage,
            study,
            device=device,
            wait=wait,
            say=progress.message,
            measured=progress.networks_measured,
            should_stop=lambda: interrupts.requested,
        )
    progress.close()
    code = OK if interrupts.number is None else SIGNALLED + interrupts.number
    if json:
        emit("measured", networks=count, exit_code=code)
    else:
        typer.echo(f"{counted(count, 'network')} measured for study {study!r}")
    if code != OK:
        raise typer.Exit(code)


def _finish(run: Any, json: bool = False) -> None:
    """Print what came of a search, and exit with a code that says it too."""
    if run.interrupted or run.signal is not None:
        code = INTERRUPTED if run.signal is None else SIGNALLED + run.signal
    else:
        code = OK if run.front else NOTHING_FINISHED
    command = _way_on(run)
    if json:
        from se_nas.cli.events import emit_finished

        emit_finished(run, code, command)
    else:
        _print_end(run, command)
    if code == NOTHING_FINISHED:
        typer.echo(f"\nNo candidate has finished. Continue with:  {command}", err=True)
    if code != OK:
        raise typer.Exit(code)


def _way_on(run: Any) -> str | None:
    """The command that continues a run which was stopped, or which ended before its front was final."""
    from se_nas.run import RunFolder
    from se_nas.study.continuation import resume_command

    folder = RunFolder.open(run.path)
    if run.interrupted or run.signal is not None:
        return f"se-nas resume {run.path}"
    budget = folder.manifest.budget.seconds
    if run.front and (run.report.final or budget is None or not folder.config["final_seeds"]):
        return None
    return resume_command(folder, budget=budget)


def _print_end(run: Any, command: str | None) -> None:
    from se_nas.cli import tables
    from se_nas.run import CHECKPOINTS, HTML
    from se_nas.training.checkpoint import WEIGHTS

    tables.print_front(run.report)
    if run.interrupted:
        typer.echo(f"\nStopped. Continue with:  {command}")
    if run.interrupted or run.signal is not None or not run.front:
        return
    # A user's trainer keeps no weights, and neither does --keep none.
    use = "export" if any((run.path / CHECKPOINTS).glob(f"*{WEIGHTS}")) else "retrain"
    if command is not None:
        typer.echo(f"\nThe budget ended before the front was final. Continue with:  {command}")
    typer.echo(
        f"\nrun     {run.path}\nreport  {run.path / HTML}\n"
        f"{use:<8}se-nas {use} {run.path} --pick best --out best"
    )
