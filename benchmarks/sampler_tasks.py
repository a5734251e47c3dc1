"""The tasks of `benchmarks/samplers.py`: spaces whose true front is known, with noisy accuracy and known cost.

Every task minimises one cost and maximises accuracy over categorical parameters. A sampler sees one noisy reading
of the accuracy per evaluation; it is scored on the true means.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
NOISE = 0.26
"""Mean standard deviation over seeds on the short schedule that Accel-NASBench publishes, in points of top-1."""


@dataclass(kw_only=True)
class Task:
    """A finite space with its true accuracy and cost.

    Attributes:
        choices: parameter name to its choices.
        means: function of an index array (n, n_params) to true accuracy (n,), in percent.
        costs: the same for the cost, which is minimised.
        noise: standard deviation of one reading of accuracy, in points.
        front: (n_front, 2) true values (accuracy, cost) of the exhaustive front, costs ascending.
        worst: the worst accuracy and the worst cost in the whole space, the reference point of the hypervolume.
    """

    name: str
    choices: dict[str, tuple[Any, ...]]
    means: Callable[[NDArray[np.int64]], Array]
    costs: Callable[[NDArray[np.int64]], Array]
    noise: float
    front: Array = field(init=False)
    worst: tuple[float, float] = field(init=False)

    def __post_init__(self) -> None:
        self._rank = [{choice: i for i, choice in enumerate(values)} for values in self.choices.values()]
        self._names = list(self.choices)
        sizes = [len(values) for values in self.choices.values()]
        total = int(np.prod([float(size) for size in sizes]))
        front = np.empty((0, 2))
        low, high = np.inf, -np.inf
        for start in range(0, total, 1 << 18):
            numbers = np.arange(start, min(total, start + (1 << 18)))
            index = np.stack(np.unravel_index(numbers, sizes), axis=1)
            values = np.stack([self.means(index), self.costs(index)], axis=1)
            low, high = min(low, values[:, 0].min()), max(high, values[:, 1].max())
            front = staircase(np.concatenate([front, values]))
        self.front, self.worst, self.size = front, (float(low), float(high)), total
        self._full = area(front, self.worst)

    def index(self, params: Mapping[str, Any]) -> NDArray[np.int64]:
        return np.array([[rank[params[name]] for rank, name in zip(self._rank, self._names, strict=True)]])

    def cost(self, params: Mapping[str, Any]) -> float:
        return float(self.costs(self.index(params))[0])

    def share(self, values: Array) -> float:
        """Share of the exhaustive hypervolume that true values (n, 2) dominate."""
        return area(staircase(values), self.worst) / self._full


def staircase(values: Array) -> Array:
    """The non-dominated rows of (accuracy up, cost down), by ascending cost."""
    values = values[np.lexsort((-values[:, 0], values[:, 1]))]
    best = np.maximum.accumulate(values[:, 0])
    keep = np.ones(len(values), dtype=bool)
    keep[1:] = values[1:, 0] > best[:-1]
    return values[keep]


def area(front: Array, worst: tuple[float, float]) -> float:
    """Area between a staircase and the worst corner."""
    rights = np.append(front[1:, 1], worst[1])
    return float(((front[:, 0] - worst[0]) * (rights - front[:, 1])).sum())


def synthetic(name: str, seed: int = 11) -> Task:
    """An SE space with a known answer: site effects that add up, weaker pairwise ones, costs that add up.

    ``stages``: 4 stages x 5 γ (0 is no SE). ``blocks``: 16 blocks on or off in the stages of a ResNet-50
    (3, 4, 6, 3), and one of 4 γ per stage, shared by its blocks.
    """
    rng = np.random.default_rng(seed)
    depths = (3, 4, 6, 3)
    gain = rng.uniform(0.1, 0.6, 16) * rng.choice([1, 1, 1, -0.3], 16)
    channels = np.repeat([256, 512, 1024, 2048], depths).astype(float)
    pairs = np.triu(rng.normal(0, 0.06, (16, 16)), 1)
    stage_of = np.repeat(np.arange(4), depths)
    gammas = np.array([2.0, 4.0, 8.0, 16.0])
    decay = rng.uniform(0.05, 0.25, 4)  # accuracy that a stage's blocks lose whenever γ doubles
    if name == "stages":
        gammas = np.array([2.0, 4.0, 8.0, 16.0])
        choices: dict[str, tuple[Any, ...]] = {f"stage{s}": (0, 16, 8, 4, 2) for s in range(4)}
        table = np.array([0.0, 16.0, 8.0, 4.0, 2.0])

        def expand(index: NDArray[np.int64]) -> tuple[Array, Array]:
            chosen = table[index]
            on = (chosen > 0).astype(float)[:, stage_of]
            return on, np.where(chosen > 0, chosen, 2.0)
    else:
        choices = {f"block{b}": (0, 1) for b in range(16)} | {
            f"reduction{s}": (2, 4, 8, 16) for s in range(4)
        }

        def expand(index: NDArray[np.int64]) -> tuple[Array, Array]:
            return index[:, :16].astype(float), gammas[index[:, 16:]]

    def means(index: NDArray[np.int64]) -> Array:
        on, gamma = expand(index)
        strength = on * (1 - decay * np.log2(gamma / 2))[:, stage_of]
        return 74.0 + strength @ gain + np.einsum("ni,ij,nj->n", on, pairs, on, optimize=True)

    def costs(index: NDArray[np.int64]) -> Array:
        on, gamma = expand(index)
        return 25.6 + (on * channels**2 / gamma[:, stage_of]) @ np.full(16, 2e-6)

    return Task(name=f"synthetic-{name}", choices=choices, means=means, costs=costs, noise=NOISE)


def data_folder() -> Path | None:
    """Where Accel-NASBench is: under $SE_NAS_DATA or ../shared/data beside the checkout; None if absent."""
    root = Path(__file__).resolve().parents[1]
    for folder in (os.environ.get("SE_NAS_DATA"), root.parent / "shared" / "data"):
        if folder and (Path(folder) / "accel-nasbench" / "accel_nasbench.csv").is_file():
            return Path(folder) / "accel-nasbench"
    return None


SUBSPACE = [f"b{s}_se" for s in range(7)] + [f"b{s}_e" for s in (2, 3, 4, 5)] + ["b3_l", "b4_l"]
"""What varies in the Accel-NASBench task (93,312 points); elsewhere expansion 4, kernel 3, 2 layers."""
COSTS = {"a100": ("throughput_a100", -1.0), "zcu102": ("latency_zcu102", 1.0), "params": ("params_m", 1.0)}


def accel(folder: Path, cost: str) -> Task:
    """A surrogate of Accel-NASBench, not the benchmark itself: regressions on its 5,138 measured
    architectures.

    Accuracy: gradient-boosted trees (they assume neither additive nor smooth effects). Cost: ridge
    regression of its logarithm on all pairs of one-hot features. Throughput is turned into time per image.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures

    with open(folder / "accel_nasbench.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    features = [f"b{s}_{part}" for s in range(7) for part in ("e", "k", "l", "se")]
    column, power = COSTS[cost]
    rows = [row for row in rows if row[column]]
    x = np.array([[float(row[name]) for name in features] for row in rows])
    levels = [sorted(set(x[:, features.index(name)])) for name in SUBSPACE]
    grid = np.array(list(product(*levels)))
    default = {"e": 4.0, "k": 3.0, "l": 2.0, "se": 0.0}
    full = np.tile([default[name.split("_")[1]] for name in features], (len(grid), 1))
    full[:, [features.index(name) for name in SUBSPACE]] = grid
    top1 = np.array([float(row["val_top1"]) for row in rows])
    accuracy = np.mean(
        [
            HistGradientBoostingRegressor(
                max_iter=500, learning_rate=0.05, max_leaf_nodes=15, l2_regularization=1.0,
                max_features=0.5, random_state=seed,
            ).fit(x, top1).predict(full)
            for seed in range(3)
        ],
        axis=0,
    )  # fmt: skip
    encoder = OneHotEncoder(drop="first", sparse_output=False).fit(x)
    pairs = PolynomialFeatures(2, interaction_only=True, include_bias=False).fit(encoder.transform(x[:2]))
    logs = power * np.log([float(row[column]) for row in rows])
    ridge = Ridge(alpha=3.0).fit(pairs.transform(encoder.transform(x)), logs)
    price = np.exp(ridge.predict(pairs.transform(encoder.transform(full))))
    price *= 1000 if cost == "a100" else 1
    sizes = [len(level) for level in levels]
    choices = {name: tuple(int(v) for v in level) for name, level in zip(SUBSPACE, levels, strict=True)}

    def lookup(table: Array) -> Callable[[NDArray[np.int64]], Array]:
        return lambda index: table[np.ravel_multi_index(tuple(index.T), sizes)]

    return Task(
        name=f"accel-{cost}", choices=choices, means=lookup(accuracy), costs=lookup(price), noise=NOISE
    )


def load(name: str) -> Task:
    """A task by name; raises FileNotFoundError if its data are absent."""
    kind, detail = name.split("-")
    if kind == "synthetic":
        return synthetic(detail)
    folder = data_folder()
    if folder is None:
        raise FileNotFoundError(
            "accel_nasbench.csv was not found: set SE_NAS_DATA to the folder above accel-nasbench"
        )
    return accel(folder, detail)


NAMES = ("synthetic-stages", "synthetic-blocks", "accel-a100", "accel-zcu102", "accel-params")
