"""One candidate: its costs, its training, its row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from se_nas.architecture import Architecture
from se_nas.study.executors.task import CORRECT, CandidateTrainer, Curve, Job, Setup, failure
from se_nas.study.plan import Plan
from se_nas.study.storage import FINAL, StudyStore, now
from se_nas.training import FALLBACKS, Runtime

if TYPE_CHECKING:
    from se_nas.study.progress import Progress
    from se_nas.study.stopping import Stopping


class Evaluator:
    """Costs and trains candidates of one run, one at a time, or tends those that other processes train.

    Args:
        plan: the resolved search.
        store: where rows go.
        progress: told of every epoch.
        stopping: the rule that ends hopeless candidates of the search early. It learns from further readings
            of a network too, but they run to their end, as finalists do.
        stop: polled between batches; True ends the training as unfinished.
        spent: seconds that the run has used so far, recorded with every epoch.
    """

    def __init__(
        self,
        plan: Plan,
        store: StudyStore,
        progress: Progress,
        stopping: Stopping,
        stop: Callable[[], bool],
        spent: Callable[[], float],
    ) -> None:
        self._plan, self._store, self._progress = plan, store, progress
        self._stop, self._spent = stop, spent
        self._stopping = stopping
        self._trainer = CandidateTrainer(Setup.of(plan, store.folder))

    def begin(self, job: Job, *, baseline: str | None) -> None:
        """Record what a trial is, before it is trained."""
        architecture = job.architecture
        self._store.record(
            job.number,
            key=architecture.key,
            description=architecture.describe(),
            baseline=baseline,
            position=architecture.position,
            widths=list(architecture.widths),
            gate=architecture.gate,
            act=architecture.act,
            bias=architecture.bias,
            seed=job.seed,
            phase=job.phase,
            epochs_planned=self._plan.recipe.epochs,
            state="running",
            started=now(),
        )

    def costs(self, architecture: Architecture, phase: str) -> dict[str, Any]:
        """Exact costs, and the latency where the search has it; finalists are measured, not predicted."""
        cost = self._plan.cost_model(architecture).cost(architecture.widths)
        fields: dict[str, Any] = {
            "num_params": cost.num_params,
            "macs": cost.macs,
            "activations": cost.activations,
        }
        if self._plan.axis is not None:
            fields |= self._plan.axis.fields(architecture, measure=phase == FINAL)
        return fields

    def evaluate(self, job: Job) -> dict[str, Any]:
        """Cost and train; returns the fields of the row. Never raises for a candidate's own failure."""
        fields: dict[str, Any] = {}
        try:
            fields |= self.costs(job.architecture, job.phase)
            self._store.record(job.number, **fields)
            fields |= self._train(job, fields)
        except Exception as error:
            # One candidate must not end a search of hours; the error is kept and many in a row stop the run.
            fields |= failure(error)
        return fields

    def epoch(self, job: Job, costs: Mapping[str, Any], curve: Curve, metrics: Mapping[str, Any]) -> bool:
        """Record an epoch; whether the training goes on."""
        self._store.record(job.number, curve=curve, epochs=len(curve))
        self._store.spend(self._spent())
        self._progress.epoch(job.row, metrics)
        # Another reading is asked for because the first is not sure: half of one would not make it surer, and
        # if only lucky ones were finished, their mean would be luck.
        if job.phase == FINAL or job.seed != self._plan.config.seed:
            return True
        return self._stopping.goes_on(job.number, job.architecture, costs, curve)

    def trained(self, job: Job, costs: Mapping[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
        """Keep what a training gave besides its row; the fields of the row."""
        correct = fields.pop(CORRECT, None)
        if correct is not None:
            self._store.folder.write_correct(job.number, correct)
        if job.phase == FINAL:
            return fields
        known = {**costs, **fields}
        if fields["state"] == "complete":
            self._stopping.finished(job.number, job.architecture, known)
        if fields["state"] == "stopped":
            self._store.record(job.number, **self._stopping.expectation(job.number, job.architecture, known))
        return fields

    def tell_fallbacks(self, job: Job, before: Runtime) -> None:
        """Say what the runtime has given up since ``before`` was copied from it."""
        runtime = self._plan.runtime
        for name, words in FALLBACKS.items():
            if getattr(before, name) and not getattr(runtime, name):
                reason = getattr(runtime, f"{name}_error")
                self._progress.message(
                    f"{words} failed for {job.architecture.describe()} ({reason}); it and later candidates"
                    " are trained without"
                )

    def _train(self, job: Job, costs: Mapping[str, Any]) -> dict[str, Any]:
        runtime = self._plan.runtime
        before = replace(runtime)
        fields = self._trainer.train(
            job, lambda curve, metrics: self.epoch(job, costs, curve, metrics), self._stop
        )
        self.tell_fallbacks(job, before)
        return self.trained(job, costs, fields)
