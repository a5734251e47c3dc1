import json

import numpy as np
import pytest
from synthetic_run import CONDITIONS, manifest, report_of, rows_of
from test_report_pareto_report import simple_row

from se_nas.errors import RunError
from se_nas.report import ParetoReport, compare, write_comparison
from se_nas.report.comparability import configuration, differences, repeats
from se_nas.report.page_tables import number_cell


def run_of(points, name="run", seeds=(1, 2, 3), scatter=(-0.1, 0.0, 0.1), interval=None, **changes):
    """A finished run whose candidates have these (accuracy, latency in ms), read with each seed.

    The plain backbone takes 6 ms. ``scatter`` is added by seed, turned about for every other candidate, so
    that it is noise and no seed level.
    """
    rows = []
    for index, (accuracy, latency) in enumerate(points):
        signs = 1 if index % 2 else -1
        for seed, offset in zip(seeds, scatter, strict=True):
            rows.append(
                simple_row(
                    100 * index + seed,
                    accuracy + signs * offset,
                    latency,
                    phase="final",
                    seed=seed,
                    key=f"{index:016x}",
                    latency_interval=interval and [latency / 6 - interval, latency / 6 + interval],
                )
            )
    return report_of(rows, **{"name": name, "baseline": 6.0} | changes)


A = [(90.0, 6.0), (92.0, 8.0)]
B = [(91.0, 7.0), (92.5, 8.0)]


def test_indicators_by_hand():
    comparison = compare([run_of(A, "a"), run_of(B, "b")])
    # Union: accuracy 90 to 92.5, latency 6 to 8; a tenth of each range beyond the worst.
    assert comparison.reference == pytest.approx((89.75, 8.2))
    assert comparison.hypervolume(0) == pytest.approx(0.25 * 2.2 + 2.0 * 0.2)
    assert comparison.hypervolume(1) == pytest.approx(1.25 * 1.2 + 1.5 * 0.2)
    assert comparison.union_front.tolist() == [[90.0, 6.0], [91.0, 7.0], [92.5, 8.0]]
    # (92, 8) is dominated by (92.5, 8); nothing of b is dominated.
    assert comparison.dominated_share(0, by=1) == 0.5
    assert comparison.dominated_share(1, by=0) == 0.0
    rows = {row["run"]: row for row in comparison.table}
    # IGD+ of a: shortfalls 0; 1/2.5 at (91, 7) by the point (90, 6) and (1 ms of 2) by (92, 8): the least is
    # 0.4; 0.5/2.5 at (92.5, 8). Mean of 0, 0.4 and 0.2.
    assert rows["a"]["IGD+"] == "0.2000"
    # IGD+ of b: (90, 6) is missed by 1 ms of 2 from (91, 7); the others are attained.
    assert rows["b"]["IGD+"] == f"{0.5 / 3:.4f}"
    assert (rows["a"]["dominated by b %"], rows["b"]["dominated by a %"]) == ("50", "0")


def test_a_small_hypervolume_keeps_its_digits():
    small = [[(accuracy, latency / 1e6) for accuracy, latency in points] for points in (A, B)]
    comparison = compare([run_of(points, name) for points, name in zip(small, "ab", strict=True)])
    shown = [float(row["hypervolume"]) for row in comparison.table]
    assert shown == pytest.approx([0.95e-6, 1.8e-6], rel=1e-3)


def test_accuracy_at_equal_cost_and_cost_at_equal_accuracy_by_hand():
    comparison = compare([run_of(A, "a"), run_of(B, "b")])
    assert [(row["latency ≤ ms"], row["a %"], row["b %"]) for row in comparison.equal_cost] == [
        ("7.000", "90.00", "91.00"),
        ("8.000", "92.00", "92.50"),
    ]
    assert [(row["accuracy ≥ %"], row["a ms"], row["b ms"]) for row in comparison.equal_accuracy] == [
        ("90.00", "6.000", "7.000"),
        ("91.00", "8.000", "7.000"),
        ("92.00", "8.000", "8.000"),
    ]
    found = comparison.pairs[0].difference
    assert found.budgets.tolist() == [7.0, 8.0]
    assert found.value == pytest.approx([1.0, 0.5])


def test_a_clear_lead_is_said_with_where_and_with_which_confidence():
    comparison = compare([run_of(A, "a"), run_of(B, "b")])
    assert comparison.verdict.startswith(
        "b's front is ahead of a's at every cost that both reach (95 % over seeds, for all costs at once)."
        " Below 7 ms only a has candidates."
    )
    assert not comparison.worse
    assert compare([run_of(B, "b"), run_of(A, "a")]).worse


def test_a_lead_in_part_of_the_range_names_that_part():
    first = run_of([(90.0, 6.0), (90.5, 6.8), (93.0, 8.0)], "a")
    second = run_of([(90.0, 6.0), (92.0, 6.4), (93.0, 8.0)], "b")
    verdict = compare([first, second]).verdict
    assert verdict.startswith(
        "b's front is ahead of a's between 6.4 and 8 ms; elsewhere the runs cannot be told apart (95 %"
    )


def test_each_may_be_ahead_somewhere():
    first = run_of([(90.0, 6.0), (92.0, 6.5), (92.5, 8.0)], "a")
    second = run_of([(90.0, 6.0), (90.5, 6.5), (95.0, 8.0)], "b")
    comparison = compare([first, second])
    assert comparison.verdict.startswith(
        "b's front is ahead of a's from 8 ms up; a's front is ahead of b's between 6.5 and 8 ms;"
    )
    # What b wins at the end is less than what it loses before: its hypervolume is smaller beyond chance.
    assert comparison.pairs[0].difference.volume_interval[1] < 0
    assert comparison.worse


def test_band_is_wider_than_small_differences():
    first, second = run_of([(90.0, 6.0), (92.0, 8.0)], "a"), run_of([(90.02, 6.0), (91.98, 8.0)], "b")
    comparison = compare([first, second])
    assert comparison.verdict.startswith("b and a cannot be told apart at any cost")
    assert not comparison.worse


def test_latency_noise_takes_away_a_lead_that_rests_on_it():
    """b reaches the same accuracy 0.01 ms earlier, while each latency is known to 0.03 ms."""
    first = [(90.0, 6.0), (92.0, 7.01), (92.1, 8.0)]
    second = [(90.0, 6.0), (92.0, 7.00), (92.1, 8.0)]
    exact = compare([run_of(first, "a"), run_of(second, "b")])
    assert "b's front is ahead of a's between 7 and 7.01 ms" in exact.verdict
    noisy = compare([run_of(first, "a", interval=0.005), run_of(second, "b", interval=0.005)])
    assert "cannot be told apart at any cost" in noisy.verdict


@pytest.mark.parametrize("options", [{}, {"seeds": 0}, {"trials": 14, "seeds": 2}])
def test_a_run_against_itself_cannot_be_told_apart(make_run, options):
    report = ParetoReport.load(make_run("same", **options))
    comparison = compare([report, report])
    found = comparison.pairs[0].difference
    assert not found.value.any()
    assert (found.ahead == 0).all()
    assert found.volume == 0
    assert "same (2) and same cannot be told apart at any cost" in comparison.verdict
    assert comparison.differences == []
    assert not comparison.worse
    assert comparison.dominated_share(0, by=1) == 0


def test_a_lead_of_single_readings_decides_nothing():
    """Final, but with one seed each: the lead may be that seed's luck."""
    pair = [
        run_of(A, "a", seeds=(1,), scatter=(0.0,)),
        run_of([(80.0, 7.0)], "b", seeds=(1,), scatter=(0.0,)),
    ]
    comparison = compare(pair)
    assert (comparison.pairs[0].difference.ahead < 0).any()
    assert not comparison.worse
    assert "no network was trained with two seeds" in comparison.undecided
    assert compare([run_of(A, "a"), run_of([(80.0, 7.0)], "b")]).undecided is None


def test_only_the_runs_that_are_compared_must_be_final():
    rows = [simple_row(0, 91.0, 7.0), simple_row(1, 92.5, 8.0)]
    middle = report_of(rows, name="b", baseline=6.0, recipe={"lr": 2}, provisional=True)
    last = run_of(A, "c", recipe={"lr": 3})
    assert compare([run_of(A, "a"), middle, last]).undecided is None
    assert "b is provisional" in compare([run_of(A, "a"), last, middle]).undecided


def test_without_repeats_the_validation_images_stand_in_for_the_noise():
    changes = {"provisional": True, "baseline": 6.0}
    rows = [simple_row(0, 90.0, 6.0), simple_row(1, 91.0, 7.0)]
    better = [simple_row(0, 90.0, 6.0), simple_row(1, 94.0, 7.0)]
    first = report_of(rows, name="a", **changes)
    second = report_of(better, name="b", **changes)
    comparison = compare([first, second])
    assert "b's front is ahead of a's from 7 ms up" in comparison.verdict
    assert (
        "nothing was read twice, so this covers the choice of 12000 validation images alone"
        in comparison.verdict
    )
    assert "Provisional: in a, b not all finalists were retrained" in comparison.verdict
    assert not compare([second, first]).worse
    assert comparison.undecided.startswith("a, b are provisional, and")
    assert comparison.to_dict()["undecided"] == comparison.undecided
    unknown = manifest()["data"] | {"num_val": 0}
    third = report_of(rows, name="c", **changes, data=unknown)
    silent = compare([first, third])
    assert "nothing was read twice, so the size of chance is not known" in silent.verdict
    assert not silent.worse
    json.dumps(silent.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"data": manifest()["data"] | {"fingerprint": "other"}},
            "data (fingerprint) differs: abc123 in a, other in b",
        ),
        ({"data": manifest()["data"] | {"split_seed": 7}}, "split seed differs: 0 in a, 7 in b"),
        ({"input_size": [3, 32, 32]}, "input size differs: [3, 64, 64] in a, [3, 32, 32] in b"),
        (
            {"latency": CONDITIONS | {"batch_size": 8}},
            "latency condition batch_size differs: 1 in a, 8 in b",
        ),
        ({"device": {"type": "cuda", "name": "H100"}}, "device type differs: cpu in a, cuda in b"),
    ],
)
def test_runs_that_measured_different_things_are_refused_unless_forced(changes, words):
    pair = [run_of(A, "a"), run_of(B, "b", **changes)]
    with pytest.raises(RunError) as caught:
        compare(pair)
    assert words in str(caught.value)
    assert "use --force" in str(caught.value)
    comparison = compare(pair, force=True)
    assert words in comparison.verdict
    assert comparison.to_dict()["forced"]


def test_other_objectives_are_refused_even_by_force():
    pair = [run_of(A, "a"), run_of(B, "b", objectives=["accuracy", "latency", "params"])]
    with pytest.raises(RunError, match="objectives differs"):
        compare(pair, force=True)


def test_volatile_latency_conditions_do_not_matter():
    pair = [
        run_of(A, "a", latency=CONDITIONS | {"load": 0.1, "clock_mhz": 3000}),
        run_of(B, "b", latency=CONDITIONS | {"load": 0.9, "clock_mhz": 2000}),
    ]
    assert compare(pair).objections == ()


def test_latency_conditions_do_not_matter_where_latency_is_no_objective():
    counted = {"objectives": ["accuracy", "params"]}
    pair = [run_of(A, "a", **counted), run_of(B, "b", device={"type": "cuda", "name": "H100"}, **counted)]
    assert compare(pair).objections == ()


def test_seeds_and_backbones_may_differ():
    pair = [run_of(A, "a"), run_of(B, "b", seed=5, backbone="resnet18")]
    assert compare(pair).objections == ()


def test_one_report_and_an_empty_run_are_refused():
    with pytest.raises(RunError, match="a comparison needs at least two"):
        compare([run_of(A)])
    empty = report_of([], name="empty")
    with pytest.raises(RunError, match="empty cannot be compared: no candidate has finished yet"):
        compare([run_of(A), empty])


def test_one_median_of_the_backbone_stands_on_the_latency_axis():
    slow = run_of([(90.0, 6.0), (92.0, 9.0)], "slow", baseline=9.0)
    # simple_row takes ratios of 6 ms: 1.0 and 1.5 on a machine state where plain takes 9 ms instead of 6.
    comparison = compare([run_of([(90.0, 6.0), (92.0, 9.0)], "fast"), slow])
    assert comparison.units == {"latency": {"resnet50 []": 7.5}}
    assert comparison.to_dict()["baselines"] == comparison.units
    for entry in comparison.entries:
        assert entry.front[:, 1] == pytest.approx([7.5, 7.5 * 1.5])


def test_differences_name_the_parts_and_both_values():
    first = run_of(A, "a", recipe={"lr": 0.1, "nested": {"deep": 1}})
    second = run_of(B, "b", recipe={"lr": 0.2, "nested": {"deep": 1}}, seed=4)
    assert differences([first, second]) == [("recipe.lr", ["0.1", "0.2"]), ("seed", ["0", "4"])]


def test_configuration_leaves_out_names_seeds_and_bulk():
    report = report_of(
        [],
        config={"name": "x", "seed": 3, "runs": "runs", "sampler": "tpe"},
        space=manifest()["space"] | {"definition": {"long": 1}},
        latency={"threads": 1, "load": 0.3},
    )
    names = configuration(report)
    assert names["config.sampler"] == "tpe"
    assert names["latency.threads"] == 1
    assert not {
        "config.name",
        "config.seed",
        "config.runs",
        "space.definition.long",
        "latency.load",
        "seed",
    } & set(names)


def test_repeats_of_one_configuration_are_grouped():
    first = [run_of(A, f"a-{seed}", seed=seed) for seed in (1, 2, 3)]
    second = [run_of(B, f"b-{seed}", seed=seed, recipe={"lr": 9}) for seed in (1, 2, 3)]
    assert repeats([*first, *second]) == [[0, 1, 2], [3, 4, 5]]
    assert repeats([first[0], second[0], first[1]]) == [[0, 2], [1]]
    assert repeats(first) == [[0], [1], [2]]
    comparison = compare([*first, *second])
    assert comparison.group_names == ("a (3 seeds)", "b (3 seeds)")
    assert [row["run"] for row in comparison.table] == ["a (3 seeds)", "b (3 seeds)"]
    assert "over 3 and 3 runs, paired by seed" in comparison.verdict
    assert comparison.verdict.startswith("b (3 seeds)'s front is ahead of a (3 seeds)'s at every cost")


def test_repeats_that_scatter_widely_are_not_told_apart():
    """Three runs a side whose means differ by less than the runs do."""
    first = [
        run_of([(90.0 + d, 6.0), (92.0 + d, 8.0)], f"a{d}", seed=i) for i, d in enumerate((-1.0, 0.0, 1.0))
    ]
    second = [
        run_of([(90.3 + d, 6.0), (92.3 + d, 8.0)], f"b{d}", seed=10 + i, recipe={"lr": 9})
        for i, d in enumerate((-1.0, 0.0, 1.0))
    ]
    assert "cannot be told apart at any cost" in compare([*first, *second]).verdict


def test_three_runs_are_each_compared_with_the_first():
    comparison = compare([run_of(A, "a"), run_of(B, "b"), run_of(A, "c", recipe={"lr": 3})])
    assert [(pair.first, pair.second) for pair in comparison.pairs] == [("a", "b"), ("a", "c")]
    assert len(comparison.verdict.split("\n")) == 2


def test_three_objectives_and_no_latency():
    for objectives in (["accuracy", "params"], ["accuracy", "macs", "params"]):
        rows = rows_of(trials=14, seeds=2)
        reports = [report_of(rows, name=name, objectives=objectives) for name in "ab"]
        comparison = compare(reports)
        assert len(comparison.reference) == len(objectives)
        assert "cannot be told apart" in comparison.verdict


def test_comparison_as_data_and_tables(make_run, tmp_path):
    comparison = compare([ParetoReport.load(make_run("a")), ParetoReport.load(make_run("b", seed=3))])
    data = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert (data["schema"], data["kind"]) == (2, "se-nas comparison")
    assert {run["name"] for run in data["runs"]} == {"a", "b"}
    assert data["reference"] == list(comparison.reference)
    for title, rows in comparison.tables():
        assert title
        assert len({tuple(row) for row in rows}) == 1
        assert all(isinstance(cell, str) for row in rows for cell in row.values())
    saved = [
        ParetoReport.load(report.save(tmp_path / f"{report.name}.json")) for report in comparison.reports
    ]
    assert compare(saved).to_dict()["verdict"] == comparison.verdict


def test_comparison_page_is_self_contained_and_escapes(tmp_path):
    evil = "</script><script>alert(1)</script>"
    comparison = compare([run_of(A, evil), run_of(B, "b", recipe={evil: evil})])
    text = write_comparison(comparison, tmp_path / "comparison.html").read_text()
    assert evil not in text
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert text.count("<script") == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("91.00±0.22", 91.0),
        ("−0.14 [−0.94, +0.30]", -0.14),
        ("~6.437", 6.437),
        ("", ""),
        ("–", ""),
        ("5–6", ""),
    ],
)
def test_cells_sort_by_the_number_that_they_begin_with(text, value):
    assert number_cell(text).sort == value


@pytest.mark.slow
def test_band_covers_a_true_difference_of_zero():
    """40 pairs of runs of equal truth, fresh noise: the whole band holds zero in about 95 % of them."""
    generator = np.random.default_rng(3)
    points = [(90.0, 6.0), (90.8, 6.5), (91.3, 7.0), (91.5, 8.0)]
    wrong = worse = 0
    for _ in range(40):
        pair = []
        for name in "ab":
            rows = [
                simple_row(
                    *(100 * index + seed, accuracy + generator.normal(0, 0.2), latency),
                    phase="final",
                    seed=seed,
                    key=f"{index:016x}",
                )
                for index, (accuracy, latency) in enumerate(points)
                for seed in (1, 2, 3)
            ]
            pair.append(report_of(rows, name=name))
        comparison = compare(pair)
        wrong += bool((comparison.pairs[0].difference.ahead != 0).any())
        worse += comparison.worse
    # Binomial with 40 draws of 5 %: more than 6 has a probability of 0.3 %.
    assert wrong <= 6
    assert worse <= 6
