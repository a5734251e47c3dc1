import json
import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from se_nas.study.budget import Division
from se_nas.study.phases.finals import Finals


def plan_of(final_seeds=3, objectives=("accuracy", "macs"), num_val=2000, seed=0):
    config = SimpleNamespace(objectives=objectives, seed=seed, final_seeds=final_seeds)
    return SimpleNamespace(config=config, data=SimpleNamespace(val=range(num_val)))


def row_of(key, accuracy, macs, baseline=None, **fields):
    row = {"key": key, "phase": "search", "state": "complete", "seed": 0, "baseline": baseline}
    return row | {"accuracy": accuracy, "macs": macs} | fields


def searched():
    """ "all" is dear and bad; a and b cannot be told apart and cost nearly the same; far is hopeless."""
    return [
        row_of("plain", 88.0, 100, "plain"),
        row_of("all", 86.0, 200, "all_se_16"),
        row_of("a", 91.0, 150),
        row_of("b", 91.1, 151),
        row_of("top", 95.0, 180),
        row_of("far", 60.0, 190),
        row_of("none", None, 120, state="failed"),
        row_of("cut", 99.0, 120, state="stopped"),
    ]


def carried_out(finals, rows, truth, trainings=math.inf, sd=0.1, left=math.inf):
    """Trains as the finals say; returns the rows with the final ones behind."""
    rng, rows, order = np.random.default_rng(1), list(rows), []
    while len(order) < trainings and left >= 1:
        step = finals.next(rows, left, 1.0)
        if step is None:
            break
        row, seed = step
        order.append((row["key"], seed))
        rows.append(
            {**row, "phase": "final", "seed": seed, "accuracy": truth[row["key"]] + rng.normal(0, sd)}
        )
        left -= 1.0
    return rows, order


TRUTH = {"plain": 88.0, "all": 86.0, "a": 91.0, "b": 91.0, "top": 95.0, "far": 60.0}


def test_the_plain_backbone_comes_first_and_hopeless_candidates_do_not_come():
    report = Finals(searched(), plan_of()).report()
    keys = [entry["key"] for entry in report["chosen"]]
    assert keys[0] == "plain"
    assert set(keys) >= {"plain", "top", "a", "all"}
    assert not {"far", "none", "cut"} & set(keys)
    reasons = {entry["key"]: entry["reason"] for entry in report["chosen"]}
    assert reasons["plain"] == reasons["all"] == "baseline"
    assert reasons["top"] == "front"
    assert all(0 <= entry["probability"] <= 1 for entry in report["chosen"])


def test_a_choice_that_was_stored_counts_until_the_search_goes_on():
    def keys(finals):
        return [entry["key"] for entry in finals.report()["chosen"]]

    rows = [{**row, "number": number} for number, row in enumerate(searched())]
    first = Finals(rows, plan_of())
    stored = json.loads(json.dumps(first.choice))
    again = Finals(rows, plan_of(), stored)
    assert again.report() == first.report()
    assert again.choice == stored
    # Another worker's arithmetic may differ in a last digit: what was stored counts, whatever this one would choose.
    stored["chosen"] = stored["chosen"][:2]
    final = {**rows[0], "phase": "final", "seed": 1, "number": len(rows)}
    assert keys(Finals([*rows, final], plan_of(), stored)) == keys(first)[:2]
    more = [*rows, row_of("new", 97.0, 110, number=len(rows))]
    assert "new" in keys(Finals(more, plan_of(), stored))


def test_several_readings_of_a_network_count_together():
    def probability(rows):
        chosen = Finals(rows, plan_of()).report()["chosen"]
        return {entry["key"]: entry["probability"] for entry in chosen}.get("lucky", 0.0)

    rows = [*searched(), row_of("lucky", 92.6, 170)]
    again = [row_of("lucky", accuracy, 170, seed=10_001 + i) for i, accuracy in enumerate((90.4, 90.6, 90.5))]
    assert probability(rows) > 0.8
    assert probability(rows + again) < probability(rows) - 0.1


def test_what_is_merely_near_the_front_takes_no_more_trainings_than_the_search_had():
    rows = [row_of("plain", 90.0, 100, "plain"), *(row_of(str(i), 90.0, 101 + i) for i in range(11))]
    few = Finals(rows, plan_of(final_seeds=3, num_val=200)).report()["chosen"]
    many = Finals(rows, plan_of(final_seeds=1, num_val=200)).report()["chosen"]
    assert len(few) == 4
    assert len(many) > len(few)


def test_all_get_one_seed_before_any_gets_the_next():
    finals = Finals(searched(), plan_of(seed=5))
    count = len(finals.report()["chosen"])
    _, order = carried_out(finals, searched(), TRUTH, trainings=3 * count)
    assert [seed for _, seed in order] == [seed for seed in (6, 7, 8) for _ in range(count)]
    assert len(set(order)) == len(order)


def test_further_seeds_go_to_those_that_cannot_be_told_apart():
    finals = Finals(searched(), plan_of())
    base = 3 * len(finals.report()["chosen"])
    rows, order = carried_out(finals, searched(), TRUTH)
    extra = Counter(key for key, _ in order[base:])
    assert extra
    assert set(extra) <= {"a", "b"}
    assert len(order) <= 1.5 * base
    assert finals.settled(rows)


def test_decided_places_get_no_further_seeds():
    truth = {**TRUTH, "b": 89.0}
    finals = Finals(searched(), plan_of())
    _, order = carried_out(finals, searched(), truth, sd=0.05)
    assert len(order) == 3 * len(finals.report()["chosen"])
    assert finals.report()["ended"] == "decided"


def test_no_finalist_gets_more_than_twice_the_seeds():
    finals = Finals(searched(), plan_of(final_seeds=2))
    _, order = carried_out(finals, searched(), TRUTH, left=1e6)
    assert max(Counter(key for key, _ in order).values()) <= 4
    assert {seed for _, seed in order} <= {1, 2, 3, 4}


def test_with_little_time_fewer_finalists_get_their_two_seeds():
    finals = Finals(searched(), plan_of())
    rows, order = carried_out(finals, searched(), TRUTH, left=5.5)
    assert sorted(Counter(key for key, _ in order).values()) == [2, 3]
    assert order[0][0] == "plain"
    assert not finals.settled(rows)
    assert finals.next(searched(), 1.5, 1.0) is None
    assert finals.report()["ended"] == "budget"


def test_the_same_rows_lead_to_the_same_trainings_also_after_an_interruption():
    whole = carried_out(Finals(searched(), plan_of()), searched(), TRUTH)
    rows, _ = carried_out(Finals(searched(), plan_of()), searched(), TRUTH, trainings=7)
    unfinished = {**rows[-1], "state": "unfinished", "accuracy": 12.0}
    again = Finals([*rows[:-1], unfinished], plan_of())
    step = again.next([*rows[:-1], unfinished], math.inf, 1.0)
    assert (step[0]["key"], step[1]) == whole[1][7]


def test_a_finalist_that_fails_gets_no_more_and_does_not_hold_the_others_up():
    finals = Finals(searched(), plan_of())
    broken = row_of("all", None, 200, phase="final", seed=1, state="failed")
    rows, order = carried_out(finals, [*searched(), broken], TRUTH)
    assert "all" not in {key for key, _ in order}
    assert finals.settled(rows)


def test_a_front_is_settled_with_two_seeds_each_of_the_plain_backbone_and_the_two_best():
    finals = Finals(searched(), plan_of())
    chosen = finals.report()["chosen"]
    once, _ = carried_out(finals, searched(), TRUTH, trainings=len(chosen))
    assert not finals.settled(once)
    best = [entry["key"] for entry in chosen if entry["reason"] == "front"][:2]
    again = [row_of(key, 90.0, 100, phase="final", seed=2) for key in ("plain", *best)]
    assert len(again) == 3
    assert not finals.settled(once + again[:2])
    assert finals.settled(once + again)


def test_the_time_that_a_search_keeps_is_enough_for_a_final_front():
    """Of each number of candidates, whatever they read."""
    for seed, candidates in enumerate(range(3, 24)):
        rng = np.random.default_rng(seed)
        rows = [row_of("plain", 90.0, 100, "plain")]
        rows += [row_of(str(i), 90.0 + rng.normal(0, 2), 101 + i) for i in range(1, candidates)]
        finals = Finals(rows, plan_of())
        left = Division(final_seeds=3).final_trainings(candidates)
        trained, _ = carried_out(finals, rows, {row["key"]: row["accuracy"] for row in rows}, left=left)
        assert finals.settled(trained), candidates


def test_the_final_trainings_that_are_planned_are_those_that_come():
    finals = Finals(searched(), plan_of())
    count = len(finals.report()["chosen"])
    assert finals.planned(searched(), math.inf, 1.0) == 3 * count
    assert finals.planned(searched(), 5.5, 1.0) == 5
    rows, _ = carried_out(finals, searched(), TRUTH, trainings=4)
    assert finals.planned(rows, math.inf, 1.0) == 3 * count


@pytest.mark.parametrize("final_seeds", [0, 1])
def test_none_and_one_final_seed(final_seeds):
    finals = Finals(searched(), plan_of(final_seeds=final_seeds))
    rows, order = carried_out(finals, searched(), TRUTH)
    assert len(order) == final_seeds * len(finals.report()["chosen"])
    assert finals.settled(rows) == bool(final_seeds)
    assert finals.report()["ended"] == "exhausted"


def test_a_search_without_a_reading_has_no_finalists():
    finals = Finals(searched()[-2:], plan_of())
    assert finals.next(searched()[-2:], math.inf, 0.0) is None
    assert not finals.settled(searched()[-2:])
