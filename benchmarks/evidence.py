"""What a second output of every training is worth to the sampler: the loss beside the accuracy.

    python benchmarks/evidence.py table PATH          a table of trainings, by seeds and by placements left out
    python benchmarks/evidence.py run --out runs/evidence.jsonl [--correlation 0.75 0] [--tables 16]
    python benchmarks/evidence.py summary --out runs/evidence.jsonl
    python benchmarks/evidence.py finals [PATH]       the loss as a control variate of finalists' accuracies

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

`finals` asks whether intervals of finalists may be narrowed by the loss: mean accuracy, less the slope of accuracy by
loss between seeds of one network, times how far the network's mean loss is from that of all finalists. It counts how
often 95 % intervals have the true mean, in simulated finals with the variances above, and on the table: the mean of
the seeds left out, from the others.
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


def finals(path: Path | None) -> str:
    """Markdown: coverage and half-width of 95 % intervals of accuracy, with and without the loss."""
    rng = np.random.default_rng(0)
    between, noise = np.array([0.20, 0.0123]), np.array([0.42, 0.0102])
    lines = [
        "| finals | networks | seeds | plain: coverage | half-width | with the loss: coverage | half-width |"
    ]
    lines.append("|---" * 7 + "|")

    def pair(correlation: float, shape: tuple[int, ...], sizes: Array) -> Array:
        """(*shape, 2) draws with this correlation and these deviations."""
        one, other = rng.standard_normal((2, *shape))
        other = correlation * one + np.sqrt(1 - correlation**2) * other
        return np.stack([one, other], axis=-1) * sizes

    for networks, seeds in ((6, 3), (6, 5), (12, 3)):
        found = []
        for _ in range(4000):
            truth = pair(-0.75, (networks, 1), between)
            read = truth + pair(-0.57, (networks, seeds), noise)
            found.append(_covered(read, truth[:, 0, 0], 0.0))
        lines.append(f"| simulated | {networks} | {seeds} | {_percentages(found)} |")
    if path is not None:
        rows = [json.loads(line) for line in path.read_text().splitlines() if line]
        seeds_of = sorted({row["seed"] for row in rows})
        values = np.array(
            [
                [
                    [row["acc"], row["loss"]]
                    for seed in seeds_of
                    for row in rows
                    if (row["p"], row["seed"]) == (p, seed)
                ]
                for p in sorted({row["p"] for row in rows})
            ]
        )
        found = []
        for _ in range(2000):
            chosen = values[rng.choice(len(values), 6, replace=False)]
            order = rng.permutation(len(seeds_of))
            left_out = chosen[:, order[3:], 0]
            found.append(_covered(chosen[:, order[:3]], left_out.mean(axis=1), 1 / left_out.shape[1]))
        lines.append(f"| of the table | 6 | 3 | {_percentages(found)} |")
    return "\n".join(lines)


def _covered(read: Array, truth: Array, further: float) -> list[float]:
    """Coverage and half-width of intervals for ``truth`` (n,), without and with the loss.

    Args:
        read: (n, n_seeds, 2) accuracies and losses.
        further: variance of ``truth`` itself, in variances of a reading.
    """
    from scipy.stats import t

    networks, seeds = read.shape[:2]
    means = read.mean(axis=1)
    apart = read - means[:, None]
    slope = (apart[..., 0] * apart[..., 1]).sum() / (apart[..., 1] ** 2).sum()
    out = []
    for use in (0.0, slope):
        dof = networks * (seeds - 1) - bool(use)
        rest = apart[..., 0] - use * apart[..., 1]
        centre = means[:, 0] - use * (means[:, 1] - means[:, 1].mean())
        # What is to be covered scatters by all of a reading's noise, whatever explains a part of it here.
        variance = (rest**2).sum() / dof / seeds + further * (apart[..., 0] ** 2).sum() / (
            networks * (seeds - 1)
        )
        half = t.ppf(0.975, dof) * np.sqrt(variance)
        out += [float((np.abs(centre - truth) <= half).mean()), float(half)]
    return out


def _percentages(found: list[list[float]]) -> str:
    plain, width, with_loss, narrower = np.mean(found, axis=0)
    return f"{plain:.1%} | {width:.2f} | {with_loss:.1%} | {narrower:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("table", "run", "summary", "finals"))
    parser.add_argument("path", type=Path, nargs="?", help="the table of trainings (table, finals)")
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
        print(finals(options.path))


if __name__ == "__main__":
    main()
