"""How one search scales over workers: on a PostgreSQL server, and on Ray. Trainings are simulated, all else is real.

    python benchmarks/scaling.py workers [--sizes 1 4 16 64] [--scale 6] [--rounds 6] [--sampler random]
    python benchmarks/scaling.py trials [--sizes 100 1000 10000] [--workers 4]
    python benchmarks/scaling.py ray [--sizes 1 2 4 8] [--scale 6] [--rounds 6]

`workers`: so many workers of one study, threads of this process, each with a connection and a study in memory of its
own. A training takes a minute, less or more by a tenth, on a clock that runs `--scale` times as fast; storage and
sampler take their real time, so that the efficiency shown is below that of a real minute. It is the share of the time
between the first claim and the last in which workers train. Time in storage is what a worker spends with the database
for one trial: turns, looks before them, and writes, but neither the sampler nor the wait for its turn. What a turn
takes is what others wait for.

`trials`: the same time in a study that has so many trials already, each with what a training of 30 epochs leaves there.

`ray`: one search with so many actors.

The server is one of its own, unless `--storage` names an empty database.
"""

from __future__ import annotations

import argparse
import collections
import importlib.metadata
import json
import os
import platform
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np
from golden_trainer import accuracy_of
from postgres_server import PASSWORD, Server

MINUTE, EPOCHS = 60.0, 3
LONG, IMAGES = 30, 3680
"""Epochs and validation images of the trainings that fill a study."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, sizes in (("workers", [1, 4, 16, 64]), ("trials", [100, 1000, 10_000]), ("ray", [1, 2, 4, 8])):
        command = commands.add_parser(name)
        command.add_argument("--sizes", nargs="+", type=int, default=sizes)
        command.add_argument("--sampler", default="random")
        if name != "trials":
            command.add_argument("--scale", type=float, default=6.0)
            command.add_argument("--rounds", type=int, default=6, help="Trials for each worker.")
        else:
            command.add_argument("--workers", type=int, default=4)
        if name != "ray":
            command.add_argument("--storage")
    options = parser.parse_args()
    print_machine()
    if options.command == "ray":
        scale_ray(options)
    else:
        with database(options.storage) as url:
            (scale_workers if options.command == "workers" else scale_trials)(options, url)


def print_machine() -> None:
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("torch", "optuna", "psycopg")
    )
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(
        f"{os.cpu_count()} CPUs ({platform.machine()}), load {load}; Python {platform.python_version()}, {versions}"
    )


class Durable(Server):
    """The tests' server, but what is committed is on the disk, as on a server that people use."""

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder} -c max_connections=200"
        self._run("pg_ctl", "-w", "-l", self.folder / "log", "-o", options, "start")


@contextmanager
def database(storage: str | None) -> Iterator[str]:
    if storage is not None:
        yield storage
        return
    os.environ["PGPASSWORD"] = PASSWORD
    server = Durable()
    print(server.sql("SELECT version()")[0][0].partition(",")[0])
    try:
        yield server.new_database("scaling")
    finally:
        server.remove()


# What a worker spends, by name: seconds of wall time and of processor time of its thread.
_spent: dict[str, list[float]] = collections.defaultdict(lambda: [0.0, 0.0])
_lock = threading.Lock()
_training: list[tuple[float, float]] = []
_claims: list[float] = []


@contextmanager
def timed(name: str) -> Iterator[None]:
    wall, processor = time.perf_counter(), time.thread_time()
    try:
        yield
    finally:
        with _lock:
            _spent[name][0] += time.perf_counter() - wall
            _spent[name][1] += time.thread_time() - processor


def instrument() -> None:
    """Time what workers do with the database and with the sampler."""
    from se_nas.study.server import SharedDatabase
    from se_nas.study.shared_storage import SharedStore
    from se_nas.study.shared_trials import SharedTrials
    from se_nas.study.storage import StudyStore
    from se_nas.study.suggestions import Suggestions

    turn, save, look, suggest, table = (
        SharedDatabase.turn,
        SharedDatabase.save,
        SharedStore.look,
        Suggestions._find,
        StudyStore.write_table,
    )

    @contextmanager
    def timed_turn(self: SharedDatabase) -> Iterator[None]:
        entered = turn(self)
        with timed("wait"):
            entered.__enter__()
        try:
            with timed("turn"):
                yield
        except BaseException:
            entered.__exit__(*sys.exc_info())
            raise
        with timed("turn"):
            entered.__exit__(None, None, None)
        with _lock:
            _spent["turns"][0] += 1

    def timed_save(self: SharedDatabase, *given: Any) -> None:
        with timed("write") if self._turn is None else nullcontext():
            save(self, *given)

    def timed_look(self: SharedStore) -> None:
        with timed("look"):
            look(self)

    def timed_find(self: Suggestions) -> Any:
        inside = isinstance(self._store._storage, SharedTrials) and self._store._storage._database._turn
        with timed("sampler in a turn") if inside else nullcontext(), timed("sampler"):
            return suggest(self)

    def timed_table(self: StudyStore) -> None:
        with timed("table"):
            table(self)

    SharedDatabase.turn = timed_turn  # type: ignore[method-assign, assignment]
    SharedDatabase.save = timed_save  # type: ignore[method-assign, assignment]
    SharedStore.look = timed_look  # type: ignore[method-assign]
    Suggestions._find = timed_find  # type: ignore[method-assign]
    StudyStore.write_table = timed_table  # type: ignore[method-assign]


def storage_ms(trials: int, kind: int) -> float:
    """Milliseconds with the database for one trial: of wall time (kind 0) or of the processor (1)."""
    with _lock:
        parts = {name: _spent[name][kind] for name in ("turn", "write", "look", "sampler in a turn")}
        total = parts["turn"] + parts["write"] + parts["look"] - parts["sampler in a turn"]
    return 1000 * total / trials


class Simulated:
    """An executor of one place whose trainings only take time, and end with a known accuracy."""

    capacity = 1

    def __init__(self, minute: float) -> None:
        self._minute = minute
        self._task: Any = None

    @property
    def tasks(self) -> Sequence[Any]:
        return () if self._task is None else (self._task,)

    def submit(self, task: Any, listener: Any) -> Mapping[str, Any]:
        self._task, self._began = task, time.perf_counter()
        self._curve: list[dict[str, Any]] = []
        self._seconds = self._minute * random.Random(task.number).uniform(0.9, 1.1)
        with _lock:
            _claims.append(self._began)
        return {}

    def wait(self, listener: Any) -> None:
        task, epoch = self._task, len(self._curve) + 1
        until = self._began + self._seconds * epoch / EPOCHS
        time.sleep(min(max(0.0, until - time.perf_counter()), 0.5))
        if time.perf_counter() < until:
            return
        accuracy = accuracy_of(task.architecture.key, task.seed, task.architecture.num_gated)
        entry = {"epoch": epoch, "accuracy": accuracy, "loss": 1.0, "train_loss": 1.2, "seconds": 1.0}
        self._curve.append(entry)
        if epoch == EPOCHS:
            with _lock:
                _training.append((self._began, time.perf_counter()))
        listener.epoch_ended(task, list(self._curve), entry)
        if epoch == EPOCHS:
            self._task = None
            fields = {"state": "complete", "accuracy": accuracy, "loss": 1.0, "curve": self._curve}
            listener.task_ended(task, {**fields, "epochs": EPOCHS, "seconds": self._seconds})

    def paused(self) -> Any:
        return nullcontext()

    def close(self, *, kill: bool = False) -> None: ...


def make_plan(
    runs: Path,
    url: str,
    study: str,
    sampler: str,
    trials: int,
    *,
    backbone: str = "resnet50",
    **settings: Any,
) -> Any:
    from se_nas.study.config import SearchConfig
    from se_nas.study.plan import resolve

    return resolve(
        SearchConfig(
            backbone=backbone,
            objectives="accuracy,params",
            sampler=sampler,
            trials=trials,
            final_seeds=0,
            epochs=EPOCHS,
            device="cpu",
            input_size=64,
            recipe={"preset": "tiny", "precision": "fp32"},
            compile="off",
            runs=str(runs),
            name=study,
            storage=url,
            study=study,
            **settings,
        )
    )


def begin(plan: Any) -> Any:
    """Make the study of a plan; returns its run folder."""
    from se_nas.study import peers, session
    from se_nas.study.patience import Patience
    from se_nas.study.progress import Progress
    from se_nas.study.provenance import make_manifest

    manifest = make_manifest(plan)
    peers.create(plan, manifest, lambda store: session._prepare(plan, store, Progress()), Patience())
    return peers.run_folder(plan.path, plan.config, manifest)


def count_connections(url: str, counts: list[int], ended: threading.Event) -> None:
    import psycopg

    name = url.rpartition("/")[2]
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        while not ended.wait(0.2):
            rows = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()", [name]
            ).fetchall()
            counts.append(rows[0][0])


def scale_workers(options: argparse.Namespace, url: str) -> None:
    from se_nas.study import session

    instrument()
    minute = MINUTE / options.scale
    session.make_executor = lambda *given: Simulated(minute)
    # What each worker does at its end, on a machine of its own, would all be done on this one.
    session.what_mattered = lambda plan, store: {}
    print(
        f"\ntrainings of {MINUTE:.0f} s on a clock {options.scale:g} times as fast, sampler {options.sampler}"
    )
    print(
        "        trials/h  of ideal  twice   storage ms/trial  sampler    turns    in a turn, ms    wait for"
        "  connections     load"
    )
    print(
        "workers                             (of processor)   ms/trial  per trial (of processor)   turn, ms"
    )
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as scratch:
            search_with(size, size * options.rounds, options.sampler, url, Path(scratch))


def search_with(size: int, trials: int, sampler: str, url: str, scratch: Path) -> None:
    """One study with so many workers and trials; prints a line."""
    from se_nas.study import peers, session
    from se_nas.study.interrupts import Interrupts
    from se_nas.study.patience import Patience
    from se_nas.study.progress import Progress

    study = f"workers-{size}"
    plan = make_plan(scratch, url, study, sampler, trials)
    folder = begin(plan)
    for record in (_spent, _training, _claims):
        record.clear()
    counts: list[int] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            with closing(peers.connect(plan.config, folder, patience=Patience())) as store:
                session._search(plan, folder, store, Progress(), Interrupts(lambda text: None))
        except BaseException as error:
            failed.append(error)

    ended = threading.Event()
    watch = threading.Thread(target=count_connections, args=(url, counts, ended))
    threads = [threading.Thread(target=work) for _ in range(size)]
    for thread in (watch, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    ended.set()
    watch.join()
    if failed:
        raise failed[0]
    rows = peers.fetch(url, study, scratch / "read").rows()
    twice = len(rows) - len({(row.key, row.seed) for row in rows})
    assert len(rows) == trials, (len(rows), trials)
    first, last = min(_claims), max(_claims)
    share = sum(min(end, last) - min(start, last) for start, end in _training) / (size * (last - first))
    print(
        f"{size:>7}{share * size * 3600 / MINUTE:>9.0f}{share:>10.1%}{twice:>7}"
        f"{storage_ms(trials, 0):>12.1f} ({storage_ms(trials, 1):.1f})"
        f"{1000 * _spent['sampler'][0] / trials:>10.1f}{_spent['turns'][0] / trials:>10.1f}"
        f"{1000 * _spent['turn'][0] / _spent['turns'][0]:>10.1f} ({1000 * _spent['turn'][1] / _spent['turns'][0]:.1f})"
        f"{1000 * _spent['wait'][0] / trials:>11.1f}{max(counts):>13}{os.getloadavg()[0]:>9.1f}",
        flush=True,
    )


def scale_trials(options: argparse.Namespace, url: str) -> None:
    from se_nas.study import peers
    from se_nas.study.patience import Patience
    from se_nas.study.suggestions import Suggestions

    instrument()
    window = 25
    print(
        f"\n{options.workers} workers in turn, {window} trials each at every size, sampler {options.sampler}"
    )
    print(
        f"{'trials':>7}{'storage ms/trial':>20}{'(of processor)':>16}{'sampler ms':>12}{'join, s (of processor)':>24}"
    )
    with tempfile.TemporaryDirectory() as scratch:
        plan = make_plan(Path(scratch), url, "trials", options.sampler, max(options.sizes) + 1)
        folder = begin(plan)
        done = 0
        for size in sorted(options.sizes):
            with closing(peers.connect(plan.config, folder, patience=Patience())) as store:
                fill(plan, store, size - done)
                done = store.num_trials
            began, processor = time.perf_counter(), time.thread_time()
            stores = [peers.connect(plan.config, folder, patience=Patience()) for _ in range(options.workers)]
            joined = (time.perf_counter() - began) / options.workers
            processor = (time.thread_time() - processor) / options.workers
            _spent.clear()
            suggestions = [Suggestions(plan, store) for store in stores]
            for _ in range(window):
                claimed = []
                for store, own in zip(stores, suggestions, strict=True):
                    store.look()
                    own.prepare()
                    claimed.append(store.turn(partial(claim, store, own)))
                for store, found in zip(stores, claimed, strict=True):
                    finish(store, *found)
            trials = window * options.workers
            done += trials
            print(
                f"{size:>7}{storage_ms(trials, 0):>20.1f}{storage_ms(trials, 1):>16.1f}"
                f"{1000 * _spent['sampler'][0] / trials:>12.1f}{joined:>15.1f} ({processor:.1f})",
                flush=True,
            )
            for store in stores:
                store.close()


def claim(store: Any, suggestions: Any) -> tuple[int, Any]:
    trial, architecture = suggestions.next()
    describe(store, trial.number, architecture)
    return trial.number, architecture


def describe(store: Any, number: int, architecture: Any, phase: str = "search") -> None:
    store.describe(
        number,
        key=architecture.key,
        description=architecture.describe(),
        position=architecture.position,
        widths=list(architecture.widths),
        seed=0 if phase == "search" else 1,
        phase=phase,
        state="running",
    )


def finish(store: Any, number: int, architecture: Any) -> None:
    """End a training of 30 epochs, of which three are written one by one; it leaves what a real one leaves.

    Values are as they come, so that most are on no front.
    """
    rng = random.Random(number)
    accuracy = accuracy_of(architecture.key, 0, architecture.num_gated)
    curve = [
        {
            "epoch": epoch,
            "accuracy": round(accuracy * epoch / LONG + rng.random(), 4),
            "loss": round(rng.random(), 6),
            "train_loss": round(rng.random(), 6),
            "seconds": round(rng.uniform(1, 3), 3),
        }
        for epoch in range(1, LONG + 1)
    ]
    for epoch in range(LONG - EPOCHS + 1, LONG + 1):
        store.record(number, curve=curve[:epoch], epochs=epoch)
    params = 10**6 + sum(architecture.widths)
    with store.together():
        store.mark(number, **{"se_nas:loss": curve[-1]["loss"]})
        fields = store.keep_correct(number, np.array([rng.random() < accuracy / 100 for _ in range(IMAGES)]))
        fields |= {"accuracy": accuracy, "loss": curve[-1]["loss"], "curve": curve, "epochs": LONG}
        fields |= {"num_params": params, "macs": 900 * params, "activations": 11 * params, "seconds": 60.0}
        store.finish(number, [accuracy, float(params)], state="complete", **fields, elapsed=60.0 * number)


def fill(plan: Any, store: Any, count: int) -> None:
    """Add trials that have ended, many in one transaction; every 20th is a final training."""
    rng = np.random.default_rng(store.num_trials)

    def add(many: int) -> None:
        seen = set(store.values_by_key())
        for own in range(many):
            architecture = plan.space.sample(rng)
            while architecture.key in seen:
                architecture = plan.space.sample(rng)
            seen.add(architecture.key)
            number = store.begin(plan.space.params(architecture), plan.space.choices, architecture)
            describe(store, number, architecture, "search" if own % 20 else "final")
            finish(store, number, architecture)

    while count > 0:
        many = min(count, 250)
        store.turn(partial(add, many))
        count -= many


def import_tests() -> None:
    """Let other processes find the trainer, too."""
    tests = str(Path(__file__).parents[1] / "tests")
    os.environ["PYTHONPATH"] = os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])


def scale_ray(options: argparse.Namespace) -> None:
    import ray
    from ray.cluster_utils import Cluster

    import se_nas

    os.environ["SECONDS"] = str(MINUTE / options.scale)
    import_tests()
    print(f"Ray {ray.__version__}; trainings of {MINUTE:.0f} s on a clock {options.scale:g} times as fast")
    print(f"{'actors':>7}{'trials/h':>10}{'of ideal':>10}{'twice':>7}{'load':>7}")
    for size in options.sizes:
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": size, "include_dashboard": False})
        ray.init(address=cluster.address, log_to_driver=False, logging_level=40)
        with tempfile.TemporaryDirectory() as scratch:
            run = se_nas.search(
                se_nas.SearchConfig(
                    backbone="test_resnet",
                    objectives="accuracy,params",
                    sampler=options.sampler,
                    trials=size * options.rounds,
                    final_seeds=0,
                    epochs=1,
                    trainer="golden_trainer:train_slowly",
                    keep="none",
                    device="cpu",
                    executor="ray",
                    runs=scratch,
                )
            )
            rows = json.loads((run.path / "trials.json").read_text())
        ray.shutdown()
        cluster.shutdown()
        ends = sorted(row["elapsed"] for row in rows)
        # From the end of the first round, so that the actors' own beginning does not count.
        minutes = (ends[-1] - ends[size - 1]) * options.scale / MINUTE
        share = (len(rows) - size) / size / minutes
        twice = len(rows) - len({(row["key"], row["seed"]) for row in rows})
        print(
            f"{size:>7}{share * size * 60:>10.0f}{share:>10.1%}{twice:>7}{os.getloadavg()[0]:>7.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
