"""``se-nas`` in a process of its own, with a trainer whose results are known, to be killed and to go on."""

import contextlib
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from golden_trainer import accuracy_of
from PIL import Image
from small_cases import table

import se_nas.cli
from se_nas.report import figures
from se_nas.study import schedule
from se_nas.study.interrupts import SIGNALS
from se_nas.study.packing import Packing

TESTS = Path(__file__).parent.parent
OPTIONS = {
    "backbone": "test_resnet",
    "device": "cpu",
    "objectives": "accuracy,params",
    "trials": 6,
    "final-seeds": 2,
    "epochs": 1,
    "trainer": "golden_trainer:train_slowly",
    "keep": "none",
    "name": "run",
    "runs": "runs",
}
OF_THE_CLOCK = ("seconds", "started", "finished", "elapsed", "curve")
FINISHED = ("complete", "stopped")


def start(
    folder,
    *arguments,
    seconds=0.2,
    deaf=False,
    ignored=(),
    errors=subprocess.PIPE,
    before="pass",
    under=(),
    **environment,
):
    """A command that signals reach as from a terminal, with standard error as lines of text.

    ``before`` is a statement that its process executes first, and ``under`` a command that starts it.
    A process that was started in the background ignores some of them, and so would what it starts.
    """
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [
            *under,
            sys.executable,
            "-u",
            "-c",
            f"{before}; from se_nas.cli import main; main()",
            *map(str, arguments),
        ],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": path,
            "SECONDS": str(seconds),
            "DEAF": "1" if deaf else "",
            "OMP_NUM_THREADS": "1",
            **environment,
        },
        stdout=subprocess.DEVNULL,
        stderr=errors,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: _heed_signals(ignored),
    )


def _heed_signals(ignored=()):
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)


def search(folder, seconds=0.2, deaf=False, ignored=(), **changes):
    return start(folder, *search_arguments(**changes), seconds=seconds, deaf=deaf, ignored=ignored)


def finish(folder):
    """Go on until the run is finished; it must not complain."""
    assert Forked(folder, "resume", "runs/run", seconds=0.0).ended() == 0


class Forked:
    """A command in a process that is forked where everything is imported already, so that many can be killed.

    Its report has one figure, since drawing all takes longer than the rest of a run.

    Args:
        folder: in which it runs.
        arguments: of the command.
        seconds: that a training takes.
        places: of the pack in which candidates train, as on a GPU; None for none.

    Attributes:
        process: of ``multiprocessing``.
        log: what it writes to standard error.
    """

    def __init__(self, folder, *arguments, seconds, places=None):
        self.log = folder / "log"
        environment = {"SECONDS": str(seconds), "DEAF": "", "OMP_NUM_THREADS": "1"}
        self.process = FORKS.Process(target=_command, args=(folder, arguments, self.log, environment, places))
        self.process.start()

    def ended(self, seconds=None):
        """Wait so long, kill it if it has not ended, and return its exit code; it must not have complained."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        errors = self.log.read_text() if self.log.exists() else ""
        if self.process.exitcode == -signal.SIGKILL:
            errors = BORN_TOO_LATE.sub("", errors)
        assert "Traceback" not in errors, errors
        assert self.process.exitcode in (0, -signal.SIGKILL), errors
        return self.process.exitcode


BORN_TOO_LATE = re.compile(r"Traceback [^T]*\bspawn_main\b.*?\nEOFError: Ran out of input\n?", re.DOTALL)
"""What Python itself prints in a process whose parent was killed while it started it."""

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["golden_trainer", "se_nas.cli.runs", "se_nas.cli.progress", "se_nas.study.session", "sklearn.datasets"]
)


def _command(folder, arguments, log, environment, places):
    _heed_signals()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.update(environment)
    torch.set_num_threads(1)
    figures._FIGURES = {"front": figures._FIGURES["front"]}
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if places is not None:
        packing = Packing(places=places, devices=("cpu",), packed=True, masked=True, reason="by the test")
        schedule.decide_packing = lambda *given: packing
    sys.argv = ["se-nas", *map(str, arguments)]
    se_nas.cli.main()


def write_images(folder, count):
    """A data set of two classes with so many small images each."""
    draws = np.random.default_rng(0)
    for label in "ab":
        (folder / label).mkdir(parents=True)
        for index in range(count):
            pixels = draws.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{index}.png")
    return folder


def search_arguments(**changes):
    return ["search", *words({**OPTIONS, **changes})]


def words(options):
    """Options as words of a command line."""
    return [word for name, value in options.items() for word in (f"--{name}", value)]


def workers_of(pid):
    """Processes that a search has started, from /proc."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/stat") as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        if parent == pid:
            found.append(int(entry))
    return found


def trained(process, announced):
    """What each worker of a search trains now, by its number, from the files of TRAINED_BY."""
    found = {}
    for worker in workers_of(process.pid):
        with contextlib.suppress(OSError):
            if name := (announced / str(worker)).read_text():
                found[worker] = name
    return found


def kill_a_worker(process, announced, killed):
    """Kill one that trains, if there is one whose training has not lost two: a third death counts as its failure.

    Args:
        process: the search.
        announced: the folder TRAINED_BY.
        killed: counter of the workers killed, by what they trained.
    """
    spared = {worker: name for worker, name in trained(process, announced).items() if killed[name] < 2}
    if spared:
        victim = random.choice(list(spared))
        # The file would name a process that is dead and not yet waited for.
        with contextlib.suppress(OSError):
            (announced / str(victim)).unlink()
            os.kill(victim, signal.SIGKILL)
            killed[spared[victim]] += 1


def results(folder):
    """The table without what the clock says."""
    rows = table(folder / "runs" / "run")
    return [{name: value for name, value in row.items() if name not in OF_THE_CLOCK} for row in rows]


def check(rows, trials):
    """What must hold of any finished run, however many train at a time: nothing lost, nothing twice, all true."""
    readings = [(row["key"], row["seed"]) for row in rows]
    assert len(set(readings)) == len(readings)
    assert [row["number"] for row in rows] == sorted(row["number"] for row in rows)
    searched = [row for row in rows if row["phase"] == "search"]
    assert len(searched) == trials
    assert {"plain", "all_se_16", "last_stage"} <= {row["baseline"] for row in searched}
    for row in rows:
        assert row["state"] == "complete"
        gates = sum(width != 0 for width in row["widths"])
        assert row["accuracy"] == accuracy_of(row["key"], row["seed"], gates)
        assert row["num_params"] > 0
