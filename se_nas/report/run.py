"""A run as the Python API returns it."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from se_nas.report.candidates import Candidate
from se_nas.report.pareto_report import ParetoReport
from se_nas.run import FIGURES, HTML, REPORT, RunFolder

if TYPE_CHECKING:
    import pandas as pd

_COSTS = ("num_params", "macs", "activations", "latency_ms", "latency_ratio")
_READINGS = ("accuracy", "top5", "loss", "train_loss", "ece", "test_accuracy")


class Run:
    """A run folder, finished or not.

    Attributes:
        path: the run folder.
        report: the run's ``ParetoReport``.
        front: the non-dominated candidates, cheapest first.
    """

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
        """Whether the run was stopped before it was done; ``se-nas resume`` goes on."""
        return bool(self._folder.manifest["status"] != "finished")

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
        """One row a trial: architecture by stage, widths, accuracy in percent, losses, costs, state, seconds.

        The columns ``stageN`` say how many of a stage's sites have a gate and with which realised γ.
        """
        import pandas as pd

        from se_nas.architecture import Architecture

        records = []
        sites = self.report.sites
        for row in self._folder.rows():
            here = sites[row["position"]]
            architecture = Architecture(
                backbone=self.report.manifest["backbone"],
                position=row["position"],
                sites=here,
                widths=tuple(row["widths"]),
            )
            record: dict[str, Any] = {
                name: row[name]
                for name in ("number", "key", "baseline", "phase", "seed", "state", "position")
            }
            for stage, members in architecture.by_stage().items():
                gated = [(site, width) for site, width in members if width != 0]
                ratios = sorted({round(site.reduction_base / width, 2) for site, width in gated if width > 0})
                record[f"stage{stage}"] = f"{len(gated)}/{len(members)}" + (
                    f" γ={','.join(f'{ratio:g}' for ratio in ratios)}" if ratios else ""
                )
            record |= {"widths": tuple(row["widths"])}
            record |= {name: row[name] for name in (*_READINGS, *_COSTS)}
            record |= {name: row[name] for name in ("latency_source", "epochs", "seconds", "error")}
            records.append(record)
        return pd.DataFrame.from_records(records)


def open_run(path: str | Path) -> Run:
    """The run in a folder.

    Raises:
        RunError: there is none, it is damaged, or it has a newer schema.
    """
    return Run(RunFolder.open(path))
