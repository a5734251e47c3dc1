"""Early stopping in the search: what the rule learns about a candidate, and what the sampler learns about a stop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from se_nas.architecture import Architecture
from se_nas.early_stopping import Candidate, EarlyStopping, Record, StudyTable
from se_nas.samplers.pareto_sampler import PARTIAL
from se_nas.study.storage import COLUMNS, StudyStore
from se_nas.wording import counted


class Stopping:
    """The rule of a run, with its table in the run's study. Finalists are not its concern.

    Args:
        rule: "off", or a rule of ``se_nas.early_stopping``.
        epochs: of a full training.
        objectives: of the search, accuracy first.
        store: the study.
        seed: of the share of candidates that always run to the end.
    """

    def __init__(
        self, rule: str, epochs: int, objectives: Sequence[str], store: StudyStore, seed: int
    ) -> None:
        self._costs = [COLUMNS[name] for name in objectives[1:]]
        self._rule = EarlyStopping(
            None if rule == "off" else rule,
            epochs=epochs,
            table=StudyTable(store.study) if store.shared else _ReadOnce(StudyTable(store.study)),
            seed=seed,
        )

    @property
    def active(self) -> bool:
        return self._rule.rule is not None

    def goes_on(
        self, number: int, architecture: Architecture, costs: Mapping[str, Any], curve: Curve
    ) -> bool:
        """Whether a candidate is trained further."""
        decision = self._rule.decide(
            self._candidate(number, architecture, costs), len(curve), _accuracies(curve)
        )
        return not decision.stop

    def was_stopped(self, number: int) -> bool:
        """Whether it was decided that a candidate is trained no further, be it by a process that is gone."""
        records = self._rule.table.records() if self.active else ()
        return any(record.candidate.number == number and record.stopped is not None for record in records)

    def finished(self, number: int, architecture: Architecture, fields: Mapping[str, Any]) -> None:
        """Teach the rule a candidate that was trained to its end."""
        self._rule.finish(self._candidate(number, architecture, fields), _accuracies(fields["curve"]))

    def expectation(
        self, number: int, architecture: Architecture, fields: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What a stopped candidate would have reached, as an attribute that ``ParetoSampler`` reads."""
        found = self._rule.extrapolate(
            self._candidate(number, architecture, fields), _accuracies(fields["curve"])
        )
        if found is None:
            return {}
        costs = [fields[name] for name in self._costs]
        return {PARTIAL: {"mean": [found[0], *costs], "sd": [found[1], *([0.0] * len(costs))]}}

    def report(self) -> dict[str, Any]:
        """What was stopped, and what the control says about wrong stops."""
        return self._rule.report()

    def _candidate(self, number: int, architecture: Architecture, costs: Mapping[str, Any]) -> Candidate:
        return Candidate(
            number=number,
            costs=tuple(float(costs[name]) for name in self._costs),
            # SE blocks learn later than the rest, so how many there are shapes the curve.
            features=(architecture.num_gated / len(architecture.sites),),
            network=architecture.key,
        )


class _ReadOnce:
    """The records of a study's trials, in order of number. Only this process writes them, so they are read once."""

    def __init__(self, table: StudyTable) -> None:
        self._table = table
        self._records = {record.candidate.number: record for record in table.records()}

    def records(self) -> list[Record]:
        return list(self._records.values())

    def write(self, record: Record) -> None:
        number = record.candidate.number
        ahead = number not in self._records and number < next(reversed(self._records), -1)
        self._records[number] = record
        if ahead:
            self._records = dict(sorted(self._records.items()))
        self._table.write(record)


def idle_note(rule: str, epochs: int) -> list[str]:
    """A note for the user if the rule can stop nothing, because a training is too short."""
    if rule == "off" or EarlyStopping(rule, epochs=epochs).rungs:
        return []
    return [
        f"early_stopping {rule} has no effect: with {counted(epochs, 'epoch')} per candidate there is nothing to"
        " stop early."
    ]


Curve = Sequence[Mapping[str, Any]]


def _accuracies(curve: Curve) -> list[float]:
    return [float("nan") if entry["accuracy"] is None else float(entry["accuracy"]) for entry in curve]
