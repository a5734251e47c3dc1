"""How good the intervals and probabilities of a front are: ours and the usual ones, on simulated truth.

    python benchmarks/uncertainty.py [--rounds 400] [--data FOLDER]

Candidates have true levels, seeds move all candidates alike, and noise is added; each method sees three seeds. With
``--data`` (a folder with accel-nasbench/multiseed.csv) the noise is that of 117 real networks trained with three seeds:
two seeds predict the difference of two networks in the third.
"""

from __future__ import annotations

import argparse
import csv
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist

import numpy as np

from se_nas.pareto import (
    SeedModel,
    hypervolume,
    hypervolume_interval,
    next_training,
    non_dominated,
    probability_non_dominated,
    t_quantile_975,
)

DIRECTIONS = ["maximize", "minimize"]
COUNT, SEEDS, SD, SEED_SD, DRAWS = 10, 3, 0.25, 0.2, 400
REFERENCE = [74.0, 1.1]
Interval = Callable[[np.ndarray, np.random.Generator], tuple[float, float]]


def own_scatter(readings: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Two candidates with separate standard deviations, seeds not paired."""
    error = np.sqrt(readings[:2].var(axis=1, ddof=1).sum() / SEEDS)
    return float(readings[0].mean() - readings[1].mean()), t_quantile_975(2 * SEEDS - 2) * error


def paired_scatter(readings: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """The paired t-test of two candidates."""
    difference = readings[0] - readings[1]
    return float(difference.mean()), t_quantile_975(SEEDS - 1) * difference.std(ddof=1) / np.sqrt(SEEDS)


def seed_bootstrap(readings: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Percentiles over resampled seeds."""
    difference = readings[0] - readings[1]
    means = difference[rng.integers(0, SEEDS, (DRAWS, SEEDS))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return (low + high) / 2, (high - low) / 2


def pooled(readings: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """SeedModel: noise pooled over all candidates, seed levels removed."""
    return fit(readings).difference(0, 1)


def fit(readings: np.ndarray) -> SeedModel:
    model = SeedModel.fit([dict(enumerate(row)) for row in readings])
    assert model is not None
    return model


def simulate(rng: np.random.Generator, spread: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    levels = 75 + rng.normal(0, spread, COUNT)
    shift = rng.normal(0, SEED_SD, SEEDS)
    return levels, np.sort(rng.random(COUNT)), levels[:, None] + shift + rng.normal(0, SD, (COUNT, SEEDS))


def differences(rounds: int) -> None:
    ways: dict[str, Interval] = {
        "own scatter, t": own_scatter,
        "paired t-test": paired_scatter,
        "bootstrap over seeds": seed_bootstrap,
        "SeedModel": pooled,
    }
    rng = np.random.default_rng(0)
    hits: dict[str, list[bool]] = {name: [] for name in ways}
    widths: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        levels, _, readings = simulate(rng, 0.2)
        for name, way in ways.items():
            centre, half_width = way(readings, rng)
            hits[name].append(abs(centre - (levels[0] - levels[1])) <= half_width)
            widths[name].append(half_width)
    print(f"\nDifference of two candidates, 95 % intervals ({rounds} rounds)")
    for name in ways:
        print(
            f"  {name:24} holds the truth {np.mean(hits[name]):6.1%}   half width {np.mean(widths[name]):.2f}"
        )


def membership(rounds: int) -> None:
    for spread in (0.05, 0.2):
        rng = np.random.default_rng(1)
        said: dict[str, list[np.ndarray]] = {}
        true, coverage = [], {"quantiles of the draws": [], "hypervolume_interval": []}
        for _ in range(rounds):
            levels, costs, readings = simulate(rng, spread)
            model = fit(readings)
            picks = rng.integers(0, SEEDS, (DRAWS, SEEDS))
            draws = {
                "front of the means": readings.mean(axis=1)[None],
                "bootstrap over seeds": readings[:, picks].mean(axis=2).T,
                "SeedModel": model.draw(rng, DRAWS),
                "SeedModel, shrunk": model.shrunk().draw(rng, DRAWS),
            }
            for name, drawn in draws.items():
                said.setdefault(name, []).append(probability_non_dominated(drawn, costs, DIRECTIONS))
            true.append(non_dominated(np.column_stack([levels, costs]), DIRECTIONS))
            volume = hypervolume(np.column_stack([levels, costs]), REFERENCE, DIRECTIONS)
            low, high = hypervolume_interval(model.mean, draws["SeedModel"], costs, REFERENCE, DIRECTIONS)
            coverage["hypervolume_interval"].append(low <= volume <= high)
            drawn_volumes = [
                hypervolume(np.column_stack([row, costs]), REFERENCE, DIRECTIONS)
                for row in draws["SeedModel"]
            ]
            low, high = np.quantile(drawn_volumes, [0.025, 0.975])
            coverage["quantiles of the draws"].append(low <= volume <= high)
        print(f"\nOn the front or not, candidates {spread:g} points apart, noise {SD:g} ({rounds} rounds)")
        for name, values in said.items():
            error = np.mean((np.concatenate(values) - np.concatenate(true)) ** 2)
            print(f"  {name:24} Brier score {error:.3f}")
        for name, holds in coverage.items():
            print(f"  hypervolume, {name:22} contains the truth {np.mean(holds):6.1%}")


def allocation(rounds: int) -> None:
    wrong = {"equal seeds": 0, "next_training": 0}
    for number in range(rounds):
        rng = np.random.default_rng(number)
        truth, costs = 75 + rng.normal(0, 0.3, COUNT), np.arange(float(COUNT))
        true = non_dominated(np.column_stack([truth, costs]), DIRECTIONS)
        for name, base in (("equal seeds", 6), ("next_training", 3)):
            rng = np.random.default_rng(number)
            shift = rng.normal(0, SEED_SD, 20)
            readings: list[dict[int, float]] = [{} for _ in truth]
            for _ in range(6 * COUNT):
                step = next_training(
                    readings, costs, DIRECTIONS, rng=rng, seeds=range(20), base_seeds=base, settled=0.001
                )
                if step is None:
                    break
                i, seed = step
                readings[i][seed] = truth[i] + shift[seed] + rng.normal(0, SD)
            model = SeedModel.fit(readings)
            assert model is not None
            wrong[name] += int(
                (non_dominated(np.column_stack([model.mean, costs]), DIRECTIONS) != true).sum()
            )
    print(
        f"\n{6 * COUNT} trainings over {COUNT} candidates: wrong memberships of {rounds * COUNT}"
        f" ({rounds} rounds)"
    )
    for name, count in wrong.items():
        print(f"  {name:24} {count}")


def beyond_images(rounds: int, images: int = 400, population: int = 20_000) -> None:
    """An image's logit adds a shared difficulty, a candidate's part and a seed's part (0.7, half of it shared)."""
    rng = np.random.default_rng(0)
    grid = np.linspace(-12, 12, 4001)
    chance = 100 * np.vectorize(NormalDist().cdf)(grid / 0.7)
    names = ("seeds alone", "seeds and images")
    held, widths = np.zeros((2, 2)), np.zeros((2, 2))
    for _ in range(rounds):
        own = rng.normal(2, 0.15, (COUNT, 1)) + rng.normal(0, 0.6, (COUNT, population))
        logits = own - rng.normal(0, 1.5, population)
        truth = np.interp(logits, grid, chance).mean(axis=1)
        seen = logits[:, rng.choice(population, images, replace=False)]
        together = rng.normal(0, 0.495, (SEEDS, 1, images))
        bits = seen + together + rng.normal(0, 0.495, (SEEDS, *seen.shape)) > 0
        alone = SeedModel.fit([dict(enumerate(row)) for row in 100 * bits.mean(axis=2).T])
        assert alone is not None
        by_seed = [dict(enumerate(bits[:, i])) for i in range(COUNT)]
        for place, model in enumerate((alone, alone.with_images(by_seed))):
            value, half_width = model.difference(0, 1)
            held[place] += (
                abs(value - truth[0] + truth[1]) <= half_width,
                abs(model.mean[0] - truth[0]) <= model.half_width[0],
            )
            widths[place] += half_width, model.half_width[0]
    print(f"\nAccuracy on all images from {images} of them, 95 % intervals ({rounds} rounds)")
    for name, own_held, own_widths in zip(names, held / rounds, widths / rounds, strict=True):
        print(
            f"  {name:24} a difference {own_held[0]:.1%} (half width {own_widths[0]:.2f}),"
            f" a level {own_held[1]:.1%} ({own_widths[1]:.2f})"
        )


def real_noise(folder: Path) -> None:
    path = folder / "accel-nasbench" / "multiseed.csv"
    if not path.is_file():
        print(f"\nReal seeds: skipped, {path} does not exist.")
        return
    tables: dict[str, dict[str, dict[int, float]]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            name = "-".join(value for key, value in row.items() if key.startswith("b"))
            tables.setdefault(row["fidelity"], {}).setdefault(name, {})[int(row["seed"])] = float(row["top1"])
    rng = np.random.default_rng(0)
    print("\nReal seeds (Accel-NASBench): two seeds of 15 networks predict a difference in the third")
    for fidelity, table in tables.items():
        seeds = sorted(next(iter(table.values())))
        full = [own for own in table.values() if len(own) == len(seeds)]
        model = SeedModel.fit(full)
        assert model is not None
        hits = []
        for _ in range(500):
            chosen = [full[i] for i in rng.choice(len(full), 15, replace=False)]
            part = SeedModel.fit([{seed: own[seed] for seed in seeds[:2]} for own in chosen])
            assert part is not None
            centre, half_width = part.difference(0, 1)
            third = chosen[0][seeds[2]] - chosen[1][seeds[2]]
            # A mean of two seeds has half the variance of a reading; its difference to a third has 3/2 of it.
            hits.append(abs(centre - third) <= half_width * np.sqrt(3))
        print(
            f"  {fidelity:6} {len(full)} networks: noise {model.sd:.2f}, seed levels {model.seed_sd:.2f}"
            f" points; contains it in {np.mean(hits):.1%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    arguments = parser.parse_args()
    started = time.perf_counter()
    print(f"NumPy {np.__version__}, Python {platform.python_version()}, {platform.machine()}")
    print(f"{COUNT} candidates, {SEEDS} seeds, noise {SD:g}, seed levels {SEED_SD:g} points")
    differences(arguments.rounds)
    membership(arguments.rounds)
    allocation(arguments.rounds)
    beyond_images(arguments.rounds)
    real_noise(arguments.data)
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
