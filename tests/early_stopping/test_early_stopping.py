"""Rules of early stopping on simulated learning curves whose end is known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pytest
from numpy.typing import NDArray

from se_nas.early_stopping import (
    RECORD,
    Candidate,
    Decision,
    EarlyStopping,
    MemoryTable,
    Record,
    StudyTable,
    rungs_of,
)
from se_nas.early_stopping._curve_model import CurveModel
from se_nas.errors import ConfigError

EPOCHS = 16


def simulate(count: int, seed: int) -> list[tuple[Candidate, NDArray[np.float64]]]:
    """Accuracy rises with SE, and so does the time to learn: early readings fall with the share of SE."""
    rng = np.random.default_rng(seed)
    out = []
    for number in range(count):
        share = float(rng.integers(0, 9)) / 8
        cost = 100 + 20 * share + rng.uniform(0, 10)
        final = 60 + 4 * share + 0.1 * (cost - 100 - 20 * share) + rng.normal(0, 1.0)
        epoch = np.arange(1, EPOCHS + 1)
        gap = (20 + 14 * share) * (
            np.exp(-epoch / (2.5 + 2.5 * share)) - np.exp(-EPOCHS / (2.5 + 2.5 * share))
        )
        curve = final - gap + rng.normal(0, 0.15, EPOCHS)
        out.append((Candidate(number=number, costs=(cost,), features=(share,)), curve))
    return out


def play(stopping: EarlyStopping, runs: list[tuple[Candidate, NDArray[np.float64]]]) -> dict[int, int]:
    """Number to epochs trained."""
    spent = {}
    for candidate, curve in runs:
        for epoch in range(1, EPOCHS + 1):
            if stopping.decide(candidate, epoch, curve[:epoch].tolist()).stop:
                break
        else:
            stopping.finish(candidate, curve.tolist())
        spent[candidate.number] = epoch
    return spent


def front(runs: list[tuple[Candidate, NDArray[np.float64]]]) -> list[int]:
    rows = [(c.costs[0], float(curve[-1]), c.number) for c, curve in runs]
    return [n for cost, acc, n in rows if not any(x <= cost and y >= acc and m != n for x, y, m in rows)]


def test_rungs_are_the_epochs_divided_by_powers_of_the_reduction() -> None:
    assert rungs_of(16, 2) == (1, 2, 4, 8)
    assert rungs_of(27, 3) == (1, 3, 9)
    assert rungs_of(27, 3, min_epochs=2) == (3, 9)
    assert rungs_of(1, 2) == ()
    assert rungs_of(2, 2) == (1,)


def test_candidates_with_much_se_that_learn_late_are_not_punished() -> None:
    lost_by_us, lost_blind, spent, total = 0, 0, 0, 0
    for seed in range(4):
        runs = simulate(80, seed)
        rich = {c.number for c, _ in runs if c.features[0] >= 0.75} & set(front(runs))
        ours = play(EarlyStopping("curves", epochs=EPOCHS, control=0.0), runs)
        blind = play(EarlyStopping("moasha", epochs=EPOCHS, control=0.0), runs)
        total += len(rich)
        lost_by_us += sum(ours[n] < EPOCHS for n in rich)
        lost_blind += sum(blind[n] < EPOCHS for n in rich)
        spent += sum(ours.values())
    assert total >= 8
    assert lost_by_us <= 0.1 * total
    assert lost_blind >= 3 * max(1, lost_by_us)
    assert spent <= 0.5 * 4 * 80 * EPOCHS


def test_the_front_keeps_its_members_at_less_than_half_of_the_epochs() -> None:
    kept = missing = 0
    for seed in range(10, 14):
        runs = simulate(80, seed)
        spent = play(EarlyStopping("curves", epochs=EPOCHS, control=0.0), runs)
        members = front(runs)
        kept += sum(spent[n] == EPOCHS for n in members)
        missing += sum(spent[n] < EPOCHS for n in members)
    assert missing / (kept + missing) <= 0.12


def test_nothing_is_stopped_before_enough_have_finished() -> None:
    stopping = EarlyStopping("curves", epochs=EPOCHS, min_finished=20, control=0.0)
    runs = simulate(20, 0)
    assert set(play(stopping, runs).values()) == {EPOCHS}


def test_the_cheapest_candidate_is_never_stopped_however_bad() -> None:
    stopping = EarlyStopping("curves", epochs=EPOCHS, control=0.0)
    play(stopping, simulate(40, 1))
    cheapest = Candidate(number=99, costs=(50.0,), features=(0.0,))
    decision = stopping.decide(cheapest, 4, [1.0] * 4)
    assert (decision.stop, decision.probability) == (False, 1.0)


def test_controls_run_to_the_end_and_say_how_often_the_rule_is_wrong() -> None:
    stopping = EarlyStopping("curves", epochs=EPOCHS, control=0.25, seed=3)
    runs = simulate(120, 5)
    spent = play(stopping, runs)
    controls = [c.number for c, _ in runs if stopping.is_control(c.number)]
    assert 15 <= len(controls) <= 45
    assert all(spent[n] == EPOCHS for n in controls)
    report = stopping.report()
    condemned = {r.candidate.number for r in stopping.table.records() if r.would_stop is not None}
    assert report["controls"] == len(controls)
    assert report["would_stop"] == len(condemned) > 5
    assert condemned <= set(controls)
    assert report["wrong"] <= 0.2 * report["would_stop"]
    assert report["wrong_interval"][0] <= report["wrong_share"] <= report["wrong_interval"][1]
    assert report["epochs_saved"] == sum(EPOCHS - e for e in spent.values())
    json.dumps(report)


def test_a_wrongly_condemned_control_is_counted() -> None:
    table = MemoryTable()
    for number, (cost, final, would) in enumerate([(1.0, 60.0, None), (2.0, 70.0, 4), (3.0, 65.0, 4)]):
        candidate = Candidate(number=number, costs=(cost,))
        table.write(Record(candidate=candidate, final=final, control=would is not None, would_stop=would))
    report = EarlyStopping(epochs=8, table=table).report()
    assert (report["would_stop"], report["wrong"], report["wrong_share"]) == (2, 1, 0.5)
    # Clopper-Pearson for 1 of 2, from the closed form 1 - 0.975^(1/2) and its mirror image.
    assert report["wrong_interval"] == pytest.approx([1 - math.sqrt(0.975), math.sqrt(0.975)])


def test_readings_of_one_network_stand_for_it_by_their_mean() -> None:
    def needed(network: str | None) -> str:
        stopping = EarlyStopping("curves", epochs=EPOCHS, control=0.0)
        for candidate, curve in simulate(12, 0):
            stopping.finish(candidate, curve.tolist())
        for number, final in ((50, 96.0), (51, 98.0)):
            best = Candidate(number=number, costs=(0.0,), features=(0.0,), network=network)
            stopping.finish(best, [20.0] * (EPOCHS - 1) + [final])
        late = Candidate(number=99, costs=(500.0,), features=(0.0,))
        return stopping.decide(late, 4, [20.0] * 4).reason

    assert "98.00 needed" in needed(None)
    assert "97.00 needed" in needed("one")


def test_the_extrapolation_covers_what_stopped_candidates_would_have_reached() -> None:
    scores = []
    for seed in range(6):
        stopping = EarlyStopping("curves", epochs=EPOCHS, control=0.0)
        runs = simulate(60, seed)
        for candidate, curve in runs[:30]:
            stopping.finish(candidate, curve.tolist())
        for candidate, curve in runs[30:]:
            found = stopping.extrapolate(candidate, curve[:5].tolist())
            assert found is not None
            scores.append((curve[-1] - found[0]) / found[1])
    spread = float(np.std(scores))
    assert abs(np.mean(scores)) < 0.25
    assert 0.6 < spread < 1.3


def test_an_extrapolation_without_grounds_is_none_and_a_full_curve_is_itself() -> None:
    stopping = EarlyStopping("curves", epochs=EPOCHS)
    candidate, curve = simulate(1, 0)[0]
    assert stopping.extrapolate(candidate, curve[:8].tolist()) is None
    assert stopping.extrapolate(candidate, curve.tolist()) == (pytest.approx(curve[-1]), 0.0)


def test_the_regression_recovers_a_plane() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2))
    y = 3 + 2 * x[:, 0] - x[:, 1] + rng.normal(0, 0.1, 200)
    mean, sd, chance = CurveModel(x, y).predict([1.0, 1.0], now=50.0, level=54.0)
    assert mean == pytest.approx(54.0, abs=0.05)
    assert sd == pytest.approx(0.1, rel=0.3)
    assert 0.2 < chance < 0.8


def test_a_feature_that_never_varied_changes_nothing() -> None:
    rows = np.array([[1.0, 7.0], [2.0, 7.0], [3.0, 7.0]])
    gains = np.array([1.0, 2.0, 3.0])
    plain = CurveModel(rows[:, :1], gains).predict([2.5], 0.0)
    assert CurveModel(rows, gains).predict([2.5, 7.0], 0.0)[0] == pytest.approx(plain[0], abs=0.05)


def test_nan_readings_never_stop_and_never_teach() -> None:
    stopping = EarlyStopping("curves", epochs=EPOCHS, control=0.0)
    play(stopping, simulate(30, 2))
    candidate = Candidate(number=500, costs=(130.0,), features=(0.5,))
    assert not stopping.decide(candidate, 4, [math.nan] * 4).stop
    stopping.finish(candidate, [math.nan] * EPOCHS)
    assert all(r.final is None or math.isfinite(r.final) for r in stopping.table.records())
    other = Candidate(number=501, costs=(130.0,), features=(0.5,))
    assert isinstance(stopping.decide(other, 4, [10.0] * 4), Decision)


@pytest.mark.parametrize("rule", ["curves", "moasha", None])
def test_equal_candidates_are_not_stopped(rule: str | None) -> None:
    stopping = EarlyStopping(rule, epochs=EPOCHS, control=0.0)  # type: ignore[arg-type]
    curve = np.linspace(10, 60, EPOCHS)
    runs = [(Candidate(number=n, costs=(100.0,), features=(0.5,)), curve) for n in range(30)]
    assert set(play(stopping, runs).values()) == {EPOCHS}


def test_moasha_stops_the_dominated_and_keeps_the_front() -> None:
    stopping = EarlyStopping("moasha", epochs=4, control=0.0)
    for number, (cost, accuracy) in enumerate([(1.0, 50.0), (2.0, 60.0), (3.0, 70.0)]):
        assert not stopping.decide(Candidate(number=number, costs=(cost,)), 1, [accuracy]).stop
    assert stopping.decide(Candidate(number=3, costs=(4.0,)), 1, [40.0]).stop
    assert not stopping.decide(Candidate(number=4, costs=(0.5,)), 1, [40.0]).stop


@pytest.mark.parametrize("storage", ["memory", "journal"])
def test_workers_share_their_records_through_the_study(storage: str, tmp_path: Path) -> None:
    def connect() -> optuna.Study:
        if storage == "memory":
            return study
        backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.journal"))
        return optuna.load_study(study_name="s", storage=optuna.storages.JournalStorage(backend))

    if storage == "memory":
        study = optuna.create_study(directions=["maximize", "minimize"])
    else:
        backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.journal"))
        study = optuna.create_study(
            study_name="s",
            directions=["maximize", "minimize"],
            storage=optuna.storages.JournalStorage(backend),
        )
    runs = simulate(40, 3)
    spent = {}
    for candidate, curve in runs:
        trial = study.ask()
        assert trial.number == candidate.number
        stopping = EarlyStopping("curves", epochs=EPOCHS, table=StudyTable(connect()), control=0.0)
        spent |= play(stopping, [(candidate, curve)])
    assert spent == play(EarlyStopping("curves", epochs=EPOCHS, control=0.0), runs)
    row = study.trials[0].user_attrs[RECORD]
    assert len(json.dumps(row)) < 500


def test_records_of_another_schema_are_ignored() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    for row in ({"schema": 99}, "text", {"schema": 1, "candidate": {}}):
        study.ask().set_user_attr(RECORD, row)
    assert StudyTable(study).records() == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EarlyStopping("curve", epochs=4), "'curve'.*curves, moasha.*Did you mean"),  # type: ignore[arg-type]
        (lambda: EarlyStopping(epochs=0), "epochs is 0"),
        (lambda: EarlyStopping(epochs=4, threshold=2.0), "threshold is 2.0"),
        (lambda: EarlyStopping(epochs=4, reduction=1.0), "reduction is 1.0"),
    ],
)
def test_invalid_options(make: Callable[[], EarlyStopping], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
