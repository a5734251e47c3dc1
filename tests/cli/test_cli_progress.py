import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from se_nas.cli.progress import LiveProgress

STORE = SimpleNamespace(front_size=2)


def row(number):
    return {"number": number, "description": f"network {number}", "phase": "search", "seed": 0}


@pytest.fixture
def live():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    progress = LiveProgress(console)
    yield progress, console
    progress.close()


def shown(progress):
    return [task.description for task in progress._bars.tasks]


def test_every_trial_in_progress_has_a_line(live):
    progress, console = live
    progress.phase("search", 60.0)
    for number in (0, 1):
        progress.trial_started(row(number))
    assert shown(progress) == ["search", "trial 0  network 0", "trial 1  network 1"]
    progress.epoch(row(1), {"epoch": 2, "accuracy": 91.25})
    assert progress._bars.tasks[2].fields["info"] == "epoch 2, 91.25 %"
    progress.trial_finished({**row(1), "state": "complete", "accuracy": 92.0, "seconds": 3.0}, STORE)
    assert shown(progress) == ["search", "trial 0  network 0"]
    assert progress._bars.tasks[0].fields["info"] == "best 92.00 %, front of 2"
    assert "trial 1  network 1  92.00 %, 3.0 s" in console.file.getvalue()
    # A trial that goes on from before the phase has no line, and is no error.
    progress.phase("final", float("inf"))
    progress.epoch(row(0), {"epoch": 3, "accuracy": 90.0})
    assert shown(progress) == ["final seeds"]
