"""Best accuracy at equal cost: how far one front lies above another, cost by cost, and how certain that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from se_nas.pareto import SeedModel, attained, hypervolume, ranks, t_quantile_975
from se_nas.report.candidates import Candidate
from se_nas.report.pareto_report import ParetoReport
from se_nas.report.per_image import hits_by_seed

_DRAWS = 1000
_MAX_BUDGETS = 160
_LAYERS = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """A run in the frame of a comparison.

    ``values`` are those of ``members`` in the common frame, shape (members, objectives); ``members`` are the
    candidates that could stand on the front: all retrained ones, or the outer layers of a provisional front.
    ``cost_error`` is the standard error of each member's first cost: 0 unless that was measured with an interval.
    """

    name: str
    report: ParetoReport
    members: tuple[Candidate, ...]
    values: np.ndarray
    cost_error: np.ndarray

    @property
    def front(self) -> np.ndarray:
        """Values of the front's members, cheapest first."""
        rows = self.values[[member.on_front for member in self.members]]
        return rows[np.lexsort((-rows[:, 0], rows[:, 1]))]

    def best(self, budgets: np.ndarray) -> np.ndarray:
        """Best accuracy within each budget on the first cost; NaN if nothing is that cheap."""
        return attained(self.values, budgets, self.report.directions)


def contenders(report: ParetoReport) -> tuple[Candidate, ...]:
    """Candidates whose true accuracy could put them on the front."""
    if report.final:
        return report.counted
    layers = ranks(report.values(report.counted), report.directions)
    return tuple(member for member, layer in zip(report.counted, layers, strict=True) if layer < _LAYERS)


@dataclass(frozen=True, kw_only=True, eq=False)
class Difference:
    """Best accuracy of the second minus that of the first, in points, at each of the ``budgets``.

    ``low`` and ``high`` hold the 95 % band; ``ahead`` is 1 where the second is ahead by more than that, -1 where
    the first is, and 0 elsewhere. ``volume`` is the difference of hypervolumes with its 95 % interval (None: not
    known). ``over_seeds`` says whether anything was read twice, so that the band covers the choice of seeds.
    """

    budgets: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    volume: float
    volume_interval: tuple[float, float] | None
    basis: str
    over_seeds: bool

    @property
    def ahead(self) -> np.ndarray:
        return np.where(self.low > 1e-9, 1, np.where(self.high < -1e-9, -1, 0))


def budgets_of(first: Sequence[Entry], second: Sequence[Entry]) -> np.ndarray:
    """Costs at which either side's best accuracy can change, from where both sides have a candidate."""
    entries = [*first, *second]
    start = max(entry.values[:, 1].min() for entry in entries)
    costs = np.unique(np.concatenate([entry.values[:, 1] for entry in entries]))
    costs = np.unique(np.append(costs[costs >= start], start))
    if len(costs) > _MAX_BUDGETS:
        costs = costs[np.linspace(0, len(costs) - 1, _MAX_BUDGETS).round().astype(int)]
    return costs


def difference(first: Sequence[Entry], second: Sequence[Entry], reference: Sequence[float]) -> Difference:
    """Second against first; each is one run, or the repeats of one configuration (then means over runs).

    Parametric bootstrap of both sides together: accuracies over seeds (equal seeds pair candidates) and, if these
    were kept, validation images (equal images pair them too), costs over their measured intervals and, if a side
    has repeats, runs with replacement (paired if both have the same seeds), widened as Student's t requires with
    so few runs. The bias of a best of several noisy values is taken off. The band holds for all budgets at once:
    its width is set by the largest standardised deviation over the budgets.
    """
    entries = [*first, *second]
    budgets = budgets_of(first, second)
    directions = first[0].report.directions
    curves = np.array([entry.best(budgets) for entry in entries])
    volumes = np.array([hypervolume(entry.values, reference, directions) for entry in entries])
    sides = (slice(0, len(first)), slice(len(first), len(entries)))
    value = curves[sides[1]].mean(0) - curves[sides[0]].mean(0)
    volume = float(volumes[sides[1]].mean() - volumes[sides[0]].mean())
    model, basis, repeated = _model(entries)
    if model is None:
        unknown = np.full(len(budgets), np.nan)
        return Difference(
            budgets=budgets,
            value=value,
            low=unknown,
            high=unknown,
            volume=volume,
            volume_interval=None,
            basis=basis,
            over_seeds=False,
        )
    generator = np.random.default_rng(0)
    errors = model.draw(generator, _DRAWS) - model.mean
    exact = np.empty((len(entries), _DRAWS, len(budgets)))
    jittered, drawn_volumes = np.empty_like(exact), np.empty((len(entries), _DRAWS, 1))
    start = 0
    for place, entry in enumerate(entries):
        points = np.repeat(entry.values[None], _DRAWS, axis=0)
        points[:, :, 0] += errors[:, start : start + len(entry.members)]
        start += len(entry.members)
        exact[place] = [attained(drawn, budgets, directions) for drawn in points]
        costs = points[:, :, 1] + generator.standard_normal(points.shape[:2]) * entry.cost_error
        # The cheapest one must not leave the range that is compared.
        cheapest = int(entry.values[:, 1].argmin())
        costs[:, cheapest] = np.minimum(costs[:, cheapest], entry.values[cheapest, 1])
        points[:, :, 1] = costs
        jittered[place] = [attained(drawn, budgets, directions) for drawn in points]
        drawn_volumes[place, :, 0] = [hypervolume(drawn, reference, directions) for drawn in points]
    runs, widening, over_runs = _resampled(first, second, generator)
    # Near the step of a front a jittered cost decides which candidate counts, so the mean of the draws is the
    # estimate there; the bias of a best-of-several is in the readings, and in the draws once more.
    scatter = _contrast(jittered, runs)
    middle = np.mean(scatter, 0)
    centre = middle - 2 * (np.mean(_contrast(exact, runs), 0) - value)
    deviation = np.std(scatter, 0)
    standard = np.abs(scatter - middle) / np.where(deviation > 0, deviation, np.inf)
    margin = widening * float(np.quantile(standard.max(1), 0.95)) * deviation
    volumes_apart = _contrast(drawn_volumes, runs)[:, 0] - volume
    low, high = np.quantile(volumes_apart, [0.025, 0.975])
    bias = volumes_apart.mean()
    interval = (volume - bias - widening * (high - bias), volume - bias + widening * (bias - low))
    return Difference(
        budgets=budgets,
        value=value,
        low=centre - margin,
        high=centre + margin,
        volume=volume,
        volume_interval=(float(interval[0]), float(interval[1])),
        basis=f"{basis}{over_runs}",
        over_seeds=repeated,
    )


def _model(entries: Sequence[Entry]) -> tuple[SeedModel | None, str, bool]:
    """Joint noise of all members, in words, and whether it was seen in repeats.

    Without repeats it is what follows from the number of validation images alone.
    """
    readings = [member.by_seed for entry in entries for member in entry.members]
    model = SeedModel.fit(readings)
    if model is not None:
        found = _hits(entries)
        if found is None:
            return model, "95 % over seeds, for all costs at once", True
        return model.with_images(found), "95 % over seeds and validation images, for all costs at once", True
    images = min(entry.report.manifest.data.num_val for entry in entries)
    if not images:
        return None, "nothing was read twice, so the size of chance is not known", False
    share = float(np.mean([value for own in readings for value in own.values()])) / 100
    sd = 100 * math.sqrt(max(share * (1 - share), 0.0) / images)
    basis = (
        f"95 % for all costs at once; nothing was read twice, so this covers the choice of {images} validation"
        " images alone and not that of seeds"
    )
    # Every reading gets a different seed: none of this scatter is known to be shared.
    apart = [dict(zip([index], own.values(), strict=True)) for index, own in enumerate(readings)]
    return SeedModel.fit(apart, sd=sd), basis, False


def _hits(entries: Sequence[Entry]) -> list[dict[int, np.ndarray]] | None:
    """For all members by seed, which images were right; None unless all runs were validated on the same images."""
    data = [entry.report.manifest.data for entry in entries]
    if len({(one.fingerprint, one.split_seed) for one in data}) > 1:
        return None
    found = [hits_by_seed(entry.members, entry.report.correct) for entry in entries]
    known = [own for one in found if one is not None for own in one]
    sizes = {len(bits) for own in known for bits in own.values()}
    return known if len(sizes) == 1 and all(one is not None for one in found) else None


def _resampled(
    first: Sequence[Entry], second: Sequence[Entry], generator: np.random.Generator
) -> tuple[np.ndarray, float, str]:
    """Weights of the runs in each draw, shape (draws, runs), negative for the first side; the widening; words."""
    sizes = (len(first), len(second))
    seeds = [[entry.report.manifest.seed for entry in side] for side in (first, second)]
    paired = sizes[0] > 1 and sorted(map(str, seeds[0])) == sorted(map(str, seeds[1]))
    chosen = [generator.integers(0, size, (_DRAWS, size)) for size in sizes]
    if paired:
        place = np.array([seeds[1].index(seed) for seed in seeds[0]])
        chosen[1] = place[chosen[0]]
    weights = [
        np.stack([(picks == run).mean(1) for run in range(size)], 1)
        for picks, size in zip(chosen, sizes, strict=True)
    ]
    runs = np.concatenate([-weights[0], weights[1]], axis=1)
    if max(sizes) == 1:
        return runs, 1.0, ""
    dof = sizes[0] - 1 if paired else sum(sizes) - 2
    smallest = min(size for size in sizes if size > 1)
    widening = t_quantile_975(dof) / t_quantile_975(math.inf) * math.sqrt(smallest / (smallest - 1))
    return runs, widening, f" and over {sizes[0]} and {sizes[1]} runs{', paired by seed' if paired else ''}"


def _contrast(drawn: np.ndarray, runs: np.ndarray) -> np.ndarray:
    """Second side minus first in each draw: (runs, draws, columns) with (draws, runs) to (draws, columns)."""
    return np.einsum("rdc,dr->dc", drawn, runs)
