"""``--json`` of a search: a line of JSON on standard output for each event, as docs/terminal.md lists them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from se_nas.objectives import COSTS
from se_nas.study.best import best_so_far
from se_nas.study.progress import Progress
from se_nas.wording import printable_json

if TYPE_CHECKING:
    from se_nas.report import Run
    from se_nas.study.storage import StudyStore

SCHEMA = 1
_IDENTITY = ("number", "phase", "seed", "key", "description", "baseline")
_OUTCOME = ("state", "accuracy", "top5", "loss", "epochs", "epochs_planned", "seconds", "error")
_COSTS = tuple(column for cost in COSTS.values() for column in (cost.column, *cost.columns))


class JsonProgress(Progress):
    """Writes every event as a line of JSON, and passes it on to a progress for people.

    Args:
        people: shows the same on standard error.
    """

    def __init__(self, people: Progress) -> None:
        self._people = people
        self._phase = ""
        self._front: tuple[int, ...] = ()

    def message(self, text: str) -> None:
        self._people.message(text)
        emit("message", text=text)

    def plan(self, description: Sequence[tuple[str, str]]) -> None:
        self._people.plan(description)
        emit("planned", schema=SCHEMA, plan=dict(description))

    def images_checked(self, done: int, total: int) -> None:
        self._people.images_checked(done, total)

    def networks_measured(self, done: int, total: int) -> None:
        self._people.networks_measured(done, total)

    def phase(self, name: str, seconds: float) -> None:
        self._people.phase(name, seconds)
        self._phase = name
        emit("phase", phase=name, seconds=_finite(seconds))

    def outlook(self, done: int, planned: int, seconds: float) -> None:
        self._people.outlook(done, planned, seconds)
        emit("outlook", phase=self._phase, done=done, planned=planned, seconds=_finite(seconds))

    def trial_started(self, row: Mapping[str, Any]) -> None:
        self._people.trial_started(row)
        emit("trial_started", **_fields(row, (*_IDENTITY, *_COSTS)))

    def epoch(self, row: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        self._people.epoch(row, metrics)
        emit("epoch", number=row["number"], **metrics)

    def trial_finished(self, row: Mapping[str, Any], store: StudyStore) -> None:
        self._people.trial_finished(row, store)
        emit("trial_finished", **_fields(row, (*_IDENTITY, *_OUTCOME, *_COSTS)))
        front = store.front_numbers
        if front != self._front:
            self._front = front
            best = best_so_far(store.rows(), self._phase, store.num_val)
            emit(
                "front_changed",
                trials=list(front),
                best=None if best is None else asdict(best),
            )

    def close(self) -> None:
        self._people.close()


def emit_finished(run: Run, exit_code: int, resume: str | None) -> None:
    """The last event: what ``show`` prints of the run, the command that continues it, and the exit code."""
    report = run.report
    emit(
        "finished",
        path=str(run.path),
        status=report.manifest.status,
        stop_reason=report.manifest.stop_reason,
        final=report.final,
        front=[candidate.to_dict() for candidate in report.front],
        resume=resume,
        exit_code=exit_code,
    )


def emit(event: str, **fields: Any) -> None:
    """One line on standard output: the event, the time in UTC, and its fields."""
    line = {"event": event, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), **fields}
    typer.echo(printable_json(json.dumps(line, ensure_ascii=False, default=_plain)))


def _fields(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: row[name] for name in names if row.get(name) is not None}


def _finite(seconds: float) -> float | None:
    return None if math.isinf(seconds) else round(seconds, 1)


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays, and paths."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
