"""Faults while eight workers share one study on a PostgreSQL server; in the end nothing may be lost, or done twice.

    python benchmarks/worker_faults.py [--kills 100] [--trials 260] [--seconds 3] [--sampler random]

The workers are processes on four "nodes" with a run folder each. One is killed whenever a trial ends, and another takes
its place; five times a node goes, with its two workers and its folder, and five times the server. Trainings are
simulated, and everything else is real. In the end every candidate has to be evaluated exactly once, with the reading of
an undisturbed run.
"""

from __future__ import annotations

import argparse
import collections
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from golden_trainer import accuracy_of
from postgres_server import PASSWORD, Server
from scaling import begin, import_tests, print_machine

NODES, PER_NODE = 4, 2


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--trials", type=int, default=260)
    parser.add_argument("--sampler", default="random")
    parser.add_argument("--seconds", type=float, default=3.0, help="That a training takes.")
    options = parser.parse_args()
    print_machine()
    break_everything(options)


def worker(url: str, folder: str, seconds: float) -> None:
    """A worker in a process that was forked where everything is imported already."""
    import torch

    import se_nas.study.server as server
    import se_nas.study.signs_of_life as signs
    from se_nas.study.session import work

    os.environ["SECONDS"] = str(seconds)
    torch.set_num_threads(1)
    server.GRACE, signs.INTERVAL = 15.0, 1.0
    sys.stderr = open(f"{folder}/{os.getpid()}.log", "w", buffering=1)  # noqa: SIM115
    try:
        work(url, "faults", wait=1800.0, runs=folder, device="cpu")
    except BaseException:
        import traceback

        traceback.print_exc()
        raise


def break_everything(options: argparse.Namespace) -> None:
    os.environ["PGPASSWORD"] = PASSWORD
    server = Server()
    url = server.new_database("faults")
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["golden_trainer", "se_nas.study.session", "sklearn.datasets"])
    import_tests()
    scratch = Path(tempfile.mkdtemp())
    rng = random.Random(0)
    try:
        plan = faults_plan(scratch / "first", url, options)
        begin(plan)
        fleet: list[list[tuple[Any, Path]]] = []

        def node() -> Path:
            return Path(tempfile.mkdtemp(dir=scratch))

        def start(folder: Path) -> tuple[Any, Path]:
            process = forks.Process(target=worker, args=(url, str(folder), options.seconds))
            process.start()
            return process, folder

        for _ in range(NODES):
            folder = node()
            fleet.append([start(folder) for _ in range(PER_NODE)])
        kills = removed = restarts = 0
        began, ended = time.monotonic(), 0
        while kills < options.kills and ended < options.trials:
            time.sleep(0.3)
            now = finished(server)
            if now is None or now < min(kills + 1, options.trials):
                replace_those_that_ended(fleet, start)
                continue
            ended = now
            number = rng.randrange(NODES)
            print(f"{ended} trials have ended, {kills} workers were killed", file=sys.stderr)
            if removed < 5 and kills >= (removed + 1) * options.kills // 6:
                for process, _ in fleet[number]:
                    os.kill(process.pid, signal.SIGKILL)
                    process.join()
                kills, removed = kills + PER_NODE, removed + 1
                shutil.rmtree(fleet[number][0][1], ignore_errors=True)
                folder = node()
                fleet[number] = [start(folder) for _ in range(PER_NODE)]
                continue
            place = rng.randrange(PER_NODE)
            process, folder = fleet[number][place]
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
            process.join()
            fleet[number][place] = start(folder)
            if restarts < 5 and kills >= (2 * restarts + 1) * options.kills // 10:
                server.stop(rng.choice(["fast", "immediate"]))
                time.sleep(2.0)
                server.start()
                restarts += 1
        for process in (process for own in fleet for process, _ in own):
            process.join()
        codes = collections.Counter(process.exitcode for own in fleet for process, _ in own)
        verdict(url, scratch, options, kills, removed, restarts, codes, time.monotonic() - began)
    finally:
        server.remove()
        shutil.rmtree(scratch, ignore_errors=True)


def replace_those_that_ended(fleet: list[list[tuple[Any, Path]]], start: Any) -> None:
    """A worker that has ended with an error would be started again by its launcher."""
    for own in fleet:
        for place, (process, folder) in enumerate(own):
            if process.exitcode not in (None, 0):
                print(
                    f"a worker ended with {process.exitcode}: {(folder / f'{process.pid}.log').read_text()[-600:]}"
                )
                own[place] = start(folder)


def faults_plan(runs: Path, url: str, options: argparse.Namespace) -> Any:
    from se_nas.study.config import SearchConfig
    from se_nas.study.plan import resolve

    return resolve(
        SearchConfig(
            backbone="resnet18",
            objectives="accuracy,params",
            sampler=options.sampler,
            trials=options.trials,
            final_seeds=2,
            epochs=1,
            compile="off",
            trainer="golden_trainer:train_slowly",
            keep="none",
            device="cpu",
            runs=str(runs),
            name="run",
            storage=url,
            study="faults",
        )
    )


def finished(server: Server) -> int | None:
    import psycopg

    try:
        return server.sql("SELECT count(*) FROM trials WHERE state = 'COMPLETE'", "faults")[0][0]
    except psycopg.OperationalError:
        return None


def verdict(
    url: str,
    scratch: Path,
    options: argparse.Namespace,
    kills: int,
    removed: int,
    restarts: int,
    codes: Mapping[int | None, int],
    seconds: float,
) -> None:
    from se_nas.study import peers

    print(
        f"\n{kills} workers killed ({removed} times two with their node and its folder), server restarted {restarts}"
        f" times, in {seconds:.0f} s; exit codes {dict(codes)}"
    )
    check(peers.fetch(url, "faults", scratch / "read").rows(), options.trials)


def check(rows: Sequence[Any], trials: int) -> None:
    """Every candidate was evaluated exactly once, with the reading of an undisturbed run."""
    searched = [row for row in rows if row.phase == "search"]
    states = collections.Counter(row.state for row in rows)
    twice = len(rows) - len({(row.key, row.seed) for row in rows})
    wrong = [
        row.number
        for row in rows
        if row.accuracy != accuracy_of(row.key, row.seed, sum(width != 0 for width in row.widths))
    ]
    print(
        f"{len(searched)} candidates and {len(rows) - len(searched)} final trainings: {dict(states)};"
        f" evaluated twice: {twice}; other readings than undisturbed: {len(wrong)}"
    )
    assert len(searched) == trials, len(searched)
    assert set(states) == {"complete"}, states
    assert not twice
    assert not wrong, wrong


if __name__ == "__main__":
    main()
