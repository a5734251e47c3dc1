"""Results as text: rich tables on a terminal, plain aligned columns in a pipe, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from se_nas.wording import printable

if TYPE_CHECKING:
    from se_nas.cli.inspection import SiteTable
    from se_nas.cost import Profile
    from se_nas.report import Comparison, ParetoReport
    from se_nas.study.config import SearchConfig

_NUMBERS = frozenset("0123456789.,+-±–×~%eKMG●✓ ")
PIPE_WIDTH = 160


def make_console(*, stderr: bool = False) -> Console:
    """A console that is wide in a pipe, so that no column is cut there."""
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=PIPE_WIDTH)


def print_json(value: Any) -> None:
    """JSON on standard output and nothing else."""
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False))


def print_rows(rows: Sequence[Mapping[str, str]], title: str | None = None) -> None:
    """A table of text; columns that hold numbers are aligned to the right."""
    if not rows:
        return
    heading = None if title is None else Text(printable(title))
    table = Table(title=heading, title_justify="left", header_style="bold", pad_edge=False, box=None)
    for column in rows[0]:
        numeric = all(set(row[column]) <= _NUMBERS for row in rows)
        table.add_column(Text(printable(column)), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row.values()))
    make_console().print(table)


def print_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """Names and what they mean, one line each."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in pairs:
        table.add_row(Text(printable(name)), Text(printable(text)))
    make_console().print(table)


def print_front(report: ParetoReport) -> None:
    """The front with the baselines, and what the run found in words."""
    from se_nas.report import front_table, summary

    print_rows(front_table(report))
    typer.echo("")
    typer.echo(printable(summary(report)))


def print_sites(table: SiteTable) -> None:
    """The sites of a backbone and what SE would add at each."""
    typer.echo(printable(table.summary))
    print_rows(table.rows())
    typer.echo(printable(table.note))


def print_profile(profile: Profile) -> None:
    """What SE costs by site, how well the sum predicts, and the range of each cost."""
    for title, rows in profile.tables():
        print_rows(rows, title)
        typer.echo("")
    typer.echo(printable(profile.summary() + "\n"))


def print_comparison(comparison: Comparison) -> None:
    """Fronts side by side and the verdict."""
    for title, rows in comparison.tables():
        print_rows(rows, title)
        typer.echo("")
    typer.echo(printable(comparison.verdict))


def print_config(config: SearchConfig) -> None:
    """The resolved configuration as YAML that --config reads."""
    import yaml

    values = {name: value for name, value in config.model_dump(mode="json").items() if value is not None}
    typer.echo("\n# configuration, as --config reads it")
    typer.echo(yaml.safe_dump(values, sort_keys=False, allow_unicode=True).rstrip())
