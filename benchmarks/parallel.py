"""Samplers with several trainings at a time, on a simulated clock: share of the true hypervolume, and duplicates.

    python benchmarks/parallel.py run --out runs/parallel.jsonl [--workers 4 8 16] [--sampler gp pareto]
    python benchmarks/parallel.py table --out runs/parallel.jsonl

A worker that is free asks for a candidate at once and trains it; trainings last 0.5 to 1.5 units of time, at random but
the same for every sampler. A suggestion takes no time on that clock. So the sampler knows of as many running trials as
there are other workers, as in a search. A duplicate is a candidate with the params of an earlier one.

`pareto-space` is given the space. No other sampler knows it before a trial has ended, so that first trials are random.

Tables are those of `sampler_families.py`, one run on each; the share is that of what has been trained to its end.
"""

from __future__ import annotations

import argparse
import heapq
import json
import platform
import time
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from sampler_families import FIRST, load
from samplers import Recorder, optuna_samplers, read

WORKERS = (4, 8, 16)
SAMPLERS = ("random", "tpe", "gp", "pareto", "pareto-space")
EVALUATIONS = 48
BUDGETS = (16, 24, 32, 48)


def searched(task: Any, sampler: Any, workers: int, seed: int, evaluations: int) -> dict[str, Any]:
    """One search: the share after each training that ended, the number of duplicates, and seconds per suggestion."""
    import optuna

    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    recorder, rng = Recorder(task, seed, evaluations), np.random.default_rng([seed, 79])
    lasts = rng.uniform(0.5, 1.5, evaluations)
    running: list[tuple[float, int, Any, dict[str, Any]]] = []
    asked: list[tuple[Any, ...]] = []
    ended: list[tuple[float, float]] = []
    shares, clock, spent = [], 0.0, 0.0
    while len(ended) < evaluations:
        while len(running) < workers and len(asked) < evaluations:
            start = time.perf_counter()
            trial = study.ask()
            params = {name: trial.suggest_categorical(name, values) for name, values in task.choices.items()}
            spent += time.perf_counter() - start
            heapq.heappush(running, (clock + lasts[len(asked)], len(asked), trial, params))
            asked.append(tuple(params.values()))
        clock, _, trial, params = heapq.heappop(running)
        study.tell(trial, recorder(params))
        index = task.index(params)
        ended.append((float(task.means(index)[0]), float(task.costs(index)[0])))
        shares.append(round(task.share(np.array(ended)), 6))
    return {
        "share": shares,
        "duplicates": len(asked) - len(set(asked)),
        "seconds": round(spent / evaluations, 3),
    }


def made(name: str, task: Any, seed: int) -> Any:
    if name != "pareto-space":
        return optuna_samplers()[name](task, seed)
    from se_nas.samplers.pareto_sampler import ParetoSampler

    return ParetoSampler(known={1: task.cost}, seed=seed, space=task.choices)


def run(
    out: Path,
    families: Sequence[str],
    samplers: Sequence[str],
    workers: Sequence[int],
    tables: int,
    evaluations: int,
) -> None:
    """Does the runs that `out` lacks and appends them, one line each."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    keys = ("family", "table", "sampler", "workers")
    done = {tuple(row[key] for key in keys) for row in read(out)}
    out.parent.mkdir(parents=True, exist_ok=True)
    for number in range(FIRST, FIRST + tables):
        for family in families:
            task = load(f"{family}-{number}")
            for count in workers:
                for name in samplers:
                    what = family, number, name, count
                    if what in done:
                        continue
                    sampler = made(name, task, number)
                    row = dict(zip(keys, what, strict=True)) | searched(
                        task, sampler, count, number, evaluations
                    )
                    with out.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                    print(*what, row["share"][-1], row["duplicates"], row["seconds"], flush=True)


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: median shares by budget, duplicates of all runs together, and our share minus each rival's."""
    from scipy.stats import t

    packages = ", ".join(f"{package} {version(package)}" for package in ("optuna", "numpy", "scipy"))
    lines = [f"Python {platform.python_version()}, {packages}", ""]
    for family in sorted({row["family"] for row in rows}):
        head = [str(n) for n in BUDGETS] + ["duplicates", "of", "s a suggestion"]
        head += [f"pareto minus it at {n}" for n in BUDGETS]
        lines += [
            f"**{family}**",
            "",
            "| workers | sampler | " + " | ".join(head) + " |",
            "|---" * (len(head) + 2) + "|",
        ]
        for count in sorted({row["workers"] for row in rows}):
            by = {
                name: {
                    r["table"]: r
                    for r in rows
                    if (r["family"], r["workers"], r["sampler"]) == (family, count, name)
                }
                for name in SAMPLERS
            }
            for name, runs in by.items():
                if not runs:
                    continue
                shares = np.array([one["share"] for one in runs.values()])
                cells = [f"{np.median(shares[:, n - 1]):.3f}" for n in BUDGETS]
                cells += [str(sum(one["duplicates"] for one in runs.values())), str(shares.size)]
                cells.append(f"{np.median([one['seconds'] for one in runs.values()]):.2f}")
                both = sorted(runs.keys() & by["pareto"].keys())
                if not name.startswith("pareto") and len(both) > 1:
                    gains = np.array([by["pareto"][n]["share"] for n in both]) - [
                        runs[n]["share"] for n in both
                    ]
                    half = t.ppf(0.975, len(both) - 1) * gains.std(axis=0, ddof=1) / np.sqrt(len(both))
                    cells += [f"{gains[:, n - 1].mean():+.3f} ± {half[n - 1]:.3f}" for n in BUDGETS]
                else:
                    cells += [""] * len(BUDGETS)
                lines.append(f"| {count} | {name} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("run", "table"))
    parser.add_argument("--out", type=Path, default=Path("runs/parallel.jsonl"))
    parser.add_argument("--family", nargs="+", choices=("stages", "places"), default=["stages"])
    parser.add_argument("--sampler", nargs="+", choices=SAMPLERS, default=["gp", "pareto", "pareto-space"])
    parser.add_argument("--workers", type=int, nargs="+", default=list(WORKERS))
    parser.add_argument("--tables", type=int, default=8)
    parser.add_argument("--evaluations", type=int, default=EVALUATIONS)
    options = parser.parse_args()
    if options.evaluations < max(BUDGETS):
        parser.error(f"--evaluations is {options.evaluations}; it must be at least {max(BUDGETS)}")
    if options.action == "run":
        run(
            options.out, options.family, options.sampler, options.workers, options.tables, options.evaluations
        )
        return
    print(table(read(options.out)))


if __name__ == "__main__":
    main()
