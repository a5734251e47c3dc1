"""What fits into a budget, against a simulation of the places that trainings take."""

import heapq
import math
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from se_nas.study.budget import BEST, ENOUGH, FEW, LONGEST, MARGIN, MOST, SLACK, USUAL, Allowance, Division

DIVISIONS = st.builds(
    Division,
    final_seeds=st.integers(0, 10),
    places=st.integers(1, 16),
    most=st.one_of(st.integers(1, 40), st.just(MOST)),
)
ALLOWANCES = st.builds(
    Allowance,
    budget=st.floats(30, 1e5),
    spent=st.floats(0, 200),
    measures=st.booleans(),
    epoch=st.floats(0.01, 500),
    overhead=st.floats(0, 5),
    division=DIVISIONS,
)


def makespan(trainings, places, each):
    """Seconds until so many trainings have ended, each begun as soon as a place is free."""
    free = [0.0] * places
    for _ in range(trainings):
        heapq.heappush(free, heapq.heappop(free) + each)
    return max(free)


def simulated(allowance, candidates, epochs):
    """Seconds of the search and then of the final phase, in which each training is slower by ``SLACK``."""
    division, each = allowance.division, allowance.each(epochs)
    finals = division.final_trainings(candidates)
    return makespan(candidates, division.places, each) + makespan(finals, division.places, SLACK * each)


@given(ALLOWANCES, st.integers(1, 20))
def test_never_plans_more_than_fits(allowance, epochs):
    candidates = allowance.candidates(epochs)
    assume(candidates < 2000)
    assert simulated(allowance, candidates, epochs) <= allowance.training_seconds * (1 + 1e-9)
    kept = allowance.training_seconds + allowance.latency_seconds + allowance.spent
    assert candidates == 0 or kept <= (1 - MARGIN) * allowance.budget * (1 + 1e-9)


@given(ALLOWANCES, st.integers(1, 20))
def test_never_plans_fewer_than_fit(allowance, epochs):
    candidates = allowance.candidates(epochs)
    assume(candidates < 2000)
    if candidates < allowance.division.most:
        assert simulated(allowance, candidates + 1, epochs) > allowance.training_seconds * (1 - 1e-9)
    assert candidates <= allowance.division.most


@given(ALLOWANCES, st.floats(1, 10), st.integers(1, 20))
def test_more_budget_never_means_fewer_candidates(allowance, factor, epochs):
    more = replace(allowance, budget=factor * allowance.budget)
    assert more.candidates(epochs) >= allowance.candidates(epochs)


@given(ALLOWANCES, st.floats(1, 10), st.integers(1, 100), st.integers(1, 50))
def test_more_budget_never_means_shorter_schedules(allowance, factor, usual, wanted):
    more = replace(allowance, budget=factor * allowance.budget)
    epochs = allowance.epochs(usual, wanted)
    assert 1 <= epochs <= more.epochs(usual, wanted) <= LONGEST * usual


@given(ALLOWANCES, st.integers(1, 100), st.integers(1, 50))
def test_schedules_are_as_long_as_the_candidates_that_are_wanted_allow(allowance, usual, wanted):
    most = allowance.division.most
    epochs = allowance.epochs(usual, wanted)
    if epochs > usual:
        assert allowance.candidates(epochs) >= min(ENOUGH, most)
    elif epochs > 1:
        assert allowance.candidates(epochs) >= min(wanted, most)
    if epochs < usual:
        assert allowance.candidates(epochs + 1) < min(wanted, most)


@given(ALLOWANCES, st.integers(1, 40), st.integers(1, 20))
def test_the_budget_that_is_needed_is_enough_and_hardly_less_is_not(allowance, candidates, epochs):
    division = replace(allowance.division, most=MOST)
    needed = replace(allowance, division=division).needed(candidates, epochs)
    enough = replace(allowance, division=division, budget=needed * 1.001)
    assert enough.candidates(epochs) >= candidates
    # What fits is counted in rounds of all places.
    short = replace(enough, budget=needed * 0.999 - 1e-6)
    assert short.candidates(epochs) < candidates or division.places > 1


@given(st.integers(1, 5), st.integers(0, 500), st.integers(1, 8))
def test_final_trainings_grow_with_the_candidates_and_leave_the_search_more_time(seeds, candidates, places):
    division = Division(final_seeds=seeds, places=places)
    finals = division.final_trainings(candidates)
    assert finals <= division.final_trainings(candidates + 1)
    assert finals <= max(2 * (1 + max(BEST)), candidates / 2 + 1)


def test_the_plain_backbone_and_the_best_have_time_for_two_seeds():
    division = Division(final_seeds=3)
    assert [division.final_trainings(candidates) for candidates in (1, 2, 3, FEW - 1)] == [0, 0, 6, 6]
    assert [division.final_trainings(candidates) for candidates in (FEW, 16, 20, 100)] == [8, 8, 10, 50]
    assert Division(final_seeds=1).final_trainings(12) == 4
    assert Division(final_seeds=0).final_trainings(12) == 0


def test_eight_minutes_of_a_network_by_hand():
    """An epoch of 17 s and 1.5 s around it: 480 s less 2 %, 10 % and 10 s are 412.4 s, or 22.3 trainings."""
    allowance = Allowance(
        budget=480, spent=10, measures=True, epoch=17, overhead=1.5, division=Division(final_seeds=3)
    )
    assert allowance.epochs(usual=3, wanted=USUAL) == 1
    # 13 candidates and 8 final trainings that may last a tenth longer are 21.8; 14 would be 22.8.
    assert allowance.candidates(1) == 13
    assert allowance.needed(14, 1) == pytest.approx((18.5 * (14 + 1.1 * 8) + 10) / 0.88)


def test_a_budget_of_hours_lengthens_the_schedule_of_seconds():
    """Two hours, epochs of 1 s, a recipe of 3 epochs: 100 candidates and 50 final trainings have 40 s each."""
    allowance = Allowance(
        budget=7200, spent=0, measures=True, epoch=1, overhead=1.5, division=Division(final_seeds=3)
    )
    assert allowance.epochs(usual=3, wanted=USUAL) == LONGEST * 3
    assert allowance.candidates(30) > ENOUGH
    assert allowance.epochs(usual=30, wanted=USUAL) == math.floor(6336 / (ENOUGH + 1.1 * 50) - 1.5)
