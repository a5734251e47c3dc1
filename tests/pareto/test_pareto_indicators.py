"""Indicators against hand-computed cases, Optuna and inclusion and exclusion."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from optuna._hypervolume import compute_hypervolume

from se_nas.errors import ConfigError
from se_nas.pareto import coverage, hypervolume, igd_plus, reference_point

ACCURACY_COST = ["maximize", "minimize"]


def volume_by_inclusion_and_exclusion(points, reference):
    """The union of the boxes between each point and the reference (all minimised)."""
    total = 0.0
    for size in range(1, len(points) + 1):
        for subset in itertools.combinations(points, size):
            corner = np.max(subset, axis=0)
            total -= (-1) ** size * np.prod(np.maximum(np.asarray(reference) - corner, 0))
    return total


@settings(deadline=None)
@given(
    st.integers(1, 5).flatmap(
        lambda m: arrays(
            np.float64, st.tuples(st.integers(0, 6), st.just(m)), elements=st.integers(0, 5).map(float)
        )
    )
)
def test_equal_to_inclusion_and_exclusion(points):
    reference = [4.0] * points.shape[1]
    expected = volume_by_inclusion_and_exclusion(points, reference)
    assert hypervolume(points, reference, ["minimize"] * points.shape[1]) == pytest.approx(expected)


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_equal_to_optuna(objectives):
    rng = np.random.default_rng(objectives)
    for _ in range(10):
        values = rng.normal(size=(40, objectives))
        reference = np.full(objectives, 0.8)
        inside = values[(values <= reference).all(axis=1)]
        expected = compute_hypervolume(inside, reference)
        assert hypervolume(values, reference, ["minimize"] * objectives) == pytest.approx(expected)


def test_two_objectives_by_hand():
    # Accuracy up from 70, cost up to 10: (75, 2) gives 5 x 8, (80, 6) adds 5 x 4.
    assert hypervolume([[75, 2], [80, 6], [74, 3]], [70, 10], ACCURACY_COST) == 60
    # Duplicates, points outside the frame and NaN add nothing.
    more = [[75, 2], [75, 2], [80, 6], [90, 10], [69, 1], [np.nan, 1]]
    assert hypervolume(more, [70, 10], ACCURACY_COST) == 60


def test_three_objectives_by_hand():
    # Two boxes of 1 x 2 x 3 and 2 x 1 x 3 that share 1 x 1 x 3.
    assert hypervolume([[1, 2, 3], [2, 1, 3]], [0, 0, 0], ["maximize"] * 3) == 9


def test_nothing_dominates_nothing():
    assert hypervolume([], [70, 10], ACCURACY_COST) == 0
    assert hypervolume([[60, 20]], [70, 10], ACCURACY_COST) == 0


def test_a_reference_that_is_not_finite_is_refused():
    with pytest.raises(ConfigError, match=r"reference is .*nan.*finite"):
        hypervolume([[75, 2]], [70, float("nan")], ACCURACY_COST)


@given(
    arrays(np.float64, st.tuples(st.integers(1, 12), st.just(3)), elements=st.floats(0, 1)),
    arrays(np.float64, (1, 3), elements=st.floats(0, 1)),
)
def test_more_points_never_dominate_less(values, extra):
    directions = ["maximize", "minimize", "minimize"]
    before = hypervolume(values, [-0.1, 1.1, 1.1], directions)
    after = hypervolume(np.concatenate([values, extra]), [-0.1, 1.1, 1.1], directions)
    assert after >= before - 1e-12


def test_the_reference_point_lies_beyond_the_union():
    runs = [[[70, 5], [80, 9]], [[60, 4], [np.nan, 100]]]
    assert reference_point(runs, ACCURACY_COST).tolist() == pytest.approx([58, 9.5])
    # Cost that does not vary: a tenth of its magnitude; 0 counts as 1.
    assert reference_point([[[70, 5], [80, 5]]], ACCURACY_COST).tolist() == pytest.approx([69, 5.5])
    assert reference_point([[[0, 0]]], ACCURACY_COST).tolist() == pytest.approx([-0.1, 0.1])
    with pytest.raises(ConfigError, match="no point has finite values"):
        reference_point([[[np.nan, 1]]], ACCURACY_COST)


def test_igd_plus_by_hand():
    # Front (80, 8), (70, 2): ranges 10 and 6. Own points (78, 8) and (70, 5).
    # To (80, 8): min(.2, 1.0) = .2. To (70, 2): (78, 8) is 0 and 1 short: 1; (70, 5): .5.
    value = igd_plus([[78, 8], [70, 5]], [[80, 8], [70, 2]], ACCURACY_COST)
    assert value == pytest.approx((0.2 + 0.5) / 2)
    # A point better than the goal is not short of it; a scale can be given.
    assert igd_plus([[90, 1]], [[80, 8], [70, 2]], ACCURACY_COST) == 0
    assert igd_plus([[78, 8]], [[80, 8]], ACCURACY_COST, scale=[4, 1]) == 0.5
    assert igd_plus([], [[80, 8]], ACCURACY_COST) == np.inf


def test_coverage_by_hand():
    ours, theirs = [[80, 8], [70, 2]], [[80, 8], [79, 9], [71, 2], [60, 1]]
    assert coverage(ours, theirs, ACCURACY_COST) == 0.5
    assert coverage(theirs, ours, ACCURACY_COST) == 1.0
    assert np.isnan(coverage(ours, [], ACCURACY_COST))
    assert coverage([], theirs, ACCURACY_COST) == 0
