"""Samplers side by side on complete tables that are drawn at random.

    python benchmarks/sampler_families.py run --out runs/families.jsonl [--tables 16] [--sampler S ...]
    python benchmarks/sampler_families.py table --out runs/families.jsonl

A sampler may suit a fixed task by chance, or because it was developed on it. A family is a distribution of tables,
and a number draws one of them; each sampler runs once on each table. `table` prints what `benchmarks/samplers.py`
prints, over tables instead of repetitions, and the ratio of evaluations to 98 %.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sampler_tasks import Array, Task, synthetic
from samplers import EVALUATIONS, SAMPLERS, first_at, read, run, table

Index = NDArray[np.int64]


def places(number: int) -> Task:
    """SE at 8 places of a ResNet, 3 choices each (none, γ 16, γ 4), accuracy against MACs: 6,561 networks.

    Costs are those of SE blocks with two places per stage; gains, a fifth of them negative, are independent
    of costs. Readings scatter by 0.1 to 0.3 points, about as much as accuracies differ.
    """
    rng = np.random.default_rng([4242, number])
    count, ratios = 8, (16, 4)
    channels = np.repeat([64, 128, 256, 512], 2) * rng.choice([1, 4])
    pixels = np.repeat([56, 28, 14, 7], 2) ** 2
    widths = np.maximum(8, channels[:, None] // np.array(ratios))
    costs = np.column_stack([np.zeros(count), 2 * channels[:, None] * (widths + pixels[:, None]) / 1e6])
    gain = np.abs(rng.normal(0.25, 0.25, count))
    gain *= np.where(rng.random(count) < 0.2, -0.5, 1.0)
    gains = np.column_stack([np.zeros(count), gain * rng.uniform(0.6, 1.0, count), gain])
    strength = rng.choice([0.0, 0.15, 0.3])
    pairs = np.triu(strength * rng.standard_normal((count, count)), 1)
    pairs *= np.sqrt(np.abs(np.outer(gain, gain)))
    residual = 0.3 * rng.choice([0.0, 0.05, 0.1]) * rng.standard_normal(3**count)
    each = np.arange(count)

    def means(index: Index) -> Array:
        on = (index > 0).astype(float)
        at = np.ravel_multi_index(tuple(index.T), (3,) * count)
        return 74.0 + gains[each, index].sum(axis=1) + ((on @ pairs) * on).sum(axis=1) + residual[at]

    return Task(
        name=f"places-{number}",
        choices={f"place{i}": (0, *ratios) for i in range(count)},
        means=means,
        costs=lambda index: 1800.0 + costs[each, index].sum(axis=1),
        noise=float(rng.choice([0.1, 0.2, 0.3])),
    )


def mixed(number: int) -> Task:
    """A random space of 300 to 20,000 points: 4 to 9 parameters of 2 to 6 choices.

    Effects are those of a γ (none, then ever wider), monotone, or arbitrary, and a share of the parameters does
    harm. Interactions, saturation and costs that multiply occur in some tables. Noise is 0.1 to 0.6 of the accuracies'
    deviation.
    """
    rng = np.random.default_rng([999, number])
    sizes = np.zeros(0, dtype=int)
    while not 300 <= np.prod(sizes) <= 20_000:
        sizes = rng.integers(2, 7, int(rng.integers(4, 10)))
    count = len(sizes)
    kind = rng.choice(["gamma", "gamma", "arbitrary", "monotone"])
    interaction, noise = rng.choice([0.0, 0.25, 0.5]), rng.choice([0.1, 0.3, 0.6])
    scale = rng.lognormal(0, 0.7, count)
    harmful = rng.random(count) < rng.choice([0.0, 0.25, 0.5])
    effects, prices = [], []
    for size, own, bad in zip(sizes, scale, harmful, strict=True):
        effect, price = _effect(str(kind), int(size), bool(bad), rng)
        effects.append(own * effect)
        prices.append(rng.lognormal(0, 1.0) * price)
    pairs: dict[tuple[int, int], Array] = {}
    for a in range(count):
        for b in range(a):
            table = interaction * rng.standard_normal((sizes[a], sizes[b])) * np.sqrt(scale[a] * scale[b])
            table *= 0.5 / np.sqrt(count)
            if kind != "arbitrary":
                table[0], table[:, 0] = 0.0, 0.0
            pairs[a, b] = table
    saturates, multiplies = rng.random() < 0.3, rng.random() < 0.3

    def raw(index: Index) -> Array:
        out = np.sum([effects[i][index[:, i]] for i in range(count)], axis=0)
        for (a, b), table in pairs.items():
            out = out + table[index[:, a], index[:, b]]
        return np.asarray(out)

    everything = raw(np.stack(np.unravel_index(np.arange(int(np.prod(sizes))), sizes), axis=1))

    def means(index: Index) -> Array:
        score = (raw(index) - everything.mean()) / everything.std()
        return 70.0 + (1.5 * np.tanh(score / 1.5) if saturates else score)

    def costs(index: Index) -> Array:
        total = np.sum([prices[i][index[:, i]] for i in range(count)], axis=0)
        return np.exp(total / sum(price.max() for price in prices)) if multiplies else 1.0 + total

    choices: dict[str, tuple[Any, ...]] = {f"p{i}": tuple(range(size)) for i, size in enumerate(sizes)}
    return Task(name=f"mixed-{number}", choices=choices, means=means, costs=costs, noise=float(noise))


def _effect(kind: str, size: int, harmful: bool, rng: np.random.Generator) -> tuple[Array, Array]:
    """What each choice of a parameter adds to the accuracy and to the cost, up to their scales."""
    if kind == "gamma":
        price = np.append(0.0, 2.0 ** np.arange(size - 1)) / 2.0 ** (size - 2)
        effect = np.append(0.0, 1 - rng.uniform(0, 0.25) * np.arange(size - 1)[::-1])
        return effect * (-0.5 if harmful else 1.0), price
    if kind == "monotone":
        price = np.arange(size) / (size - 1)
        return price ** rng.uniform(0.3, 1.5) * (-0.4 if harmful else 1.0), price
    price = np.sort(rng.random(size)) if rng.random() < 0.5 else rng.random(size)
    return 0.5 * rng.standard_normal(size), price


FAMILIES = {"stages": lambda number: synthetic("stages", seed=number), "places": places, "mixed": mixed}
FIRST = 1000
"""Number of the first table of a family that is used: the sampler was developed on some with smaller numbers."""
LEVEL = 0.98


def load(name: str) -> Task:
    """The table ``family-number``."""
    family, number = name.split("-")
    return FAMILIES[family](int(number))


def ratios(rows: list[dict[str, Any]]) -> str:
    """Markdown: our evaluations to 98 % divided by each rival's, geometric mean over tables.

    A run that does not reach 98 % counts as one evaluation more than it had; tables on which neither run reaches
    it are left out. Intervals are quantiles of 2,000 bootstrap samples of tables.
    """
    needed = {
        (row["task"], row["seed"], row["sampler"]): min(
            first_at(np.array(row["share"]), LEVEL), len(row["share"]) + 1
        )
        for row in rows
    }
    lines = ["| family | rival | ours / rival's, to 98 % | 95 % interval | tables |", "|---|---|---|---|---|"]
    rng = np.random.default_rng(0)
    for family in FAMILIES:
        for rival in (name for name in SAMPLERS if name != "pareto"):
            tables = [t for f, t, s in needed if (f, s) == (family, rival) and (f, t, "pareto") in needed]
            pairs = np.array(
                [[needed[family, t, "pareto"], needed[family, t, rival]] for t in tables]
            ).reshape(-1, 2)
            pairs = pairs[pairs.min(axis=1) <= EVALUATIONS]
            if len(pairs) < 2:
                continue
            logs = np.log(pairs[:, 0] / pairs[:, 1])
            samples = np.exp(rng.choice(logs, (2000, len(logs))).mean(axis=1))
            low, high = np.quantile(samples, [0.025, 0.975])
            mean = np.exp(logs.mean())
            lines.append(f"| {family} | {rival} | {mean:.2f} | {low:.2f} to {high:.2f} | {len(pairs)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("run", "table"))
    parser.add_argument("--out", type=Path, default=Path("runs/families.jsonl"))
    parser.add_argument("--family", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--tables", type=int, default=16)
    parser.add_argument("--sampler", nargs="+", choices=SAMPLERS, default=["tpe", "gp", "pareto"])
    parser.add_argument(
        "--evaluations", type=int, default=EVALUATIONS, help="evaluations of each run; at least 100"
    )
    options = parser.parse_args()
    if options.action == "run":
        names = [f"{f}-{FIRST + i}" for i in range(options.tables) for f in options.family]
        run(options.out, names, options.sampler, 1, options.evaluations, load)
        return
    rows = []
    for row in read(options.out):
        family, number = row["task"].split("-")
        if family in options.family and row["sampler"] in options.sampler:
            rows.append(row | {"task": family, "seed": int(number)})
    print(table(rows, list(FAMILIES)))
    print(ratios(rows))


if __name__ == "__main__":
    main()
