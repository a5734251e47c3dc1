"""What a second output of every training is worth to the sampler: the loss beside the accuracy.

    python benchmarks/evidence.py table PATH          a table of trainings, by seeds and by placements left out
    python benchmarks/evidence.py run --out runs/evidence.jsonl [--correlation 0.75 0] [--tables 16]
    python benchmarks/evidence.py summary --out runs/evidence.jsonl
    python benchmarks/evidence.py fit                 seconds per fit, with the second output and without

`table` reads JSON lines with `p` (a string of 0 and 1, SE off or on block by block), `seed`, `acc` and `loss`. The
model gets one reading of each placement; scored is Kendall's τ of its posterior mean with the mean accuracy over the
other seeds, of placements that it has seen, and of those that it has not (a quarter at a time). `loss` is the model of
the loss alone, its sign turned.

`run` searches tables that are drawn at random (`sampler_families.py`), each with a second output that correlates with
the true accuracy as asked for. Signals and noises are those of 120 trainings of resnet18 with SE on
Tiny-ImageNet-20: readings of one network differ 2.1 times as much in accuracy as networks do, and 0.83 times in loss;
the noises correlate at 0.76 of the true values' correlation. With `--signal task` the noise of the accuracy is the
table's own. Both samplers get the same noise. `run` is resumable; `summary` prints shares of the true hypervolume and
paired differences.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sampler_families import FIRST, load
from sampler_tasks import Array, Task
from samplers import LEVELS, Recorder, first_at, progress, read

NOISE_OVER_SIGNAL = 2.1, 0.83
NOISE_CORRELATION = 0.76
BUDGETS = (5, 10, 15, 20, 30, 40, 60)
CORRELATIONS = (0.75, 0.0)
FAMILIES = ("stages", "places")
MODELS = ("accuracy", "loss", "both")
FOLDS, DIVISIONS = 4, 6


def table(path: Path) -> str:
    """Markdown: Kendall's τ of each model and paired differences, with 95 % intervals over seeds and placements."""
    from scipy.stats import kendalltau

    rows = [json.loads(line) for line in path.read_text().splitlines() if line]
    placements, seeds = sorted({row["p"] for row in rows}), sorted({row["seed"] for row in rows})
    read_at = {(row["p"], row["seed"]): (row["acc"], row["loss"]) for row in rows}
    values = np.array([[read_at[p, seed] for seed in seeds] for p in placements])
    index = np.array([[int(on) for on in p] for p in placements])
    rng = np.random.default_rng(0)
    divisions = [np.array_split(rng.permutation(len(placements)), FOLDS) for _ in range(DIVISIONS)]
    # Posterior means (n_placements,) by what was left out, seed and model; those of unseen ones for each division.
    seen = np.stack([_means(index, values[:, s], index) for s in range(len(seeds))])
    unseen = np.empty((DIVISIONS, *seen.shape))
    for d, folds in enumerate(divisions):
        for s in range(len(seeds)):
            for out in folds:
                known = np.setdiff1d(np.arange(len(placements)), out)
                unseen[d, s][:, out] = _means(index[known], values[known, s], index[out])

    def scores(chosen: Array, drawn: Array) -> dict[str, Array]:
        """(n_models,) mean τ over the seeds ``drawn``, of the placements ``chosen``."""
        found: dict[str, list[list[float]]] = {"seen": [], "unseen": []}
        for s in drawn:
            others = np.delete(np.arange(len(seeds)), s)
            truth = values[:, others, 0].mean(axis=1)[chosen]
            found["seen"].append([kendalltau(one[chosen], truth)[0] for one in seen[s]])
            found["unseen"] += [
                [kendalltau(one[chosen], truth)[0] for one in unseen[d, s]] for d in range(DIVISIONS)
            ]
        return {name: np.nanmean(each, axis=0) for name, each in found.items()}

    everything = scores(np.arange(len(placements)), np.arange(len(seeds)))
    draws = [
        scores(rng.integers(len(placements), size=len(placements)), rng.integers(len(seeds), size=len(seeds)))
        for _ in range(300)
    ]
    lines = [
        f"{len(placements)} placements, {len(seeds)} seeds; Kendall's τ with the mean of the other seeds", "",
        "| placements | " + " | ".join(MODELS) + " | both minus accuracy |", "|---" * (len(MODELS) + 2) + "|",
    ]  # fmt: skip
    for name, taus in everything.items():
        gains = [draw[name][2] - draw[name][0] for draw in draws]
        low, high = np.quantile(gains, [0.025, 0.975])
        cells = [f"{tau:.3f}" for tau in taus]
        lines.append(
            f"| {name} | {' | '.join(cells)} | {taus[2] - taus[0]:+.3f} ({low:+.3f} to {high:+.3f}) |"
        )
    return "\n".join(lines)


def _means(index: Array, values: Array, at: Array) -> Array:
    """(n_models, n_at) posterior means after one reading (accuracy, loss) of each of some placements."""
    from se_nas.samplers._gp import Surrogate
    from se_nas.samplers._likelihood import Points
    from se_nas.samplers._paired_gp import PairedSurrogate

    def points(rows: Array) -> Points:
        return Points(index=rows, features=np.zeros((len(rows), 0)))

    positions = [np.array([0.0, 1.0])] * index.shape[1]
    models = (
        Surrogate(positions, points(index), values[:, 0]),
        Surrogate(positions, points(index), -values[:, 1]),
        PairedSurrogate(positions, points(index), values),
    )
    return np.stack([model.predict(points(at))[0] for model in models])


class TwoReadings:
    """A table with a second output. Readings are drawn in the order of evaluations, the same for every sampler."""

    def __init__(self, task: Task, other: Task, correlation: float, signal: str, seed: int) -> None:
        sizes = [len(values) for values in task.choices.values()]
        index = np.stack(np.unravel_index(np.arange(int(np.prod(sizes))), sizes), axis=1)
        means, others = task.means(index), other.means(index)
        # What the two have in common by chance is taken out, so that the correlation is the one asked for.
        first, second = _standard(means), _standard(others)
        second = _standard(second - (second @ first) / len(first) * first)
        self._sizes, self._means = sizes, means
        self._loss = -(correlation * first + np.sqrt(1 - correlation**2) * second)
        self._noise = task.noise if signal == "task" else NOISE_OVER_SIGNAL[0] * means.std()
        self._shared = -NOISE_CORRELATION * correlation
        self._rng = np.random.default_rng([seed, 78])
        self.task = task

    def read(self, params: dict[str, Any]) -> tuple[float, float, float]:
        """Accuracy, loss and cost."""
        index = self.task.index(params)
        at = int(np.ravel_multi_index(tuple(index[0]), self._sizes))
        one, other = self._rng.standard_normal(2)
        other = self._shared * one + np.sqrt(1 - self._shared**2) * other
        accuracy = self._means[at] + self._noise * one
        loss = 1.3 + 0.0123 * (self._loss[at] + NOISE_OVER_SIGNAL[1] * other)
        return float(accuracy), float(loss), float(self.task.costs(index)[0])


def _standard(values: Array) -> Array:
    return np.asarray((values - values.mean()) / values.std())


def run(
    out: Path, tables: Sequence[int], correlations: Sequence[float], signal: str, evaluations: int
) -> None:
    """Does the runs that `out` lacks and appends them, one line each."""
    import optuna

    from se_nas.samplers.pareto_sampler import ParetoSampler

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    keys = ("family", "table", "correlation", "signal", "evidence")
    done = {tuple(row[key] for key in keys) for row in read(out)}
    out.parent.mkdir(parents=True, exist_ok=True)
    for number in tables:
        for family in FAMILIES:
            task, other = load(f"{family}-{number}"), load(f"{family}-{number + 500}")
            for correlation in correlations:
                for evidence in (False, True):
                    # Without evidence, it does not matter what the evidence would have been.
                    what = family, number, correlation if evidence else None, signal, evidence
                    if what in done:
                        continue
                    done.add(what)
                    readings = TwoReadings(task, other, correlation, signal, number)
                    sampler = ParetoSampler(
                        known={1: task.cost},
                        seed=number,
                        repeats=True,
                        evidence={0: "loss"} if evidence else None,
                    )
                    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
                    recorder, start = Recorder(task, number, evaluations), time.perf_counter()
                    for _ in range(evaluations):
                        trial = study.ask()
                        params = {n: trial.suggest_categorical(n, v) for n, v in task.choices.items()}
                        recorder(params)
                        accuracy, loss, cost = readings.read(params)
                        trial.set_user_attr("loss", loss)
                        study.tell(trial, (accuracy, cost))
                    shares = progress(task, recorder)[1]
                    row = dict(zip(keys, what, strict=True)) | {"share": shares}
                    row |= {"seconds": round(time.perf_counter() - start, 1)}
                    with out.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                    print(*what, shares[-1], row["seconds"], flush=True)


def summary(rows: list[dict[str, Any]]) -> str:
    """Markdown: shares of the true hypervolume by budget, evaluations to each level, and paired differences."""
    from scipy.stats import t

    lines = []
    for signal in sorted({row["signal"] for row in rows}):
        for family in FAMILIES:
            by: dict[Any, dict[int, Array]] = {}
            for row in rows:
                if (row["signal"], row["family"]) == (signal, family):
                    by.setdefault(row["correlation"], {})[row["table"]] = np.array(row["share"])
            if None not in by:
                continue
            budgets = [n for n in BUDGETS if n <= min(len(s) for runs in by.values() for s in runs.values())]
            head = [str(n) for n in budgets] + [f"to {level:.0%}" for level in LEVELS] + ["runs"]
            lines += [f"**{family}, signal of the {'table' if signal == 'task' else 'trainings'}**", ""]
            lines += ["| correlation | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
            for correlation, runs in sorted(by.items(), key=lambda item: -2 if item[0] is None else -item[0]):
                shares = np.stack(list(runs.values()))
                cells = [f"{np.median(shares[:, n - 1]):.3f}" for n in budgets]
                for level in LEVELS:
                    middle = np.median([first_at(row, level) for row in shares])
                    cells.append(f"{middle:.0f}" if np.isfinite(middle) else f"> {shares.shape[1]}")
                name = "accuracy alone" if correlation is None else f"{correlation:g}"
                lines.append(f"| {name} | {' | '.join([*cells, str(len(shares))])} |")
                both = sorted(runs.keys() & by[None].keys())
                if correlation is not None and len(both) > 1:
                    gains = np.stack([runs[number] - by[None][number] for number in both])
                    half = t.ppf(0.975, len(both) - 1) * gains.std(axis=0, ddof=1) / np.sqrt(len(both))
                    cells = [f"{gains[:, n - 1].mean():+.3f} ± {half[n - 1]:.3f}" for n in budgets]
                    lines.append(f"| minus alone | {' | '.join(cells)} |" + " |" * (len(LEVELS) + 1))
            lines.append("")
    return "\n".join(lines)


def fit() -> str:
    """Markdown: milliseconds per fit (process time, median of 7 tables) with both outputs and with one."""
    from se_nas.samplers._gp import Surrogate
    from se_nas.samplers._likelihood import Points
    from se_nas.samplers._paired_gp import PairedSurrogate

    lines = [
        "| parameters | choices | readings | one output, ms | two outputs, ms | ratio |",
        "|---" * 6 + "|",
    ]
    for width, size in ((4, 5), (8, 3), (16, 2)):
        for readings in (12, 40, 128):
            taken = np.empty((7, 2))
            for seed in range(len(taken)):
                rng = np.random.default_rng(seed)
                index = rng.integers(size, size=(readings, width))
                truth = index @ rng.standard_normal(width)
                points = Points(index=index, features=rng.standard_normal((readings, 2)))
                values = np.stack([truth, -truth], axis=1) + rng.standard_normal((readings, 2))
                positions = [np.linspace(0, 1, size)] * width
                start = time.process_time()
                Surrogate(positions, points, values[:, 0])
                middle = time.process_time()
                PairedSurrogate(positions, points, values)
                taken[seed] = middle - start, time.process_time() - middle
            one, two = 1000 * np.median(taken, axis=0)
            lines.append(f"| {width} | {size} | {readings} | {one:.1f} | {two:.1f} | {two / one:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("table", "run", "summary", "fit"))
    parser.add_argument("path", type=Path, nargs="?", help="the table of trainings (table)")
    parser.add_argument("--out", type=Path, default=Path("runs/evidence.jsonl"))
    parser.add_argument("--correlation", type=float, nargs="+", default=list(CORRELATIONS))
    parser.add_argument("--signal", choices=("trainings", "task"), default="trainings")
    parser.add_argument("--tables", type=int, default=16)
    parser.add_argument("--evaluations", type=int, default=60)
    options = parser.parse_args()
    if options.action == "table":
        if options.path is None:
            parser.error("table needs the path of a table")
        print(table(options.path))
    elif options.action == "run":
        numbers = [FIRST + i for i in range(options.tables)]
        run(options.out, numbers, options.correlation, options.signal, options.evaluations)
    elif options.action == "summary":
        print(summary(read(options.out)))
    else:
        print(fit())


if __name__ == "__main__":
    main()
