import math

import pytest

from se_nas.study.clock import Clock


class Hands:
    now = 100.0

    def __call__(self):
        return self.now


def test_budget_counts_time_before_an_interruption_and_keeps_time_for_the_report():
    hands = Hands()
    clock = Clock(600, spent=50, monotonic=hands)
    hands.now += 30
    assert clock.spent == 80
    assert clock.left == pytest.approx(600 - 12 - 80)
    hands.now += 1000
    assert clock.left == 0


def test_no_budget_has_no_end():
    assert Clock(None).left == math.inf
