import pytest
from synthetic_run import SITES, manifest, report_of, rows_of, widths_of
from test_report_pareto_report import simple_row

from se_nas.documents.typed import parse
from se_nas.errors import RunError
from se_nas.report import ParetoReport, pick
from se_nas.report.picks import describe, names_of
from se_nas.report.placement import by_stage, placement
from se_nas.sites import Site

SITE_OBJECTS = tuple(parse(Site, site) for site in SITES)


@pytest.mark.parametrize(
    ("reductions", "expected"),
    [
        ([None, None, None, None], "no SE"),
        ([16, 16, 16, 16], "SE everywhere at γ=16"),
        ([None, None, 8, 8], "SE in stages 2 and 3 at γ=8"),
        ([None, 8, 8, 8], "SE in stages 1, 2 and 3 at γ=8"),
        ([None, None, 16, 8], "SE in stage 2 at γ=16 and stage 3 at γ=8"),
        ([4, None, 16, 8], "SE in stage 0 at γ=4; stage 2 at γ=16; stage 3 at γ=8"),
    ],
)
def test_placement_in_words(reductions, expected):
    assert placement(SITE_OBJECTS, widths_of(reductions)) == expected


def test_placement_counts_sites_where_a_stage_is_partly_gated():
    widths = widths_of([None] * 4)
    widths[8], widths[13] = 128, 128
    assert placement(SITE_OBJECTS, widths) == (
        "SE in stage 2 (1 of 6 sites) at γ=8 and stage 3 (1 of 3 sites) at γ=16"
    )
    stages = by_stage(SITE_OBJECTS, widths)
    assert [stage.gated for stage in stages] == [0, 0, 1, 1]
    assert stages[2].share == pytest.approx(1 / 6)


def test_placement_shows_the_range_of_a_mixed_stage():
    widths = widths_of([None, None, None, 8])
    widths[-1] = 128
    assert placement(SITE_OBJECTS, widths) == "SE in stage 3 at γ=8–16"


def paired_rows():
    """Plain and stage 3 at γ=8, three shared seeds; differences 0.5, 0.6, 0.7 around seed levels -1, 0, 1."""
    template = rows_of(trials=1, seeds=0)[0]
    rows = []
    for seed, (level, gain) in enumerate([(-1.0, 0.5), (0.0, 0.6), (1.0, 0.7)]):
        for number, (role, widths, accuracy, ratio) in enumerate(
            [
                ("plain", widths_of([None] * 4), 90 + level, 1.0),
                (None, widths_of([None, None, None, 8]), 90 + level + gain, 1.019),
            ]
        ):
            rows.append(
                template
                | {
                    "number": 2 * seed + number,
                    "key": f"{number:016x}",
                    "baseline": role,
                    "widths": widths,
                    "phase": "final",
                    "seed": seed,
                    "accuracy": accuracy,
                    "latency_ms": 6.0 * ratio,
                    "latency_ratio": ratio,
                    "latency_interval": [ratio - 0.003, ratio + 0.003],
                }
            )
    return rows


def test_reason_gives_gain_and_cost_against_the_plain_backbone_paired_by_seed():
    report = report_of(paired_rows())
    # Two candidates, three seeds: residuals of ±0.05, 0, ∓0.05 with 2 degrees of freedom, so the difference
    # of the means has a standard error of 0.1 / sqrt(3), as in a paired t test, and t is 4.303.
    assert report.deviation(report.candidates[1], report.plain) == pytest.approx(
        4.3027 * 0.1 / 3**0.5, rel=1e-3
    )
    assert describe(report, report.candidates[1]) == (
        "SE in stage 3 at γ=8: +0.6±0.2 points for 1.9±0.3 % latency"
    )
    best = pick(report, "best")
    assert best.candidate.number == 1
    assert best.reason == (
        "SE in stage 3 at γ=8: +0.6±0.2 points for 1.9±0.3 % latency"
        " (the best accuracy on the front, 90.60 %)."
    )


def test_without_repeats_the_reason_says_that_there_is_no_interval():
    report = report_of(paired_rows()[:2])
    assert "+0.5 points (no repeats, so no interval)" in pick(report, "best").reason


def test_not_retrained_is_said_of_what_was_not():
    rows = paired_rows()
    other = simple_row(20, 88.0, 6.3)
    failed = other | {"number": 21, "phase": "final", "state": "failed", "accuracy": None}
    for extra, words in (([other], "not retrained"), ([other, failed], "no retraining has finished")):
        report = report_of([*rows, *extra])
        text = describe(report, report.candidates[-1])
        assert f"88.00 % in the search ({words})" in text


def front_of_five():
    points = [(90.0, 6.0), (91.0, 6.1), (91.2, 6.6), (91.25, 7.0)]
    rows = [simple_row(i, accuracy, latency) for i, (accuracy, latency) in enumerate(points)]
    return report_of(rows, provisional=True, data=manifest()["data"] | {"num_val": 10000})


def test_best_knee_and_one_standard_error():
    report = front_of_five()
    assert pick(report, "best").candidate.number == 3
    # Scaled to the front's range: gains 0, .8, .96, 1 and losses 0, .1, .6, 1; the largest sum is at .8 - .1.
    assert pick(report, "knee").candidate.number == 1
    # One reading each: binomial standard error of 91.25 % on 10,000 images is 0.283 points.
    cheapest = pick(report, "one-se")
    assert cheapest.candidate.number == 1
    assert pick(report, "cheapest") == cheapest
    assert "0.28 points over 10000 validation images, no repeats" in cheapest.reason
    assert names_of(report) == {f"{3:016x}": ("best",), f"{1:016x}": ("knee", "one-se")}


@pytest.mark.parametrize(
    ("name", "number"),
    [("under:6.6ms", 2), ("under:6.59 ms", 1), ("under:1.1x", 2), ("0", 0), ("0000000000000003", 3)],
)
def test_budget_number_and_key(name, number):
    assert pick(front_of_five(), name).candidate.number == number


def test_budget_in_parameters_and_macs():
    rows = [
        simple_row(i, 90.0 + i, 6.0 + i, num_params=(25 + i) * 10**6, macs=(4 + i) * 10**9) for i in range(3)
    ]
    report = report_of(rows, provisional=True)
    assert pick(report, "under:26Mparams").candidate.number == 1
    assert pick(report, "under:4.5Gmacs").candidate.number == 0
    counted = report_of(rows, provisional=True, objectives=["accuracy", "params"])
    assert pick(counted, "under:26M").candidate.number == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("under:5ms", "no candidate of synthetic is under 5ms: the smallest value is 6 ms (latency)."),
        (
            "under:5 parsec",
            "the budget is '5 parsec'; write it as 1.05x, 6.5ms, 4.2Gmacs, 27Mparams, ",
        ),
        ("under:", "the budget is ''"),
        ("bset", "there is no pick 'bset' in synthetic; allowed: best, knee, one-se, under:BUDGET, "),
        ("bset", " or a key. Did you mean 'best'?"),
        ("cheapst", " or a key. Did you mean 'cheapest'"),
        ("99", "a trial number (0 to 3)"),
        ("", "there is no pick ''"),
        ("00000000000", "'00000000000' is the beginning of 4 keys"),
    ],
)
def test_mistakes_are_explained(name, words):
    with pytest.raises(RunError) as caught:
        pick(front_of_five(), name)
    assert words in str(caught.value)


def test_a_candidate_that_did_not_finish_cannot_be_picked():
    rows = [simple_row(0, 90.0, 6.0), simple_row(1, None, 6.0, state="failed", error="out of memory")]
    with pytest.raises(RunError, match="'1' cannot be picked: its state is failed: out of memory"):
        pick(report_of(rows, provisional=True), "1")


def test_nothing_to_pick_from():
    with pytest.raises(RunError, match="nothing can be picked from synthetic: no candidate has finished yet"):
        pick(report_of([], provisional=True), "best")


def test_front_of_one_is_its_own_knee():
    report = report_of([simple_row(0, 90.0, 6.0)], provisional=True)
    assert pick(report, "knee").candidate.number == 0
    assert "front of 1" in pick(report, "knee").reason


def test_every_pick_works_on_a_realistic_run(make_run):
    report = ParetoReport.load(make_run())
    for name in ("best", "knee", "one-se", "cheapest", "under:1.05x"):
        chosen = pick(report, name)
        assert chosen.candidate in report.counted
        assert chosen.reason.endswith(").")
