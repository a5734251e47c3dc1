"""Run folders that se-nas 0.1.0 wrote: what they hold is what is shown, compared and continued."""

import json
import shutil
from pathlib import Path

import pytest

from se_nas import open_run
from se_nas.errors import RunError
from se_nas.report import ParetoReport, compare, front_table, summary
from se_nas.report.page import render
from se_nas.run import MANIFEST, SCHEMA, TRIALS, RunFolder
from se_nas.study.session import resume

DATA = Path(__file__).parent / "data"
FINISHED, STOPPED = DATA / "v0.1.0-finished", DATA / "v0.1.0-stopped"
BOTH = pytest.mark.parametrize("path", [FINISHED, STOPPED], ids=lambda path: path.name)


def stored(path):
    return json.loads((path / "report.json").read_text())


def assert_extended(found, before):
    """Rows of before; what later costs added is not known of them."""
    for row, old in zip(found, before, strict=True):
        assert {name: row[name] for name in old} == old
        assert all(row[name] is None for name in row.keys() - old.keys())


@BOTH
def test_every_value_of_the_table_and_the_manifest_is_read(path):
    folder = RunFolder.open(path)
    assert_extended([row.to_json() for row in folder.rows()], json.loads((path / TRIALS).read_text()))
    old, new = json.loads((path / MANIFEST).read_text()), json.loads(json.dumps(folder.manifest.to_json()))
    conditions, baseline = old.pop("latency"), old.pop("baseline_latency_ms")
    measured = {"latency": {"conditions": conditions, "baseline": baseline}} if conditions else {}
    assert old.pop("schema") == 1
    assert new.pop("schema") == SCHEMA
    assert new.pop("measured") == measured
    data = new["data"]
    # What 0.1.0 did not write.
    assert (data.pop("reasons"), data.pop("remarks")) == ([], [])
    assert {name: new[name] for name in old} == old
    assert not any(new[name] for name in new.keys() - old.keys())


@BOTH
@pytest.mark.parametrize("file", [None, "report.json", MANIFEST])
def test_the_report_has_the_numbers_that_were_stored(path, file):
    before = stored(path)
    report = ParetoReport.load(path if file is None else path / file)
    found = json.loads(json.dumps(report.to_dict()))
    assert [candidate.key for candidate in report.front] == before["front"]
    for name in ("name", "final", "objectives", "front", "correct", "config"):
        assert found[name] == before[name]
    assert_extended(found["trials"], before["trials"])
    for name in ("reference", "hypervolume", "hypervolume_interval", "seed_deviation"):
        assert found[name] == pytest.approx(before[name])
    for one, other in zip(found["candidates"], before["candidates"], strict=True):
        assert not any(one[name] for name in one.keys() - other.keys())
        for name, value in other.items():
            assert one[name] == (pytest.approx(value) if isinstance(value, float | list) else value)


@BOTH
def test_table_summary_page_and_dataframe_are_made(path):
    run = open_run(path)
    before = stored(path)
    shown = [row["trial"] for row in front_table(run.report) if row["front"]]
    numbers = {candidate["key"]: str(candidate["number"]) for candidate in before["candidates"]}
    assert shown == [numbers[key] for key in before["front"]]
    assert f"Front of {len(before['front'])}" in summary(run.report)
    assert "The front" in render(run.report)
    assert list(run.to_dataframe()["accuracy"].dropna()) == [
        row["accuracy"] for row in before["trials"] if row["accuracy"] is not None
    ]


def test_an_old_folder_is_compared_with_its_saved_report():
    reports = [ParetoReport.load(FINISHED), ParetoReport.load(FINISHED / "report.json")]
    comparison = compare(reports)
    assert comparison.objections == ()
    assert not comparison.pairs[0].difference.value.any()
    assert comparison.units == {
        "latency": {"test_resnet []": stored(FINISHED)["manifest"]["baseline_latency_ms"]}
    }


def test_folders_of_other_objectives_are_not_compared():
    with pytest.raises(RunError, match="objectives differs"):
        compare([ParetoReport.load(FINISHED), ParetoReport.load(STOPPED)])


@pytest.mark.parametrize("file", ["", "report.json"])
def test_a_newer_schema_is_refused(tmp_path, file):
    copy = shutil.copytree(STOPPED, tmp_path / "copy")
    path = copy / (file or MANIFEST)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 3}))
    with pytest.raises(
        RunError, match=r"has schema 3; this version of se-nas reads up to 2\. Upgrade se-nas\."
    ):
        ParetoReport.load(copy / file)


def test_an_old_run_goes_on(tmp_path):
    copy = shutil.copytree(STOPPED, tmp_path / "copy")
    old = RunFolder.open(copy).rows()
    run = resume(copy, trials=6)
    assert len(run.report.candidates) == 6
    rows = RunFolder.open(copy).rows()
    assert rows[: len(old)] == old
    assert json.loads((copy / MANIFEST).read_text())["schema"] == SCHEMA
