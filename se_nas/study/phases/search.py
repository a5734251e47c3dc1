"""The loop of a search: ask for a candidate, cost and train it, tell the sampler; then the final seeds."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial

from se_nas.architecture import Architecture
from se_nas.errors import RunError
from se_nas.run import RunFolder
from se_nas.study.analysis import what_mattered
from se_nas.study.clock import Clock
from se_nas.study.evaluate import Evaluator
from se_nas.study.executors.task import Job
from se_nas.study.interrupts import Interrupts
from se_nas.study.phases.finals import BY_USER, TOO_LATE, Finals
from se_nas.study.plan import Plan
from se_nas.study.progress import Progress
from se_nas.study.stopping import Stopping
from se_nas.study.storage import COLUMNS, FINAL, FIXED, SEARCH, StudyStore
from se_nas.study.suggestions import Proposals

STOPPED = "stopped"
MAX_FAILURES = 3
"""Candidates in a row that may fail before the run gives up: then the fault is not theirs."""
SETTLED_SHARE, SETTLED_IN_A_ROW = 0.001, 5
"""A search has settled when so many suggestions in a row each promise less than this share of the front's
hypervolume in improvement."""
MARGIN = 0.02
"""Share of the budget that is kept for writing the report."""


class Worker:
    """Evaluates candidates until a budget is spent, the space is exhausted or the user stops it."""

    def __init__(
        self,
        plan: Plan,
        folder: RunFolder,
        store: StudyStore,
        progress: Progress,
        clock: Clock,
        interrupts: Interrupts,
    ) -> None:
        self._plan, self._folder, self._store = plan, folder, store
        self._progress, self._clock, self._interrupts = progress, clock, interrupts
        self._failures = 0
        self._began: dict[int, float] = {}
        self._lasted: list[float] = []
        self.provisional = True
        self.slots = 1

    def work(self) -> str:
        """Search, then train the finalists. Returns why it ended, in words."""
        self._stopping = Stopping(self._plan, self._store)
        self._evaluator = Evaluator(
            self._plan, self._store, self._progress, self._stopping, self._stop, lambda: self._clock.spent
        )
        for row in self._store.rows():
            if self._plan.axis is not None:
                self._plan.axis.remember(row)
        self._proposals = Proposals(self._plan, self._store)
        for trial in self._store.open_trials():
            self._take_up(trial)
            self._ready()
        self._progress.phase(SEARCH, self._clock.search_left(self._has_finals))
        reason = self._search()
        if self._has_finals:
            finals = Finals(self._store.rows(), self._plan)
            self._train_finalists(finals)
            self.provisional = not finals.settled(self._store.rows())
        if self._stopping.active:
            self._folder.update_manifest(early_stopping=self._stopping.report())
        self._folder.update_manifest(**what_mattered(self._plan, self._store))
        return reason

    @property
    def _has_finals(self) -> bool:
        return self._plan.config.final_seeds > 0

    def _stop(self) -> bool:
        margin = MARGIN * self._clock.budget if self._clock.budget is not None else 0.0
        return self._interrupts.requested or self._clock.left <= margin

    def _search(self) -> str:
        while True:
            self._ready()
            reason = self._reason_to_stop()
            if reason is not None:
                return reason
            found = self._proposals.next()
            if found is None:
                return f"every architecture of the space that the limits allow has been evaluated ({self._done()})"
            trial, architecture = found
            job = Job(
                number=trial.number,
                architecture=architecture,
                seed=self._proposals.seed(architecture),
                phase=SEARCH,
            )
            self._begin(job, trial.user_attrs.get("baseline"))

    def _reason_to_stop(self) -> str | None:
        if self._interrupts.requested:
            return "stopped by the user"
        trials = self._plan.config.trials
        if trials is not None and self._done() >= trials:
            return f"all {trials} candidates have been evaluated"
        if self._plan.config.stop_when_settled and has_settled(self._store.suggestions()):
            return (
                f"the search has settled: each of the last {SETTLED_IN_A_ROW} suggestions promised less than"
                f" {SETTLED_SHARE:.1%} more hypervolume ({self._done()} candidates)"
            )
        left = self._clock.search_left(self._has_finals)
        # A candidate that would end well beyond the search's share would eat the final seeds' time.
        if left < 0.5 * self._expected() or self._stop():
            return f"the search's share of the budget is spent ({self._done()} candidates)"
        return None

    def _done(self) -> int:
        return self._store.num_evaluated()

    def _expected(self) -> float:
        """Seconds from a candidate's begin to its end: its own, those of its costs, and those that it waits.

        Before one has ended in this process, its own of those that ended in an earlier one.
        """
        seconds = self._lasted or [
            row["seconds"] for row in self._store.rows() if row["seconds"] and row["state"] == "complete"
        ]
        return float(np.median(seconds)) if seconds else 0.0

    def _training_time_left(self) -> float:
        """Seconds of training that the budget still has room for, all places together."""
        now, expected = time.monotonic(), self._expected()
        under_way = sum(max(0.0, expected - (now - began)) for began in self._began.values())
        return max(0.0, self.slots * self._clock.left - under_way)

    def _take_up(self, trial: FrozenTrial) -> None:
        """Go on with a trial that was begun by a process that is gone."""
        if trial.user_attrs.get("key") is None:
            # It died between being asked for and being described: nothing was trained.
            self._store.finish(trial.number, None)
            return
        if self._stop():
            return
        if FIXED in trial.user_attrs:
            architecture = Architecture.from_dict(trial.user_attrs[FIXED])
        else:
            architecture = self._plan.space.architecture(trial.params)
        self._train(
            Job(
                number=trial.number,
                architecture=architecture,
                seed=trial.user_attrs["seed"],
                phase=trial.user_attrs["phase"],
            )
        )

    def _begin(self, job: Job, baseline: str | None) -> None:
        self._evaluator.begin(job, baseline=baseline)
        self._train(job)

    def _train(self, job: Job) -> None:
        self._start(job)
        self._conclude(job, self._evaluator.evaluate(job))

    def _start(self, job: Job) -> None:
        self._began[job.number] = time.monotonic()
        self._progress.trial_started({**job.row, "seed": job.seed})

    def _conclude(self, job: Job, fields: dict[str, Any]) -> None:
        """Store what came of a candidate and tell the sampler and whoever watches."""
        lasted = time.monotonic() - self._began.pop(job.number)
        if fields["state"] == "complete":
            # One that was begun in an earlier process has lasted longer than this one knows.
            self._lasted.append(max(lasted, fields["seconds"]))
        if fields["state"] == "unfinished":
            self._store.record(job.number, **fields)
        else:
            self._store.finish(job.number, self._values(fields), stopped=fields["state"] == STOPPED, **fields)
        self._store.write_table()
        self._progress.trial_finished({**job.row, "seed": job.seed, **fields}, self._store)
        self._count_failures(fields)

    def _ready(self) -> None:
        """Return when a candidate can be trained; here always."""

    def _wait_for_one(self) -> bool:
        """Wait until one of the candidates in training has ended; False where there is none, as always here."""
        return False

    def _drain(self) -> None:
        """Return when no candidate is in training; here always."""

    def _values(self, fields: dict[str, Any]) -> list[float] | None:
        if fields["state"] == STOPPED:
            return None
        values = [fields.get(COLUMNS[name]) for name in self._plan.config.objectives]
        if any(value is None or not math.isfinite(value) for value in values):
            return None
        return [float(value) for value in values if value is not None]

    def _count_failures(self, fields: dict[str, Any]) -> None:
        self._failures = self._failures + 1 if fields["state"] in ("failed", "infeasible") else 0
        if self._failures >= MAX_FAILURES:
            raise RunError(
                f"{MAX_FAILURES} candidates in a row failed, the last with: {fields.get('error')}\n"
                f"Once the cause is mended, go on with:  se-nas resume {self._folder.path}"
            )

    def _train_finalists(self, finals: Finals) -> None:
        if not self._interrupts.requested:
            self._progress.phase(FINAL, self._clock.left)
        cut = None
        while cut is None:
            self._ready()
            if self._interrupts.requested:
                cut = BY_USER
            elif self._stop() or self._expected() > self._clock.left:
                cut = TOO_LATE
            else:
                chosen = finals.next(self._store.rows(), self._training_time_left(), self._expected())
                if chosen is not None:
                    self._train_final(*chosen)
                elif not self._wait_for_one():
                    break
        self._drain()
        self._folder.update_manifest(finals=finals.report(cut))

    def _train_final(self, row: Mapping[str, Any], seed: int) -> None:
        architecture = self._proposals.architecture(row)
        number = self._store.begin(
            row["params"] or None, self._plan.space.choices, architecture, phase=FINAL, seed=seed
        )
        self._begin(Job(number=number, architecture=architecture, seed=seed, phase=FINAL), row["baseline"])


def has_settled(suggestions: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the latest suggestions of `ParetoSampler` (``se_nas:model``) all promised next to nothing.

    Points of the initial design, which no model chose, promise nothing known and keep a search going.
    """
    latest = suggestions[-SETTLED_IN_A_ROW:]
    promised = [record["improvement"] for record in latest if record["improvement"] is not None]
    return len(promised) == SETTLED_IN_A_ROW and max(promised) < SETTLED_SHARE
