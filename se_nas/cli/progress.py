"""The progress of a search: a live display on a terminal, one line per event elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from se_nas.cli.tables import make_console
from se_nas.run import FINAL, SEARCH
from se_nas.study.progress import Progress
from se_nas.wording import counted, printable

if TYPE_CHECKING:
    from se_nas.study.storage import StudyStore

PHASES = {"latency": "latency", SEARCH: "search", FINAL: "final seeds"}
TENTH = 10
"""Of so many networks that are measured, one is said in a log."""
CORRECTED = 0.1
"""Share by which the number of candidates has to change before that is said."""
LABEL_WIDTH = 11


def make_progress() -> Progress:
    """Live on a terminal; otherwise plain lines on standard error."""
    console = make_console(stderr=True)
    return LiveProgress(console) if console.is_terminal else LineProgress(console)


class LineProgress(Progress):
    """One line per event, readable in a log file."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._best: float | None = None
        self._phase_name = ""
        self._done, self._planned, self._end = 0, 0, math.inf

    def message(self, text: str) -> None:
        self._print(text)

    def plan(self, description: Sequence[tuple[str, str]]) -> None:
        for label, text in description:
            self._print(f"{label:<{LABEL_WIDTH}}{text}")

    def networks_measured(self, done: int, total: int) -> None:
        if done % TENTH == 0 or done == total:
            self._print(f"latency of {done} of {total} networks measured")

    def phase(self, name: str, seconds: float) -> None:
        self._begin(name)
        limit = "" if math.isinf(seconds) else f", up to {seconds / 60:.1f} min"
        self._print(f"{PHASES.get(name, name)}{limit}")

    def outlook(self, done: int, planned: int, seconds: float) -> None:
        changed = abs(planned - self._planned) > CORRECTED * self._planned
        if changed and self._planned and self._phase_name == SEARCH:
            self._print(f"about {counted(planned, 'candidate')} will fit, not {self._planned}")
        if changed:
            self._planned = planned
        self._done, self._end = done, time.monotonic() + seconds

    def trial_finished(self, row: Mapping[str, Any], store: StudyStore) -> None:
        self._done += row["state"] != "unfinished"
        outlook = self._outlook()
        self._print(f"{_trial(row)}  {self._result(row)}{f'  [{outlook}]' if outlook else ''}")

    def _begin(self, phase: str) -> None:
        self._phase_name, self._done, self._planned, self._end = phase, 0, 0, math.inf

    def _outlook(self) -> str:
        """What is done of what is planned, and the time that the run still takes; empty if that is unknown."""
        if not self._planned:
            return ""
        left = self._end - time.monotonic()
        time_left = "" if math.isinf(left) else f", {_clock(max(0.0, left))} left"
        return f"{self._done} of about {max(self._done, self._planned)}{time_left}"

    def _result(self, row: Mapping[str, Any]) -> str:
        words = [] if row["state"] == "complete" else [row["state"]]
        if row.get("accuracy") is not None:
            self._best = max(self._best or 0.0, row["accuracy"])
            words.append(f"{row['accuracy']:.2f} %")
        if row.get("latency_ms") is not None:
            words.append(f"{row['latency_ms']:.3f} ms")
        if row.get("seconds") is not None:
            words.append(f"{row['seconds']:.1f} s")
        if row.get("error"):
            words.append(str(row["error"]))
        return ", ".join(words)

    def _print(self, text: str) -> None:
        self._console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


class LiveProgress(LineProgress):
    """A bar for the phase and one for each trial in progress; finished trials scroll above."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[info]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._phase: TaskID | None = None
        self._preparing: TaskID | None = None
        self._trials: dict[int, TaskID] = {}
        self._limit, self._began = math.inf, 0.0
        self._summary = ""

    def plan(self, description: Sequence[tuple[str, str]]) -> None:
        for label, text in description:
            self._console.print(f"[bold]{label:<{LABEL_WIDTH}}[/]{escape(printable(text))}", highlight=False)

    def images_checked(self, done: int, total: int) -> None:
        self._prepared("checking images", done, total)

    def networks_measured(self, done: int, total: int) -> None:
        self._prepared("measuring latency", done, total)

    def _prepared(self, what: str, done: int, total: int) -> None:
        if self._preparing is None:
            self._bars.start()
            self._preparing = self._bars.add_task(what, total=total, info="")
        self._bars.update(self._preparing, completed=done, info=f"{done:,} of {total:,}")
        if done >= total:
            self._bars.remove_task(self._preparing)
            self._bars.stop()
            self._preparing = None

    def phase(self, name: str, seconds: float) -> None:
        self._begin(name)
        self._bars.start()
        for task in list(self._bars.task_ids):
            self._bars.remove_task(task)
        self._limit, self._began = seconds, time.monotonic()
        total = None if math.isinf(seconds) else seconds
        self._phase = self._bars.add_task(PHASES.get(name, name), total=total, info="")
        self._trials = {}

    def outlook(self, done: int, planned: int, seconds: float) -> None:
        super().outlook(done, planned, seconds)
        self._tick()

    def trial_started(self, row: Mapping[str, Any]) -> None:
        self._trials[row["number"]] = self._bars.add_task(printable(_trial(row)), total=None, info="")

    def epoch(self, row: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        task = self._trials.get(row["number"])
        if task is not None:
            accuracy = metrics.get("accuracy")
            info = f"epoch {metrics.get('epoch')}" + (f", {accuracy:.2f} %" if accuracy is not None else "")
            self._bars.update(task, info=info)
        self._tick()

    def trial_finished(self, row: Mapping[str, Any], store: StudyStore) -> None:
        super().trial_finished(row, store)
        task = self._trials.pop(row["number"], None)
        if task is not None:
            self._bars.remove_task(task)
        if self._phase is not None:
            best = f"best {self._best:.2f} %, " if self._best is not None else ""
            self._summary = f"{best}front of {store.front_size}"
        self._tick()

    def close(self) -> None:
        self._bars.stop()

    def _tick(self) -> None:
        if self._phase is None:
            return
        if not math.isinf(self._limit):
            self._bars.update(self._phase, completed=min(self._limit, time.monotonic() - self._began))
        info = ", ".join(part for part in (self._outlook(), self._summary) if part)
        self._bars.update(self._phase, info=info)


def _clock(seconds: float) -> str:
    """``4:05``, ``2:10:00``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _trial(row: Mapping[str, Any]) -> str:
    seed = f" seed {row['seed']}" if row.get("phase") == "final" and "seed" in row else ""
    return f"trial {row['number']}{seed}  {row['description']}"
