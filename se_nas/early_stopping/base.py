"""The driver of early stopping: applies a rule at rungs, runs controls, keeps the records and reports.

Rungs are those of asynchronous successive halving (Li et al., MLSys 2020, arXiv 1810.05934). The logic is free
of Optuna: `Table` says what a storage must offer, and `StudyTable` keeps records in a study.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from se_nas.early_stopping.learning_curves import LearningCurves, extrapolate
from se_nas.early_stopping.moasha import Moasha
from se_nas.early_stopping.records import (
    Candidate,
    MemoryTable,
    Record,
    Table,
    by_network,
    dominates,
    finished,
    network_of,
)
from se_nas.early_stopping.rule import Decision, Rule
from se_nas.errors import ConfigError, nearest, not_allowed

RULES: Mapping[str, Callable[..., Rule]] = MappingProxyType({"curves": LearningCurves, "moasha": Moasha})
"""The class of every rule by its name."""


class EarlyStopping:
    """Decides at rungs whether a candidate goes on.

    Args:
        rule: a name in `RULES`, or None: nothing is ever stopped.
        epochs: length of a full training.
        table: where records are kept; by default in this process.
        control: share of candidates that always run to the end, drawn from ``seed`` and their number.
        reduction: ratio of neighbouring rungs (η), above 1.
        min_epochs: epoch of the first rung at the earliest.
        seed: decides which candidates are controls.
        options: those of the rule's class, such as ``threshold`` of ``curves``.

    Raises:
        ConfigError: an option is invalid, or the rule does not have it.
    """

    def __init__(
        self,
        rule: str | None = "curves",
        *,
        epochs: int,
        table: Table | None = None,
        control: float = 0.05,
        reduction: float = 2.0,
        min_epochs: int = 1,
        seed: int = 0,
        **options: float,
    ) -> None:
        if not 0 <= control <= 1:
            raise ConfigError(f"control is {control!r}; it must be a share between 0 and 1.")
        for name, number in (("epochs", epochs), ("min_epochs", min_epochs)):
            if not isinstance(number, int) or number < 1:
                raise ConfigError(f"{name} is {number!r}; it must be an integer of at least 1.")
        if not reduction > 1:
            raise ConfigError(f"reduction is {reduction!r}; it must be above 1.")
        self.rule, self.epochs = rule, epochs
        self.table: Table = MemoryTable() if table is None else table
        self.rungs = rungs_of(epochs, reduction, min_epochs)
        self._judge = None if rule is None else _make(rule, options)
        self._control, self._reduction, self._seed = control, reduction, seed

    def decide(self, candidate: Candidate, epoch: int, curve: Sequence[float]) -> Decision:
        """Whether ``candidate`` goes on after ``epoch`` epochs.

        Args:
            epoch: epochs done, from 1.
            curve: accuracy in percent after each of them; a NaN never stops a candidate.
        """
        control = self.is_control(candidate.number)
        if self._judge is None or epoch not in self.rungs or len(curve) < epoch:
            return Decision(stop=False, control=control)
        rungs = {rung: float(curve[rung - 1]) for rung in self.rungs if rung <= epoch}
        others = [record for record in self.table.records() if record.candidate.number != candidate.number]
        mine = self._record_of(candidate.number)
        record = replace(mine or Record(candidate=candidate), rungs=rungs, control=control)
        if not math.isfinite(rungs[epoch]):
            self.table.write(record)
            return Decision(
                stop=False, reason=f"accuracy at epoch {epoch} is {rungs[epoch]}", control=control
            )
        judged = self._judge.decide(record, epoch, others, reduction=self._reduction)
        if judged.stop and control:
            record = replace(record, would_stop=record.would_stop or epoch)
            judged = replace(judged, stop=False, reason=f"control, continues; {judged.reason}")
        self.table.write(replace(record, stopped=epoch) if judged.stop else record)
        return replace(judged, control=control)

    def finish(self, candidate: Candidate, curve: Sequence[float]) -> None:
        """Record a candidate that was trained to its end; the rule learns from no others."""
        if len(curve) < self.epochs or not math.isfinite(curve[self.epochs - 1]):
            return
        mine = self._record_of(candidate.number)
        record = mine or Record(candidate=candidate, control=self.is_control(candidate.number))
        rungs = {rung: float(curve[rung - 1]) for rung in self.rungs}
        self.table.write(replace(record, rungs=rungs, final=float(curve[self.epochs - 1]), stopped=None))

    def _record_of(self, number: int) -> Record | None:
        """What the table has of a candidate; those at work are among the last."""
        return next((r for r in reversed(list(self.table.records())) if r.candidate.number == number), None)

    def extrapolate(self, candidate: Candidate, curve: Sequence[float]) -> tuple[float, float] | None:
        """Mean and deviation in percent of the accuracy at the end, for a training that ended before it.

        None while that cannot be told: before the first rung, or with too few finished candidates.
        """
        if len(curve) >= self.epochs and math.isfinite(curve[self.epochs - 1]):
            return float(curve[self.epochs - 1]), 0.0
        rungs = {rung: float(curve[rung - 1]) for rung in self.rungs if rung <= len(curve)}
        return extrapolate(Record(candidate=candidate, rungs=rungs), list(self.table.records()))

    def is_control(self, number: int) -> bool:
        """Whether a candidate always runs to its end: the same answer in every worker, at any time."""
        digest = hashlib.sha256(f"{self._seed}:{number}".encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64 < self._control

    def report(self) -> dict[str, Any]:
        """What was stopped, and what the controls say about wrong stops.

        ``wrong`` counts controls that the rule would have stopped and that are on the front of all finished
        candidates; ``wrong_share`` is over those it would have stopped, with its 95 % interval
        (Clopper-Pearson).
        """
        from scipy.stats import beta

        records = list(self.table.records())
        done = finished(records)
        condemned = [r for r in done if r.control and r.would_stop is not None]
        means = by_network(done)
        wrong = [
            r
            for r in condemned
            if not any(dominates(other, means[network_of(r)]) for other in means.values())
        ]
        n, k = len(condemned), len(wrong)
        low = float(beta.ppf(0.025, k, n - k + 1)) if k else 0.0
        high = float(beta.ppf(0.975, k + 1, n - k)) if k < n else 1.0
        stopped = [r for r in records if r.stopped is not None]
        return {
            "rule": self.rule,
            "rungs": list(self.rungs),
            "finished": len(done),
            "stopped": len(stopped),
            "epochs_saved": sum(self.epochs - (r.stopped or 0) for r in stopped),
            "controls": sum(r.control for r in done),
            "would_stop": n,
            "wrong": k,
            "wrong_share": k / n if n else None,
            "wrong_interval": [low, high] if n else None,
        }


def rungs_of(epochs: int, reduction: float, min_epochs: int = 1) -> tuple[int, ...]:
    """``epochs`` / reduction^k, rounded, from ``min_epochs``, below ``epochs``; 8 and 2 give (1, 2, 4)."""
    found, at = set(), float(epochs)
    while (at := at / reduction) >= max(min_epochs, 0.5):
        if max(1, round(at)) < epochs:
            found.add(max(1, round(at)))
    return tuple(sorted(rung for rung in found if rung >= min_epochs))


def _make(rule: str, options: Mapping[str, float]) -> Rule:
    if rule not in RULES:
        raise ConfigError(not_allowed("early stopping", rule, RULES, "None"))
    known = inspect.signature(RULES[rule]).parameters
    for name in options:
        if name not in known:
            allowed = ", ".join(known) or "none"
            raise ConfigError(
                f"{name} is not an option of {rule!r}; allowed: {allowed}.{nearest(name, known)}"
            )
    return RULES[rule](**options)
