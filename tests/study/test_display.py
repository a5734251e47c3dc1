"""The progress of a search on a recorded console."""

import io
import math
import re
from types import SimpleNamespace

import pytest
from rich.cells import cell_len
from rich.console import Console

import se_nas.study.display as display
from se_nas.study.best import best_so_far
from se_nas.study.display import LineProgress, LiveProgress, progress_of
from se_nas.study.progress import Progress

LONG = "stage 0: 3/3 γ=16; stage 1: 4/4 γ=8; stage 2: 6/6 γ=4; stage 3: 3/3 γ=16"


def row(number, **fields):
    return {
        "number": number,
        "key": f"k{number}",
        "description": LONG,
        "phase": "search",
        "seed": 0,
        **fields,
    }


class Store:
    """What a progress asks of a study."""

    num_val, front_size = 400, 3

    def __init__(self):
        self.found = []

    def finish(self, progress, number, accuracy, **fields):
        ended = row(number, state="complete", accuracy=accuracy, seconds=61.2, latency_ms=8.125, **fields)
        self.found.append(ended)
        progress.trial_finished(ended, self)

    def rows(self):
        return self.found


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only if a test says so."""
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(display, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def recorded(kind, width):
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    return kind(console), console


def live_lines(progress, width):
    """The live region as it is drawn now."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(progress._render())
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def in_the_middle(kind, width, clock):
    """A search whose trials 0 to 5 are done and whose trials 6 and 7 train, after an hour and a bit."""
    progress, console = recorded(kind, width)
    progress.phase("search", 2 * 3600.0)
    store = Store()
    for number, accuracy in enumerate([90.0, 91.25, 89.0, 90.5, 91.0, 88.75]):
        progress.trial_started(row(number))
        store.finish(progress, number, accuracy)
    clock.seconds += 3672
    progress.trial_started(row(6))
    progress.trial_started(row(7))
    progress.epoch(row(7), {"epoch": 2, "accuracy": 85.5})
    progress.outlook(6, 24, 3725.0)
    clock.seconds += 5
    return progress, console


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_the_live_region_says_everything_on_lines_that_do_not_break(width, clock):
    progress, _ = in_the_middle(LiveProgress, width, clock)
    lines = live_lines(progress, width)
    progress.close()
    assert len(lines) == 4
    assert max(map(cell_len, lines)) <= width
    head, standing, *trials = lines
    assert head.startswith("search")
    assert head.endswith("6 of about 24  elapsed 1:01:17  ETA 1:02:00")
    # scipy.stats.binomtest(365, 400).proportion_ci(0.95, "wilson"): 5.55 points wide.
    assert standing == "best 91.25±2.78 % (trial 1), front of 3"
    assert re.search(r" trial 6  stage 0.*\S\s+0:05$", trials[0])
    assert re.search(r" trial 7  stage 0.*\S\s+epoch 2, 85\.50 %  0:05$", trials[1])
    assert [LONG in line or "…" in line for line in trials] == [True, True]
    assert ("━" in head) == (width >= 80)


@pytest.mark.parametrize("width", [60, 80])
def test_finished_trials_scroll_above_with_numbers_whole(width, clock):
    progress, console = in_the_middle(LiveProgress, width, clock)
    progress.close()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())
    words = text.split()
    for number in ("91.25", "88.75", "8.125", "61.2"):
        assert number in words
    assert max(cell_len(line) for line in re.split(r"[\r\n]+", text)) <= width


def test_a_log_has_a_line_per_trial(clock):
    progress, console = recorded(LineProgress, 1000)
    progress.phase("search", math.inf)
    store = Store()
    store.finish(progress, 0, 90.0)
    progress.outlook(1, 8, 65.0)
    clock.seconds += 10
    store.finish(progress, 1, 91.25)
    assert console.file.getvalue().splitlines() == [
        "search",
        f"trial 0  {LONG}  90.00 %, 8.125 ms, 61.2 s  [elapsed 0:00, best 90.00±2.95 % (trial 0), front of 3]",
        f"trial 1  {LONG}  91.25 %, 8.125 ms, 61.2 s  [2 of about 8, elapsed 0:10, ETA 0:55, best 91.25±2.78 %"
        " (trial 1), front of 3]",
    ]


def test_final_seeds_have_a_best_of_their_own(clock):
    """Readings of the search had another schedule, and the best of them was selected."""
    progress, _ = in_the_middle(LiveProgress, 80, clock)
    progress.phase("final", math.inf)
    store = Store()
    assert live_lines(progress, 80)[0].startswith("final seeds")
    for seed, accuracy in ((1, 90.0), (2, 91.0), (3, 92.0)):
        ended = row(10 + seed, state="complete", accuracy=accuracy) | {
            "key": "same",
            "phase": "final",
            "seed": seed,
        }
        store.found.append(ended)
        progress.trial_finished(ended, store)
    progress.epoch(row(3), {"epoch": 3, "accuracy": 90.0})
    # Student's t with two degrees of freedom: 4.303 / sqrt(3).
    assert live_lines(progress, 80)[1] == "best 91.00±2.48 % (trial 11), front of 3"
    progress.close()


def test_nothing_is_best_before_anything_has_finished():
    assert best_so_far([row(0, state="diverged", accuracy=None)], "search", 400) is None
    alone = best_so_far([row(0, state="complete", accuracy=90.0)], "search", None)
    assert (str(alone), alone.readings) == ("90.00 %", 1)


def test_equal_readings_are_not_certain():
    def readings(*groups):
        return [
            row(number, state="complete", accuracy=accuracy) | {"key": f"group {index}"}
            for index, group in enumerate(groups)
            for number, accuracy in enumerate(group)
        ]

    # The scatter of all candidates: squares 0.5 with two degrees of freedom, Student's t 4.303 sqrt(0.25 / 2).
    assert str(best_so_far(readings((92.0, 92.0), (90.0, 91.0)), "search", 400)) == "92.00±1.52 %"
    # As long as no readings differ: Wilson's interval of 92 % of 400 images.
    assert str(best_so_far(readings((92.0, 92.0)), "search", 400)) == "92.00±2.68 %"


def test_preparations_have_a_bar(clock):
    progress, _ = recorded(LiveProgress, 80)
    progress.images_checked(1234, 5000)
    assert re.fullmatch(r"checking images  [━╸╺]+ +1,234 of 5,000", live_lines(progress, 80)[0])
    progress.images_checked(5000, 5000)
    assert live_lines(progress, 80) == []


def test_the_plan_hangs_beside_its_labels():
    progress, console = recorded(LiveProgress, 60)
    progress.plan([("backbone", "resnet50"), ("data", "a folder of images " * 4)])
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert lines == [
        "backbone   resnet50",
        "data       a folder of images a folder of images a folder of",
        "           images a folder of images",
    ]


def test_who_asks_for_progress_gets_it(monkeypatch):
    class Mine(Progress):
        pass

    mine = Mine()
    assert progress_of(mine) is mine
    assert type(progress_of(False)) is Progress
    # Standard error is no terminal here.
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    assert type(progress_of(None)) is Progress
    assert type(progress_of(True)) is LineProgress
    monkeypatch.setattr(
        display, "make_console", lambda stderr: Console(file=io.StringIO(), force_terminal=True)
    )
    assert type(progress_of(None)) is LiveProgress
    assert type(progress_of(False)) is Progress


@pytest.mark.parametrize(("widgets", "kind"), [(object(), LiveProgress), (None, LineProgress)])
def test_a_notebook_shows_progress_live_if_it_can(monkeypatch, widgets, kind):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: widgets)
    notebook = Console(file=io.StringIO(), force_jupyter=True)
    monkeypatch.setattr(display, "make_console", lambda stderr: notebook)
    assert type(progress_of(None)) is kind
    assert type(progress_of(False)) is Progress


def test_the_last_picture_in_a_notebook_is_the_last_state(monkeypatch):
    shown = LiveProgress(Console(file=io.StringIO(), force_jupyter=True))
    done = []
    monkeypatch.setattr(shown._live, "refresh", lambda: done.append("refreshed"))
    monkeypatch.setattr(shown._live, "stop", lambda: done.append("stopped"))
    shown.close()
    assert done == ["refreshed", "stopped"]


def test_commands_in_messages_stay_whole_and_other_lines_break_between_words():
    progress, console = recorded(LiveProgress, 60)
    command = "go on with:  se-nas resume runs/a-name-of-some-length --budget 30m --trials 20"
    progress.message(f"its mean accuracy was read four times: 79.67, 83.84, 84.96, 84.12 %\n{command}")
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert lines == ["its mean accuracy was read four times: 79.67, 83.84, 84.96,", "84.12 %", command]
