"""Finalists and the order of their trainings, against simulated truth."""

import numpy as np
import pytest
import scipy.stats

from se_nas.errors import ConfigError
from se_nas.pareto import SeedModel, choose_finalists, next_training, non_dominated, selection_bias

DIRECTIONS = ["maximize", "minimize"]


def fixed_draws(probabilities, count=100):
    """Draws over candidates of rising cost, each on the front in its share of the draws."""
    draws = np.zeros((count, len(probabilities)))
    for i, probability in enumerate(probabilities):
        on = np.arange(count) < round(probability * count)
        draws[:, i] = np.where(on, 10.0 + i, 0.0 if i == 0 else -1.0)
    return draws


def test_finalists_in_order_of_importance():
    draws = fixed_draws([1.0, 0.9, 0.05, 0.3, 0.6, 0.02, 0.0])
    chosen = choose_finalists(draws, range(7), DIRECTIONS, baselines=[0, 5, 6])
    assert [(f.index, f.reason) for f in chosen] == [
        (0, "baseline"),
        (1, "front"),
        (4, "front"),
        (5, "baseline"),
        (6, "baseline"),
        (3, "near the front"),
    ]
    assert [f.probability for f in chosen] == pytest.approx([1, 0.9, 0.6, 0.02, 0.0, 0.3])
    assert [f.index for f in choose_finalists(draws, range(7), DIRECTIONS, baselines=[0], limit=2)] == [0, 1]


def test_a_lucky_reading_is_believed_less_by_a_shrunk_model():
    # 20 readings that scatter as noise alone does; the dearest candidate has the best one.
    rng = np.random.default_rng(0)
    luck = scipy.stats.norm.ppf((np.arange(20) + 0.5) / 20)
    model = SeedModel.fit([{0: 75 + 0.3 * value} for value in luck], sd=0.3)
    costs = np.where(np.arange(20) == 19, 100.0, np.arange(20)[::-1])
    believed = {}
    for name, levels in (("raw", model), ("shrunk", model.shrunk())):
        finalists = choose_finalists(levels.draw(rng, 4000), costs, DIRECTIONS, min_probability=1e-9)
        believed[name] = next(f.probability for f in finalists if f.index == 19)
    assert believed["raw"] > 0.3
    assert believed["shrunk"] < 0.6 * believed["raw"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0}, "limit is 0; it must be at least 1"),
        ({"min_probability": 0}, "min_probability is 0; it must be above 0"),
        ({"min_probability": 1.5}, r"min_probability is 1\.5"),
    ],
)
def test_wrong_options_of_the_choice(options, message):
    with pytest.raises(ConfigError, match=message):
        choose_finalists(fixed_draws([1.0]), [1], DIRECTIONS, **options)


def run(truth, costs, rng, budget, **options):
    """Trains as ``next_training`` says; readings by candidate."""
    readings = [{} for _ in truth]
    shift = rng.normal(0, 0.3, 50)
    order = []
    for _ in range(budget):
        step = next_training(readings, costs, DIRECTIONS, rng=rng, **options)
        if step is None:
            break
        i, seed = step
        assert seed not in readings[i]
        readings[i][seed] = truth[i] + shift[seed] + rng.normal(0, 0.2)
        order.append(step)
    return readings, order


def test_base_seeds_come_seed_by_seed():
    _, order = run([70, 71, 72], [1, 2, 3], np.random.default_rng(0), 6, base_seeds=2)
    assert order == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)]
    _, order = run([70, 71], [1, 2], np.random.default_rng(0), 3, base_seeds=2, seeds=[7, 5])
    assert order == [(0, 7), (1, 7), (0, 5)]


def test_more_seeds_go_where_membership_is_uncertain():
    # Candidate 1 is as good as the cheaper candidate 0; 2 and 3 are clear.
    truth, costs = [70.0, 70.05, 74.0, 60.0], [1, 2, 3, 4]
    extra = np.zeros(4)
    for seed in range(10):
        readings, _ = run(truth, costs, np.random.default_rng(seed), 24)
        extra += [len(own) - 3 for own in readings]
    assert extra[:2].sum() > 5 * extra[2:].sum()


def test_it_stops_when_all_is_decided():
    readings, order = run([70.0, 75.0, 60.0], [1, 2, 3], np.random.default_rng(0), 100)
    assert len(order) == 9
    assert all(len(own) == 3 for own in readings)


def test_it_stops_at_the_last_seed():
    readings, order = run([70.0, 70.0], [1, 2], np.random.default_rng(1), 100, seeds=range(5), settled=1e-9)
    assert len(order) == 10
    assert all(sorted(own) == [0, 1, 2, 3, 4] for own in readings)


def test_trainings_under_way_and_failed_candidates_are_not_asked_for():
    rng = np.random.default_rng(0)
    assert next_training([{}, {}], [1, 2], DIRECTIONS, rng=rng, under_way=[(0, 0)]) == (1, 0)
    assert next_training([{}, {}], [1, 2], DIRECTIONS, rng=rng, under_way=[(0, 0), (1, 0)]) == (0, 1)
    assert next_training([{}, {}], [1, 2], DIRECTIONS, rng=rng, failed=[0]) == (1, 0)
    assert next_training([{}, {}], [1, 2], DIRECTIONS, rng=rng, failed=[0, 1]) is None


def test_a_failed_candidate_without_readings_does_not_stand_in_the_way():
    rng = np.random.default_rng(0)
    readings = [{s: 70 + 0.1 * ((s * (i + 1)) % 3) for s in range(3)} for i in range(3)]
    readings.insert(1, {})
    step = next_training(readings, [1, 2, 3, 4], DIRECTIONS, rng=rng, failed=[1])
    assert step is not None
    assert step[0] != 1
    assert step[1] == 3


def test_parallel_workers_spread_over_uncertain_candidates():
    rng = np.random.default_rng(0)
    readings = [{s: 70 + 0.1 * ((s + i) % 3) for s in range(3)} for i in range(4)]
    under_way = []
    for _ in range(4):
        under_way.append(next_training(readings, [1, 2, 3, 4], DIRECTIONS, rng=rng, under_way=under_way))
    assert len({index for index, _ in under_way}) >= 3


def test_base_seeds_must_fit():
    with pytest.raises(ConfigError, match="base_seeds is 3; it must be from 1 to 2"):
        next_training([{}], [1], DIRECTIONS, rng=np.random.default_rng(0), seeds=[0, 1])


@pytest.mark.slow
def test_adaptive_seeds_decide_membership_better_than_equal_ones():
    wrong = {"adaptive": 0, "equal": 0}
    for number in range(150):
        rng = np.random.default_rng(number)
        truth, costs = 75 + rng.normal(0, 0.3, 10), np.arange(10.0)
        true = non_dominated(np.column_stack([truth, costs]), DIRECTIONS)
        for name, options in (
            ("adaptive", {"settled": 0.001, "seeds": range(20)}),
            ("equal", {"base_seeds": 6}),
        ):
            readings, _ = run(truth, costs, np.random.default_rng(number), 60, **options)
            found = non_dominated(np.column_stack([SeedModel.fit(readings).mean, costs]), DIRECTIONS)
            wrong[name] += int((found != true).sum())
    assert wrong["adaptive"] < 0.9 * wrong["equal"]


def test_selection_bias_is_the_luck_of_the_selected():
    rng = np.random.default_rng(0)
    truth = rng.normal(75, 0.1, 200)
    seen = truth + rng.normal(0, 0.3, 200)
    best = np.argsort(seen)[-10:]
    bias, half_width = selection_bias(seen[best], truth[best] + rng.normal(0, 0.05, 10))
    assert bias == pytest.approx((seen[best] - truth[best]).mean(), abs=0.1)
    assert bias - half_width > 0.2
    # 0.5 on average, standard deviation 1 / sqrt(2): 12.7062 / 2.
    assert selection_bias([71, 72], [71, 71]) == pytest.approx((0.5, 12.7062 * 0.5), abs=1e-3)
    assert selection_bias([71, np.nan], [70.5, 71])[0] == pytest.approx(0.5)
    assert np.isnan(selection_bias([], [])[0])
