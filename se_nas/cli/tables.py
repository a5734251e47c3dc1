"""Results as text: rich tables on a terminal, plain aligned columns in a pipe, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table
from rich.text import Text

from se_nas import console
from se_nas.cli.layout import by_prefix, fitted, least_width
from se_nas.console import PIPE_WIDTH, make_console
from se_nas.wording import printable, printable_json

if TYPE_CHECKING:
    from se_nas.cli.inspection import SiteTable
    from se_nas.cost import Profile
    from se_nas.report import Comparison, ParetoReport
    from se_nas.study.config import SearchConfig

OPTIONAL = ("P(front)", "readings", "* ratio", "dominated by *", "IGD+", "of the union %", "75 %", "25 %")
"""Columns that tables can do without, in the order in which they are left out on a narrow terminal."""
OPTIONAL_OF_SITES = ("map", "SE", "channels")


def print_json(value: Any) -> None:
    """JSON on standard output and nothing else."""
    typer.echo(printable_json(json.dumps(value, indent=1, ensure_ascii=False)))


def print_text(text: str) -> None:
    """Sentences on standard output; on a terminal, lines break between words."""
    console.print_text(make_console(), text)


def print_rows(
    rows: Sequence[Mapping[str, str]], title: str = "", optional: Sequence[str] = OPTIONAL
) -> None:
    """A table of text, which in a pipe is as wide as it has to be."""
    if not rows:
        return
    if title:
        print_text(title)
    target = make_console(width=max(PIPE_WIDTH, least_width(rows)))
    target.print(fitted(rows, target.width, optional))


def _print_sites(rows: Sequence[Mapping[str, str]], title: str = "") -> None:
    """One line per site, or on a narrow terminal one per site and γ."""
    wide = least_width(rows) <= make_console(width=max(PIPE_WIDTH, least_width(rows))).width
    print_rows(rows if wide else by_prefix(rows, "γ", "SE adds"), title, OPTIONAL_OF_SITES)


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
    print_text("")
    print_text(summary(report))


def print_sites(table: SiteTable) -> None:
    """The sites of a backbone and what SE would add at each."""
    print_text(table.summary)
    _print_sites(table.rows())
    print_text(table.note)


def print_profile(profile: Profile) -> None:
    """What SE costs by site, how well the sum predicts, and the range of each cost."""
    for title, rows in profile.tables():
        _print_sites(rows, title) if "path" in rows[0] else print_rows(rows, title)
        print_text("")
    print_text(profile.summary() + "\n")


def print_comparison(comparison: Comparison) -> None:
    """Fronts side by side and the verdict."""
    for title, rows in comparison.tables():
        print_rows(rows, title)
        print_text("")
    print_text(comparison.verdict)


def print_config(config: SearchConfig) -> None:
    """The resolved configuration as YAML that --config reads."""
    import yaml

    values = {name: value for name, value in config.model_dump(mode="json").items() if value is not None}
    typer.echo("\n# configuration, as --config reads it")
    typer.echo(yaml.safe_dump(values, sort_keys=False, allow_unicode=True).rstrip())
