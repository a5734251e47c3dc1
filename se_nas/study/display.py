"""The progress of a search for people: a live display on a terminal or in a notebook, one line per event elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from se_nas.console import make_console, print_text
from se_nas.run import FINAL, SEARCH
from se_nas.study.best import Best, best_so_far
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
BAR = 8
"""Least columns of a bar that says anything; on a narrower terminal there is none."""


def make_progress() -> Progress:
    """Live on a terminal or in a notebook; otherwise plain lines on standard error."""
    console = make_console(stderr=True)
    return LiveProgress(console) if _is_live(console) else LineProgress(console)


def progress_of(choice: Progress | bool | None) -> Progress:
    """What the ``progress`` of a public function stands for.

    Args:
        choice: True to show progress, False not to, None to show it where that is live: on a terminal or in a notebook.
    """
    if isinstance(choice, Progress):
        return choice
    if choice is None:
        console = make_console(stderr=True)
        choice = console.is_terminal or console.is_jupyter
    return make_progress() if choice else Progress()


def _is_live(console: Console) -> bool:
    if console.is_jupyter:
        # Without them rich cannot change what a cell shows.
        from importlib.util import find_spec

        return find_spec("ipywidgets") is not None
    return console.is_terminal


class LineProgress(Progress):
    """One line per event, readable in a log file."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phase_name = ""
        self._done, self._planned, self._end = 0, 0, math.inf
        self._best: Best | None = None
        self._front = 0
        self._start = time.monotonic()

    def message(self, text: str) -> None:
        super().message(text)
        self._print(text)

    def plan(self, description: Sequence[tuple[str, str]]) -> None:
        super().plan(description)
        for label, text in description:
            self._print(f"{label:<{LABEL_WIDTH}}{text}")

    def networks_measured(self, done: int, total: int) -> None:
        if done % TENTH == 0 or done == total:
            self._print(f"latency of {done} of {total} networks measured")

    def phase(self, name: str, seconds: float) -> None:
        super().phase(name, seconds)
        self._begin(name)
        limit = "" if math.isinf(seconds) else f", up to {seconds / 60:.1f} min"
        self._print(f"{PHASES.get(name, name)}{limit}")

    def outlook(self, done: int, planned: int, seconds: float) -> None:
        changed = abs(planned - self._planned) > CORRECTED * self._planned
        if changed and self._planned and self._phase_name == SEARCH:
            self._print(f"about {counted(planned, 'candidate')} will fit instead of {self._planned}")
        if changed:
            self._planned = planned
        self._done, self._end = done, time.monotonic() + seconds

    def trial_finished(self, row: Mapping[str, Any], store: StudyStore) -> None:
        super().trial_finished(row, store)
        self._learn(row, store)
        self._print(f"{_trial(row)}  {_result(row)}  [{', '.join([*self._times(), *self._standing()])}]")

    def _begin(self, phase: str) -> None:
        self._phase_name, self._done, self._planned, self._end = phase, 0, 0, math.inf
        self._best = None

    def _learn(self, row: Mapping[str, Any], store: StudyStore) -> None:
        self._done += row["state"] != "unfinished"
        self._best = best_so_far(store.rows(), self._phase_name, store.num_val)
        self._front = store.front_size

    def _times(self) -> list[str]:
        """What is done of what is planned, the time that has passed and that is left, as far as they are known."""
        planned = [f"{self._done} of about {max(self._done, self._planned)}"] if self._planned else []
        left = self._end - time.monotonic()
        eta = [] if math.isinf(left) else [f"ETA {_clock(max(0.0, left))}"]
        return [*planned, f"elapsed {_clock(time.monotonic() - self._start)}", *eta]

    def _standing(self) -> list[str]:
        """The best candidate and the size of the front; empty before the first."""
        best = [] if self._best is None else [f"best {self._best} (trial {self._best.number})"]
        return [*best, f"front of {self._front}"] if self._front else best

    def _print(self, text: str) -> None:
        print_text(self._console, text)


class LiveProgress(LineProgress):
    """A bar for the phase and a line for each trial in progress, on which no line breaks; the rest scrolls above."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._spinner = Spinner("dots")
        self._limit, self._began = math.inf, 0.0
        self._preparing: tuple[str, int, int] | None = None
        self._trials: dict[int, tuple[str, str, float]] = {}
        """Description, what was read last, and the time of its start, by number."""
        self._live = Live(get_renderable=self._render, console=console, transient=True, refresh_per_second=4)

    def plan(self, description: Sequence[tuple[str, str]]) -> None:
        Progress.plan(self, description)
        table = Table.grid()
        table.add_column(style="bold", width=LABEL_WIDTH)
        table.add_column(overflow="fold")
        for label, text in description:
            table.add_row(Text(printable(label)), Text(printable(text)))
        self._console.print(table)

    def images_checked(self, done: int, total: int) -> None:
        self._prepare("checking images", done, total)

    def networks_measured(self, done: int, total: int) -> None:
        self._prepare("measuring latency", done, total)

    def phase(self, name: str, seconds: float) -> None:
        Progress.phase(self, name, seconds)
        self._begin(name)
        self._limit, self._began = seconds, time.monotonic()
        self._trials = {}
        self._live.start()

    def trial_started(self, row: Mapping[str, Any]) -> None:
        self._trials[row["number"]] = (printable(_trial(row)), "", time.monotonic())

    def epoch(self, row: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        if row["number"] in self._trials:
            description, _, began = self._trials[row["number"]]
            accuracy = metrics.get("accuracy")
            info = f"epoch {metrics.get('epoch')}" + (f", {accuracy:.2f} %" if accuracy is not None else "")
            self._trials[row["number"]] = (description, info, began)

    def trial_finished(self, row: Mapping[str, Any], store: StudyStore) -> None:
        Progress.trial_finished(self, row, store)
        self._learn(row, store)
        self._trials.pop(row["number"], None)
        self._print(f"{_trial(row)}  {_result(row)}")

    def close(self) -> None:
        if self._console.is_jupyter:
            # In a notebook the last picture stays, and rich does not draw it anew when it stops.
            self._live.refresh()
        self._live.stop()

    def _prepare(self, what: str, done: int, total: int) -> None:
        self._preparing = (what, done, total) if done < total else None
        if self._preparing is not None:
            self._live.start()
        elif not self._phase_name:
            self._live.stop()

    def _render(self) -> RenderableType:
        width = self._console.width
        lines: list[RenderableType] = []
        if self._preparing is not None:
            what, done, total = self._preparing
            share = done / total if total else None
            lines.append(self._line(what, share, [f"{done:,} of {total:,}"], width))
        elif self._phase_name:
            lines.append(
                self._line(
                    PHASES.get(self._phase_name, self._phase_name), self._share(), self._times(), width
                )
            )
            if standing := self._standing():
                lines.append(_clipped(", ".join(standing), width))
        lines += [self._trial_line(*trial, width) for trial in list(self._trials.values())]
        return Group(*lines)

    def _share(self) -> float | None:
        """The part of the phase that is over, from 0 to 1; None if nothing says that."""
        shares = [self._done / self._planned] if self._planned else []
        if not math.isinf(self._limit):
            shares.append((time.monotonic() - self._began) / max(self._limit, 1e-9))
        return min(1.0, max(shares)) if shares else None

    def _line(self, name: str, share: float | None, facts: Sequence[str], width: int) -> RenderableType:
        said = "  ".join(facts)
        room = width - cell_len(name) - cell_len(said) - 4
        if room < BAR:
            return _clipped(f"{name}  {said}", width)
        bar = ProgressBar(total=None if share is None else 1.0, completed=share or 0.0, width=min(room, 40))
        line = Table.grid(padding=(0, 2, 0, 0))
        line.add_row(Text(name, style="bold"), bar, Text(said))
        return line

    def _trial_line(self, description: str, info: str, began: float, width: int) -> RenderableType:
        now = time.monotonic()
        said = "  ".join(part for part in (info, _clock(now - began)) if part)
        line = Table.grid(padding=(0, 1, 0, 0))
        room = width - cell_len(said) - 5
        line.add_row(self._spinner.render(now), _clipped(description, max(room, 8)), Text(f" {said}"))
        return line


def _clipped(text: str, width: int) -> Text:
    """One line; what does not fit is cut off, and an ellipsis says so."""
    line = Text(text, no_wrap=True, overflow="ellipsis")
    line.truncate(width, overflow="ellipsis")
    return line


def _result(row: Mapping[str, Any]) -> str:
    words = [] if row["state"] == "complete" else [row["state"]]
    if row.get("accuracy") is not None:
        words.append(f"{row['accuracy']:.2f} %")
    if row.get("latency_ms") is not None:
        words.append(f"{row['latency_ms']:.3f} ms")
    if row.get("seconds") is not None:
        words.append(f"{row['seconds']:.1f} s")
    if row.get("error"):
        words.append(str(row["error"]))
    return ", ".join(words)


def _clock(seconds: float) -> str:
    """``4:05``, ``2:10:00``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _trial(row: Mapping[str, Any]) -> str:
    seed = f" seed {row['seed']}" if row.get("phase") == "final" and "seed" in row else ""
    return f"trial {row['number']}{seed}  {row['description']}"
