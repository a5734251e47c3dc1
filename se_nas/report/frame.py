"""Runs in one frame of reference: costs on one axis, a reference point and a front that they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median

import numpy as np

from se_nas.objectives import Objective
from se_nas.pareto import hypervolume, non_dominated, reference_point
from se_nas.report.attainment import Entry, contenders
from se_nas.report.candidates import Candidate
from se_nas.report.comparability import repeats
from se_nas.report.pareto_report import ParetoReport
from se_nas.run import Manifest


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Frame:
    """Runs in one frame of reference.

    Attributes:
        reports: the runs.
        names: what they are called here; a number is added if two have one name.
    """

    reports: tuple[ParetoReport, ...]
    names: tuple[str, ...]

    @property
    def objectives(self) -> tuple[Objective, ...]:
        return self.reports[0].objectives

    @property
    def directions(self) -> list[str]:
        return self.reports[0].directions

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """The runs with their contenders in the common frame."""
        entries = []
        for name, report in zip(self.names, self.reports, strict=True):
            members = contenders(report)
            values, errors = self._framed(report, members)
            entry = Entry(name=name, report=report, members=members, values=values, cost_error=errors)
            entries.append(entry)
        return tuple(entries)

    @cached_property
    def units(self) -> dict[str, dict[str, float]]:
        """For each cost that runs measured: by backbone, the median of the plain backbone over its runs.

        In the unit of the cost's column. It is the unit of the axis of a cost that is measured as a ratio.
        """
        found: dict[str, dict[str, list[float]]] = {}
        for report in self.reports:
            for name, measured in report.manifest.measured.items():
                runs = found.setdefault(name, {})
                runs.setdefault(_backbone(report.manifest), []).append(measured.baseline)
        return {
            name: {backbone: median(values) for backbone, values in runs.items()}
            for name, runs in found.items()
        }

    def _framed(self, report: ParetoReport, members: Sequence[Candidate]) -> tuple[np.ndarray, np.ndarray]:
        """Values of the members, ratios in the common unit, and the standard errors of the first cost."""
        values, errors = report.values(members), np.zeros(len(members))
        for column, cost in enumerate(self.objectives):
            units: Mapping[str, float] = self.units.get(cost.name, {})
            for row, member in enumerate(members):
                reading = member.costs.get(cost.name)
                if reading is None or reading.ratio is None:
                    continue
                unit = units.get(_backbone(report.manifest), values[row, column] / reading.ratio)
                values[row, column] = unit * reading.ratio
                if column == 1 and reading.interval is not None:
                    low, high = reading.interval
                    errors[row] = unit * (high - low) / (2 * 1.96)
        return values, errors

    @cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Indices of the runs; repeats of one configuration are together."""
        return tuple(tuple(group) for group in repeats(self.reports))

    @cached_property
    def group_names(self) -> tuple[str, ...]:
        return tuple(
            self.names[group[0]]
            if len(group) == 1
            else f"{_stem([self.names[index] for index in group])} ({len(group)} seeds)"
            for group in self.groups
        )

    @cached_property
    def reference(self) -> tuple[float, ...]:
        """Reference point that all hypervolumes share: a tenth of the union's range beyond its worst."""
        return tuple(reference_point([entry.values for entry in self.entries], self.directions).tolist())

    @cached_property
    def union_front(self) -> np.ndarray:
        """The front of all runs together, shape (points, objectives)."""
        union = np.concatenate([entry.front for entry in self.entries])
        return np.unique(union[non_dominated(union, self.directions)], axis=0)

    def hypervolume(self, index: int) -> float:
        """Of one run's front, against the shared reference."""
        return hypervolume(self.entries[index].front, self.reference, self.directions)

    def dominated_share(self, index: int, by: int) -> float:
        """Share of a run's front that points of another's dominate (equal points do not), from 0 to 1."""
        own, others = self.entries[index].front, self.entries[by].front
        kept = non_dominated(np.concatenate([own, others]), self.directions)
        return float(1 - kept[: len(own)].mean())


def _stem(names: Sequence[str]) -> str:
    """The common beginning of the names of repeats, without the separators that end it."""
    shortest = min(names, key=len)
    length = next((i for i, c in enumerate(shortest) if any(name[i] != c for name in names)), len(shortest))
    return shortest[:length].rstrip("-_. 0123456789") or names[0]


def _backbone(manifest: Manifest) -> str:
    return f"{manifest.backbone} {sorted(manifest.timm_kwargs.items())}"
