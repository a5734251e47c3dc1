"""The verdict of a run: whether to use one of its networks, and how many seeds would tell."""

import math
from html import unescape

import numpy as np
import pytest
from scipy import stats
from synthetic_run import report_of, widths_of
from test_report_pareto_report import simple_row

from se_nas.pareto import SeedModel
from se_nas.report import summary
from se_nas.report.decision import seeds_needed, simultaneous
from se_nas.report.page import render


def final_rows(readings, *, shared=True):
    """Final readings of the plain backbone and of others, each a list by seed."""
    rows = []
    for number, values in enumerate(readings):
        for seed, accuracy in enumerate(values):
            rows.append(
                simple_row(
                    10 * number + seed,
                    accuracy,
                    6.0 + 0.06 * number,
                    phase="final",
                    seed=seed if shared else 10 * number + seed,
                    key=f"{number:016x}",
                    baseline=None if number else "plain",
                    widths=widths_of([None, None, None, 4 * number or None]),
                )
            )
    return rows


def seed_model(sd, dof, *, images=0.0):
    """Two candidates whose difference has the variance 2 ``images`` from the choice of images."""
    zero = np.zeros((2, 2))
    return SeedModel(
        mean=np.array([90.0, 90.5]),
        noise_covariance=np.eye(2),
        seed_covariance=zero,
        image_covariance=images * np.eye(2),
        sd=sd,
        seed_sd=0.0,
        dof=dof,
        seed_dof=1.0,
    )


def test_plain_is_kept_if_nothing_is_significantly_better():
    # Every cell is 1 point off candidate plus seed; 8 cells, 8 - 4 - 1 degrees of freedom: variance 8/3.
    report = report_of(final_rows([(90, 92), (93, 91), (91, 93), (92, 90)]))
    decision = report.decision
    assert report.noise.sd == pytest.approx(math.sqrt(8 / 3))
    assert (decision.choice, decision.candidate.key) == ("keep", report.plain.key)
    # n seeds: (t(n + 1) + 0.8416) sqrt(2 * 8/3 / n) <= 1. With 44: (2.0141 + 0.8416) * 0.3482 = 0.9942;
    # with 43: (2.0154 + 0.8416) * 0.3522 = 1.0062. Two were read.
    assert decision.more_seeds == 42
    assert decision.headline == (
        "Keep the plain backbone: nothing is significantly more accurate; about 42 more seeds each would resolve"
        " 1 point."
    )
    assert "all 3 comparisons together" in decision.details
    assert "deviation of 1.63 points per reading that was seen (3 degrees of freedom)" in decision.details


def test_two_comparisons_are_both_of_them():
    details = report_of(final_rows([(90, 92), (93, 91), (91, 93)])).decision.details
    assert "At 95 % confidence for both comparisons together" in details


@pytest.mark.parametrize("sd", [0.2, 0.7, 1.5])
@pytest.mark.parametrize("dof", [2, 9])
@pytest.mark.parametrize("now", [1, 3])
def test_number_of_seeds_against_scipy(sd, dof, now):
    total = next(
        n
        for n in range(now, 1000)
        if (stats.t.ppf(0.975, dof + n - now) + stats.norm.ppf(0.8)) * sd * math.sqrt(2 / n) <= 1
    )
    assert seeds_needed(seed_model(sd, dof), 1, 0, now=now) == total - now


def test_no_number_of_seeds_makes_up_for_too_few_images():
    # (1.96 + 0.84) * sqrt(2 * 0.06) = 0.97 with endless seeds, and 1.02 with 0.066.
    assert seeds_needed(seed_model(0.5, 10, images=0.06), 1, 0, now=3) > 50
    assert seeds_needed(seed_model(0.5, 10, images=0.066), 1, 0, now=3) is None


def test_comparisons_together_are_dunnetts():
    generator = np.random.default_rng(3)
    samples = generator.normal(90, 1, (6, 4))
    report = report_of(final_rows(samples.tolist(), shared=False))
    widening = simultaneous(report.noise, 0, [1, 2, 3, 4, 5])
    interval = stats.dunnett(*samples[1:], control=samples[0], rng=generator).confidence_interval(0.95)
    half = (interval.high - interval.low) / 2
    single = [report.deviation(candidate, report.plain) for candidate in report.candidates[1:]]
    np.testing.assert_allclose(widening * np.array(single), half, rtol=0.03)
    assert simultaneous(report.noise, 0, [1]) == 1.0


def test_the_most_accurate_significant_candidate_is_to_be_used():
    report = report_of(final_rows([(90.0, 90.2, 90.1), (91.0, 91.2, 91.0), (93.0, 93.1, 93.2)]))
    decision = report.decision
    assert (decision.choice, decision.candidate.number) == ("use", 20)
    assert decision.headline.startswith("Use SE in stage 3 at γ=8: +3.0±")
    assert (
        "The cheapest that is significantly more accurate is SE in stage 3 at γ=4: +1.0±" in decision.details
    )


def test_the_best_of_many_is_not_significant_by_luck():
    """A gain that one comparison would call significant, among a dozen that come out equal to plain."""
    generator = np.random.default_rng(1)
    readings = (90 + generator.normal(0, 0.5, (13, 3))).tolist()
    readings[5] = [value + 0.9 - np.mean(readings[5]) + np.mean(readings[0]) for value in readings[5]]
    report = report_of(final_rows(readings))
    winner = report.candidates[5]
    gain, half = winner.accuracy - report.plain.accuracy, report.deviation(winner, report.plain)
    assert half < gain < 1.4 * half
    assert report.decision.widening > 1.4
    assert report.decision.choice == "keep"


def test_single_readings_and_missing_readings_decide_nothing():
    plain = simple_row(0, 90.0, 6.0, baseline="plain", widths=widths_of([None] * 4))
    other = simple_row(1, 92.0, 6.1)
    single = report_of([plain, other], provisional=True).decision
    assert (single.choice, single.more_seeds) == ("keep", None)
    assert "each accuracy is a single reading" in single.headline
    assert "+2.0 points" in single.details
    assert report_of([plain], provisional=True).decision.choice == "open"
    assert "plain backbone was not evaluated" in report_of([other], provisional=True).decision.headline
    assert "no candidate has finished" in report_of([], provisional=True).decision.headline


def test_terminal_page_and_json_say_the_same():
    report = report_of(final_rows([(90, 92), (93, 91), (91, 93), (92, 90)]))
    saved, page = report.to_dict()["decision"], unescape(render(report))
    assert saved["choice"] == "keep"
    assert saved["key"] == report.plain.key
    for text in (saved["headline"], saved["details"]):
        assert text in summary(report)
        assert text in page
