import json
from datetime import UTC, datetime

import pytest

from se_nas.errors import RunError
from se_nas.objectives import COSTS
from se_nas.run import ROW_FIELDS, CostReading, TrialRow, rows_from_json

LEAST = {"number": 0, "key": "k", "widths": [0, 8, -1], "phase": "search", "state": "complete"}
FULL = {
    **LEAST,
    "accuracy": 91.5,
    "curve": [{"epoch": 1, "accuracy": 91.5}],
    "num_params": 11_689_512,
    "latency_ms": 6.5,
    "latency_ratio": 1.25,
    "latency_interval": [1.2, 1.3],
    "latency_source": "measured",
    "started": "2026-03-01T09:00:00+00:00",
}


def test_costs_are_read_by_the_name_of_the_objective():
    row = TrialRow.from_json(FULL)
    assert row.costs == {
        "latency": CostReading(value=6.5, ratio=1.25, interval=(1.2, 1.3), source="measured"),
        "params": CostReading(value=11_689_512),
    }
    assert row.started == datetime(2026, 3, 1, 9, tzinfo=UTC)
    assert row.complete
    assert not TrialRow.from_json(LEAST).complete


def test_a_row_has_every_column_and_reads_back():
    row = TrialRow.from_json(FULL)
    written = json.loads(json.dumps(row.to_json()))
    assert tuple(written) == ROW_FIELDS
    assert {name: value for name, value in written.items() if value is not None} == {
        **FULL,
        "params": {},
        "epochs": 0,
        "epochs_planned": 0,
    }
    assert TrialRow.from_json(written) == row
    assert isinstance(written["num_params"], int)


def test_every_column_of_every_cost_is_in_the_table():
    columns = [column for cost in COSTS.values() for column in (cost.column, *cost.columns)]
    assert set(columns) < set(ROW_FIELDS)
    assert len(set(ROW_FIELDS)) == len(ROW_FIELDS)


def test_predicted_is_not_measured():
    assert CostReading(value=1).measured
    assert CostReading(value=1, source="measured").measured
    assert not CostReading(value=1, source="predicted").measured


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, "trials.json is damaged: it must be a list of rows."),
        ("rows", "trials.json is damaged: it must be a list of rows."),
        ([LEAST, 3], "row 1 of trials.json is damaged: it must be a JSON object."),
        ([{"number": 0}], "row 0 of trials.json is damaged: it lacks key, widths, phase, state."),
        ([{**LEAST, "number": -1}], "row 0 of trials.json is damaged: number is -1, but"),
        ([{**LEAST, "accuracy": "high"}], "row 0 of trials.json is damaged: accuracy is 'high', but"),
        ([{**LEAST, "loss": float("nan")}], "row 0 of trials.json is damaged: loss is nan, but"),
        (
            [{**LEAST, "num_params": "many"}],
            "row 0 of trials.json is damaged: costs.params.value is 'many', but",
        ),
        (
            [{**FULL, "latency_interval": [1.0]}],
            "row 0 of trials.json is damaged: it lacks costs.latency.interval.1.",
        ),
        ([{**LEAST, "started": "yesterday"}], "row 0 of trials.json is damaged: started is 'yesterday', but"),
    ],
)
def test_damage_names_row_and_field(data, words):
    with pytest.raises(RunError) as caught:
        rows_from_json(data, "trials.json")
    assert str(caught.value).startswith(words)
