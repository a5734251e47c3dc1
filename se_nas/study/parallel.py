"""A search whose candidates are trained by several processes on one device."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from se_nas.study.executors.process_pool import EpochEnded, Pool, Trained
from se_nas.study.executors.task import Job, Setup, failure
from se_nas.study.phases.search import Worker
from se_nas.study.storage import SEARCH


class ParallelWorker(Worker):
    """As ``Worker``, with ``per_gpu`` candidates in training at a time.

    Candidates are proposed one after the other, each when a process is free, with those in training known to
    the sampler as pending. Latency is measured here, while all trainings wait.
    """

    def work(self) -> str:
        config = self._plan.config
        self.slots = config.per_gpu
        self._pool = Pool(
            Setup.of(self._plan, self._folder), config.per_gpu, self._folder.path, self._progress.message
        )
        self._costs: dict[int, dict[str, Any]] = {}
        if self._plan.axis is not None:
            self._plan.axis.quiet = self._pool.paused
        ended = False
        try:
            reason = super().work()
            ended = True
            return reason
        finally:
            self._pool.close(kill=not ended)

    def _done(self) -> int:
        return super()._done() + sum(job.phase == SEARCH for job in self._pool.jobs)

    def _search(self) -> str:
        reason = super()._search()
        self._drain()
        return self._reason_to_stop() or reason

    def _ready(self) -> None:
        while not self._pool.has_room:
            self._handle()

    def _wait_for_one(self) -> bool:
        before = len(self._pool.jobs)
        while before and len(self._pool.jobs) == before:
            self._handle()
        return before > 0

    def _drain(self) -> None:
        while self._pool.jobs:
            self._handle()

    def _train(self, job: Job) -> None:
        self._ready()
        self._start(job)
        try:
            costs = self._evaluator.costs(job.architecture, job.phase)
            self._store.record(job.number, **costs)
        except Exception as error:
            self._conclude(job, failure(error))
            return
        self._costs[job.number] = costs
        if self._stop():
            self._conclude(job, {"state": "unfinished"})
            return
        self._store.record(job.number, worker=self._pool.start(job))

    def _handle(self) -> None:
        """Wait for an event, for half a second at most, and deal with it."""
        if self._stop():
            self._pool.stop()
        before = replace(self._plan.runtime)
        event = self._pool.next_event()
        if isinstance(event, EpochEnded):
            goes_on = self._evaluator.epoch(
                event.job, self._costs[event.job.number], event.curve, event.metrics
            )
            self._pool.answer(event.job, goes_on)
        elif isinstance(event, Trained):
            job, costs = event.job, self._costs.pop(event.job.number)
            self._evaluator.tell_fallbacks(job, before)
            fields = self._evaluator.trained(job, costs, event.fields)
            self._conclude(job, {**costs, **fields})
