"""What every rule of early stopping holds to; a new rule is tested by its row in `RULES` alone."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from se_nas.early_stopping import RULES, Candidate, EarlyStopping, Record
from se_nas.errors import ConfigError

EPOCHS = 8
RUNGS = (1, 2, 4)


def curve(final: float) -> list[float]:
    return [final * (1 - 0.5**epoch) / (1 - 0.5**EPOCHS) for epoch in range(1, EPOCHS + 1)]


def finished_runs() -> list[tuple[Candidate, list[float]]]:
    """Sixteen trainings; the accuracy rises with the cost."""
    return [(Candidate(number=n, costs=(100.0 + n,)), curve(60.0 + n)) for n in range(16)]


def after_them(rule: str, **options: float) -> EarlyStopping:
    stopping = EarlyStopping(rule, epochs=EPOCHS, **{"control": 0.0, **options})
    for candidate, accuracies in finished_runs():
        stopping.finish(candidate, accuracies)
    return stopping


@pytest.mark.parametrize("rule", RULES)
@given(costs=st.floats(1.0, 99.0), final=st.floats(76.0, 100.0))
@settings(max_examples=20, deadline=None)
def test_a_candidate_that_is_cheaper_and_better_than_all_goes_on(
    rule: str, costs: float, final: float
) -> None:
    best = Candidate(number=50, costs=(costs,))
    stopping = after_them(rule)
    assert not any(stopping.decide(best, epoch, curve(final)[:epoch]).stop for epoch in RUNGS)


@pytest.mark.parametrize("rule", RULES)
def test_a_candidate_that_is_worse_and_more_expensive_than_all_is_stopped(rule: str) -> None:
    worst = Candidate(number=50, costs=(117.0,))
    decision = after_them(rule).decide(worst, 1, curve(50.0)[:1])
    assert decision.stop
    assert decision.reason.startswith("epoch 1: ")


@pytest.mark.parametrize("rule", RULES)
def test_a_control_goes_on_and_what_the_rule_wanted_is_kept(rule: str) -> None:
    stopping = after_them(rule, control=1.0)
    worst = Candidate(number=50, costs=(117.0,))
    decision = stopping.decide(worst, 1, curve(50.0)[:1])
    assert (decision.stop, decision.control) == (False, True)
    (record,) = [record for record in stopping.table.records() if record.candidate == worst]
    assert (record.would_stop, record.stopped) == (1, None)


@pytest.mark.parametrize("rule", RULES)
def test_nothing_is_stopped_between_rungs_at_a_nan_or_without_others(rule: str) -> None:
    worst = Candidate(number=50, costs=(117.0,))
    stopping = after_them(rule)
    assert not stopping.decide(worst, 3, curve(50.0)[:3]).stop
    assert not stopping.decide(worst, 4, [10.0, 10.0, 10.0, math.nan]).stop
    assert not EarlyStopping(rule, epochs=EPOCHS).decide(worst, 1, [0.0]).stop


@pytest.mark.parametrize("rule", RULES)
@given(order=st.permutations(range(16)), cost=st.floats(50.0, 200.0), final=st.floats(1.0, 100.0))
@settings(max_examples=20, deadline=None)
def test_the_order_of_the_records_changes_nothing(
    rule: str, order: list[int], cost: float, final: float
) -> None:
    records = [
        Record(
            candidate=candidate, rungs={rung: accuracies[rung - 1] for rung in RUNGS}, final=accuracies[-1]
        )
        for candidate, accuracies in finished_runs()
    ]
    mine = Record(candidate=Candidate(number=50, costs=(cost,)), rungs={1: curve(final)[0]})
    first = RULES[rule]().decide(mine, 1, records, reduction=2.0)
    second = RULES[rule]().decide(mine, 1, [records[i] for i in order], reduction=2.0)
    assert first.stop == second.stop
    assert first.probability == pytest.approx(second.probability)


@pytest.mark.parametrize("rule", RULES)
def test_the_report_is_made_of_plain_numbers(rule: str) -> None:
    stopping = after_them(rule)
    stopping.decide(Candidate(number=50, costs=(117.0,)), 1, curve(50.0)[:1])
    report = json.loads(json.dumps(stopping.report()))
    assert (report["rule"], report["rungs"], report["stopped"], report["epochs_saved"]) == (
        rule,
        [1, 2, 4],
        1,
        7,
    )


@pytest.mark.parametrize("rule", RULES)
def test_options_of_no_rule_are_refused(rule: str) -> None:
    with pytest.raises(ConfigError, match=f"patience is not an option of '{rule}'; allowed: "):
        EarlyStopping(rule, epochs=EPOCHS, patience=3)


def test_options_are_those_of_the_chosen_rule() -> None:
    with pytest.raises(
        ConfigError,
        match=r"treshold is not .* allowed: threshold, negligible, min_finished\. Did you mean 'threshold'",
    ):
        EarlyStopping("curves", epochs=EPOCHS, treshold=0.2)
    with pytest.raises(ConfigError, match=r"threshold is not an option of 'moasha'; allowed: none\."):
        EarlyStopping("moasha", epochs=EPOCHS, threshold=0.2)
