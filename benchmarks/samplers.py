"""Samplers side by side: share of the true hypervolume against evaluations.

    python benchmarks/samplers.py run --out runs/samplers.jsonl [--task T ...] [--sampler S ...]
    python benchmarks/samplers.py table --out runs/samplers.jsonl [--plot docs/figures/samplers.png]
    python benchmarks/samplers.py speed [--readings 500]

`run` is resumable: each finished run is one line of JSON, and runs that are already there are skipped. The cost is a
known function for every sampler, but only se-nas's uses it. The front is scored with true means, never with readings.
`speed` times the suggestions of se-nas's sampler.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sampler_tasks import NAMES, Array, Task, load

EVALUATIONS = 100
MOASHA_EPOCHS = 9
LEVELS = (0.95, 0.98, 0.99)
BUDGETS = (10, 20, 30, 40, 60, 80, 100)


class Recorder:
    """Hands out noisy readings and keeps what was evaluated, in order.

    Attributes:
        rows: indices of the choices of every point.
        spent: how many evaluations each row took: one, unless a sampler stops trainings early.
    """

    def __init__(self, task: Task, seed: int, evaluations: int) -> None:
        self.task, self.evaluations = task, evaluations
        self.rows: list[list[int]] = []
        self.spent: list[float] = []
        self._rng = np.random.default_rng([seed, 77])

    def __call__(self, params: dict[str, Any]) -> tuple[float, float]:
        index = self.task.index(params)
        self.rows.append(index[0].tolist())
        self.spent.append(1.0)
        noise = self.task.noise * self._rng.standard_normal()
        return float(self.task.means(index)[0] + noise), float(self.task.costs(index)[0])


def optuna_run(make: Callable[[Task, int], Any], task: Task, seed: int, evaluate: Recorder) -> None:
    """Runs an Optuna sampler."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=make(task, seed))
    for _ in range(evaluate.evaluations):
        trial = study.ask()
        params = {name: trial.suggest_categorical(name, values) for name, values in task.choices.items()}
        study.tell(trial, evaluate(params))


def pymoo_run(task: Task, seed: int, evaluate: Recorder) -> None:
    """Runs pymoo's NSGA-II on choice indices, population 20, with its integer operators."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import ElementwiseProblem
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling
    from pymoo.optimize import minimize

    names, choices = list(task.choices), list(task.choices.values())

    class Problem(ElementwiseProblem):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(
                n_var=len(names), n_obj=2, xl=0, xu=np.array([len(c) - 1 for c in choices]), vtype=int
            )

        def _evaluate(self, x: Array, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            accuracy, cost = evaluate({n: c[int(i)] for n, c, i in zip(names, choices, x, strict=True)})
            out["F"] = [-accuracy, cost]

    algorithm = NSGA2(
        pop_size=20,
        sampling=IntegerRandomSampling(),
        crossover=SBX(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair()),
        mutation=PM(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=True,
    )
    minimize(Problem(), algorithm, ("n_eval", evaluate.evaluations), seed=seed, verbose=False)


def moasha_run(task: Task, seed: int, record: Recorder) -> None:
    """Runs syne-tune's MOASHA: random points, stopped by non-dominated rank at rungs.

    It needs trainings that report something before they end. After epoch e of 9 a candidate reports its reading
    minus 30 / 2^e points, the same for all: ranks at every rung are as good as at the end, which is the kindest
    case. Nine epochs are one evaluation; only points that were trained to the end count as found.
    """
    from datetime import datetime

    from syne_tune.backend.trial_status import Trial
    from syne_tune.config_space import choice
    from syne_tune.optimizer.scheduler import SchedulerDecision
    from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA

    # Its points and brackets come from numpy's global generator.
    np.random.seed(seed)
    scheduler = MOASHA(
        {name: choice(list(values)) for name, values in task.choices.items()},
        metrics=["error", "cost"],
        time_attr="epoch",
        max_t=MOASHA_EPOCHS,
        random_seed=seed,
    )
    while sum(record.spent) < record.evaluations:
        config = scheduler.suggest().config
        trial = Trial(trial_id=len(record.rows), config=config, creation_time=datetime.now())
        scheduler.on_trial_add(trial)
        accuracy, cost = record(config)
        for epoch in range(1, MOASHA_EPOCHS + 1):
            shown = accuracy - (30 / 2**epoch if epoch < MOASHA_EPOCHS else 0.0)
            result = {"epoch": epoch, "error": -shown, "cost": cost}
            if scheduler.on_trial_result(trial, result) == SchedulerDecision.STOP:
                break
        record.spent[-1] = epoch / MOASHA_EPOCHS


def optuna_samplers() -> dict[str, Callable[[Task, int], Any]]:
    from optuna import samplers

    def ours(task: Task, seed: int) -> Any:
        from se_nas.samplers.pareto_sampler import ParetoSampler

        return ParetoSampler(known={1: task.cost}, seed=seed)

    return {
        "random": lambda task, seed: samplers.RandomSampler(seed=seed),
        "tpe": lambda task, seed: samplers.TPESampler(seed=seed),
        "tpe-multivariate": lambda task, seed: samplers.TPESampler(seed=seed, multivariate=True),
        "nsga2": lambda task, seed: samplers.NSGAIISampler(seed=seed, population_size=20),
        "gp": lambda task, seed: samplers.GPSampler(seed=seed),
        "pareto": ours,
    }


SAMPLERS = ("random", "tpe", "tpe-multivariate", "nsga2", "pymoo-nsga2", "moasha", "gp", "pareto")


def run(
    out: Path,
    tasks: list[str],
    names: list[str],
    repetitions: int,
    evaluations: int,
    load: Callable[[str], Task] = load,
) -> None:
    """Does the runs that `out` lacks and appends them, one line per run."""
    done = {(row["task"], row["sampler"], row["seed"]) for row in read(out)}
    known = optuna_samplers()
    out.parent.mkdir(parents=True, exist_ok=True)
    for name in tasks:
        wanted = [(s, r) for r in range(repetitions) for s in names if (name, s, r) not in done]
        if not wanted:
            continue
        task = load(name)
        for sampler, seed in wanted:
            recorder, start = Recorder(task, seed, evaluations), time.perf_counter()
            if sampler == "pymoo-nsga2":
                pymoo_run(task, seed, recorder)
            elif sampler == "moasha":
                moasha_run(task, seed, recorder)
            else:
                optuna_run(known[sampler], task, seed, recorder)
            seconds = time.perf_counter() - start
            index, shares = progress(task, recorder)
            row = {
                "task": name,
                "sampler": sampler,
                "seed": seed,
                "seconds": round(seconds, 2),
                "share": shares,
            }
            with open(out, "a") as file:
                file.write(json.dumps(row | {"index": index.tolist()}) + "\n")
            print(f"{name} {sampler} seed {seed}: {shares[-1]:.4f} in {seconds:.1f} s", flush=True)


def progress(task: Task, recorder: Recorder) -> tuple[NDArray[np.int64], list[float]]:
    """The share of the hypervolume after each evaluation, over what was trained to its end by then."""
    spent = np.array(recorder.spent)
    ended = np.cumsum(spent) - 1e-9
    whole = (spent >= 1.0) & (ended <= recorder.evaluations)
    index, ended = np.array(recorder.rows)[whole], ended[whole]
    values = np.stack([task.means(index), task.costs(index)], axis=1)
    budgets = range(1, recorder.evaluations + 1)
    shares = [round(task.share(values[ended <= n]), 6) if (ended <= n).any() else 0.0 for n in budgets]
    return index, shares


def read(out: Path) -> list[dict[str, Any]]:
    """The finished runs; an incomplete last line (the process was killed while writing it) is dropped."""
    rows = []
    for line in out.read_text().splitlines() if out.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            print(f"{out}: dropped an unfinished line", file=sys.stderr)
    return rows


def first_at(shares: Array, level: float) -> float:
    """Evaluations until `level` is reached; infinite if it never is."""
    reached = np.flatnonzero(shares >= level)
    return float(reached[0] + 1) if len(reached) else np.inf


def table(rows: list[dict[str, Any]], tasks: Sequence[str] = NAMES) -> str:
    """Markdown: medians and quartiles by budget, evaluations to each level, paired differences."""
    lines = [
        f"Python {platform.python_version()}, "
        + ", ".join(f"{package} {version(package)}" for package in ("optuna", "numpy", "scipy")),
        "",
    ]  # fmt: skip
    for task in [name for name in tasks if any(row["task"] == name for row in rows)]:
        runs = {
            s: {
                row["seed"]: np.array(row["share"])
                for row in rows
                if (row["task"], row["sampler"]) == (task, s)
            }
            for s in SAMPLERS
        }
        runs = {name: by_seed for name, by_seed in runs.items() if by_seed}
        head = [f"{n}" for n in BUDGETS] + [f"to {level:.0%}" for level in LEVELS] + ["runs"]
        lines += [f"**{task}**", "", "| sampler | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
        for name, by_seed in runs.items():
            shares = np.stack(list(by_seed.values()))
            cells = [
                f"{np.median(c):.3f} ({np.quantile(c, 0.25):.3f}–{np.quantile(c, 0.75):.3f})"
                for c in (shares[:, n - 1] for n in BUDGETS)
            ]
            for level in LEVELS:
                middle = np.median([first_at(row, level) for row in shares])
                cells.append(f"{middle:.0f}" if np.isfinite(middle) else f"> {shares.shape[1]}")
            lines.append(f"| {name} | " + " | ".join([*cells, str(len(shares))]) + " |")
        lines += ["", *paired(runs), ""]
    return "\n".join(lines)


def paired(runs: dict[str, dict[int, Array]]) -> list[str]:
    """Our share minus each rival's on the same seeds: mean and 95 % interval (Student's t) at each budget."""
    from scipy.stats import t

    lines = [
        "| pareto minus | " + " | ".join(str(n) for n in BUDGETS) + " |",
        "|---" * (len(BUDGETS) + 1) + "|",
    ]
    for name in (n for n in runs if n != "pareto" and "pareto" in runs):
        seeds = sorted(set(runs[name]) & set(runs["pareto"]))
        if len(seeds) < 2:
            continue
        difference = np.stack([runs["pareto"][s] - runs[name][s] for s in seeds])
        half = t.ppf(0.975, len(seeds) - 1) * difference.std(axis=0, ddof=1) / np.sqrt(len(seeds))
        cells = [f"{difference[:, n - 1].mean():+.3f} ± {half[n - 1]:.3f}" for n in BUDGETS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines if len(lines) > 2 else []


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """One panel per task: median and quartiles of what is still missing, on a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    tasks = [name for name in NAMES if any(row["task"] == name for row in rows)]
    figure, panels = pyplot.subplots(1, len(tasks), figsize=(4.2 * len(tasks), 4), sharey=True, squeeze=False)
    colours = dict(zip(SAMPLERS, matplotlib.color_sequences["tab10"], strict=False))
    for panel, task in zip(panels[0], tasks, strict=True):
        for name in SAMPLERS:
            found = [row["share"] for row in rows if (row["task"], row["sampler"]) == (task, name)]
            if not found:
                continue
            low, middle, high = np.quantile(1 - np.array(found), [0.25, 0.5, 0.75], axis=0)
            steps = np.arange(1, len(middle) + 1)
            panel.plot(
                steps, middle, label=name, color=colours[name], linewidth=2.5 if name == "pareto" else 1.2
            )
            panel.fill_between(steps, low, high, color=colours[name], alpha=0.12, linewidth=0)
        panel.set(title=task, xlabel="evaluations", yscale="log", ylim=(1e-3, 1))
        panel.axhline(0.02, color="grey", linewidth=0.6, linestyle=":")
    panels[0][0].set_ylabel("share of the true hypervolume missing")
    lines = {
        label: line
        for axes in panels[0]
        for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    panels[0][-1].legend(lines.values(), lines.keys(), fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


SPACES = {"4,096": (6, 4), "10,000": (4, 10), "1,000,000": (6, 10), "2^20": (20, 2), "17 million": (12, 4)}
"""Size to its number of parameters and choices of each."""


def speed(readings: int, suggestions: int) -> str:
    """Markdown: seconds per suggestion of our sampler after that many random readings, on each of `SPACES`.

    The first suggestion computes the known costs of all points and fits the model from scratch, as after a resume.
    """
    import optuna
    from optuna.distributions import CategoricalDistribution
    from optuna.trial import create_trial

    from se_nas.samplers.pareto_sampler import ParetoSampler

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    lines = ["| points | first | median of the others | slowest of them |", "|---|---|---|---|"]
    for label, (width, size) in SPACES.items():
        names = [f"p{i:02d}" for i in range(width)]
        rng = np.random.default_rng(0)
        weights = rng.uniform(0.2, 1.0, width)

        def cost(params: dict[str, int], names: list[str] = names, weights: Array = weights) -> float:
            return float(weights @ [params[name] for name in names])

        def reading(params: dict[str, int], cost: Any = cost, rng: Any = rng) -> tuple[float, float]:
            return float(np.sqrt(cost(params)) + 0.1 * rng.standard_normal()), cost(params)

        space = {name: CategoricalDistribution(range(size)) for name in names}
        study = optuna.create_study(
            directions=["maximize", "minimize"], sampler=ParetoSampler(known={1: cost}, seed=0, space=space)
        )
        for row in rng.integers(size, size=(readings, width)).tolist():
            params = dict(zip(names, row, strict=True))
            study.add_trial(create_trial(params=params, distributions=space, values=reading(params)))
        taken = []
        for _ in range(suggestions):
            start = time.perf_counter()
            trial = study.ask(space)
            taken.append(time.perf_counter() - start)
            study.tell(trial, reading(trial.params))
        rest = taken[1:]
        lines.append(f"| {label} | {taken[0]:.2f} | {np.median(rest):.2f} | {max(rest):.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("run", "table", "speed"))
    parser.add_argument("--out", type=Path, default=Path("runs/samplers.jsonl"))
    parser.add_argument("--task", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--sampler", nargs="+", choices=SAMPLERS, default=list(SAMPLERS))
    parser.add_argument("--repetitions", type=int, default=8)
    parser.add_argument(
        "--evaluations", type=int, default=EVALUATIONS, help="evaluations of each run; at least 100"
    )
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--readings", type=int, default=500, help="number of readings beforehand (speed)")
    options = parser.parse_args()
    if options.action == "speed":
        print(speed(options.readings, suggestions=12))
        return
    if options.action == "run":
        run(options.out, options.task, options.sampler, options.repetitions, options.evaluations)
        return
    rows = [r for r in read(options.out) if r["task"] in options.task and r["sampler"] in options.sampler]
    print(table(rows))
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
