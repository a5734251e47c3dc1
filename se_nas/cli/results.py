"""Commands that read runs: show, report, export, compare, dashboard."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from se_nas.cli import app
from se_nas.cli.config_options import DescribedCommand
from se_nas.cli.exit_codes import UNDECIDED, WORSE
from se_nas.cli.options import (
    Formats,
    Json,
    MaybeRunPath,
    OutFolder,
    Pick,
    ReplaceExport,
    RunPath,
    Standalone,
    Storage,
    Study,
    Weights,
)
from se_nas.cli.sources import load_report, with_weights


@app.command(cls=DescribedCommand)
def show(run: MaybeRunPath = None, storage: Storage = None, study: Study = None, json: Json = False) -> None:
    """Show the front of a run, or of a study in a database, as a table with the baselines.

    Example:  se-nas show runs/resnet50-digits-1
    """
    from se_nas.cli import tables
    from se_nas.documents import without_collections

    with without_collections():
        report = load_report(run, storage, study)
        tables.print_json(report.to_dict()) if json else tables.print_front(report)


@app.command(cls=DescribedCommand)
def report(
    run: MaybeRunPath = None,
    storage: Storage = None,
    study: Study = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="HTML file to write; figures and the table go into the same folder.", show_default=False
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Write one self-contained HTML file, and the figures as PNG, SVG and PDF.

    Example:  se-nas report runs/resnet50-digits-1
    """
    from se_nas.cli import tables
    from se_nas.errors import ConfigError
    from se_nas.report import write_figures, write_html
    from se_nas.run import FIGURES, HTML, REPORT

    if out is None and run is None and storage is not None:
        raise ConfigError("the report of a study in a database needs --out, such as --out report.html.")
    loaded = load_report(run, storage, study)
    page = out
    if page is None:
        assert run is not None
        page = run / HTML if run.is_dir() else run.with_suffix(".html")
    page.parent.mkdir(parents=True, exist_ok=True)
    saved = page.parent / (page.stem + ".json" if out else REPORT)
    loaded.save(saved)
    figures = write_figures(loaded, page.parent / FIGURES)
    write_html(loaded, page)
    if json:
        tables.print_json(
            {"page": str(page), "report": str(saved), "figures": [str(path) for path in figures]}
        )
    else:
        typer.echo(f"wrote {page} and {len(figures)} files in {page.parent / FIGURES}")


@app.command(cls=DescribedCommand)
def export(
    out: OutFolder,
    run: MaybeRunPath = None,
    storage: Storage = None,
    study: Study = None,
    runs: Weights = Path("runs"),
    pick: Pick = "best",
    format: Formats = None,
    standalone: Standalone = False,
    force: ReplaceExport = False,
    json: Json = False,
    push_to_hub: Annotated[
        str | None,
        typer.Option(
            help="Hugging Face Hub repository OWNER/NAME to push to, created if it does not exist; needs HF_TOKEN.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Export a network of the front with its weights, for timm and for use without se-nas.

    Example:  se-nas export runs/resnet50-digits-1 --pick knee --out knee --format onnx
    """
    from se_nas.cli import tables
    from se_nas.exporting import export as write

    exported = write(
        with_weights(run, storage, study, runs),
        pick=pick,
        out=out,
        format=["timm", *(format or ())],
        standalone=standalone,
        force=force,
        push_to_hub=push_to_hub,
    )
    tables.print_json(exported.to_dict()) if json else tables.print_text(str(exported))


@app.command(cls=DescribedCommand)
def compare(
    reports: Annotated[
        list[Path] | None,
        typer.Argument(help="Run folders or saved report files, two or more.", show_default=False),
    ] = None,
    storage: Storage = None,
    study: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of a study in that database, compared after the folders and files; repeatable.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="HTML file to write.", show_default=False)] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Compare the runs even if they measured different things.")
    ] = False,
    fail_if_worse: Annotated[
        bool,
        typer.Option(
            "--fail-if-worse",
            help=f"Exit with code {WORSE} if the last run's front is worse, and with {UNDECIDED} if that is"
            " undecided.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Compare the fronts of runs, or of studies in a database, in one frame of reference, with a verdict.

    Example:  se-nas compare runs/a runs/b --out comparison.html
    """
    from se_nas.cli import tables
    from se_nas.errors import ConfigError
    from se_nas.report import compare as compare_reports
    from se_nas.report import write_comparison

    if (storage is None) != (not study):
        raise ConfigError("--storage and --study must be given together.")
    loaded = [load_report(path, None, None) for path in reports or ()]
    loaded += [load_report(None, storage, name) for name in study or ()]
    comparison = compare_reports(loaded, force=force)
    if out is not None:
        write_comparison(comparison, out)
    tables.print_json(comparison.to_dict()) if json else tables.print_comparison(comparison)
    if not fail_if_worse:
        return
    if comparison.undecided is not None:
        typer.echo(f"undecided: {comparison.undecided}.", err=True)
        raise typer.Exit(UNDECIDED)
    if comparison.worse:
        raise typer.Exit(WORSE)


@app.command(cls=DescribedCommand)
def dashboard(
    run: RunPath,
    port: Annotated[int, typer.Option(help="Port on this machine; 0 for any free one.")] = 8080,
) -> None:
    """Show the run's study in optuna-dashboard, read-only, even while the search is running.

    Example:  se-nas dashboard runs/resnet50-digits-1
    """
    from se_nas.study.dashboard import Dashboard

    server = Dashboard(run, port)
    typer.echo(f"{server.url}  (Ctrl-C ends it)")
    server.serve()
