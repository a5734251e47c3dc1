"""Levels from repeated trainings: by hand, against scipy, and on simulated truth."""

from statistics import NormalDist

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from se_nas.errors import ConfigError
from se_nas.pareto import SeedModel, t_quantile_975


def table(rows):
    return [dict(enumerate(row)) for row in rows]


def simulated(rng, *, levels, seeds, sd, seed_sd):
    shift = rng.normal(0, seed_sd, seeds)
    return np.asarray(levels)[:, None] + shift + rng.normal(0, sd, (len(levels), seeds))


@pytest.mark.parametrize("dof", [1, 2, 7, 30, 31, 60, 500, np.inf])
def test_quantiles_are_students(dof):
    assert t_quantile_975(dof) == pytest.approx(scipy.stats.t.ppf(0.975, dof), abs=1e-3)


def test_quantiles_of_fractions_are_rounded_to_the_wider_side():
    assert t_quantile_975(2.9) == t_quantile_975(2)
    assert t_quantile_975(35.7) >= scipy.stats.t.ppf(0.975, 35.7) - 1e-3
    with pytest.raises(ValueError, match=r"dof is 0\.5"):
        t_quantile_975(0.5)


def test_two_candidates_by_hand():
    # Differences 1, 3, 2: mean 2, standard deviation 1, two degrees of freedom: 4.303 / sqrt(3).
    model = SeedModel.fit(table([[71, 75, 76], [70, 72, 74]]))
    assert model.mean.tolist() == pytest.approx([74, 72])
    assert model.dof == 2
    assert model.sd == pytest.approx(1 / np.sqrt(2))
    difference, half_width = model.difference(0, 1)
    assert difference == pytest.approx(2)
    assert half_width == pytest.approx(4.3027 / np.sqrt(3), abs=1e-3)
    reverse, _ = model.difference(1, 0)
    assert reverse == pytest.approx(-2)
    assert model.difference(0, 0)[1] == 0


def test_a_difference_is_the_paired_t_test():
    rng = np.random.default_rng(3)
    readings = simulated(rng, levels=[70, 71], seeds=8, sd=0.3, seed_sd=2.0)
    model = SeedModel.fit(table(readings))
    test = scipy.stats.ttest_rel(readings[0], readings[1]).confidence_interval(0.95)
    difference, half_width = model.difference(0, 1)
    assert [difference - half_width, difference + half_width] == pytest.approx(
        [test.low, test.high], abs=2e-3
    )


def test_one_candidate_has_its_own_t_interval():
    values = [70.0, 71.0, 70.5, 70.2]
    model = SeedModel.fit(table([values]))
    test = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert model.half_width[0] == pytest.approx((test.high - test.low) / 2, abs=1e-3)


def test_seed_levels_cancel_in_differences_and_not_in_levels():
    rng = np.random.default_rng(0)
    model = SeedModel.fit(table(simulated(rng, levels=np.linspace(70, 75, 40), seeds=6, sd=0.1, seed_sd=3.0)))
    assert model.sd == pytest.approx(0.1, rel=0.2)
    assert model.seed_sd > 1
    assert model.difference(0, 1)[1] < 0.2
    assert model.half_width.min() > 1


def test_candidates_with_different_seeds_are_compared_through_the_shared_ones():
    # Seed 1 is worth 10 points to everybody. The third candidate has seed 1 only, and is not thereby better.
    model = SeedModel.fit([{0: 70.0, 1: 80.1}, {0: 70.2, 1: 80.0}, {1: 80.0}, {0: 70.1, 1: 79.9}])
    assert model.mean[2] - model.mean[1] == pytest.approx(-0.05, abs=0.15)
    assert model.difference(2, 1)[1] > model.difference(0, 1)[1]


def test_candidates_without_shared_seeds_fall_back_to_plain_scatter():
    model = SeedModel.fit([{0: 70.0, 1: 72.0}, {2: 75.0, 3: 77.0}])
    # Each pair has a variance of 2; seed levels cannot be told from noise.
    assert model.sd == pytest.approx(np.sqrt(2))
    assert model.seed_sd == 0
    assert model.dof == 2
    assert model.difference(1, 0) == pytest.approx((5, 4.3027 * np.sqrt(2)), abs=1e-3)


def test_noise_that_is_known_needs_no_repeats():
    assert SeedModel.fit([{0: 70.0}, {0: 71.0}]) is None
    model = SeedModel.fit([{0: 70.0}, {0: 71.0}], sd=0.5)
    assert model.dof == np.inf
    assert model.difference(1, 0) == pytest.approx((1, 1.96 * 0.5 * np.sqrt(2)), abs=1e-3)


def test_candidates_without_a_reading_are_nan():
    model = SeedModel.fit([{0: 70.0, 1: 71.0}, {}, {0: 72.0, 1: 73.4}])
    assert np.isnan(model.mean).tolist() == [False, True, False]
    assert np.isnan(model.half_width).tolist() == [False, True, False]
    draws = model.draw(np.random.default_rng(0), 50)
    assert np.isnan(draws[:, 1]).all()
    assert np.isfinite(draws[:, [0, 2]]).all()
    assert np.isnan(model.shrunk().mean).tolist() == [False, True, False]
    assert SeedModel.fit([{}, {}]) is None


def test_equal_readings_have_no_width():
    model = SeedModel.fit(table([[70, 70], [71, 71]]))
    assert model.sd == pytest.approx(0, abs=1e-9)
    assert model.difference(1, 0) == pytest.approx((1, 0), abs=1e-6)
    assert model.draw(np.random.default_rng(0), 3) == pytest.approx(np.tile([70, 71], (3, 1)), abs=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_readings_and_noise_must_be_finite(value):
    with pytest.raises(ConfigError, match="a reading is not finite"):
        SeedModel.fit([{0: 70.0, 1: value}])
    with pytest.raises(ConfigError, match=r"sd is (nan|inf); it must be a finite number"):
        SeedModel.fit([{0: 70.0}], sd=value)


def test_draws_have_the_models_mean_and_covariance():
    model = SeedModel.fit(table([[70, 71, 73], [70.5, 72, 72.7], [71, 71.2, 74], [69, 70.9, 72]]), sd=0.4)
    draws = model.draw(np.random.default_rng(0), 200_000)
    assert draws.mean(axis=0) == pytest.approx(model.mean, abs=0.05)
    differences = draws[:, :1] - draws[:, 1:]
    expected = 2 * 0.4**2 / 3
    assert differences.var(axis=0) == pytest.approx([expected] * 3, rel=0.02)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_adding_a_constant_moves_levels_alone(seed):
    rng = np.random.default_rng(seed)
    readings = simulated(rng, levels=rng.normal(70, 1, 5), seeds=3, sd=0.2, seed_sd=0.3)
    model, moved = SeedModel.fit(table(readings)), SeedModel.fit(table(readings + 10))
    assert moved.mean == pytest.approx(model.mean + 10)
    assert moved.sd == pytest.approx(model.sd, rel=1e-6)
    assert moved.half_width == pytest.approx(model.half_width, rel=1e-5)


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(1)
    hits, paired = [], []
    for _ in range(400):
        levels = rng.normal(75, 0.2, 8)
        model = SeedModel.fit(table(simulated(rng, levels=levels, seeds=3, sd=0.25, seed_sd=0.2)))
        hits.append(np.abs(model.mean - levels) <= model.half_width)
        difference, half_width = model.difference(0, 1)
        paired.append(abs(difference - (levels[0] - levels[1])) <= half_width)
    # 400 draws: standard error 0.011. Three seeds tell little about seed levels, which all levels share.
    assert np.mean(paired) == pytest.approx(0.95, abs=0.03)
    assert 0.89 <= np.mean(hits) <= 0.985


def test_shrinking_takes_the_winners_curse_off():
    rng = np.random.default_rng(2)
    raw, shrunk, error_raw, error_shrunk = [], [], [], []
    for _ in range(300):
        levels = rng.normal(75, 0.1, 20)
        model = SeedModel.fit(table(simulated(rng, levels=levels, seeds=3, sd=0.25, seed_sd=0.2)))
        after = model.shrunk()
        contrast, shrunk_contrast = model.mean - model.mean.mean(), after.mean - after.mean.mean()
        truth = levels - levels.mean()
        best = int(np.argmax(model.mean))
        raw.append(contrast[best] - truth[best])
        shrunk.append(shrunk_contrast[best] - truth[best])
        error_raw.append(((contrast - truth) ** 2).mean())
        error_shrunk.append(((shrunk_contrast - truth) ** 2).mean())
    assert np.mean(raw) > 0.15
    assert abs(np.mean(shrunk)) < 0.05
    assert np.mean(error_shrunk) < 0.6 * np.mean(error_raw)


def test_levels_that_differ_no_more_than_noise_shrink_to_one():
    readings = table([[70.0, 70.6], [70.6, 70.0], [70.1, 70.5]])
    assert SeedModel.fit(readings).shrunk().mean == pytest.approx([70.3] * 3)


def test_levels_far_apart_hardly_shrink():
    model = SeedModel.fit(table([[60.0, 60.1], [70.0, 69.9], [80.0, 80.1]]))
    assert model.shrunk().mean == pytest.approx(model.mean, abs=0.01)
    single = SeedModel.fit(table([[60.0, 60.1]]))
    assert single.shrunk() is single


def test_images_that_are_hard_for_all_cancel_in_differences():
    rng = np.random.default_rng(0)
    hard = rng.random(2000) < 0.3
    correct = np.stack([~hard, ~hard ^ (rng.random(2000) < 0.02)]).astype(float)
    readings = table(100 * correct.mean(axis=1, keepdims=True) + [[0.0, 0.1]])
    model = SeedModel.fit(readings, sd=0.01)
    hits = [{0: own} for own in correct]
    wide = model.with_images(hits)
    # One proportion of 70 % on 2000 images: 100 sqrt(.21 / 2000) = 1.02 points; 2 % of the images differ.
    assert wide.half_width[0] == pytest.approx(1.96 * 1.02, rel=0.05)
    assert wide.difference(0, 1)[1] == pytest.approx(1.96 * 100 * np.sqrt(0.02 / 2000), rel=0.2)
    with pytest.raises(ConfigError, match="correct has 3 candidates with hits; it must have 2"):
        model.with_images([{0: np.ones(5)}] * 3)
    with pytest.raises(ConfigError, match=r"hits of shapes \[\(5,\), \(6,\)\]"):
        model.with_images([{0: np.ones(5)}, {0: np.ones(6)}])


def test_images_never_make_anything_surer():
    """Networks of a seed err together, so the scatter over seeds that is taken off is shared as well."""
    rng = np.random.default_rng(3)
    hard = rng.normal(0, 1.5, 250)
    shared = rng.normal(0, 1, (3, 250))
    hits = [
        {seed: 0.2 * i - hard + shared[seed] + rng.normal(0, 0.2, 250) > 0 for seed in range(3)}
        for i in range(4)
    ]
    model = SeedModel.fit([{seed: 100 * own[seed].mean() for seed in own} for own in hits])
    wide = model.with_images(hits)
    assert np.linalg.eigvalsh(wide.image_covariance).min() > -1e-9
    assert (wide.half_width >= model.half_width).all()
    for i in range(1, 4):
        assert wide.difference(i, 0)[1] >= model.difference(i, 0)[1] - 1e-9
        assert wide.shrunk().difference(i, 0)[1] > 0.3 * wide.difference(i, 0)[1]


def test_intervals_with_images_hold_the_truth_of_all_images():
    """Each image's logit is shared difficulty, a part of the candidate's own, and a part of the seed's."""
    rng = np.random.default_rng(0)
    held = {"seeds": [0, 0], "images": [0, 0]}
    for _ in range(120):
        population = (
            rng.normal(2, 0.15, (4, 1)) - rng.normal(0, 1.5, 10_000) + rng.normal(0, 0.6, (4, 10_000))
        )
        # The chance that noise of deviation 0.7 leaves the logit above 0.
        truth = 100 * np.vectorize(NormalDist().cdf)(np.linspace(-9, 9, 2001))
        truth = np.interp(population / 0.7, np.linspace(-9, 9, 2001), truth).mean(axis=1)
        logits = population[:, rng.choice(10_000, 400, replace=False)]
        # Half of the seed's part is shared by the candidates: 0.49 = 2 * 0.495².
        together = rng.normal(0, 0.495, (3, 1, 400))
        bits = logits + together + rng.normal(0, 0.495, (3, *logits.shape)) > 0
        model = SeedModel.fit(table(100 * bits.mean(axis=2).T))
        by_seed = [dict(enumerate(bits[:, i])) for i in range(4)]
        for name, own in (("seeds", model), ("images", model.with_images(by_seed))):
            value, half_width = own.difference(0, 1)
            held[name][0] += abs(value - (truth[0] - truth[1])) <= half_width
            held[name][1] += abs(own.mean[0] - truth[0]) <= own.half_width[0]
    assert max(held["seeds"]) < 0.93 * 120
    assert min(held["images"]) > 0.9 * 120
