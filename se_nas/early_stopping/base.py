"""Stops candidates that will not join the front of accuracy against cost.

``curves``: at rungs (asynchronous successive halving: Li et al., MLSys 2020) a model of learning curves,
fitted on the finished candidates of this run, predicts the final accuracy from the readings so far, the
costs and the features (how much SE). A candidate whose chance to join the front at its cost is small is
stopped, and so is one that would hardly move the front: whose expected improvement of the hypervolume is a
negligible share of it.
``moasha``: successive halving by non-dominated rank (Schmucker et al., 2021), blind to what is yet to come.

The logic here is free of Optuna; `Table` says what it needs of a storage, `StudyTable` is the one on a study.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from se_nas.early_stopping._curve_model import CurveModel, in_percent, stretched
from se_nas.early_stopping.records import (
    RECORD,
    Candidate,
    MemoryTable,
    Record,
    StudyTable,
    Table,
    by_network,
    network_of,
)
from se_nas.errors import ConfigError, nearest
from se_nas.pareto import free_boxes, front_of, improvement, ranks, volume

__all__ = [
    "RECORD",
    "Candidate",
    "Decision",
    "EarlyStopping",
    "MemoryTable",
    "Record",
    "StudyTable",
    "Table",
    "rungs_of",
]

Array = NDArray[np.float64]
RULES = ("curves", "moasha")
MAX_OBJECTIVES = 3
"""Of the expected improvement of the hypervolume; with more, the chance alone decides."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What to do with a candidate at an epoch.

    Attributes:
        stop: whether to stop it.
        reason: a sentence for the log; empty between rungs.
        probability: chance to join the front at its cost; None where the rule has none.
        control: the candidate runs to the end whatever the rule says.
    """

    stop: bool
    reason: str = ""
    probability: float | None = None
    control: bool = False


class EarlyStopping:
    """Decides at rungs whether a candidate goes on.

    Args:
        rule: "curves", "moasha" or None (nothing is ever stopped).
        epochs: length of a full training.
        table: where records are kept; default: in this process.
        threshold: chance to join the front below which ``curves`` stops.
        negligible: expected improvement of the hypervolume below which ``curves`` stops, as a share of the
            finished candidates' hypervolume (above the worst accuracy of them, up to a tenth of the range
            beyond the greatest cost of any). 0: never for that reason.
        control: share of candidates that always run to the end, drawn by ``seed`` and number.
        min_finished: finished candidates before ``curves`` stops anything.
        reduction: ratio of neighbouring rungs (η), and for ``moasha`` one over the share that goes on.
        min_epochs: first rung at the earliest.
        seed: of the control.

    Raises:
        ConfigError: an option is invalid.
    """

    def __init__(
        self,
        rule: str | None = "curves",
        *,
        epochs: int,
        table: Table | None = None,
        threshold: float = 0.1,
        negligible: float = 0.001,
        control: float = 0.05,
        min_finished: int = 6,
        reduction: float = 2.0,
        min_epochs: int = 1,
        seed: int = 0,
    ) -> None:
        if rule is not None and rule not in RULES:
            raise ConfigError(
                f"early stopping is {rule!r}; allowed: {', '.join(RULES)}, None.{nearest(str(rule), RULES)}"
            )
        shares = (("threshold", threshold), ("negligible", negligible), ("control", control))
        for name, value in shares:
            if not 0 <= value <= 1:
                raise ConfigError(f"{name} is {value!r}; it must be a share between 0 and 1.")
        for name, number, least in (
            ("epochs", epochs, 1),
            ("min_finished", min_finished, 3),
            ("min_epochs", min_epochs, 1),
        ):
            if not isinstance(number, int) or number < least:
                raise ConfigError(f"{name} is {number!r}; it must be an integer from {least}.")
        if not reduction > 1:
            raise ConfigError(f"reduction is {reduction!r}; it must be above 1.")
        self.rule, self.epochs = rule, epochs
        self.table: Table = MemoryTable() if table is None else table
        self._threshold, self._negligible, self._control = threshold, negligible, control
        self._min_finished = min_finished
        self._reduction, self._seed = reduction, seed
        self.rungs = rungs_of(epochs, reduction, min_epochs)

    def decide(self, candidate: Candidate, epoch: int, curve: Sequence[float]) -> Decision:
        """Whether ``candidate`` goes on after ``epoch`` epochs.

        Args:
            epoch: epochs done, from 1.
            curve: accuracy in percent after each of them; NaN readings never stop a candidate by themselves.
        """
        control = self.is_control(candidate.number)
        if self.rule is None or epoch not in self.rungs or len(curve) < epoch:
            return Decision(stop=False, control=control)
        rungs = {rung: float(curve[rung - 1]) for rung in self.rungs if rung <= epoch}
        others = [record for record in self.table.records() if record.candidate.number != candidate.number]
        mine = next((r for r in self.table.records() if r.candidate.number == candidate.number), None)
        record = replace(mine or Record(candidate=candidate), rungs=rungs, control=control)
        if not math.isfinite(rungs[epoch]):
            self.table.write(record)
            return Decision(
                stop=False, reason=f"accuracy at epoch {epoch} is {rungs[epoch]}", control=control
            )
        judged = (
            self._moasha(record, epoch, others)
            if self.rule == "moasha"
            else self._curves(record, epoch, others)
        )
        if judged.stop and control:
            record = replace(record, would_stop=record.would_stop or epoch)
            judged = replace(judged, stop=False, reason=f"control, goes on; {judged.reason}")
        self.table.write(replace(record, stopped=epoch) if judged.stop else record)
        return replace(judged, control=control)

    def finish(self, candidate: Candidate, curve: Sequence[float]) -> None:
        """Records a candidate that was trained to its end; without it, it teaches the model nothing."""
        if len(curve) < self.epochs or not math.isfinite(curve[self.epochs - 1]):
            return
        mine = next((r for r in self.table.records() if r.candidate.number == candidate.number), None)
        record = mine or Record(candidate=candidate, control=self.is_control(candidate.number))
        rungs = {rung: float(curve[rung - 1]) for rung in self.rungs}
        self.table.write(replace(record, rungs=rungs, final=float(curve[self.epochs - 1]), stopped=None))

    def extrapolate(self, candidate: Candidate, curve: Sequence[float]) -> tuple[float, float] | None:
        """Mean and deviation of the accuracy at the end, for a training that ended before.

        None while the model cannot tell: before the first rung, or with too few finished candidates.
        """
        reached = [rung for rung in self.rungs if rung <= len(curve) and math.isfinite(curve[rung - 1])]
        if len(curve) >= self.epochs and math.isfinite(curve[self.epochs - 1]):
            return float(curve[self.epochs - 1]), 0.0
        finished = self._finished(self.table.records())
        if not reached or len(finished) < 3:
            return None
        record = Record(candidate=candidate, rungs={rung: float(curve[rung - 1]) for rung in reached})
        model = CurveModel(*self._training(finished, reached[-1]))
        z, dz, _ = model.predict(self._row(record, reached[-1]), stretched(record.rungs[reached[-1]]))
        return in_percent(z, dz)

    def is_control(self, number: int) -> bool:
        """The same answer in every worker, whenever it asks."""
        digest = hashlib.sha256(f"{self._seed}:{number}".encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64 < self._control

    def report(self) -> dict[str, Any]:
        """What was stopped, and what the control says about wrong stops.

        ``wrong`` counts controls that the rule would have stopped and that are on the front of all finished
        candidates; ``wrong_share`` is over those it would have stopped, with its 95 % interval
        (Clopper-Pearson).
        """
        from scipy.stats import beta

        records = list(self.table.records())
        finished = self._finished(records)
        condemned = [r for r in finished if r.control and r.would_stop is not None]
        means = by_network(finished)
        wrong = [
            r
            for r in condemned
            if not any(_dominates(other, means[network_of(r)]) for other in means.values())
        ]
        n, k = len(condemned), len(wrong)
        low = float(beta.ppf(0.025, k, n - k + 1)) if k else 0.0
        high = float(beta.ppf(0.975, k + 1, n - k)) if k < n else 1.0
        stopped = [r for r in records if r.stopped is not None]
        return {
            "rule": self.rule,
            "rungs": list(self.rungs),
            "finished": len(finished),
            "stopped": len(stopped),
            "epochs_saved": sum(self.epochs - (r.stopped or 0) for r in stopped),
            "controls": sum(r.control for r in finished),
            "would_stop": n,
            "wrong": k,
            "wrong_share": k / n if n else None,
            "wrong_interval": [low, high] if n else None,
        }

    def _curves(self, record: Record, epoch: int, others: Sequence[Record]) -> Decision:
        finished = self._finished(others)
        learned = [r for r in finished if epoch in r.rungs]
        if len(learned) < self._min_finished:
            return Decision(stop=False, reason=f"{len(learned)} of {self._min_finished} finished candidates")
        networks = list(by_network(finished).values())
        cheaper = [r.final for r in networks if r.final is not None and _no_dearer(r, record)]
        if not cheaper:
            return Decision(stop=False, reason="nothing finished is as cheap", probability=1.0)
        model = CurveModel(*self._training(learned, epoch))
        z, dz, chance = model.predict(
            self._row(record, epoch), stretched(record.rungs[epoch]), level=stretched(max(cheaper))
        )
        mean, sd = in_percent(z, dz)
        gain = _gain(record, mean, sd, networks, others)
        reason = (
            f"epoch {epoch}: {mean:.2f} ± {sd:.2f} expected, {max(cheaper):.2f} needed, chance {chance:.3f}"
            f" to join the front, which would grow by {100 * gain:.3g} %"
        )
        stop = chance < self._threshold or gain < self._negligible
        return Decision(stop=stop, reason=reason, probability=chance)

    def _moasha(self, record: Record, epoch: int, others: Sequence[Record]) -> Decision:
        peers = [r for r in others if epoch in r.rungs and math.isfinite(r.rungs[epoch])]
        if len(peers) + 1 < self._reduction:
            return Decision(stop=False, reason=f"{len(peers)} others at epoch {epoch}")
        values = np.array([[-r.rungs[epoch], *r.candidate.costs] for r in [record, *peers]])
        rank = ranks(values, ["minimize"] * values.shape[1])
        better = int((rank < rank[0]).sum())
        kept = len(values) / self._reduction
        reason = f"epoch {epoch}: rank {rank[0]}, {better} of {len(values)} rank better, {kept:.1f} go on"
        return Decision(stop=better >= kept, reason=reason)

    @staticmethod
    def _finished(records: Iterable[Record]) -> list[Record]:
        return [record for record in records if record.final is not None]

    def _row(self, record: Record, epoch: int) -> list[float]:
        """What the rest of a curve may depend on: the level, the last gain, costs and features."""
        before = [
            rung for rung in self.rungs if rung < epoch and math.isfinite(record.rungs.get(rung, math.nan))
        ]
        at = stretched(record.rungs[epoch])
        gain = at - stretched(record.rungs[before[-1]]) if before else 0.0
        return [at, gain, *record.candidate.costs, *record.candidate.features]

    def _training(self, records: Sequence[Record], epoch: int) -> tuple[Array, Array]:
        """Rows (n, n_features) and what the candidates still gained after ``epoch`` (n,)."""
        usable = [r for r in records if math.isfinite(r.rungs.get(epoch, math.nan)) and r.final is not None]
        rows = np.array([self._row(r, epoch) for r in usable])
        return rows, np.array([stretched(r.final or 0.0) - stretched(r.rungs[epoch]) for r in usable])


def rungs_of(epochs: int, reduction: float, min_epochs: int = 1) -> tuple[int, ...]:
    """``epochs`` / reduction^k, rounded, from ``min_epochs``, below ``epochs``; 8 and 2 give (1, 2, 4)."""
    found, at = set(), float(epochs)
    while (at := at / reduction) >= max(min_epochs, 0.5):
        if max(1, round(at)) < epochs:
            found.add(max(1, round(at)))
    return tuple(sorted(rung for rung in found if rung >= min_epochs))


def _gain(
    record: Record, mean: float, sd: float, finished: Sequence[Record], others: Sequence[Record]
) -> float:
    """Expected improvement of the finished candidates' hypervolume, as a share of it; infinite where it is 0."""
    values = np.array([[r.final, *(-cost for cost in r.candidate.costs)] for r in finished], dtype=float)
    me = np.array([[mean, *(-cost for cost in record.candidate.costs)]])
    if values.shape[1] > MAX_OBJECTIVES:
        return math.inf
    costs = np.array([r.candidate.costs for r in [record, *others]])
    # A little beyond the dearest, or the best of the dear ones would count for nothing.
    reference = np.array([values[:, 0].min(), *-(costs.max(axis=0) + 0.1 * np.ptp(costs, axis=0))])
    whole = volume(front_of(values), reference)
    deviation = np.zeros_like(me)
    deviation[0, 0] = sd
    gain = float(improvement(me, deviation, *free_boxes(values, reference))[0])
    return gain / whole if whole > 0 else math.inf


def _no_dearer(one: Record, other: Record) -> bool:
    return all(a <= b for a, b in zip(one.candidate.costs, other.candidate.costs, strict=True))


def _dominates(one: Record, other: Record) -> bool:
    if one.final is None or other.final is None or not _no_dearer(one, other) or one.final < other.final:
        return False
    return one.final > other.final or one.candidate.costs != other.candidate.costs
