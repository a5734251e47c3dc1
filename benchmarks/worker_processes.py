"""Samplers with several processes that share one study on a PostgreSQL server: duplicates and the hypervolume found.

    python benchmarks/worker_processes.py run --out runs/processes.jsonl [--workers 4 8 16] [--tables 2]
    python benchmarks/worker_processes.py table --out runs/processes.jsonl

Trainings take 0.02 s, less than a suggestion, so that nearly all suggestions are made at the same instant as others.
`gp` and `pareto` are Optuna's own loop in every process, over its `RDBStorage`: GPSampler, which takes running trials
into account, each process with a seed of its own; and ParetoSampler, with equal seeds and `space=`. `se-nas` is what
workers of `se-nas search --storage` do, turns and claims included; only the trainings are simulated.

The space is per_stage of resnet18, accuracy against parameters. Accuracies are drawn: a gain for each stage, which
shrinks as γ grows, effects of pairs of stages, and noise. The share is that of the hypervolume of the whole space, by
true means of the first trials by number. A duplicate is a network that an earlier trial has, unless the sampler asks
for another reading on purpose.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import scaling
from sampler_tasks import Array, area, staircase
from samplers import read

WORKERS = (4, 8, 16)
SAMPLERS = ("gp", "pareto", "se-nas")
TRIALS = 36
BUDGETS = (12, 18, 24, 36)
SECONDS = 0.02
NOISE = 0.1
DIRECTIONS = ["maximize", "minimize"]


class Table:
    """True accuracies and costs of every network of a space, and readings of them."""

    def __init__(self, plan: Any, number: int) -> None:
        rng = np.random.default_rng([number, 83])
        networks = {network.key: network for network in plan.space.enumerate()}
        stages = sorted({site.stage for network in networks.values() for site in network.sites})
        gain = rng.uniform(0.2, 1.0, len(stages)) * rng.choice([1, 1, 1, -0.5], len(stages))
        decay = rng.uniform(0.05, 0.25, len(stages))
        pairs = np.triu(rng.normal(0, 0.15, (len(stages), len(stages))), 1)
        axis = plan.axes["params"]
        self._means, self._costs = {}, {}
        for key, network in networks.items():
            strength = np.zeros(len(stages))
            for site, width in zip(network.sites, network.widths, strict=True):
                if width:
                    place = stages.index(site.stage)
                    strength[place] = 1 - decay[place] * np.log2(site.channels / width)
            self._means[key] = 74 + float(strength @ gain + strength @ pairs @ strength)
            self._costs[key] = float(axis.fields(network)["num_params"])
        self._number = number
        everything = self.values(list(networks))
        self._worst = float(everything[:, 0].min()), float(everything[:, 1].max())
        self._whole = area(staircase(everything), self._worst)

    def values(self, keys: Sequence[str]) -> Array:
        """(n, 2) true accuracies and costs."""
        return np.array([[self._means[key], self._costs[key]] for key in keys])

    def share(self, keys: Sequence[str]) -> float:
        """Of the hypervolume of the whole space."""
        return area(staircase(self.values(keys)), self._worst) / self._whole

    def reading(self, key: str, seed: int) -> float:
        """What a training of this network with this seed ends with."""
        rng = np.random.default_rng([self._number, seed, zlib.crc32(key.encode())])
        return self._means[key] + NOISE * float(rng.standard_normal())


def in_processes(count: int, work: Callable[[int], None]) -> None:
    """Does the same in so many forked processes at a time, each with its number.

    Raises:
        RuntimeError: one has failed.
    """
    forks = multiprocessing.get_context("fork")
    processes = [forks.Process(target=work, args=(number,)) for number in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise RuntimeError(f"exit codes {[process.exitcode for process in processes]}")


def storage_at(url: str) -> Any:
    from optuna.storages import RDBStorage

    return RDBStorage(url, engine_kwargs={"pool_size": 1})


def by_optuna(url: str, name: str, workers: int, plan: Any, table: Table) -> list[tuple[str, str]]:
    """Key and source of every trial, by number, of a study in Optuna's own storage."""
    import optuna

    from se_nas import ParetoSampler
    from se_nas.space.costs import KnownCost

    def begin(_: int) -> None:
        optuna.create_study(study_name="one", storage=storage_at(url), directions=DIRECTIONS)

    def work(number: int) -> None:
        sampler: Any = optuna.samplers.GPSampler(seed=number)
        if name == "pareto":
            cost = KnownCost(plan.space, plan.axes["params"].by_widths())
            key = plan.space.architecture
            sampler = ParetoSampler(
                known={1: cost}, seed=0, key=lambda params: key(params).key, space=plan.space.choices
            )
        study = optuna.load_study(study_name="one", storage=storage_at(url), sampler=sampler)
        while True:
            trial = study.ask()
            if trial.number >= TRIALS:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
                return
            network = plan.space.suggest(trial)
            trial.set_user_attr("key", network.key)
            time.sleep(SECONDS)
            study.tell(trial, [table.reading(network.key, 0), float(table.values([network.key])[0, 1])])

    in_processes(1, begin)
    in_processes(workers, work)
    found: list[tuple[str, str]] = []
    trials = optuna.load_study(study_name="one", storage=storage_at(url)).trials[:TRIALS]
    for trial in trials:
        found.append((trial.user_attrs["key"], trial.system_attrs.get("se_nas:model", {}).get("source", "")))
    return found


def by_us(url: str, workers: int, plan: Any, scratch: Path, table: Table) -> list[tuple[str, str]]:
    """As `by_optuna`, of a study that workers of se-nas share."""
    from se_nas.study import peers, session
    from se_nas.study.interrupts import Interrupts
    from se_nas.study.patience import Patience
    from se_nas.study.progress import Progress

    scaling.accuracy_of = lambda key, seed, gates: table.reading(key, seed)
    session.make_executor = lambda *given: scaling.Simulated(SECONDS)
    session.what_mattered = lambda plan, store: {}

    def begin(_: int) -> None:
        scaling.begin(plan)

    def work(_: int) -> None:
        folder = peers.run_folder(plan.path, plan.config, peers.read(url, plan.config.study)[1])
        with closing(peers.connect(plan.config, folder, patience=Patience())) as store:
            session._search(plan, folder, store, Progress(), Interrupts(lambda text: None))

    in_processes(1, begin)
    in_processes(workers, work)
    folder = peers.run_folder(plan.path, plan.config, peers.read(url, plan.config.study)[1])
    with closing(peers.connect(plan.config, folder)) as store:
        trials = [
            trial for trial in store.trials() if trial.values and "duplicate_of" not in trial.user_attrs
        ]
        return [
            (store.row(trial.number)["key"], trial.system_attrs.get("se_nas:model", {}).get("source", ""))
            for trial in trials
        ]


def run(out: Path, samplers: Sequence[str], workers: Sequence[int], tables: int) -> None:
    """Does the runs that `out` lacks and appends them, one line each."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    keys = ("table", "sampler", "workers")
    done = {tuple(row[key] for key in keys) for row in read(out)}
    out.parent.mkdir(parents=True, exist_ok=True)
    os.environ["PGPASSWORD"] = scaling.PASSWORD
    server = scaling.Durable()
    scaling.print_machine()
    try:
        for number in range(tables):
            for count in workers:
                for name in samplers:
                    if (number, name, count) in done:
                        continue
                    study = f"{name}-{count}-{number}"
                    url = server.new_database(study)
                    with tempfile.TemporaryDirectory() as scratch:
                        plan = scaling.make_plan(
                            Path(scratch),
                            url,
                            study,
                            "pareto",
                            TRIALS,
                            backbone="resnet18",
                            space="per_stage",
                        )
                        table, start = Table(plan, number), time.perf_counter()
                        if name == "se-nas":
                            found = by_us(url, count, plan, Path(scratch), table)
                        else:
                            found = by_optuna(url, name, count, plan, table)
                    asked = [key for key, source in found if source != "repeat"]
                    row = {"table": number, "sampler": name, "workers": count, "trials": len(found)}
                    row["share"] = [round(table.share([key for key, _ in found[:n]]), 5) for n in BUDGETS]
                    row["duplicates"] = len(asked) - len(set(asked))
                    row["seconds"] = round(time.perf_counter() - start, 1)
                    with out.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                    print(row, flush=True)
    finally:
        server.remove()


def summary(rows: list[dict[str, Any]]) -> str:
    """Markdown: mean shares by budget, duplicates of all tables together, and shares minus those of `gp`.

    The differences are paired by table, with 95 % intervals (Student's t).
    """
    from scipy.stats import t

    head = ["processes", "sampler", *(f"share at {n}" for n in BUDGETS), "least at 36", "duplicates", "of"]
    head += ["s a search", "searches", *(f"minus gp at {n}" for n in BUDGETS)]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for count in sorted({row["workers"] for row in rows}):
        by = {
            name: {row["table"]: row for row in rows if (row["workers"], row["sampler"]) == (count, name)}
            for name in SAMPLERS
        }
        for name, runs in by.items():
            if not runs:
                continue
            some = list(runs.values())
            shares = np.array([row["share"] for row in some])
            cells = [f"{share:.3f}" for share in shares.mean(axis=0)] + [f"{shares[:, -1].min():.3f}"]
            cells += [str(sum(row[what] for row in some)) for what in ("duplicates", "trials")]
            cells += [f"{np.median([row['seconds'] for row in some]):.0f}", str(len(some))]
            both = sorted(runs.keys() & by["gp"].keys())
            if name != "gp" and len(both) > 1:
                gains = np.array([runs[n]["share"] for n in both]) - [by["gp"][n]["share"] for n in both]
                half = t.ppf(0.975, len(both) - 1) * gains.std(axis=0, ddof=1) / np.sqrt(len(both))
                cells += [f"{gain:+.3f} ± {h:.3f}" for gain, h in zip(gains.mean(axis=0), half, strict=True)]
            else:
                cells += [""] * len(BUDGETS)
            lines.append(f"| {count} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("run", "table"))
    parser.add_argument("--out", type=Path, default=Path("runs/processes.jsonl"))
    parser.add_argument("--sampler", nargs="+", choices=SAMPLERS, default=list(SAMPLERS))
    parser.add_argument("--workers", type=int, nargs="+", default=list(WORKERS))
    parser.add_argument("--tables", type=int, default=2)
    options = parser.parse_args()
    if options.action == "run":
        run(options.out, options.sampler, options.workers, options.tables)
        return
    print(summary(read(options.out)))


if __name__ == "__main__":
    main()
