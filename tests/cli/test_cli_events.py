"""What other programs read: ``--json``, and logs."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import datetime
from pathlib import Path

import pytest
from main_in_process import exit_code_of

from se_nas.cli import main
from se_nas.objectives import COSTS

PAGE = (Path(__file__).parents[2] / "docs" / "terminal.md").read_text(encoding="utf-8")
SEARCH = (
    *("search", "--backbone", "test_resnet", "--objectives", "accuracy,macs", "--epochs", "1", "--trials"),
    *("3", "--final-seeds", "1", "--device", "cpu", "--batch-size", "128"),
)
COST_FIELDS = {name for cost in COSTS.values() for name in (cost.column, *cost.columns)}


def documented():
    """Fields by event, as the page lists them."""
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", PAGE, re.MULTILINE)
    fields = {event: set(re.findall(r"`(\w+)`", text)) for event, text in rows}
    fields["trial_finished"] |= fields["trial_started"]
    for event in ("trial_started", "trial_finished"):
        fields[event] = (fields[event] - {"trial_started"}) | COST_FIELDS
    return fields


def run(arguments, capsys):
    code = exit_code_of(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """Events of a search that logged to a file, and the folder that it was started in."""
    folder = tmp_path_factory.mktemp("events")
    with pytest.MonkeyPatch.context() as patch, pytest.MonkeyPatch.context() as out:
        lines = []
        patch.chdir(folder)
        out.setattr("typer.echo", lambda text="", err=False, **_: None if err else lines.append(text))
        patch.setattr(sys, "argv", ["se-nas", *SEARCH, "--json", "--log-file", "logs/run.log", "--name", "r"])
        main_code = 0
        try:
            main()
        except SystemExit as stopped:
            main_code = stopped.code or 0
    assert main_code == 0
    return [json.loads(line) for line in lines], folder


def test_every_event_is_as_documented(searched):
    events, _ = searched
    known = documented()
    for event in events:
        fields = set(event) - {"event", "time"}
        assert datetime.fromisoformat(event["time"]).utcoffset().total_seconds() == 0
        if event["event"] == "epoch":
            assert {"number", "epoch", "accuracy"} <= fields
        else:
            assert fields <= known[event["event"]], event
    assert {event["event"] for event in events} == set(known) - {"configuration", "failed", "measured"}


def test_events_tell_the_course_of_a_search(searched):
    events, folder = searched
    of = {name: [event for event in events if event["event"] == name] for name in documented()}
    assert events[-1] == of["finished"][0]
    assert [event["phase"] for event in of["phase"]] == ["search", "final"]
    rows = json.loads((folder / "runs" / "r" / "trials.json").read_text())
    rows = rows["trials"] if isinstance(rows, dict) else rows
    assert [event["number"] for event in of["trial_finished"]] == [row["number"] for row in rows]
    assert [event["accuracy"] for event in of["trial_finished"]] == [row["accuracy"] for row in rows]
    assert len(of["epoch"]) == len(rows)
    finished = of["finished"][0]
    assert (finished["status"], finished["exit_code"], finished["path"]) == ("finished", 0, "runs/r")
    report = json.loads((folder / "runs" / "r" / "report.json").read_text())
    front = {candidate["key"] for candidate in report["candidates"] if candidate["on_front"]}
    assert {candidate["key"] for candidate in finished["front"]} == front
    # The first reading is the first front.
    assert of["front_changed"][0]["trials"] == [of["trial_finished"][0]["number"]]
    assert of["front_changed"][0]["best"]["accuracy"] == of["trial_finished"][0]["accuracy"]
    low, high = of["front_changed"][0]["best"]["interval"]
    assert low < of["trial_finished"][0]["accuracy"] < high


def test_a_log_file_has_what_progress_says_and_more(searched):
    _, folder = searched
    text = (folder / "logs" / "run.log").read_text()
    assert re.search(r"^\d{4}-\S+ \S+ INFO se_nas\.progress: trial 0: complete", text, re.MULTILINE)
    assert re.search(r" DEBUG se_nas\.study\.", text)


def test_results_of_other_commands(searched, capsys, monkeypatch):
    _, folder = searched
    monkeypatch.chdir(folder)
    code, out, _ = run(("report", "runs/r", "--out", "page/p.html", "--json"), capsys)
    found = json.loads(out)
    assert code == 0
    assert all(Path(path).is_file() for path in (found["page"], found["report"], *found["figures"]))
    code, out, _ = run(("export", "runs/r", "--out", "net", "--json"), capsys)
    found = json.loads(out)
    assert code == 0
    assert all((Path(found["path"]) / name).is_file() for name in found["files"])
    command = ("retrain", "runs/r", "--out", "again", "--epochs", "1", "--device", "cpu", "--json", "-q")
    code, out, err = run(command, capsys)
    assert (code, json.loads(out)["path"], err) == (0, "again", "")


def test_a_finished_run_that_is_resumed_has_an_end_too(searched, capsys, monkeypatch):
    _, folder = searched
    monkeypatch.chdir(folder)
    code, out, err = run(("resume", "runs/r", "--json", "--quiet"), capsys)
    assert code == 0
    assert err == ""
    assert json.loads(out.splitlines()[-1])["event"] == "finished"


def test_a_failure_is_the_last_event_and_a_message(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, out, err = run((*SEARCH, "--data", "nowhere", "--json"), capsys)
    last = json.loads(out.splitlines()[-1])
    assert (code, last["event"], last["exit_code"]) == (2, "failed", 2)
    assert err.endswith(f"error: {last['error']}\n")
    assert "'nowhere' is neither" in last["error"]


def test_a_dry_run_is_two_events(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, out, err = run((*SEARCH, "--dry-run", "--json", "-q"), capsys)
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert err == ""
    assert [event["event"] for event in events if event["event"] != "message"] == ["planned", "configuration"]
    assert events[-1]["config"]["backbone"] == "test_resnet"
    for event in events:
        assert set(event) - {"event", "time"} <= documented()[event["event"]]


def test_a_worker_that_only_measures_ends_with_how_much_it_did(capsys, monkeypatch):
    def measure(storage, study, *, say, **_):
        say("at work")
        return 3

    monkeypatch.setattr("se_nas.study.latency_worker.measure_for", measure)
    command = ("worker", "--latency-only", "--storage", "postgresql+psycopg://host/nas", "--study", "one")
    code, out, _ = run((*command, "--json", "-q"), capsys)
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [event["event"] for event in events] == ["message", "measured"]
    assert (events[-1]["networks"], events[-1]["exit_code"]) == (3, 0)
    assert set(events[-1]) - {"event", "time"} == documented()["measured"]
    assert run((*command, "-q"), capsys)[:2] == (0, "3 networks measured for study 'one'\n")


def test_quiet_and_verbose_exclude_each_other(capsys):
    code, _, err = run(("spaces", "-q", "-v"), capsys)
    assert code == 2
    assert "cannot be combined" in err


def test_verbose_prints_what_is_logged_once(capsys):
    run(("spaces", "-v"), capsys)
    logging.getLogger("se_nas.study.somewhere").debug("a fine point")
    logging.getLogger("se_nas.progress").info("what progress says itself")
    assert capsys.readouterr().err == "DEBUG se_nas.study.somewhere: a fine point\n"
    run(("spaces",), capsys)
    logging.getLogger("se_nas.study.somewhere").debug("a fine point")
    logging.getLogger("se_nas.study.somewhere").warning("a warning")
    assert capsys.readouterr().err == "WARNING se_nas.study.somewhere: a warning\n"


def test_a_log_file_that_cannot_be_written(capsys, tmp_path):
    code, _, err = run(("spaces", "--log-file", tmp_path), capsys)
    assert code == 2
    assert "cannot be written" in err


def test_the_library_is_silent_by_itself(capsys):
    import subprocess

    program = "import se_nas, logging; logging.getLogger('se_nas.x').warning('unheard')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
