"""Reports and comparisons in a notebook: a front as HTML with its table and figure, or as matplotlib Axes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from se_nas.errors import RunError
from se_nas.notebook import paragraph, picture, table
from se_nas.report.comparison import Comparison
from se_nas.report.figures import STYLE
from se_nas.report.front_figure import COLOURS, draw_panel
from se_nas.report.pareto_report import ParetoReport
from se_nas.report.tables import front_table, summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot(report: ParetoReport, *, cost: str | None = None, ax: Axes | None = None) -> Axes:
    """The front with baselines, intervals and seeds: accuracy in percent against a cost.

    Args:
        report: with at least one finished candidate.
        cost: one of the run's costs; by default the first.
        ax: where to draw; by default new Axes of matplotlib's pyplot, which notebooks show.

    Raises:
        RunError: no candidate has finished, or the run has no such cost.
    """
    import matplotlib as mpl

    name = cost or report.costs[0].name
    if name not in (known := [item.name for item in report.costs]):
        raise RunError(f"cost is {cost!r}; {report.name} has {', '.join(known)}.")
    if not report.front:
        raise RunError(f"{report.name} cannot be drawn: no candidate has finished yet.")
    data = report.drawn
    with mpl.rc_context(STYLE):
        if ax is None:
            from matplotlib import pyplot

            _, ax = pyplot.subplots(figsize=(6.4, 4.0), layout="constrained")
        figure: Any = ax.get_figure()
        draw_panel(figure, ax, data, next(axis for axis in data["axes"] if axis["name"] == name))
    return ax


def report_html(report: ParetoReport) -> str:
    """The verdict, the figure and the table of the front."""
    lines = summary(report).split("\n")
    text = "".join(paragraph(line, strong=line == report.decision.headline) for line in lines)
    if not report.front:
        return text
    figure, axes = _figure()
    plot(report, ax=axes)
    return f"{text}{picture(_svg(figure), f'The front of {report.name}')}{table(front_table(report))}"


def comparison_html(comparison: Comparison) -> str:
    """The verdict, the fronts in one figure, and the tables."""
    figure, axes = _figure()
    cost = comparison.objectives[1]
    for index, entry in enumerate(comparison.entries):
        axes.step(
            entry.front[:, 1] / cost.scale,
            entry.front[:, 0],
            marker="o",
            where="post",
            ls=("-", "--", ":", "-.")[index % 4],
            color=COLOURS[index % len(COLOURS)],
            label=entry.name.replace("$", r"\$"),
        )
    axes.set(xlabel=cost.axis_title, ylabel="validation top-1 accuracy, %")
    axes.legend(fontsize=8)
    text = "".join(paragraph(line, strong=True) for line in comparison.verdict.split("\n"))
    tables = "".join(table(rows, title) for title, rows in comparison.tables())
    names = ", ".join(comparison.names)
    return f"{text}{picture(_svg(figure), f'The fronts of {names}')}{tables}"


def _figure() -> tuple[Figure, Axes]:
    """One that pyplot does not know of, so that a notebook does not show it twice."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        return figure, figure.subplots()


def _svg(figure: Figure) -> str:
    import matplotlib as mpl

    text = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
