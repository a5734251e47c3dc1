"""Dominance against the definition, hand-computed cases and Optuna."""

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from se_nas.errors import ConfigError
from se_nas.pareto import attained, knee, non_dominated, ranks

# Small integers, so that ties and duplicates are frequent.
points = st.integers(1, 4).flatmap(
    lambda m: arrays(
        np.float64, st.tuples(st.integers(0, 25), st.just(m)), elements=st.sampled_from([0, 1, 2, 3, np.nan])
    )
)
directions_of = st.lists(st.sampled_from(["maximize", "minimize"]), min_size=4, max_size=4)


def dominates(a, b, directions):
    signs = [1 if direction == "minimize" else -1 for direction in directions]
    pairs = [(s * x, s * y) for s, x, y in zip(signs, a, b, strict=True)]
    return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)


@given(points, directions_of)
def test_the_front_is_the_definition(values, directions):
    directions = directions[: values.shape[1]]
    expected = [
        not np.isnan(row).any() and not any(dominates(other, row, directions) for other in values)
        for row in values
    ]
    assert non_dominated(values, directions).tolist() == expected


@given(points, directions_of)
def test_ranks_peel_fronts(values, directions):
    directions = directions[: values.shape[1]]
    rank = ranks(values, directions)
    unknown = np.isnan(values).any(axis=1)
    for number in range(rank.max(initial=-1) + 1):
        left = (rank >= number) & ~unknown
        front = non_dominated(values[left], directions)
        assert (front == (rank[left] == number)).all()
    if unknown.any():
        assert (rank[unknown] == (rank[~unknown].max(initial=-1) + 1)).all()


@given(
    arrays(np.float64, st.tuples(st.integers(1, 20), st.just(3)), elements=st.integers(0, 4).map(float)),
    directions_of,
)
def test_equal_to_optunas_best_trials(values, directions):
    directions = directions[:3]
    study = optuna.create_study(directions=directions)
    study.add_trials([optuna.trial.create_trial(values=row.tolist()) for row in values])
    best = {trial.number for trial in study.best_trials}
    assert set(np.flatnonzero(non_dominated(values, directions)).tolist()) == best


def test_duplicates_are_all_on_the_front_and_weakly_dominated_points_are_not():
    values = [[80, 5], [80, 5], [80, 6], [79, 5], [81, 7], [78, 4]]
    assert non_dominated(values, ["maximize", "minimize"]).tolist() == [True, True, False, False, True, True]


def test_nan_rows_neither_stand_nor_dominate():
    values = [[np.nan, 0], [1, 5], [np.inf, 9]]
    assert non_dominated(values, ["maximize", "minimize"]).tolist() == [False, True, True]
    assert ranks(values, ["maximize", "minimize"]).tolist() == [1, 0, 0]


def test_no_points():
    assert non_dominated([], ["maximize", "minimize"]).tolist() == []
    assert ranks([], ["minimize"]).tolist() == []
    assert knee([], ["maximize", "minimize"]) is None


def test_a_large_set_is_fast_enough_to_be_exact():
    rng = np.random.default_rng(0)
    values = rng.random((100_000, 3))
    mask = non_dominated(values, ["minimize"] * 3)
    front = values[mask]
    assert non_dominated(front, ["minimize"] * 3).all()
    for row in values[~mask][:300]:
        assert ((front <= row).all(axis=1) & (front < row).any(axis=1)).any()


@pytest.mark.parametrize("directions", [["max", "minimize"], ["maximize", "up"]])
def test_an_unknown_direction_is_named(directions):
    with pytest.raises(ConfigError, match=r"direction is '(max|up)'; allowed: maximize, minimize"):
        non_dominated([[1, 2]], directions)


def test_a_wrong_shape_is_named():
    with pytest.raises(ConfigError, match=r"shape \(1, 3\); with 2 directions it must be \(n, 2\)"):
        non_dominated([[1, 2, 3]], ["maximize", "minimize"])


def test_the_knee_is_farthest_from_the_line_through_the_ends():
    # Line from (cost 0, accuracy 0) to (10, 10); scaled gains over it: (2, 5): .3, (4, 9): .5, (7, 9.5): .25.
    values = [[0, 0], [5, 2], [9, 4], [9.5, 7], [10, 10], [8, 8]]
    assert knee(values, ["maximize", "minimize"]) == 2
    # A front of one point, and one on which nothing bends: an end, the first.
    assert knee([[3, 3], [2, 4]], ["maximize", "minimize"]) == 0
    assert knee([[0, 0], [1, 1], [2, 2]], ["maximize", "minimize"]) == 0


def test_best_accuracy_at_equal_cost_and_cost_at_equal_accuracy():
    values = [[70, 1], [75, 3], [74, 4], [80, 8], [np.nan, 0.5]]
    directions = ["maximize", "minimize"]
    best = attained(values, [0.7, 1, 2.9, 3, 5, 100], directions)
    assert best.tolist()[1:] == [70, 70, 75, 75, 80]
    assert np.isnan(best[0])
    cost = attained(values, [60, 70, 71, 75.5, 81], directions, objective=1, given=0)
    assert cost.tolist()[:4] == [1, 1, 3, 8]
    assert np.isnan(cost[4])
