"""`ParetoSampler` of two versions of se-nas side by side: are suggestions the same, and if not, which are better?

    python benchmarks/sampler_versions.py run --before CHECKOUT [--out runs/versions.jsonl] [--task T ...]
    python benchmarks/sampler_versions.py table [--out runs/versions.jsonl]

CHECKOUT is the folder of another checkout of this repository (`git worktree add --detach CHECKOUT COMMIT`); the other
version is the checkout of this file. Tasks, readings and everything else are this file's for both. Every search is
done by both versions, one after the other, in an order drawn at random. `run` is resumable.

`table` gives, for each task, in how many searches both suggested the same points throughout, the paired difference in
the share of the true hypervolume by budget with its 95 % interval (Student's t), and processor seconds a search.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from sampler_tasks import NAMES, load
from samplers import BUDGETS, EVALUATIONS, Recorder, optuna_run, optuna_samplers, progress, read

VERSIONS = ("before", "now")
HERE = Path(__file__).resolve()


def serve(name: str, evaluations: int) -> None:
    """Does a search for each seed on standard input and prints it as a line of JSON."""
    task, make = load(name), optuna_samplers()["pareto"]
    for line in sys.stdin:
        seed, start = int(line), time.process_time()
        recorder = Recorder(task, seed, evaluations)
        optuna_run(make, task, seed, recorder)
        seconds = round(time.process_time() - start, 2)
        index, shares = progress(task, recorder)
        print(json.dumps({"share": shares, "index": index.tolist(), "seconds": seconds}), flush=True)


def run(out: Path, before: Path, tasks: Sequence[str], repetitions: int, evaluations: int) -> None:
    """Does the searches that `out` lacks and appends them, one line each."""
    done = {(row["task"], row["seed"], row["version"]) for row in read(out)}
    out.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng()
    for task in tasks:
        wanted = [
            (seed, version)
            for seed in range(repetitions)
            for version in rng.permutation(VERSIONS).tolist()
            if (task, seed, version) not in done
        ]
        if not wanted:
            continue
        with ExitStack() as stack:
            servers: dict[str, Any] = {}
            for version, checkout in zip(VERSIONS, (before.resolve(), HERE.parents[1]), strict=True):
                command = [
                    sys.executable,
                    str(HERE),
                    "serve",
                    "--task",
                    task,
                    "--evaluations",
                    str(evaluations),
                ]
                servers[version] = stack.enter_context(
                    subprocess.Popen(
                        command,
                        env=os.environ | {"PYTHONPATH": str(checkout)},
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        text=True,
                    )
                )
            for seed, version in wanted:
                server = servers[version]
                print(seed, file=server.stdin, flush=True)
                row = {"task": task, "seed": seed, "version": version} | json.loads(server.stdout.readline())
                with out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(task, seed, version, row["share"][-1], row["seconds"], flush=True)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown, a line for each task."""
    from scipy.stats import t

    by = {(row["task"], row["seed"], row["version"]): row for row in rows}
    head = ["task", "searches", "the same throughout", *(f"now minus before at {n}" for n in BUDGETS)]
    head += [f"processor seconds {version}" for version in VERSIONS]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for task in NAMES:
        both = [
            (by[task, seed, "before"], by[task, seed, "now"])
            for seed in sorted({row["seed"] for row in rows if row["task"] == task})
            if all((task, seed, version) in by for version in VERSIONS)
        ]
        if len(both) < 2:
            continue
        gains = np.array([now["share"] for _, now in both]) - [before["share"] for before, _ in both]
        half = t.ppf(0.975, len(both) - 1) * gains.std(axis=0, ddof=1) / np.sqrt(len(both))
        cells = [task, str(len(both)), str(sum(before["index"] == now["index"] for before, now in both))]
        cells += [
            f"{gains[:, n - 1].mean():+.3f} ± {half[n - 1]:.3f}" for n in BUDGETS if n <= gains.shape[1]
        ]
        cells += [f"{np.median([pair[k]['seconds'] for pair in both]):.1f}" for k in (0, 1)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("run", "table", "serve"))
    parser.add_argument("--before", type=Path, help="the other checkout (run)")
    parser.add_argument("--out", type=Path, default=Path("runs/versions.jsonl"))
    parser.add_argument("--task", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--repetitions", type=int, default=8)
    parser.add_argument("--evaluations", type=int, default=EVALUATIONS, help="of each search; at least 100")
    options = parser.parse_args()
    if options.action == "serve":
        serve(options.task[0], options.evaluations)
    elif options.action == "table":
        print(table(read(options.out)))
    elif options.before is None:
        parser.error("run needs --before")
    else:
        run(options.out, options.before, options.task, options.repetitions, options.evaluations)


if __name__ == "__main__":
    main()
