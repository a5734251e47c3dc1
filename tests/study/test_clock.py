import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from se_nas.study.clock import Clock, sized_epochs


class Hands:
    now = 100.0

    def __call__(self):
        return self.now


def test_budget_counts_time_before_an_interruption():
    hands = Hands()
    clock = Clock(600, spent=50, monotonic=hands)
    hands.now += 30
    assert clock.spent == 80
    assert clock.left == 520


def test_search_leaves_the_share_of_the_final_seeds():
    hands = Hands()
    clock = Clock(600, monotonic=hands)
    assert clock.search_left(reserve_finals=True) == pytest.approx(420)
    assert clock.search_left(reserve_finals=False) == 600
    hands.now += 500
    assert clock.search_left(reserve_finals=True) == 0
    assert clock.left == 100


def test_no_budget_has_no_end():
    clock = Clock(None)
    assert clock.left == math.inf
    assert clock.search_left(reserve_finals=True) == math.inf


def test_epochs_by_hand():
    # 320 s for 16 candidates are 20 s each; 2 s go to building, 18 s are 4 epochs of 4 s.
    assert sized_epochs(4.0, 2.0, 320.0, 16, most=30) == 4
    assert sized_epochs(4.0, 2.0, math.inf, 16, most=30) == 30
    assert sized_epochs(100.0, 2.0, 320.0, 16, most=30) == 1


@given(st.floats(0.01, 100), st.floats(0, 10), st.floats(1, 1e5), st.integers(1, 100), st.integers(1, 300))
def test_epochs_fit_or_are_one(epoch, overhead, seconds, candidates, most):
    epochs = sized_epochs(epoch, overhead, seconds, candidates, most)
    assert 1 <= epochs <= most
    assert epochs == 1 or candidates * (epochs * epoch + overhead) <= seconds * (1 + 1e-9)
