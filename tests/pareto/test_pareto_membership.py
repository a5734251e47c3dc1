"""Uncertain fronts: against the definition draw by draw, by hand, and on simulated truth."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from se_nas.pareto import (
    SeedModel,
    attained,
    attained_draws,
    drawn_fronts,
    hypervolume,
    hypervolume_interval,
    non_dominated,
    probability_non_dominated,
)

DIRECTIONS = ["maximize", "minimize"]
small = st.sampled_from([0.0, 1.0, 2.0, np.nan])


@given(
    arrays(np.float64, (4, 6), elements=small),
    st.sampled_from([1, 2]).flatmap(lambda c: arrays(np.float64, (6, c), elements=small)),
    st.sampled_from(["maximize", "minimize"]),
    st.sampled_from(["maximize", "minimize"]),
)
def test_every_draw_has_the_front_of_its_values(draws, costs, first, second):
    directions = [first, *[second] * costs.shape[1]]
    fronts = drawn_fronts(draws, costs, directions)
    for row, front in zip(draws, fronts, strict=True):
        assert front.tolist() == non_dominated(np.column_stack([row, costs]), directions).tolist()


def test_probabilities_by_hand():
    draws = [[70, 71, 72], [70, 69, 72], [70, 69, 68], [70, 70, 72]]
    assert probability_non_dominated(draws, [1, 2, 3], DIRECTIONS).tolist() == [1, 0.25, 0.75]
    # At equal cost equal accuracies both stand.
    assert probability_non_dominated(draws, [1, 1, 3], DIRECTIONS).tolist() == [0.75, 0.5, 0.75]


def test_the_difference_of_two_candidates_is_students():
    # The dearer one is on the front if it is more accurate: Student's t with 2 degrees of freedom.
    model = SeedModel.fit([{0: 71.0, 1: 75.0, 2: 76.0}, {0: 70.0, 1: 72.0, 2: 74.0}])
    draws = model.draw(np.random.default_rng(0), 100_000)
    expected = scipy.stats.t.cdf(2 / (1 / np.sqrt(3)), 2)
    share = probability_non_dominated(draws, [2, 1], DIRECTIONS)
    assert share[1] == 1
    assert share[0] == pytest.approx(expected, abs=0.005)


def test_best_accuracy_within_budgets_draw_by_draw():
    draws = np.array([[70.0, 71, 69], [70, 68, 75]])
    table = attained_draws(draws, [1, 2, 3], [0.5, 1, 2.5, 9], DIRECTIONS)
    assert np.isnan(table[:, 0]).all()
    assert table[:, 1:].tolist() == [[70, 71, 71], [70, 70, 75]]


def simulate(rng, count=10, spread=0.2, sd=0.25, seeds=3):
    levels, costs = 75 + rng.normal(0, spread, count), np.sort(rng.random(count))
    readings = levels[:, None] + rng.normal(0, 0.2, seeds) + rng.normal(0, sd, (count, seeds))
    return levels, costs, SeedModel.fit([dict(enumerate(row)) for row in readings])


def test_probabilities_come_true_as_often_as_they_say():
    rng = np.random.default_rng(0)
    said, true = [], []
    for _ in range(300):
        levels, costs, model = simulate(rng)
        said.append(probability_non_dominated(model.shrunk().draw(rng, 400), costs, DIRECTIONS))
        true.append(non_dominated(np.column_stack([levels, costs]), DIRECTIONS))
    said, true = np.concatenate(said), np.concatenate(true)
    for low, high in [(0, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 1.01)]:
        inside = (said >= low) & (said < high)
        error = np.sqrt(0.25 / inside.sum())
        assert true[inside].mean() == pytest.approx(said[inside].mean(), abs=0.05 + 2 * error)


def test_the_hypervolume_interval_holds_the_truth():
    rng = np.random.default_rng(1)
    reference = [74.0, 1.1]
    basic, plain = [], []
    for _ in range(120):
        levels, costs, model = simulate(rng, spread=0.05)
        draws = model.draw(rng, 150)
        true = hypervolume(np.column_stack([levels, costs]), reference, DIRECTIONS)
        low, high = hypervolume_interval(model.mean, draws, costs, reference, DIRECTIONS)
        basic.append(low <= true <= high)
        volumes = [hypervolume(np.column_stack([row, costs]), reference, DIRECTIONS) for row in draws]
        quantiles = np.quantile(volumes, [0.025, 0.975])
        plain.append(quantiles[0] <= true <= quantiles[1])
    # 120 runs: standard error 0.02.
    assert np.mean(basic) > 0.88
    assert np.mean(basic) > np.mean(plain)


def test_the_interval_of_the_hypervolume_takes_any_number_of_costs():
    rng = np.random.default_rng(0)
    draws, cost = 70 + rng.normal(size=(40, 6)), rng.random(6)
    draws[:, 3] = np.nan
    one = hypervolume_interval(draws[0], draws, cost, [68, 0.9], DIRECTIONS)
    constant = hypervolume_interval(
        draws[0], draws, np.column_stack([cost, np.zeros(6)]), [68, 0.9, 1], [*DIRECTIONS, "minimize"]
    )
    assert one == pytest.approx(constant)


def test_the_interval_of_exact_readings_is_a_point():
    values = np.array([70.0, 72.0])
    interval = hypervolume_interval(values, np.tile(values, (5, 1)), [1, 2], [69, 3], DIRECTIONS)
    expected = hypervolume([[70, 1], [72, 2]], [69, 3], DIRECTIONS)
    assert interval == pytest.approx((expected, expected))


def test_runs_that_share_seeds_are_compared_at_equal_cost_pair_by_pair():
    # Run B is run A plus 0.3 points, both moved alike by seeds of 2 points.
    rng = np.random.default_rng(4)
    shift = rng.normal(0, 2, 4)
    level, costs = np.array([70.0, 71, 72]), np.array([1.0, 2, 3])
    a = level[:, None] + shift + rng.normal(0, 0.02, (3, 4))
    b = level[:, None] + 0.3 + shift + rng.normal(0, 0.02, (3, 4))
    model = SeedModel.fit([dict(enumerate(row)) for row in np.concatenate([a, b])])
    draws = model.draw(rng, 1000)
    budgets = [1.5, 2.5, 3.5]
    difference = attained_draws(draws[:, 3:], costs, budgets, DIRECTIONS) - attained_draws(
        draws[:, :3], costs, budgets, DIRECTIONS
    )
    low, high = np.quantile(difference, [0.025, 0.975], axis=0)
    assert (low > 0.2).all()
    assert (high < 0.4).all()
    assert attained(np.column_stack([model.mean[:3], costs]), budgets, DIRECTIONS) == pytest.approx(
        level + shift.mean(), abs=0.1
    )
