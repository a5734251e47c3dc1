import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_run import SITES, report_of, rows_of, widths_of, write_run

from se_nas import errors
from se_nas.objectives import COSTS
from se_nas.report import ParetoReport, front_table
from se_nas.report.differences import accuracy_gain
from se_nas.report.methods import methods_paragraph

GOLDEN = Path(__file__).with_name("report_schema.json")


def simple_row(number, accuracy, latency, *, phase="search", seed=0, state="complete", key=None, **changes):
    widths = widths_of([None, None, None, 4 * (number + 1)])
    template = rows_of(trials=1, seeds=0)[0]
    return template | {
        "number": number,
        "key": key or f"{number:016x}",
        "baseline": None,
        "widths": widths,
        "seed": seed,
        "phase": phase,
        "state": state,
        "accuracy": accuracy,
        "latency_ms": latency,
        "latency_ratio": latency / 6.0,
        "latency_interval": None,
        "latency_source": "measured",
        **changes,
    }


def test_front_of_search_readings_is_provisional():
    rows = [
        simple_row(0, 90.0, 6.0),
        simple_row(1, 89.0, 7.0),
        simple_row(2, 91.0, 6.5),
        simple_row(3, 91.0, 6.5),
    ]
    report = report_of(rows, provisional=True)
    assert [candidate.number for candidate in report.front] == [0, 2, 3]
    assert not report.final
    assert (
        report.label == "provisional: 1 reading per candidate; best of 4 candidates, none of them retrained"
    )


def test_a_provisional_front_uses_every_reading():
    plain, other = f"{0:016x}", f"{1:016x}"
    rows = [
        simple_row(0, 79.67, 6.0, key=plain, baseline="plain"),
        simple_row(1, 88.87, 6.5, key=other),
        *(
            simple_row(10 + seed, accuracy, 6.0, phase="final", seed=seed, key=plain, baseline="plain")
            for seed, accuracy in ((1, 83.84), (2, 84.96), (3, 84.12))
        ),
    ]
    report = report_of(rows, provisional=True)
    # The mean of the four is 83.1475, their deviation 2.3661; Student's t with 3 degrees of freedom is 3.1824.
    half = 3.1824 * 2.3661
    assert [len(candidate.counted) for candidate in report.candidates] == [4, 1]
    assert report.plain.accuracy == pytest.approx(83.1475)
    assert report.deviation(report.plain) == pytest.approx(half / 2, rel=1e-3)
    assert report.deviation(report.candidates[1]) == pytest.approx(half, rel=1e-3)
    gain = accuracy_gain(report, report.candidates[1], report.plain)
    assert gain.value == pytest.approx(88.87 - 83.1475)
    assert gain.half_width == pytest.approx(half * math.sqrt(1 + 1 / 4), rel=1e-3)
    assert (
        report.label
        == "provisional: 1 to 4 readings per candidate; best of 2 candidates, 1 of them retrained"
    )
    assert [row["readings"] for row in front_table(report)] == ["4", "1"]
    assert "1 of 2 candidates were retrained" in methods_paragraph(report)


def test_readings_on_another_schedule_do_not_count_for_a_provisional_front():
    rows = [
        simple_row(0, 80.0, 6.0),
        simple_row(1, 90.0, 6.0, phase="final", seed=1, key=f"{0:016x}", epochs=24, epochs_planned=24),
    ]
    assert report_of(rows, provisional=True).candidates[0].accuracy == 80.0


def test_final_readings_alone_decide_a_final_front():
    rows = [
        simple_row(0, 90.0, 6.0),
        simple_row(1, 95.0, 6.5),
        simple_row(2, 94.0, 7.0),
        simple_row(10, 90.2, 6.0, phase="final", seed=7, key=f"{0:016x}"),
        simple_row(11, 90.0, 6.0, phase="final", seed=8, key=f"{0:016x}"),
        simple_row(12, 89.0, 6.5, phase="final", seed=7, key=f"{1:016x}"),
        simple_row(13, 88.8, 6.5, phase="final", seed=8, key=f"{1:016x}"),
    ]
    report = report_of(rows)
    assert report.final
    assert [candidate.number for candidate in report.front] == [0]
    assert report.candidates[0].accuracy == pytest.approx(90.1)
    assert report.candidates[1].selection_accuracy == 95.0
    assert report.candidates[2].accuracy is None
    assert report.label == "final: mean of 2 seeds at the full schedule"


@pytest.mark.parametrize("state", ["stopped", "unfinished", "diverged", "failed", "infeasible", "running"])
def test_other_states_stay_in_the_table_and_off_the_front(state):
    rows = [simple_row(0, 90.0, 6.0), simple_row(1, 99.0, 5.0, state=state)]
    report = report_of(rows, provisional=True)
    assert [candidate.number for candidate in report.front] == [0]
    assert report.candidates[1].state == state


def test_candidate_without_its_cost_is_not_on_the_front():
    rows = [simple_row(0, 90.0, 6.0), simple_row(1, 99.0, 6.0, latency_ms=None)]
    assert [candidate.number for candidate in report_of(rows, provisional=True).front] == [0]


def test_measured_latency_goes_before_predicted():
    rows = [
        simple_row(0, 90.0, 6.0, latency_source="predicted"),
        simple_row(1, 90.0, 6.2, phase="final", seed=5, key=f"{0:016x}"),
    ]
    candidate = report_of(rows).candidates[0]
    assert (candidate.latency_ms, candidate.costs["latency"].source) == (6.2, "measured")


def test_hypervolume_by_hand():
    rows = [simple_row(0, 90.0, 6.0), simple_row(1, 92.0, 7.0)]
    report = report_of(rows, provisional=True)
    # Accuracy from 88, latency up to 8: 2 points over 2 ms, and 2 more over the last ms.
    assert report.hypervolume((88.0, 8.0)) == pytest.approx(2 * 2 + 2 * 1)
    assert report.reference == pytest.approx((89.8, 7.1))
    assert report.hypervolume() == pytest.approx(0.2 * 1.1 + 2.0 * 0.1)


def test_interval_pools_the_scatter_of_all_candidates():
    # Two seeds for each of three candidates; each pair differs by 0.2, in both directions, so no seed level.
    readings = [(90.0, 90.2), (91.2, 91.0), (92.0, 92.2), (93.2, 93.0)]
    rows = []
    for number, pair in enumerate(readings):
        for seed, accuracy in enumerate(pair):
            rows.append(
                simple_row(
                    10 * number + seed, accuracy, 6.0 + number, phase="final", seed=seed, key=f"{number:016x}"
                )
            )
    report = report_of(rows)
    # Residual after candidate and seed: every cell is off by 0.1, 8 cells, 8 - 4 - 1 degrees of freedom.
    sd = math.sqrt(8 * 0.01 / 3)
    assert report.noise.sd == pytest.approx(sd)
    half_width = 3.1824 * sd / math.sqrt(2)
    low, high = report.candidates[0].accuracy_interval
    assert (high - low) / 2 == pytest.approx(half_width, rel=1e-3)
    assert report.deviation(report.candidates[0], report.candidates[1]) == pytest.approx(
        math.sqrt(2) * half_width, rel=1e-3
    )


def test_probability_is_certain_where_candidates_are_far_apart():
    rows = rows_of(trials=12, seeds=3)
    report = report_of(rows)
    probabilities = {candidate.number: candidate.probability for candidate in report.counted}
    assert all(0 <= probability <= 1 for probability in probabilities.values())
    assert probabilities[0] == 1.0  # the plain backbone is the cheapest


def test_save_and_load_give_the_same_report(make_run, tmp_path):
    report = ParetoReport.load(make_run())
    saved = report.save(tmp_path / "copy.json")
    again = ParetoReport.load(saved)
    assert again.to_dict() == report.to_dict()
    assert [candidate.key for candidate in again.front] == [candidate.key for candidate in report.front]


def test_load_takes_a_folder_or_a_file_in_it(make_run):
    run = make_run()
    by_folder, by_file = ParetoReport.load(run), ParetoReport.load(run / "trials.json")
    assert by_folder.to_dict()["front"] == by_file.to_dict()["front"]


def shape_of(value):
    """Types of a JSON value by name; a list by its first element."""
    if isinstance(value, dict):
        return {name: shape_of(item) for name, item in value.items()}
    if isinstance(value, list):
        return [shape_of(value[0])] if value else []
    return (
        "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__
    )


def test_saved_schema_is_the_golden_one(make_run):
    data = json.loads(json.dumps(ParetoReport.load(make_run("golden", trials=12)).to_dict()))
    # A cost that this run did not measure adds columns of null, which every reader of this schema can take.
    unmeasured = [
        column
        for cost in COSTS.values()
        if not cost.exact and cost.name != "latency"
        for column in (cost.column, *cost.columns)
    ]
    for candidate in data["candidates"]:
        assert all(candidate.pop(column) is None for column in unmeasured)
    data["config"] = data["manifest"] = data["trials"] = data["correct"] = "as in the run folder"
    assert shape_of(data) == json.loads(GOLDEN.read_text()), "a changed schema needs a new SCHEMA number"
    assert data["schema"] == 2


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ({"schema": 3}, "has schema 3; this version of se-nas reads up to 2. Upgrade se-nas."),
        ({"schema": "one"}, "is damaged: its schema is 'one'"),
        ({"kind": "other"}, "is not a report of se-nas"),
        ({"trials": {"a": 1}}, "must be a list of rows"),
        ({"trials": [{"number": 0}]}, "damaged.json is damaged: it lacks key, widths, phase, state."),
        ({"trials": ["x"]}, "row 0 of the table of trials in"),
        ({"manifest": {"name": "x"}}, "damaged.json is damaged: its schema is None."),
        (
            {"manifest": {"name": "x", "schema": 2}},
            "damaged.json is damaged: it lacks backbone, objectives, space",
        ),
    ],
)
def test_damaged_report_is_refused_with_words(make_run, tmp_path, damage, words):
    data = ParetoReport.load(make_run(trials=5)).to_dict() | damage
    path = tmp_path / "damaged.json"
    path.write_text(json.dumps(data))
    with pytest.raises(errors.RunError) as caught:
        ParetoReport.load(path)
    assert words in str(caught.value)


def test_newer_run_folder_truncated_table_and_missing_folder(make_run, tmp_path):
    newer = make_run("newer", schema=9)
    with pytest.raises(errors.RunError, match="has schema 9"):
        ParetoReport.load(newer)
    cut = make_run("cut")
    text = (cut / "trials.json").read_text()
    (cut / "trials.json").write_text(text[: len(text) // 2])
    with pytest.raises(errors.RunError, match=r"trials\.json is damaged"):
        ParetoReport.load(cut)
    with pytest.raises(errors.RunError, match="there is no run folder"):
        ParetoReport.load(tmp_path / "nowhere")


def test_unknown_objective_is_named(make_run):
    with pytest.raises(errors.RunError, match="'beauty'"):
        ParetoReport.load(make_run(objectives=["accuracy", "beauty"]))


def test_run_without_a_finished_trial_has_an_empty_front(make_run):
    run = make_run(rows=[], status="running", provisional=True)
    report = ParetoReport.load(run)
    assert report.front == ()
    assert report.hypervolume() == 0.0
    assert report.label == "no candidate has finished yet"
    assert report.to_dict()["reference"] is None
    with pytest.raises(errors.RunError, match="no candidate has finished yet"):
        _ = report.reference


def test_save_keeps_the_old_file_where_writing_fails(make_run, tmp_path, monkeypatch):
    report = ParetoReport.load(make_run(trials=4))
    path = tmp_path / "report.json"
    path.write_text("old")
    monkeypatch.setattr(
        "os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(errors.RunError, match="No space left on device"):
        report.save(path)
    assert path.read_text() == "old"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["report.json", "run"]


def test_three_objectives():
    rows = [
        simple_row(0, 90.0, 6.0, num_params=10),
        simple_row(1, 91.0, 6.0, num_params=20),
        simple_row(2, 90.5, 6.0, num_params=20),
        simple_row(3, 90.5, 7.0, num_params=5),
    ]
    report = report_of(rows, provisional=True, objectives=["accuracy", "latency", "params"])
    assert sorted(candidate.number for candidate in report.front) == [0, 1, 3]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 21)), min_size=1, max_size=25))
def test_front_is_what_optuna_calls_best_trials(points):
    import optuna

    study = optuna.create_study(directions=["maximize", "minimize"])
    for accuracy, latency in points:
        study.add_trial(optuna.trial.create_trial(values=[accuracy, latency]))
    expected = sorted(trial.number for trial in study.best_trials)
    rows = [simple_row(i, float(a), float(latency)) for i, (a, latency) in enumerate(points)]
    assert sorted(c.number for c in report_of(rows, provisional=True).front) == expected


def test_reading_a_report_imports_neither_pandas_nor_plotting_nor_torch(make_run):
    run = make_run()
    code = (
        "import sys; from se_nas.report import ParetoReport, front_table, summary;"
        f"report = ParetoReport.load({str(run)!r}); front_table(report); summary(report);"
        "print([name for name in ('torch', 'optuna', 'pandas', 'plotly', 'matplotlib', 'scipy', 'jinja2')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_thousand_trials_are_read_in_proportion(tmp_path):
    """Ten times the trials cost no more than some forty times the time: nothing is quadratic with weight."""
    import time

    def seconds(trials):
        run = write_run(tmp_path / str(trials), trials=trials, finalists=12)
        start = time.perf_counter()
        assert ParetoReport.load(run).front
        return time.perf_counter() - start

    seconds(40)
    assert seconds(1000) < 40 * max(seconds(100), 0.02)


def test_values_have_one_row_a_candidate():
    report = report_of([simple_row(0, 90.0, 6.0), simple_row(1, 91.0, 7.0)], provisional=True)
    assert np.array_equal(report.values(report.front), [[90.0, 6.0], [91.0, 7.0]])
    assert len(SITES) == 16
