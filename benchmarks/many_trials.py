"""What a run of many trials costs, in processor time: the framework around trainings that take none.

    python benchmarks/many_trials.py storage [--sizes 100 1000 3000]
    python benchmarks/many_trials.py run [--sizes 100 1000 3000 10000] [--backbone resnet50] [--sampler random]

`storage` compares ways to store a study: Optuna's journal, its RDBStorage on SQLite, and se-nas's whole trials in the
same tables. Each trial has 20 parameters, a description, an outcome and two objective values. `run` searches with a
trainer that answers at once, and prints what one more trial costs at each size and what all of them have cost, building
networks apart, then what resume, show and report of a copy of the run at that size cost beyond their imports, and the
most memory that each of these processes had, its imports included. The slope is that of a line through the logarithms:
1 means that cost grows as the run does, 0 that it does not grow.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection

STUDY = "study.db"
SIZES = [100, 1000, 3000, 10_000]
WINDOW = 50
"""Trials over which the time of one is averaged."""
PARAMETERS = {f"stage{number}.reduction": ("none", 4, 8, 16, 32) for number in range(20)}
ROW = {
    "key": "0" * 64,
    "widths": list(range(16)),
    "curve": [{"epoch": epoch, "accuracy": 50.0, "loss": 1.5, "seconds": 1.0} for epoch in range(3)],
    **{f"field{number}": 1.0 for number in range(25)},
}
STORAGES = ("journal", "rdb", "whole")
ACTIONS = ("resume", "show", "report")
HEADS = ("ms/trial", "search, s", *(f"{action}, {unit}" for action in ACTIONS for unit in ("s", "GB")))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    storage = commands.add_parser("storage")
    storage.add_argument("--kinds", nargs="+", choices=STORAGES, default=list(STORAGES))
    run = commands.add_parser("run")
    run.add_argument("--backbone", default="resnet50")
    run.add_argument("--sampler", default="random")
    for command in (storage, run):
        command.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if options.command == "storage":
        compare_storages(options.kinds, sorted(options.sizes))
    else:
        run_search(options.backbone, options.sampler, sorted(options.sizes))


def compare_storages(kinds: Sequence[str], sizes: Sequence[int]) -> None:
    print(f"{'storage':<10}{'trials':>8}{'ms per trial':>14}{'wall ms':>10}{'open, s':>10}{'MB':>8}")
    for kind in kinds:
        with tempfile.TemporaryDirectory() as scratch:
            study = make_study(kind, Path(scratch))
            done = 0
            for size in sizes:
                add_trials(study, kind, max(0, size - done - WINDOW))
                began, wall = time.process_time(), time.monotonic()
                add_trials(study, kind, WINDOW)
                each, wall_each = (time.process_time() - began) / WINDOW, (time.monotonic() - wall) / WINDOW
                done = size
                began = time.process_time()
                assert len(make_study(kind, Path(scratch)).get_trials(deepcopy=False)) == size
                opened = time.process_time() - began
                size_mb = sum(path.stat().st_size for path in Path(scratch).iterdir()) / 1e6
                print(
                    f"{kind:<10}{size:>8}{1000 * each:>14.1f}{1000 * wall_each:>10.1f}{opened:>10.2f}{size_mb:>8.1f}",
                    flush=True,
                )


def make_study(kind: str, folder: Path) -> optuna.Study:
    """The study in a folder, new or as it is there."""
    from se_nas.study.database import Database
    from se_nas.study.whole_trials import WholeTrials

    directions = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]
    storage: BaseStorage
    if kind == "journal":
        storage = JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    elif kind == "rdb":
        storage = RDBStorage(f"sqlite:///{folder / 'study.db'}")
    else:
        storage = WholeTrials(Database.open(folder / "study.db", directions))
    sampler = optuna.samplers.RandomSampler(seed=0)
    if kind == "whole":
        return optuna.load_study(study_name="se-nas", storage=storage, sampler=sampler)
    return optuna.create_study(
        study_name="se-nas", storage=storage, sampler=sampler, directions=directions, load_if_exists=True
    )


def add_trials(study: optuna.Study, kind: str, count: int) -> None:
    storage: Any = study._storage
    for _ in range(count):
        trial = study.ask()
        for name, choices in PARAMETERS.items():
            trial.suggest_categorical(name, choices)
        if kind == "whole":
            with storage.together():
                trial.set_user_attr("se_nas:row", ROW)
                storage.release(trial.number)
            with storage.together():
                trial.set_user_attr("se_nas:row", {**ROW, "state": "complete"})
                study.tell(trial, [1.0, 2.0])
        else:
            trial.set_user_attr("se_nas:row", ROW)
            trial.set_user_attr("outcome", ROW)
            study.tell(trial, [1.0, 2.0])


class Instant:
    """An executor whose trainings take no time; accuracy follows from the number of gates."""

    capacity = 1
    tasks: tuple[Any, ...] = ()

    def submit(self, task: Any, listener: Any) -> Mapping[str, Any]:
        noise = np.random.default_rng(task.number).normal()
        accuracy = 70 + 0.3 * task.architecture.num_gated + noise
        curve = [{"epoch": 1, "accuracy": accuracy, "loss": 1.0, "train_loss": 1.2, "seconds": 1.0}]
        listener.epoch_ended(task, curve, curve[-1])
        listener.task_ended(
            task,
            {
                "state": "complete",
                "accuracy": accuracy,
                "loss": 1.0,
                "curve": curve,
                "epochs": 1,
                "seconds": 1.0,
            },
        )
        return {}

    def wait(self, listener: Any) -> None: ...

    def paused(self) -> Any:
        return nullcontext()

    def close(self, *, kill: bool = False) -> None: ...


def run_search(backbone: str, sampler: str, sizes: Sequence[int]) -> None:
    from se_nas.run import RunFolder
    from se_nas.study import SearchConfig
    from se_nas.study.clock import Clock
    from se_nas.study.phases.search import Search
    from se_nas.study.phases.trainings import Trainings
    from se_nas.study.plan import resolve
    from se_nas.study.progress import Progress
    from se_nas.study.provenance import make_manifest
    from se_nas.study.stopping import Stopping
    from se_nas.study.storage import StudyStore
    from se_nas.study.suggestions import Suggestions

    scratch = Path(tempfile.mkdtemp())
    config = SearchConfig(
        backbone=backbone,
        objectives="accuracy,params",
        sampler=sampler,
        trials=sizes[-1],
        epochs=1,
        device="cpu",
        compile="off",
        input_size=64,
        runs=str(scratch),
        name="run",
    )
    plan = resolve(config)
    folder = RunFolder.create(plan.path, config.model_dump(mode="json"), make_manifest(plan))
    store = StudyStore.create(folder, config.objectives)

    class Times(Progress):
        def __init__(self) -> None:
            self.times: list[float] = []
            self.apart = 0.0

        def trial_finished(self, row: Mapping[str, Any], store: StudyStore) -> None:
            self.times.append(time.process_time() - self.apart)
            if len(self.times) in sizes:
                began = time.process_time()
                store.write_table()
                copy_run(folder.path, scratch / str(len(self.times)))
                self.apart += time.process_time() - began

    times = Times()
    clock, interrupts = Clock(None), SimpleNamespace(requested=False)
    stopping = Stopping("off", 1, config.objectives, store, config.seed)
    trainings = Trainings(plan, store, Instant(), stopping, times, clock, lambda: False)
    search = Search(plan, store, Suggestions(plan, store), trainings, clock, interrupts, times)  # type: ignore[arg-type]
    began = time.process_time()
    search.run()
    store.close()
    print(conditions())
    rows = []
    print(f"{'trials':>8}" + "".join(f"{name:>13}" for name in HEADS))
    for size in sizes:
        each = 1000 * (times.times[size - 1] - times.times[size - 1 - WINDOW]) / WINDOW
        done = [in_a_process(action, scratch / str(size)) for action in ACTIONS]
        rows.append(
            [
                each,
                times.times[size - 1] - began,
                *(value for one in done for value in (one["seconds"], one["gb"])),
            ]
        )
        print(f"{size:>8}" + "".join(f"{value:>13.2f}" for value in rows[-1]), flush=True)
    if len(sizes) > 1:
        slopes = np.polyfit(np.log(sizes), np.log(np.array(rows)), 1)[0]
        print(f"{'slope':>8}" + "".join(f"{slope:>13.2f}" for slope in slopes))
    shutil.rmtree(scratch)


def conditions() -> str:
    """What the figures were taken on."""
    import timm
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "CPU")
    return (
        f"{os.cpu_count()} cores ({cpu}), load {os.getloadavg()[2]:.1f}, Python {platform.python_version()},"
        f" torch {torch.__version__}, timm {timm.__version__}, optuna {optuna.__version__}"
    )


def copy_run(path: Path, target: Path) -> None:
    """Copy a run that this process writes.

    Whoever opens and closes a database's file drops the locks that its process holds on it (fcntl's rule), and the next
    program that looks at the database deletes the log that is still in use. So SQLite copies it.
    """
    shutil.copytree(path, target, ignore=shutil.ignore_patterns(f"{STUDY}*"))
    with closing(sqlite3.connect(path / STUDY)) as source, closing(sqlite3.connect(target / STUDY)) as copy:
        source.backup(copy)


def in_a_process(action: str, path: Path) -> dict[str, float]:
    command = [sys.executable, str(Path(__file__).with_name("run_action.py")), action, str(path)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
