"""A run as the Python API returns it."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from se_nas.arguments import checked
from se_nas.report.candidates import Candidate
from se_nas.report.pareto_report import ParetoReport
from se_nas.run import FIGURES, HTML, REPORT, RunFolder, cost_columns

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_IDENTITY = ("number", "key", "baseline", "phase", "seed", "state", "position")
_READINGS = ("accuracy", "top5", "loss", "train_loss", "ece", "test_accuracy")
_COURSE = ("epochs", "seconds", "error")


class Run:
    """A run folder, finished or not.

    Attributes:
        path: the run folder.
        report: the run's ``ParetoReport``.
        front: the non-dominated candidates, cheapest first.
        signal: the one that asked the search to end; None if none did, and for a run that was only opened.
    """

    signal: int | None = None

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self.path: Path = folder.path

    @cached_property
    def report(self) -> ParetoReport:
        return ParetoReport.load(self.path)

    @property
    def front(self) -> tuple[Candidate, ...]:
        return self.report.front

    @property
    def interrupted(self) -> bool:
        """Whether the run was stopped before it was done; ``se-nas resume`` continues it."""
        return self._folder.manifest.status != "finished"

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, status={self._folder.manifest.status!r})"

    def _repr_html_(self) -> str:
        return self.report._repr_html_()

    def plot(self, *, cost: str | None = None, ax: Axes | None = None) -> Axes:
        """The front drawn by matplotlib: see ``ParetoReport.plot``."""
        return self.report.plot(cost=cost, ax=ax)

    def write_report(self) -> Path:
        """Write ``report.json``, ``report.html`` and the figures; returns the path of the page."""
        from se_nas.report.figures import write_figures
        from se_nas.report.page import write_html

        self.report.save(self.path / REPORT)
        if self.report.counted:
            write_figures(self.report, self.path / FIGURES)
        write_html(self.report, self.path / HTML)
        return self.path / HTML

    def to_dataframe(self) -> pd.DataFrame:
        """One row per trial: architecture by stage, widths, accuracy in percent, losses, costs, state, seconds.

        The columns ``stageN`` say how many of a stage's sites have a gate, and with which realised γ.
        """
        import pandas as pd

        from se_nas.architecture import Architecture

        records = []
        for row in self._folder.rows():
            position = row.position or ""
            architecture = Architecture(
                backbone=self.report.manifest.backbone,
                position=position,
                sites=self.report.sites[position],
                widths=row.widths,
            )
            record: dict[str, Any] = {name: getattr(row, name) for name in _IDENTITY}
            for stage, members in architecture.by_stage().items():
                gated = [(site, width) for site, width in members if width != 0]
                ratios = sorted({round(site.reduction_base / width, 2) for site, width in gated if width > 0})
                record[f"stage{stage}"] = f"{len(gated)}/{len(members)}" + (
                    f" γ={','.join(f'{ratio:g}' for ratio in ratios)}" if ratios else ""
                )
            record |= {"widths": row.widths}
            record |= {name: getattr(row, name) for name in _READINGS}
            record |= cost_columns(row.costs)
            record |= {name: getattr(row, name) for name in _COURSE}
            records.append(record)
        return pd.DataFrame.from_records(records)


@checked
def open_run(path: str | Path) -> Run:
    """The run in a folder.

    Raises:
        RunError: there is none, it is damaged, or it has a newer schema.
    """
    return Run(RunFolder.open(path))
