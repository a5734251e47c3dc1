import numpy as np
import pytest
from synthetic_run import SITES, key_of, report_of, rows_of, widths_of
from test_report_pareto_report import simple_row

from se_nas.report.effects import stage_effects
from se_nas.report.history import progress, retraining

TRUE_EFFECT = (0.1, 0.2, 0.6, -0.4)


def planted_rows(count, noise=0.0, stages=4):
    generator = np.random.default_rng(0)
    template = rows_of(trials=1, seeds=0)[0]
    rows = []
    for number in range(count):
        present = [generator.random() < 0.5 if stage < stages else False for stage in range(4)]
        widths = [w if present[s["stage"]] else 0 for s, w in zip(SITES, widths_of([16] * 4), strict=True)]
        gain = sum(effect for effect, here in zip(TRUE_EFFECT, present, strict=True) if here)
        accuracy = 90 + gain + noise * generator.normal()
        rows.append(
            template
            | {"number": number, "key": key_of(widths), "widths": widths, "baseline": None}
            | {"accuracy": accuracy, "latency_ratio": 1 + 0.02 * sum(present), "latency_ms": 6 + sum(present)}
        )
    return rows


def test_effects_without_noise_are_exact():
    effects = stage_effects(report_of(planted_rows(60), provisional=True))
    assert [effect.stage for effect in effects] == [0, 1, 2, 3]
    assert [effect.num_sites for effect in effects] == [3, 4, 6, 3]
    for effect, expected in zip(effects, TRUE_EFFECT, strict=True):
        assert effect.accuracy.value == pytest.approx(expected, abs=1e-8)
        assert effect.costs["latency"].value == pytest.approx(2.0, abs=1e-8)


def test_intervals_cover_the_truth_in_most_of_the_stages():
    covered = [
        abs(effect.accuracy.value - expected) <= effect.accuracy.half_width
        for effect, expected in zip(
            stage_effects(report_of(planted_rows(60, noise=0.2), provisional=True)), TRUE_EFFECT, strict=True
        )
    ]
    assert sum(covered) >= 3


def test_a_stage_that_never_varied_is_not_estimated():
    effects = stage_effects(report_of(planted_rows(60, stages=3), provisional=True))
    assert effects[3].accuracy is None
    assert effects[3].note == "the same in every reading"
    assert effects[2].accuracy.value == pytest.approx(0.6, abs=1e-8)


def test_stages_that_only_varied_together_are_not_told_apart():
    rows = planted_rows(40)
    for row in rows:
        row["widths"][-3:] = [128 if row["widths"][0] else 0] * 3
    effects = stage_effects(report_of(rows, provisional=True))
    assert effects[0].accuracy is None
    assert effects[3].note == "never varied apart from another stage"


def test_too_few_readings_are_said_to_be_too_few():
    effects = stage_effects(report_of(planted_rows(3), provisional=True))
    assert all(effect.accuracy is None and "too few" in effect.note for effect in effects)


def test_progress_by_hand():
    rows = [
        simple_row(
            0, 90.0, 6.0, epochs=10, started="2026-01-01T00:00:00+00:00", finished="2026-01-01T00:01:00+00:00"
        ),
        simple_row(
            *(1, None, 6.5),
            state="stopped",
            epochs=3,
            started="2026-01-01T00:01:00+00:00",
            finished="2026-01-01T00:01:20+00:00",
        ),
        simple_row(
            2, 92.0, 7.0, epochs=10, started="2026-01-01T00:01:20+00:00", finished="2026-01-01T00:03:00+00:00"
        ),
        simple_row(3, 91.0, 7.0, phase="final", epochs=10, key=f"{2:016x}"),
    ]
    points = progress(report_of(rows))
    assert [(point.evaluations, point.epochs, point.seconds) for point in points] == [
        (1, 10, 60.0),
        (2, 13, 80.0),
        (3, 23, 180.0),
    ]
    # Reference: accuracy 90 - 0.2, latency 7 + 0.1.
    assert [point.hypervolume for point in points] == pytest.approx(
        [0.2 * 1.1, 0.2 * 1.1, 0.2 * 1.1 + 2 * 0.1]
    )


def test_hypervolume_never_falls(make_run):
    volumes = [
        point.hypervolume for point in progress(report_of(rows_of(trials=120, seeds=0), provisional=True))
    ]
    assert volumes == sorted(volumes)
    assert len(volumes) > 100


def test_retraining_shows_what_selection_promised_too_much():
    rows = []
    for number, (search, final, role) in enumerate(
        [(92.0, 91.0, None), (91.0, 90.4, None), (90.0, 90.1, "plain"), (90.0, 89.9, "native")]
    ):
        rows.append(simple_row(number, search, 6.0 + number, baseline=role))
        rows.append(
            simple_row(
                10 + number, final, 6.0 + number, phase="final", seed=9, key=f"{number:016x}", baseline=role
            )
        )
    change = retraining(report_of(rows))
    assert change.selected.value == pytest.approx(-0.8)
    # Differences -1.0 and -0.6: standard error 0.2, one degree of freedom.
    assert change.selected.half_width == pytest.approx(12.7062 * 0.2)
    assert change.baselines.value == pytest.approx(0.0)
    assert change.same_schedule
    assert retraining(report_of(rows[:1], provisional=True)) is None
