"""Runs compared in one frame of reference: indicators, differences at equal cost, and a verdict in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from se_nas.arguments import checked
from se_nas.errors import RunError
from se_nas.objectives import volume_unit
from se_nas.pareto import igd_plus
from se_nas.report import comparison_tables
from se_nas.report.attainment import Entry, difference
from se_nas.report.comparability import differences, objections
from se_nas.report.frame import Frame
from se_nas.report.pareto_report import ParetoReport
from se_nas.report.verdicts import Pair, words

SCHEMA = 2
KIND = "se-nas comparison"


@checked
def compare(reports: Sequence[ParetoReport], *, force: bool = False) -> Comparison:
    """Compare the fronts of two runs or more, each with the first.

    Runs of one configuration with different seeds are taken together as its repeats. A cost that is measured as
    a ratio to the plain backbone stands on its axis as that ratio times one median, which all runs of the
    backbone share.

    Args:
        reports: in the order in which they are shown.
        force: compare even if the runs measured different things; the comparison then says which.

    Raises:
        RunError: fewer than two reports, one without a finished candidate, other objectives, or, without
            ``force``, runs that measured different things (each reason is given).
    """
    if len(reports) < 2:
        raise RunError(f"a comparison needs at least two reports; {len(reports)} given.")
    names = _names(reports)
    for report, name in zip(reports, names, strict=True):
        if not report.front:
            raise RunError(f"{name} cannot be compared: no candidate has finished yet.")
    reasons = objections(reports, names)
    if any(report.directions != reports[0].directions for report in reports):
        raise RunError(f"the runs cannot be compared: {'; '.join(reasons)}.")
    if reasons and not force:
        raise RunError(
            f"the runs cannot be compared: {'; '.join(reasons)}. To compare them anyway, use --force; the"
            " comparison will say so."
        )
    return Comparison(reports=tuple(reports), names=tuple(names), objections=tuple(reasons))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Comparison(Frame):
    """Runs in one frame of reference, and what that says of them.

    Attributes:
        objections: why they should not be compared; empty unless that was forced.
    """

    objections: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Comparison({', '.join(map(repr, self.names))}; objectives={[item.name for item in self.objectives]})"

    def _repr_html_(self) -> str:
        # A page of a comparison, needed in notebooks only.
        from se_nas.report.notebook import comparison_html

        return comparison_html(self)

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """Every other group against the first."""
        sides = [[self.entries[index] for index in group] for group in self.groups]
        cost = self.objectives[1]
        return tuple(
            Pair(
                first=self.group_names[0],
                second=name,
                difference=difference(sides[0], side, self.reference),
                cheapest=(_cheapest(sides[0]), _cheapest(side)),
                unit=cost.unit,
                scale=cost.scale,
                volume_unit=volume_unit(self.objectives),
            )
            for name, side in zip(self.group_names[1:], sides[1:], strict=True)
        )

    @property
    def verdict(self) -> str:
        """Who is ahead where, with how much confidence, in words; one paragraph per pair."""
        lines = [words(pair) for pair in self.pairs]
        provisional = [entry.name for entry in self.entries if not entry.report.final]
        if provisional:
            lines.append(
                f"Provisional: in {', '.join(provisional)} not all finalists were retrained, and selection biases"
                " the search's readings upwards."
            )
        if self.objections:
            lines.append(f"Forced: {'; '.join(self.objections)}. The difference may be due to that alone.")
        return "\n".join(lines)

    @cached_property
    def undecided(self) -> str | None:
        """Why these runs cannot decide whether the last front is worse than the first; None if they can."""
        compared = (*self.groups[0], *self.groups[-1])
        provisional = [self.names[index] for index in compared if not self.reports[index].final]
        if provisional:
            return (
                f"{', '.join(dict.fromkeys(provisional))} {'is' if len(provisional) == 1 else 'are'} provisional, and"
                " the best of many single readings is best partly by luck"
            )
        if not self.pairs[-1].difference.over_seeds:
            return (
                "no network was trained with two seeds, so a difference cannot be told from luck with seeds"
            )
        return None

    @property
    def worse(self) -> bool:
        """Whether the last front is worse than the first beyond chance; never while that is undecided.

        Its hypervolume is smaller with 95 % confidence, or it is behind at some cost and ahead at none.
        """
        if self.undecided is not None:
            return False
        found = self.pairs[-1].difference
        behind, ahead = (found.ahead < 0).any(), (found.ahead > 0).any()
        smaller = found.volume_interval is not None and found.volume_interval[1] < 0
        return bool(smaller or (behind and not ahead))

    @cached_property
    def table(self) -> list[dict[str, str]]:
        """One row per group: indicators as text by column name, means over repeats."""
        return comparison_tables.fronts_table(self)

    @cached_property
    def equal_cost(self) -> list[dict[str, str]]:
        """Best accuracy within costs spread over the range that all runs share; differences to the first."""
        return comparison_tables.equal_cost(self, self.pairs)

    @cached_property
    def equal_accuracy(self) -> list[dict[str, str]]:
        """Least cost that reaches accuracies spread over the range that all runs share."""
        return comparison_tables.equal_accuracy(self)

    @cached_property
    def differences(self) -> list[dict[str, str]]:
        """Parts in which the configurations differ, with the value of each run."""
        return [
            {"part": part} | dict(zip(self.names, values, strict=True))
            for part, values in differences(self.reports)
        ]

    def tables(self) -> list[tuple[str, list[dict[str, str]]]]:
        """Titles and rows of everything that is shown as a table."""
        found = [
            ("Fronts in one frame", self.table),
            (f"Best accuracy at equal {self.objectives[1].name}", self.equal_cost),
            (f"{self.objectives[1].name.capitalize()} at equal accuracy", self.equal_accuracy),
            ("Where the configurations differ", self.differences),
        ]
        return [(title, rows) for title, rows in found if rows]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; numbers in the units of the columns, null if nothing is known."""
        return {
            "schema": SCHEMA,
            "kind": KIND,
            "verdict": self.verdict,
            "worse": self.worse,
            "undecided": self.undecided,
            "forced": bool(self.objections),
            "objections": list(self.objections),
            "objectives": [{"name": item.name, "direction": item.direction} for item in self.objectives],
            "reference": list(self.reference),
            "baselines": self.units,
            "union_front": self.union_front.tolist(),
            "groups": [
                {"name": name, "runs": [self.names[index] for index in group]}
                for name, group in zip(self.group_names, self.groups, strict=True)
            ],
            "runs": [
                {
                    "name": entry.name,
                    "source": entry.report.source,
                    "seed": entry.report.manifest.seed,
                    "final": entry.report.final,
                    "front": entry.front.tolist(),
                    "hypervolume": self.hypervolume(index),
                    "igd_plus": igd_plus(entry.front, self.union_front, self.directions),
                    "dominated_share": {
                        other: self.dominated_share(index, by)
                        for by, other in enumerate(self.names)
                        if by != index
                    },
                }
                for index, entry in enumerate(self.entries)
            ],
            "pairs": [pair.to_dict() for pair in self.pairs],
            "equal_cost": self.equal_cost,
            "equal_accuracy": self.equal_accuracy,
            "differences": self.differences,
        }


def _names(reports: Sequence[ParetoReport]) -> list[str]:
    names: list[str] = []
    for report in reports:
        count = sum(name == report.name or name.startswith(f"{report.name} (") for name in names)
        names.append(f"{report.name} ({count + 1})" if count else report.name)
    return names


def _cheapest(side: Sequence[Entry]) -> float:
    return float(max(entry.values[:, 1].min() for entry in side))
