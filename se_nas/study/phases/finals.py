"""Which trainings the final phase spends its time on: finalists with fresh seeds, at the full schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from se_nas.architecture import Architecture
from se_nas.pareto import Finalist, SeedModel, choose_finalists, next_training
from se_nas.run import FINAL, SEARCH
from se_nas.study.budget import BEST, MIN_SEEDS
from se_nas.study.clock import Clock
from se_nas.study.executors import Task
from se_nas.study.executors.task import Curve
from se_nas.study.interrupts import Interrupts
from se_nas.study.phases.trainings import Trainings
from se_nas.study.plan import Plan
from se_nas.study.progress import Progress
from se_nas.study.storage import COLUMNS, StudyStore

Row = Mapping[str, Any]
MOST = 2
"""A finalist gets up to this many times the seeds that all get."""
EXTRA_SHARE = 0.5
"""Trainings beyond the seeds that all get, as a share of those; a budget of time sets the limit instead."""
MIN_DOF = 5
"""Degrees of freedom that an estimate of the search's noise needs to be worth more than a guess."""
OPTIONAL, ON_FRONT = "near the front", "front"
DECIDED, EXHAUSTED, TOO_LATE, BY_USER = "decided", "exhausted", "budget", "stopped"
"""Why the phase ended."""
CHOSEN = "se_nas:finalists"
"""Attribute of a shared study: `Finals.choice`."""
_FAILED = ("failed", "diverged", "infeasible")
_DRAWS = 2000


class Finals:
    """The finalists of a search and what they are still to be trained with.

    Finalists are chosen once, from the search's readings with the winner's curse taken off: the plain
    backbone, what is probably on the front, the other baselines, what could be on it. The last of these are
    added as long as the seeds that all get need no more trainings than the search had. Everything else
    depends on the rows that are given, so that a run that was interrupted goes on as if it had not been.

    Args:
        rows: of all trials.
        plan: the resolved search.
        stored: the ``choice`` that was made before. It counts if the search has not gone on since.
    """

    def __init__(self, rows: Sequence[Row], plan: Plan, stored: Mapping[str, Any] | None = None) -> None:
        self._plan = plan
        self._columns = [COLUMNS[name] for name in plan.config.objectives]
        self._directions = ["maximize"] + ["minimize"] * (len(self._columns) - 1)
        self._base = plan.config.final_seeds
        self._readings = sum(row["phase"] == SEARCH and row["state"] == "complete" for row in rows)
        if stored is not None and stored["readings"] == self._readings:
            by_number = {row["number"]: row for row in rows}
            self._rows = [by_number[number] for number, _, _ in stored["chosen"]]
            self._finalists = [
                Finalist(index=index, reason=reason, probability=probability)
                for index, (_, reason, probability) in enumerate(stored["chosen"])
            ]
        else:
            self._rows, self._finalists = self._choose(rows)
        self._ended = DECIDED

    @property
    def choice(self) -> dict[str, Any]:
        """How many readings the finalists were chosen from, and of each the first trial, reason and probability."""
        chosen = zip(self._rows, self._finalists, strict=True)
        return {
            "readings": self._readings,
            "chosen": [[row["number"], finalist.reason, finalist.probability] for row, finalist in chosen],
        }

    def next(self, rows: Sequence[Row], seconds_left: float, seconds_each: float) -> tuple[Row, int] | None:
        """The finalist and the seed to train next; None where all is decided, or too little time is left.

        Finalists that cannot get ``MIN_SEEDS`` readings in the time left are dropped from the end of the
        list, so that those that stay get intervals.
        """
        affordable = _affordable(seconds_left, seconds_each)
        chosen, finals = self._kept(rows, affordable)
        timed = math.isfinite(affordable)
        given = sum(map(len, finals))
        limit = math.inf if timed else (1 + EXTRA_SHARE) * self._base * len(chosen)
        if not chosen or not self._base or given >= limit:
            self._ended = TOO_LATE if len(chosen) < len(self._rows) else EXHAUSTED
            return None
        first = self._plan.config.seed + 1
        step = next_training(
            [{row["seed"]: row["accuracy"] for row in own if row["state"] == "complete"} for own in finals],
            self._costs(chosen),
            self._directions,
            rng=np.random.default_rng([self._plan.config.seed, given]),
            under_way=[
                (i, row["seed"]) for i, own in enumerate(finals) for row in own if row["state"] != "complete"
            ],
            failed=[i for i, own in enumerate(finals) if _fails(own)],
            seeds=range(first, first + MOST * self._base),
            base_seeds=self._base,
        )
        if step is not None:
            return chosen[step[0]], step[1]
        spent = self._base < MIN_SEEDS or all(len(own) >= MOST * self._base for own in finals)
        self._ended = TOO_LATE if len(chosen) < len(self._rows) else EXHAUSTED if spent else DECIDED
        return None

    @property
    def architectures(self) -> list[Architecture]:
        """The finalists, in the order in which they were chosen."""
        return [_architecture(row, self._plan) for row in self._rows]

    def settled(self, rows: Sequence[Row]) -> bool:
        """Whether the front can rest on final readings.

        The plain backbone and the two that are most probably on the front need ``MIN_SEEDS`` of them, unless their
        training fails. The time that the search keeps for final seeds is planned so that these get them.
        """
        enough = min(MIN_SEEDS, self._base)
        best = [finalist for finalist in self._finalists if finalist.reason == ON_FRONT][: min(BEST)]
        needed = [
            sum(row["state"] == "complete" for row in own)
            for own, finalist in zip(self._trained(rows), self._finalists, strict=True)
            if finalist in (self._finalists[0], *best) and not _fails(own)
        ]
        return enough > 0 and bool(needed) and min(needed) >= enough

    def planned(self, rows: Sequence[Row], seconds_left: float, seconds_each: float) -> int:
        """Final trainings that there will be without further seeds: those begun, and those that there is time for."""
        affordable = _affordable(seconds_left, seconds_each)
        _, finals = self._kept(rows, affordable)
        lacking = sum(max(0, self._base - len(own)) for own in finals if not _fails(own))
        return sum(map(len, self._trained(rows))) + int(min(lacking, affordable))

    def report(self, cut: str | None = None) -> dict[str, Any]:
        """For the manifest: who was chosen why, the numbers of seeds, and why there are no more.

        Args:
            cut: ``TOO_LATE`` or ``BY_USER`` if the phase was ended before ``next`` gave None.
        """
        return {
            "base_seeds": self._base,
            "most_seeds": MOST * self._base,
            "ended": cut or self._ended,
            "chosen": [
                {
                    "key": row["key"],
                    "reason": finalist.reason,
                    "probability": round(finalist.probability, 4),
                }
                for row, finalist in zip(self._rows, self._finalists, strict=True)
            ],
        }

    def _choose(self, rows: Sequence[Row]) -> tuple[list[Row], list[Finalist]]:
        members: dict[str, list[Row]] = {}
        for row in rows:
            known = all(row[column] is not None for column in self._columns)
            if row["phase"] == SEARCH and row["state"] == "complete" and known:
                members.setdefault(row["key"], []).append(row)
        if not members:
            return [], []
        first = [own[0] for own in members.values()]
        readings = [{row["seed"]: row["accuracy"] for row in own} for own in members.values()]
        model = SeedModel.fit(readings)
        if model is None or model.dof < MIN_DOF:
            model = SeedModel.fit(readings, sd=self._sampling_error(readings))
        assert model is not None
        baselines = [i for i, row in enumerate(first) if row["baseline"] is not None]
        baselines.sort(key=lambda i: first[i]["baseline"] != "plain")
        found = choose_finalists(
            model.shrunk().draw(np.random.default_rng(self._plan.config.seed), _DRAWS),
            self._costs(first),
            self._directions,
            baselines=baselines,
        )
        needed = sum(finalist.reason != OPTIONAL for finalist in found)
        affordable = sum(map(len, readings)) // max(self._base, 1)
        found = found[: max(needed, affordable)]
        return [first[finalist.index] for finalist in found], found

    def _trained(self, rows: Sequence[Row]) -> list[list[Row]]:
        """Final trainings of each finalist, finished or not."""
        finals = [row for row in rows if row["phase"] == FINAL]
        return [[row for row in finals if row["key"] == chosen["key"]] for chosen in self._rows]

    def _kept(self, rows: Sequence[Row], affordable: float) -> tuple[list[Row], list[list[Row]]]:
        """The first finalists that can all have intervals, with their final trainings."""
        chosen, finals = list(self._rows), self._trained(rows)
        while chosen and sum(self._lacking(own) for own in finals) > affordable:
            chosen.pop()
            finals.pop()
        return chosen, finals

    def _lacking(self, own: Sequence[Row]) -> int:
        """Trainings that a finalist lacks before its mean has an interval."""
        return 0 if _fails(own) else max(0, min(MIN_SEEDS, self._base) - len(own))

    def _costs(self, rows: Sequence[Row]) -> np.ndarray:
        return np.array([[row[column] for column in self._columns[1:]] for row in rows], dtype=float)

    def _sampling_error(self, readings: Sequence[Mapping[int, float]]) -> float:
        """Where too little was read twice: the deviation that the number of validation images alone gives."""
        share = float(np.mean([value for own in readings for value in own.values()])) / 100
        return 100 * math.sqrt(max(share * (1 - share), 1e-4) / max(len(self._plan.data.val), 1))


def choose_once(plan: Plan, store: StudyStore) -> Finals:
    """The finalists of a search that has ended; those of a shared study are chosen by one worker for all."""
    if not store.shared:
        return Finals(store.rows(), plan)

    def choose() -> Finals:
        stored = store.attributes.get(CHOSEN)
        finals = Finals(store.rows(), plan, stored)
        if finals.choice != stored:
            store.set_attributes(**{CHOSEN: finals.choice})
        return finals

    return store.turn(choose)


def _affordable(seconds_left: float, seconds_each: float) -> float:
    """Trainings that there is time for; infinite if nothing limits them."""
    timed = seconds_each > 0 and math.isfinite(seconds_left)
    return seconds_left // seconds_each if timed else math.inf


def _fails(own: Sequence[Row]) -> bool:
    return any(row["state"] in _FAILED for row in own)


def train_finalists(
    finals: Finals,
    plan: Plan,
    store: StudyStore,
    trainings: Trainings,
    clock: Clock,
    interrupts: Interrupts,
    progress: Progress,
) -> dict[str, Any]:
    """Measure and train the finalists until all is decided, or the time is up; returns ``finals.report``."""

    def choose() -> tuple[Task, Curve] | str | None:
        """What to train next, or why the phase is cut short; None if that depends on what is in training."""
        if interrupts.requested:
            return BY_USER
        found = trainings.take_over()
        if found is not None:
            return found
        if trainings.should_stop() or trainings.expected_seconds() > clock.left:
            return TOO_LATE
        chosen = finals.next(store.rows(), trainings.time_left(), trainings.expected_seconds())
        return None if chosen is None else (_claim(*chosen, plan, store, trainings), ())

    cut = None
    if not store.shared:
        # Workers share the finalists: each measures those that it trains.
        trainings.measure(finals.architectures)
    while cut is None:
        trainings.make_room()
        found = store.turn(choose)
        _tell_outlook(finals, store.rows(), trainings, clock, progress)
        if isinstance(found, str):
            cut = found
        elif found is not None:
            trainings.go_on(*found)
        elif not trainings.wait_for_one():
            if not store.elsewhere():
                break
            trainings.wait_for_others()
    trainings.drain()
    return finals.report(cut)


def _tell_outlook(
    finals: Finals, rows: Sequence[Row], trainings: Trainings, clock: Clock, progress: Progress
) -> None:
    each = trainings.expected_seconds()
    planned = finals.planned(rows, trainings.time_left(), each)
    done = sum(row["phase"] == FINAL and row["state"] == "complete" for row in rows)
    progress.outlook(done, planned, min(clock.left, trainings.seconds_for(planned - done)))


def _claim(row: Row, seed: int, plan: Plan, store: StudyStore, trainings: Trainings) -> Task:
    architecture = _architecture(row, plan)
    number = store.begin(row["params"] or None, plan.space.choices, architecture)
    task = Task(number=number, architecture=architecture, seed=seed, phase=FINAL)
    trainings.claim(task, row["baseline"])
    return task


def _architecture(row: Row, plan: Plan) -> Architecture:
    return plan.space.build(row["position"], row["widths"])
