"""What is odd about the trainings of a run: said once, written into the manifest, or the end of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from se_nas.data.checking import UNREADABLE
from se_nas.errors import DataError, RunError
from se_nas.study.executors import Task
from se_nas.study.executors.task import lost_images
from se_nas.study.plan import Plan
from se_nas.study.progress import Progress
from se_nas.study.storage import StudyStore
from se_nas.training import DEFAULT_TRAINER, FALLBACKS

MAX_FAILURES = 3
"""Candidates in a row that may fail before the run gives up: then the fault is not theirs."""


class Oddities:
    """Notices what is odd about trainings, over all of a run's.

    Args:
        plan: the resolved search.
        store: the run's folder and manifest.
        progress: is told of what is odd.
    """

    def __init__(self, plan: Plan, store: StudyStore, progress: Progress) -> None:
        self._plan, self._store, self._progress = plan, store, progress
        self._runtime = replace(plan.runtime)
        self._failures = 0
        self._doubted = False
        self._changed = False
        self._missed: set[str] = set()

    def of_training(self, task: Task, changed: Sequence[str] | None, lost: Sequence[str]) -> None:
        """Look at how a training went.

        Args:
            task: the candidate.
            changed: what a user's trainer changed for the whole process, in words.
            lost: names of training images that could not be read.

        Raises:
            DataError: an image could not be read, and the configuration is strict.
        """
        self._say_fallbacks(task)
        if changed is not None and not self._changed:
            self._changed = True
            self._progress.message(
                f"the trainer changes {', '.join(changed)} for the whole process; this is undone after every candidate"
            )
        self._say_lost(lost)

    def of_outcome(self, fields: Mapping[str, Any]) -> None:
        """Look at what came of a candidate: the fields of its row.

        Raises:
            RunError: the run cannot go on, or ``MAX_FAILURES`` candidates in a row failed.
        """
        self._doubt(fields)
        self._count_failures(fields)

    def _say_fallbacks(self, task: Task) -> None:
        """Say what the runtime has given up since the last training ended."""
        runtime = self._plan.runtime
        for name, words in FALLBACKS.items():
            if getattr(self._runtime, name) and not getattr(runtime, name):
                reason = getattr(runtime, f"{name}_error")
                self._progress.message(
                    f"{words} failed for {task.architecture.describe()} ({reason}); this and later candidates are"
                    " trained without it"
                )
        self._runtime = replace(runtime)

    def _say_lost(self, names: Sequence[str]) -> None:
        """Name training images that can no longer be read, in the manifest too; other images were used instead.

        Raises:
            DataError: there is one, and the configuration is strict.
        """
        new = sorted(set(names) - self._missed)
        if new and self._plan.config.strict:
            raise DataError(f"{lost_images(new, 'train')}, and --strict allows none.")
        if new:
            self._missed.update(new)
            said = f"{lost_images(new, 'train')}; other images were used instead"
            self._progress.message(said)
            folder = self._store.folder
            data = folder.manifest.data
            reasons = (*data.reasons, *[UNREADABLE] * len(new))
            folder.update_manifest(
                warnings=(*folder.manifest.warnings, said),
                data=replace(data, skipped=(*data.skipped, *new), reasons=reasons),
            )

    def _doubt(self, fields: Mapping[str, Any]) -> None:
        """Say once that an accuracy from a user's trainer looks like a fraction."""
        accuracy = fields.get("accuracy")
        if self._doubted or accuracy is None or fields["state"] != "complete":
            return
        if 0 < accuracy <= 1 and self._plan.config.trainer != DEFAULT_TRAINER:
            self._doubted = True
            self._progress.message(
                f"an accuracy of {accuracy:g} % looks like a fraction: trainers return percent, 0 to 100"
            )

    def _count_failures(self, fields: Mapping[str, Any]) -> None:
        if fields["state"] == "unfinished" and fields.get("error") is not None:
            raise RunError(f"{fields['error']}\nContinue with:  se-nas resume {self._store.folder.path}")
        self._failures = self._failures + 1 if fields["state"] in ("failed", "infeasible") else 0
        if self._failures >= MAX_FAILURES:
            raise RunError(
                f"{MAX_FAILURES} candidates in a row failed, the last with: {fields.get('error')}\n"
                f"Once the cause is fixed, continue with:  se-nas resume {self._store.folder.path}"
            )
