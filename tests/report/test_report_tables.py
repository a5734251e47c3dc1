import csv
import io

from synthetic_run import report_of, rows_of, widths_of
from test_report_pareto_report import simple_row

from se_nas.report import ParetoReport, candidates_csv, front_table, summary


def test_front_table_has_the_front_and_the_baselines(make_run):
    report = ParetoReport.load(make_run())
    rows = front_table(report)
    shown = {row["trial"] for row in rows}
    assert {str(c.number) for c in report.front} <= shown
    assert {"0", "1", "2"} <= shown
    assert list(rows[0]) == [
        *(
            "trial",
            "front",
            "SE",
            "accuracy %",
            "points vs plain",
            "latency ms",
            "P(front)",
            "latency ratio",
            "note",
        ),
    ]
    plain = next(row for row in rows if row["trial"] == "0")
    assert plain["points vs plain"] == ""
    assert "plain backbone" in plain["note"]
    latencies = [float(row["latency ms"].lstrip("~")) for row in rows]
    assert latencies == sorted(latencies)


def test_all_rows_have_the_same_columns_and_text_only(make_run):
    rows = front_table(ParetoReport.load(make_run(trials=14, seeds=0)))
    assert len({tuple(row) for row in rows}) == 1
    assert all(isinstance(cell, str) for row in rows for cell in row.values())


def test_predicted_latency_is_marked_and_units_are_in_the_names():
    rows = [simple_row(0, 90.0, 6.0, latency_source="predicted", num_params=25_557_032, macs=4_111_512_576)]
    report = report_of(rows, provisional=True, objectives=["accuracy", "latency", "params", "macs"])
    row = front_table(report)[0]
    assert (row["latency ms"], row["params M"], row["macs G"]) == ("~6.000", "25.557", "4.112")


def test_summary_counts_states_and_says_when_nothing_can_be_told_apart():
    template = rows_of(trials=1, seeds=0)[0]
    rows = []
    for number, widths in enumerate([widths_of([None] * 4), widths_of([16] * 4)]):
        for seed, accuracy in enumerate([90.0 + 0.01 * number, 91.0 - 0.01 * number, 89.0]):
            rows.append(
                template
                | {"number": 10 * number + seed, "key": f"{number:016x}", "widths": widths, "phase": "final"}
                | {"baseline": None if number else "plain", "seed": seed, "accuracy": accuracy}
                | {"latency_ms": 6.0 + number, "latency_ratio": 1 + number / 6}
            )
    text = summary(report_of([*rows, simple_row(50, None, 6.0, state="stopped")]))
    assert "3 architectures in 7 trials (6 complete, 1 stopped); finished." in text
    assert "Keep the plain backbone: nothing is significantly more accurate" in text


def test_summary_of_single_readings_warns_of_luck(make_run):
    text = summary(ParetoReport.load(make_run(trials=14, seeds=0)))
    assert "provisional" in text
    assert "each accuracy is a single reading, so differences may be due to chance." in text


def test_summary_before_the_first_trial_ends(make_run):
    text = summary(ParetoReport.load(make_run(rows=[], status="running", provisional=True)))
    assert "no architectures in no trials (none yet); running." in text
    assert "Front of 0 (no candidate has finished yet)." in text


def test_csv_reads_back_and_is_no_formula(make_run):
    report = ParetoReport.load(make_run())
    rows = list(csv.DictReader(io.StringIO(candidates_csv(report))))
    assert len(rows) == len(report.candidates)
    assert float(rows[0]["accuracy"]) == report.candidates[0].accuracy
    assert [int(width) for width in rows[1]["widths"].split()] == list(report.candidates[1].widths)
    evil = simple_row(0, 90.0, 6.0, position="elsewhere", description="=HYPERLINK(1)")
    row = next(csv.DictReader(io.StringIO(candidates_csv(report_of([evil], provisional=True)))))
    assert row["placement"] == "'=HYPERLINK(1)"
    evil |= {"position": "@cmd", "baseline": "+1"}
    row = next(csv.DictReader(io.StringIO(candidates_csv(report_of([evil], provisional=True)))))
    assert (row["position"], row["baselines"]) == ("'@cmd", "'+1")


def test_csv_of_an_empty_run_has_a_header():
    assert candidates_csv(report_of([], provisional=True)).startswith("number,key,placement,")
