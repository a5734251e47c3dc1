"""The sampler's mathematics: against Monte Carlo, brute force and finite differences."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import optimize

from se_nas.pareto import free_boxes, front_of, hypervolume, improvement, volume
from se_nas.samplers import _improvement, _likelihood
from se_nas.samplers._acquisition import contenders
from se_nas.samplers._belief import Belief
from se_nas.samplers._gp import Surrogate
from se_nas.samplers._grid import Grid
from se_nas.samplers._likelihood import Points, prior
from se_nas.samplers._observations import read
from se_nas.samplers._proposer import Proposer


def dominated_share(points: np.ndarray, reference: np.ndarray, grid: int = 60) -> float:
    """Hypervolume in [reference, 1]^m by counting cells: exact for corners on multiples of 1 / grid."""
    centres = (np.arange(grid) + 0.5) / grid
    cells = np.array(list(itertools.product(centres, repeat=points.shape[1])))
    inside = (cells > reference).all(axis=1)
    return float((inside & (points[None] >= cells[:, None]).all(axis=2).any(axis=1)).mean())


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_the_improvement_of_known_points_is_the_gain_of_hypervolume(objectives: int) -> None:
    rng = np.random.default_rng(objectives)
    grid = 20
    front = rng.integers(1, grid, size=(6, objectives)) / grid
    new = rng.integers(1, grid, size=(5, objectives)) / grid
    reference = np.zeros(objectives)
    found = improvement(new, np.zeros_like(new), *free_boxes(front, reference))
    before = dominated_share(front, reference, grid)
    after = [dominated_share(np.vstack([front, row]), reference, grid) for row in new]
    assert found == pytest.approx(np.array(after) - before, abs=1e-12)
    assert volume(front_of(front), reference) == pytest.approx(before, abs=1e-12)


@pytest.mark.parametrize("levels", [4, None])
def test_three_objectives_need_two_boxes_a_point_and_one(levels: int | None) -> None:
    rng = np.random.default_rng(0)
    for count in (1, 5, 24):
        values = (
            rng.random((count, 3)) if levels is None else rng.integers(0, levels, (count, 3)).astype(float)
        )
        reference, maximise = np.array([0.1, -0.5, 0.2]), ["maximize"] * 3
        boxes = free_boxes(values, reference)
        assert len(boxes[0]) <= 2 * count + 1
        new = rng.random((6, 3)) * 3
        before = hypervolume(values, reference, maximise)
        after = [hypervolume(np.vstack([values, row]), reference, maximise) for row in new]
        assert improvement(new, np.zeros_like(new), *boxes) == pytest.approx(np.array(after) - before)
        assert volume(front_of(values), reference) == pytest.approx(before)


@pytest.mark.parametrize("modelled", [(0,), (0, 1), (0, 2)])
def test_the_expected_improvement_is_the_mean_over_draws(modelled: tuple[int, ...]) -> None:
    objectives = 3 if 2 in modelled else 2
    rng = np.random.default_rng(1)
    front, reference = rng.random((5, objectives)), np.full(objectives, -0.2)
    mean, sd = rng.random((1, objectives)), np.zeros((1, objectives))
    sd[0, list(modelled)] = 0.3
    boxes = free_boxes(front, reference)
    draws = mean + sd * rng.standard_normal((40_000, objectives))
    gains = improvement(draws, np.zeros_like(draws), *boxes)
    error = gains.std() / len(gains) ** 0.5
    assert improvement(mean, sd, *boxes)[0] == pytest.approx(gains.mean(), abs=4 * error)


def test_contenders_are_those_that_no_unlucky_other_beats() -> None:
    rng = np.random.default_rng(0)
    means, sds = rng.random((40, 2)), np.column_stack([rng.uniform(0, 0.1, 40), np.zeros(40)])
    means[7] = means[3]  # a tie with itself dominates nobody
    lucky, unlucky = means + 2 * sds, means - 2 * sds
    expected = [
        i for i in range(40) if not any((u >= lucky[i]).all() and (u > lucky[i]).any() for u in unlucky)
    ]
    assert contenders(means, sds, 64).tolist() == expected
    assert set(contenders(means, sds, 5)) <= set(expected)


def test_the_gradient_of_the_fit_is_that_of_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    index = rng.integers(0, 4, size=(25, 3))
    positions = [np.array([0.0, 0.3, 0.6, 1.0]), np.array([np.nan, 0.0, 0.5, 1.0]), np.full(4, np.nan)]
    seen = []
    minimise = optimize.minimize

    def spy(function, start, **options):
        seen.append((function, start))
        return minimise(function, start, **options)

    monkeypatch.setattr(optimize, "minimize", spy)
    model = Surrogate(
        positions,
        Points(index=index, features=rng.standard_normal((25, 2))),
        index.sum(axis=1) + 0.1 * rng.standard_normal(25),
        counts=rng.integers(1, 3, 25).astype(float),
        extra=rng.uniform(0, 0.1, 25),
        within=(0.3, 4),
    )
    function, start = seen[0]
    at = start + 0.2 * rng.standard_normal(len(start))
    steps = 1e-5 * np.eye(len(start))
    numeric = [(function(at + step)[0] - function(at - step)[0]) / 2e-5 for step in steps]
    assert function(at)[1] == pytest.approx(np.array(numeric), abs=1e-5)
    # The value itself: minus the logarithm of the density of the readings, plus the penalty of the prior.
    at = model.theta
    noise = np.exp(at[-1]) + _likelihood.NOISE_FLOOR
    k = model.covariance(model.points, model.points) + np.diag(noise / model._counts + model._extra)
    sign, logdet = np.linalg.slogdet(k)
    centre, spread = prior(3, by_cost=True)
    expected = 0.5 * (model._y @ np.linalg.solve(k, model._y) + logdet)
    expected += 0.5 * (4 * np.log(noise) + model._within[0] / noise + (((at - centre) / spread) ** 2).sum())
    assert sign == 1
    assert function(at)[0] == pytest.approx(expected, rel=1e-9)


def test_a_rough_prediction_is_the_prediction() -> None:
    rng = np.random.default_rng(0)
    index = rng.integers(0, 3, size=(1200, 4))
    points = Points(index=index, features=rng.standard_normal((1200, 1)))
    model = Surrogate([np.linspace(0, 1, 3)] * 4, points[:20], index[:20].sum(axis=1) + 70.0)
    for rough, exact in zip(model.rough(points), model.predict(points), strict=True):
        assert rough == pytest.approx(exact, abs=1e-3)


def test_the_sieve_keeps_what_promises_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_improvement, "SIEVE", 20)
    choices = {f"p{i}": (0, 1, 2) for i in range(5)}
    grid = Grid(choices, known={1: lambda params: float(sum(params.values()))})
    proposer = Proposer(grid, np.array([1.0, -1.0]), entropy=0, repeats=False, initial=3)
    rng = np.random.default_rng(0)
    rows = grid.sample(12, rng)
    values = rows @ rng.random(5) + 0.1 * rng.standard_normal(12)
    model = Surrogate(proposer._space.positions, proposer._space.points(rows), values)
    means = np.stack([values, -rows.sum(axis=1)], axis=1)
    boxes = free_boxes(front_of(means), np.array([values.min() - 0.1, -10.1]))
    everything = grid.everything()
    belief = Belief(
        proposer._space, read([], grid, np.array([1.0, -1.0]), 0), np.zeros(0, dtype=bool), {0: model}
    )
    mean, sd = belief.predict(proposer._space.points(everything))
    best = np.argsort(-improvement(mean, sd, *boxes))[:20]
    kept = _improvement.sieve(belief, boxes)
    assert kept is not None
    assert set(grid.identify(kept)) == set(grid.identify(everything[best]))
