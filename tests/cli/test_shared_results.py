"""Results of a study on a PostgreSQL server, whose two workers had no folder in common: every command reads them."""

import io
import json
from wsgiref.util import setup_testing_defaults

import optuna
import pytest
from optuna.storages import RDBStorage
from small_cases import SEARCH
from sqlalchemy.pool import NullPool
from typer.testing import CliRunner

import se_nas
from se_nas.cli import app
from se_nas.errors import RunError
from se_nas.run import FINAL, RunFolder
from se_nas.study import dashboard as dashboard_module
from se_nas.study import peers, search
from se_nas.study.progress import Progress
from se_nas.study.session import work

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
TRIALS = 4


class StopInFinals(Progress):
    """Ends the process's work, as Ctrl-C does, when one final training has ended."""

    def trial_finished(self, row, store):
        if row["phase"] == FINAL:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def shared(postgres, tmp_path_factory):
    """Where the study is: options that name it, and the folders of its two workers."""
    url, folder = postgres.new_database("results"), tmp_path_factory.mktemp("shared")
    config = se_nas.SearchConfig(
        **{
            **SEARCH,
            "sampler": "random",
            "trials": TRIALS,
            "final_seeds": 2,
            "keep": "all",
            "name": "run",
            "runs": str(folder / "first"),
            "storage": url,
            "study": "one",
        }
    )
    with pytest.raises(KeyboardInterrupt):
        search(config, StopInFinals())
    work(url, "one", runs=str(folder / "second"), device="cpu")
    return ["--storage", url, "--study", "one"], folder


def invoke(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None:
        raise result.exception
    return result.output


def test_the_last_worker_has_what_every_training_classified_correctly(shared):
    _, folder = shared
    finished = RunFolder.open(folder / "second" / "run")
    finals = [row for row in finished.rows() if row.phase == FINAL]
    assert len(finals) > 2
    for row in finals:
        assert finished.read_correct(row.number, row.correct) is not None
    report = se_nas.ParetoReport.load(finished.path)
    assert report.basis == "over seeds and validation images"


def test_the_finalists_are_those_that_one_worker_has_chosen(shared):
    study, folder = shared
    optunas = RDBStorage(study[1], {"poolclass": NullPool})
    chosen = optuna.load_study(study_name="one", storage=optunas).user_attrs["se_nas:finalists"]["chosen"]
    rows = {row.number: row for row in RunFolder.open(folder / "second" / "run").rows()}
    finals = RunFolder.open(folder / "second" / "run").manifest.finals
    assert [rows[number].key for number, _, _ in chosen] == [entry.key for entry in finals.chosen]


def test_show_and_compare_take_studies_and_folders(shared):
    study, folder = shared
    run = folder / "second" / "run"
    shown = json.loads(invoke("show", *study, "--json"))
    of_folder = json.loads(invoke("show", run, "--json"))
    assert shown.pop("source") is None
    assert of_folder.pop("source") == str(run)
    # Where a worker keeps its run folders is its own.
    assert shown.pop("config") | {"runs": None} == of_folder.pop("config") | {"runs": None}
    assert shown == of_folder
    compared = json.loads(invoke("compare", run, *study, "--json"))
    assert [entry["source"] for entry in compared["runs"]] == [str(run), None]
    twice = json.loads(invoke("compare", *study, *study[2:], "--json"))
    assert len(twice["runs"]) == 2


def test_a_page_of_a_study_names_commands_that_work(shared, tmp_path):
    study, _ = shared
    invoke("report", *study, "--out", tmp_path / "page.html")
    assert f"se-nas export --storage {study[1]} --study one --pick" in (tmp_path / "page.html").read_text()


def test_export_takes_the_weights_of_this_machines_worker(shared, tmp_path):
    study, folder = shared
    second = folder / "second"
    manifest = (second / "run" / "manifest.json").read_bytes()
    invoke("export", *study, "--runs", second, "--out", tmp_path / "network")
    assert se_nas.load_exported(tmp_path / "network") is not None
    assert (second / "run" / "manifest.json").read_bytes() == manifest
    # The first worker left before the end: its folder learns what became of the study.
    first = RunFolder.open(folder / "first" / "run")
    assert first.manifest.status == "running"
    own = next(row for row in first.rows() if row.state == "complete")
    invoke("export", *study, "--runs", folder / "first", "--pick", own.key, "--out", tmp_path / "own")
    assert first.manifest.status == "finished"
    assert first.rows() == RunFolder.open(second / "run").rows()


def test_retrain_takes_a_study(shared, tmp_path):
    study, folder = shared
    said = invoke(
        *("retrain", *study, "--runs", folder / "second", "--pick", "cheapest"),
        *("--epochs", 1, "--device", "cpu", "--from-weights", "--out", tmp_path / "network"),
    )
    assert str(tmp_path / "network") in said


@pytest.mark.parametrize("command", ["export", "retrain"])
def test_a_machine_without_weights_is_told_where_they_are(shared, tmp_path, command):
    study, _ = shared
    with pytest.raises(RunError, match=r"are with the workers that trained them.*--runs"):
        invoke(command, *study, "--runs", tmp_path, "--out", tmp_path / "network")
    assert list(tmp_path.iterdir()) == []


def test_optuna_and_its_dashboard_open_the_database(shared):
    study, folder = shared
    optunas = RDBStorage(study[1], {"poolclass": NullPool})
    loaded = optuna.load_study(study_name="one", storage=optunas)
    rows = {row.number: row for row in RunFolder.open(folder / "second" / "run").rows()}
    assert loaded.metric_names == ["accuracy", "macs"]
    # What was suggested twice has a trial in the database, and no row.
    assert {trial.number: trial.values[0] for trial in loaded.trials if trial.number in rows} == {
        number: row.accuracy for number, row in rows.items()
    }
    dashboard = pytest.importorskip("optuna_dashboard")
    ours = dashboard_module._watched(RunFolder.open(folder / "second" / "run"))
    for storage in (optunas, ours):
        server = dashboard.wsgi(storage)
        [summary] = answer(server, "/api/studies")["study_summaries"]
        found = answer(server, f"/api/studies/{summary['study_id']}", "after=0")
        assert len(found["trials"]) == len(loaded.trials)
    ours.close()


def answer(server, path, query=""):
    """What a WSGI application gives for a request."""
    said, errors = [], io.StringIO()
    environ = {"PATH_INFO": path, "QUERY_STRING": query, "wsgi.errors": errors}
    setup_testing_defaults(environ)
    body = b"".join(server(environ, lambda status, headers, error=None: said.append(status)))
    assert said == ["200 OK"], errors.getvalue()
    return json.loads(body)


# The last test: it is one more worker of the study that the others look at.
def test_a_worker_that_comes_late_says_as_events_what_came_of_the_study(shared):
    study, folder = shared
    said = invoke("worker", *study, "--runs", folder / "third", "--device", "cpu", "--json", "-q")
    events = [json.loads(line) for line in said.splitlines()]
    assert (events[-1]["event"], events[-1]["exit_code"]) == ("finished", 0)
    assert events[-1]["path"] == str(folder / "third" / "run")
    front = [candidate["key"] for candidate in events[-1]["front"]]
    assert front == json.loads(invoke("show", *study, "--json"))["front"]


def test_a_worker_that_comes_late_changes_nothing(shared):
    study, folder = shared
    before = peers.read(study[1], "one")
    run = work(study[1], "one", runs=str(folder / "late"), device="cpu")
    assert peers.read(study[1], "one") == before
    assert RunFolder.open(run.path).manifest == before[1]
