import json
import shutil
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import optuna
import pytest
from least_manifest import empty_run

from se_nas.errors import ConfigError, RunError
from se_nas.samplers.pareto_sampler import ParetoSampler
from se_nas.study.dashboard import Dashboard, expectations
from se_nas.study.storage import StudyStore

CHOICES = {"stage0.reduction": ("none", 8, 16), "stage1.reduction": ("none", 8, 16)}


def params_of(trial):
    return sum(
        {"none": 0, 8: 2, 16: 1}[trial.suggest_categorical(name, values)] for name, values in CHOICES.items()
    )


@pytest.fixture
def run(tmp_path):
    """A run folder whose study has six trials and is being written."""
    folder = empty_run(tmp_path / "run")
    store = StudyStore.create(folder, ("accuracy", "params"))
    cost = {"none": 0, 8: 2, 16: 1}
    store.study.sampler = ParetoSampler(
        known={1: lambda p: sum(cost[value] for value in p.values())}, seed=0, space=CHOICES
    )
    for _ in range(6):
        trial = store.ask()
        size = params_of(trial)
        store.describe(trial.number, key=f"k{trial.number}", curve=[{"epoch": 1, "accuracy": 1.0}])
        store.finish(trial.number, [70.0 + size, size])
    return store


@pytest.fixture
def server(run):
    pytest.importorskip("optuna_dashboard")
    made = Dashboard(run.folder.path, port=0)
    thread = threading.Thread(target=made.serve)
    thread.start()
    yield made
    made.close()
    thread.join(timeout=10)
    assert not thread.is_alive()


def get(server, path):
    address = server.url.partition("/dashboard")[0]
    with urllib.request.urlopen(address + path, timeout=20) as answer:
        return answer.read()


def attributes(trial):
    return {entry["key"]: entry["value"] for entry in trial["user_attrs"]}


def test_the_study_is_served_with_readable_names_and_the_models_picture(run, server):
    assert b"<html" in get(server, "/dashboard/studies/0").lower()
    assert [study["study_name"] for study in json.loads(get(server, "/api/studies"))["study_summaries"]] == [
        "se-nas"
    ]
    study = json.loads(get(server, "/api/studies/0?after=0"))
    assert study["objective_names"] == ["accuracy", "params"]
    trials = study["trials"]
    assert len(trials) == 6
    assert {parameter["name"] for parameter in trials[0]["params"]} == set(CHOICES)
    last = attributes(trials[-1])
    assert last["key"] == "k5"
    assert "curve" not in last
    assert last["model: proposed as"] in ("model", "spread")
    assert 60 < float(last["model: accuracy expected"]) < 80
    assert float(last["model: params expected"]) == trials[-1]["values"][1]


def test_a_trial_that_ends_later_is_seen_and_nothing_is_written(run, server):
    def trials():
        url = f"sqlite:///{run.folder.path / 'study.db'}"
        return optuna.load_study(study_name="se-nas", storage=url).trials

    before = {path.name: path.read_bytes() for path in run.folder.path.iterdir() if path.suffix != ".db-shm"}
    get(server, "/api/studies/0?after=0")
    assert before == {
        path.name: path.read_bytes() for path in run.folder.path.iterdir() if path.suffix != ".db-shm"
    }
    assert before.keys() == {"manifest.json", "config.json", "study.db", "study.db-wal"}
    trial = run.ask()
    run.finish(trial.number, [71.0, params_of(trial)])
    assert len(trials()) == 7
    time.sleep(2.1)  # optuna-dashboard asks a storage every two seconds at most.
    shown = json.loads(get(server, "/api/studies/0?after=0"))["trials"]
    assert [trial["state"] for trial in shown] == ["Complete"] * 7
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(
            urllib.request.Request(server.url.partition("/dashboard")[0] + "/api/studies/0", method="DELETE"),
            timeout=20,
        )
    assert len(trials()) == 7


def test_requests_in_the_name_of_another_host_are_refused(server):
    address = server.url.partition("/dashboard")[0]
    request = urllib.request.Request(address + "/api/studies", headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(request, timeout=20)


def test_a_run_of_version_0_1_0_is_shown_and_not_changed(tmp_path):
    pytest.importorskip("optuna_dashboard")
    source = Path(__file__).parent.parent / "run" / "data" / "v0.1.0-stopped"
    folder = Path(shutil.copytree(source, tmp_path / "old"))
    before = {path.name for path in folder.iterdir()}
    made = Dashboard(folder, port=0)
    thread = threading.Thread(target=made.serve)
    thread.start()
    trials = json.loads(get(made, "/api/studies/0?after=0"))["trials"]
    made.close()
    thread.join(timeout=10)
    rows = json.loads((folder / "trials.json").read_text())
    shown = {trial["number"]: attributes(trial).get("description") for trial in trials}
    assert {row["number"]: row["description"] for row in rows}.items() <= shown.items()
    assert {path.name for path in folder.iterdir()} == before


def test_what_the_model_expected_in_words():
    record = {"source": "model", "improvement": 0.02, "mean": [71.5, 3.0], "sd": [0.25, 0.0]}
    assert expectations(record, ("accuracy", "params")) == {
        "model: proposed as": "model",
        "model: hypervolume promised (%)": 2.0,
        "model: accuracy expected": 71.5,
        "model: accuracy expected, deviation": 0.25,
        "model: params expected": 3.0,
    }
    start = {"source": "initial", "improvement": None, "mean": None, "sd": None}
    assert expectations(start, ("accuracy", "params")) == {"model: proposed as": "initial"}
    assert expectations(None, ("accuracy", "params")) == {}


def test_wrong_uses_are_explained(run, server, tmp_path, monkeypatch):
    taken = int(server.url.split(":")[2].split("/")[0])
    with pytest.raises(ConfigError, match=f"port {taken} cannot be used.*--port"):
        Dashboard(run.folder.path, port=taken)
    with pytest.raises(ConfigError, match="port is 70000"):
        Dashboard(run.folder.path, port=70000)
    with pytest.raises(RunError, match="no run folder"):
        Dashboard(tmp_path / "nowhere", port=0)
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'se-nas\[dashboard\]'"):
        Dashboard(run.folder.path, port=0)
