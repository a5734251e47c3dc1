"""Trials as runs of TensorBoard, MLflow and Weights & Biases: what is in them, once, whatever happens on the way."""

import os
import shutil
import signal
import sys
import threading
import time

import pytest
from small_cases import SEARCH, table

import se_nas
from se_nas.errors import ConfigError
from se_nas.study import SearchConfig, resume, search
from se_nas.study.plan import resolve
from se_nas.study.progress import Progress
from se_nas.study.tracking import RUN_LOGGERS, base
from se_nas.study.tracking.feed import Feed, without_secrets
from se_nas.study.tracking.single import LoggedTraining

# What these packages warn of concerns their makers.
pytestmark = pytest.mark.filterwarnings("ignore")
SECRET = "hunter2secret"


def row(number=7, epochs=0, state="running", **fields):
    curve = tuple({"epoch": epoch, "accuracy": 10.0 * epoch} for epoch in range(1, epochs + 1))
    return {"number": number, "phase": "search", "curve": curve, "state": state, **fields}


class Recorder:
    """A logger that remembers its calls, holds some epochs at first, and fails where it is told to."""

    def __init__(self, held=0, failures=0):
        self.calls, self.held, self.failures, self.called = [], held, failures, threading.Event()

    def begin(self, row):
        self.called.set()
        if self.failures:
            self.failures -= 1
            raise ConnectionError(f"no answer from http://me:{SECRET}@host/api")
        self.calls.append(("begin", row["number"]))
        return self.held

    def epoch(self, row, entry):
        self.calls.append(("epoch", entry["epoch"]))

    def end(self, row):
        self.calls.append(("end", row["state"]))

    def close(self):
        self.calls.append(("close",))


def feed(logger, tmp_path):
    return Feed("some", lambda: logger, tmp_path / "some-trials.json")


def test_every_epoch_is_logged_once_however_often_a_row_comes(tmp_path):
    logger = Recorder()
    fed = feed(logger, tmp_path)
    for known in (row(), row(epochs=1), row(epochs=2), row(epochs=2, state="complete")):
        fed.put(known)
    fed.close()
    assert logger.calls == [("begin", 7), ("epoch", 1), ("epoch", 2), ("end", "complete"), ("close",)]
    assert fed.trouble() is None
    assert feed(Recorder(), tmp_path).done == {7}


def test_a_trial_that_goes_on_adds_to_what_its_run_holds(tmp_path):
    logger = Recorder(held=2)
    fed = feed(logger, tmp_path)
    fed.put(row(epochs=3, state="unfinished"))
    fed.close()
    assert logger.calls == [("begin", 7), ("epoch", 3), ("end", "unfinished"), ("close",)]
    assert feed(Recorder(), tmp_path).done == frozenset()


def test_a_training_that_begins_anew_is_logged_anew(tmp_path):
    logger = Recorder(held=2)
    fed = feed(logger, tmp_path)
    fed.put(row(epochs=2))
    logger.called.wait()
    fed.put(row(epochs=1, state="complete"), attempt=1)
    fed.close()
    # If the first of the rows was seen, its run held both epochs; otherwise there was one attempt only.
    assert logger.calls[0] == ("begin", 7)
    assert logger.calls[-2:] == [("end", "complete"), ("close",)]


def test_an_attempt_is_counted_within_one_process(tmp_path):
    logger = Recorder(held=2)
    fed = feed(logger, tmp_path)
    fed._logger = logger
    fed._bring_up_to_date(row(epochs=2), 0)
    fed._bring_up_to_date(row(epochs=1), 1)
    fed._bring_up_to_date(row(epochs=2, state="complete"), 1)
    fed.close()
    assert logger.calls == [("begin", 7), ("epoch", 1), ("epoch", 2), ("end", "complete"), ("close",)]


def test_a_logger_that_fails_is_named_once_without_secrets_and_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr("se_nas.study.tracking.feed.RETRY_SECONDS", 0.0)
    logger = Recorder(failures=2)
    fed = feed(logger, tmp_path)
    fed.put(row(epochs=1, state="complete"))
    while not fed.done:
        logger.called.wait()
    said = fed.trouble()
    assert said.startswith(
        "log some does not work, and training continues without it: ConnectionError: no answer"
    )
    assert "http://host/api" in said
    assert SECRET not in said
    assert fed.trouble() is None
    fed.close()
    assert logger.calls == [("begin", 7), ("epoch", 1), ("end", "complete"), ("close",)]


def test_the_end_does_not_wait_for_a_logger_that_is_stuck(tmp_path, monkeypatch):
    monkeypatch.setattr("se_nas.study.tracking.feed.CLOSE_SECONDS", 0.05)
    stuck, logger = threading.Event(), Recorder()
    logger.begin = lambda row: stuck.wait() and 0
    fed = feed(logger, tmp_path)
    fed.put(row())
    fed.close()
    assert "takes more than" in fed.trouble()
    stuck.set()


def test_secrets_of_the_environment_are_left_out(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    error = ValueError(f"refused {'k' * 40} and {SECRET} at ftp://a:b@c/d\nmore")
    assert without_secrets(error) == "ValueError: refused *** and *** at ftp://c/d"


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (None, None),
        ("wandb", ("wandb",)),
        ("wandb, mlflow", ("wandb", "mlflow")),
        (["mlflow"], ("mlflow",)),
    ],
)
def test_log_takes_one_name_or_several(given, found):
    assert SearchConfig(backbone="test_resnet", log=given).log == found


def test_an_unknown_logger_names_the_nearest():
    with pytest.raises(
        ConfigError, match=r"'wandbb'; allowed: mlflow, tensorboard, wandb.*Did you mean 'wandb'"
    ):
        resolve(SearchConfig(**SEARCH, log="wandbb"), measure=False)


@pytest.mark.parametrize(
    ("name", "module"),
    [("tensorboard", "torch.utils.tensorboard"), ("mlflow", "mlflow.tracking"), ("wandb", "wandb")],
)
def test_a_missing_package_says_how_to_get_it(name, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"log is '{name}'.*pip install 'se-nas\[{name}\]'"):
        RUN_LOGGERS[name].check()


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory):
    """A database of MLflow's without runs, which takes seconds to make."""
    tracking = pytest.importorskip("mlflow.tracking", reason="the extra 'mlflow' is not installed")
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    tracking.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def services(empty_store, monkeypatch, tmp_path):
    """Weights & Biases offline, MLflow in a file; nothing of the machine's own settings."""
    wandb = pytest.importorskip("wandb", reason="the extra 'wandb' is not installed")
    pytest.importorskip("tensorboard", reason="the extra 'tensorboard' is not installed")
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    # A busy machine may take its time.
    monkeypatch.setattr("se_nas.study.tracking.feed.CLOSE_SECONDS", 250.0)
    monkeypatch.setattr("se_nas.study.tracking.wandb.FINISH_SECONDS", 250.0)
    wandb.teardown()
    before = dict(os.environ)
    yield tmp_path
    wandb.teardown()
    for name in os.environ.keys() - before.keys():
        del os.environ[name]


def mlflow_runs(tmp_path):
    """Runs by name, with the steps of their accuracy."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("se-nas")
    found = [*client.search_runs([experiment.experiment_id])]
    names = [run.info.run_name for run in found]
    assert len(set(names)) == len(names), names
    return {
        run.info.run_name: (
            run,
            [
                (metric.step, metric.value)
                for metric in client.get_metric_history(run.info.run_id, "accuracy")
            ],
        )
        for run in found
    }


def wandb_runs(logs):
    from wandb_file import read_run

    found = [read_run(path) for path in (logs / "wandb").glob("offline-run-*/*.wandb")]
    assert len({one["id"] for one in found}) == len(found)
    return {one["name"]: one for one in found}


def tensorboard_run(logs, name):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(logs / "tensorboard" / name)).Reload()


class Interrupting(Progress):
    """Interrupts, as Ctrl-C does, after the first epoch of a trial."""

    def __init__(self, number=None):
        self.number, self.messages = number, []

    def message(self, text):
        self.messages.append(text)

    def epoch(self, row, metrics):
        if row["number"] == self.number:
            os.kill(os.getpid(), signal.SIGINT)


def config(tmp_path, **changes):
    fields = {**SEARCH, "runs": str(tmp_path / "runs"), "name": "logged", "trials": 2, "final_seeds": 0}
    return SearchConfig(**{**fields, **changes})


def test_runs_hold_what_the_trials_were_once_even_after_an_interruption(services):
    told = Interrupting(number=1)
    first = search(config(services, epochs=2, final_seeds=1, log=sorted(RUN_LOGGERS)), told)
    assert first.interrupted
    run = resume(first.path)
    rows = table(run.path)
    assert [one["phase"] for one in rows] == ["search", "search", "final", "final"]
    names = [f"trial-{one['number']:03}" for one in rows]
    tracked, by_wandb = mlflow_runs(services), wandb_runs(run.path / "logs")
    assert set(tracked) == {"logged", *names}
    assert set(by_wandb) == set(names)
    parent = tracked["logged"][0].info.run_id
    for name, one in zip(names, rows, strict=True):
        curve = [(entry["epoch"], entry["accuracy"]) for entry in one["curve"]]
        assert [step for step, _ in curve] == [1, 2]
        logged, steps = tracked[name]
        assert steps == curve
        assert (logged.info.status, logged.data.tags["mlflow.parentRunId"]) == ("FINISHED", parent)
        assert logged.data.params["key"] == one["key"]
        assert logged.data.metrics["result.macs"] == one["macs"]
        assert logged.data.metrics["result.accuracy"] == one["accuracy"]
        assert logged.data.tags["se_nas.phase"] == one["phase"]
        assert logged.data.tags.get("se_nas.baseline") == one["baseline"]

        noted = by_wandb[name]
        assert [(entry["epoch"], entry["accuracy"]) for entry in noted["history"]] == curve
        assert (noted["group"], noted["exit"]) == ("logged", 0)
        assert noted["tags"] == {one["phase"], "baseline", one["baseline"]}
        assert noted["config"]["widths"] == one["widths"]
        assert (noted["summary"]["macs"], noted["summary"]["state"]) == (one["macs"], "complete")

        events = tensorboard_run(run.path / "logs", name)
        scalars = [(event.step, event.value) for event in events.Scalars("accuracy")]
        assert scalars == [(step, pytest.approx(value)) for step, value in curve]
        assert [event.value for event in events.Scalars("result/macs")] == [pytest.approx(one["macs"])]
        assert "hparams" in events.summary_metadata["_hparams_/session_start_info"].plugin_data.plugin_name


def files_with(folder, text):
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and text.encode() in path.read_bytes()
    ]


def test_a_server_that_is_away_costs_one_warning_and_resume_logs_what_is_missing(services, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    told = Interrupting()
    run = search(config(services, log="mlflow"), told)
    assert [one["state"] for one in table(run.path)] == ["complete", "complete"]
    (said,) = [text for text in told.messages if "mlflow" in text]
    assert said.startswith("log mlflow does not work, and training continues without it: MlflowException: ")
    assert not any(SECRET in text for text in told.messages)
    assert files_with(run.path, SECRET) == []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{services / 'mlflow.db'}")
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    again = Interrupting()
    resume(run.path, trials=3, progress=again)
    assert not any("mlflow" in text for text in again.messages), again.messages
    numbers = [one["number"] for one in table(run.path)]
    assert len(numbers) == 3
    assert set(mlflow_runs(services)) == {"logged", *(f"trial-{number:03}" for number in numbers)}


def test_a_key_is_asked_for_before_anything_begins(services, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(ConfigError, match="no key to log in with"):
        resolve(config(services, log="wandb"), measure=False)


def test_a_new_logger_gets_the_trials_that_there_are_and_no_key_is_stored(services, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef" * 2 + SECRET[:8])
    run = search(config(services, trials=1))
    assert not (run.path / "logs").exists()
    assert len(table(resume(run.path, trials=1, log=["wandb"]).path)) == 1
    assert set(wandb_runs(run.path / "logs")) == {"trial-000"}
    assert files_with(run.path, "0123456789abcdef") == []
    resume(run.path, trials=1)
    assert set(wandb_runs(run.path / "logs")) == {"trial-000"}


class PressCtrlC(Progress):
    """Stops a retraining, as Ctrl-C does, after its first epoch."""

    def message(self, text):
        if text.startswith("epoch 1 of"):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_retraining_is_one_run_in_a_group_of_its_own_even_after_an_interruption(services):
    run = search(config(services, trials=1, log="tensorboard"))
    given = {"out": services / "longer", "epochs": 3, "device": "cpu", "log": sorted(RUN_LOGGERS)}
    with pytest.raises(KeyboardInterrupt):
        se_nas.retrain(run, progress=PressCtrlC(), **given)
    exported = se_nas.retrain(run, progress=False, **given)
    logs = run.path / "logs" / "retrained" / "longer"
    assert not any("logs" in path.name for path in exported.path.iterdir())
    tracked, by_wandb = mlflow_runs(services), wandb_runs(logs)
    assert set(tracked) == {"longer", "trial-000"}
    assert set(by_wandb) == {"trial-000"}
    logged, steps = tracked["trial-000"]
    assert [step for step, _ in steps] == [1, 2, 3]
    assert logged.data.tags["mlflow.parentRunId"] == tracked["longer"][0].info.run_id
    assert logged.data.tags["se_nas.phase"] == "retrained"
    row = table(run.path)[0]
    assert logged.data.metrics["result.macs"] == row["macs"]
    assert logged.data.metrics["result.accuracy"] == steps[-1][1]
    assert logged.info.status == "FINISHED"
    noted = by_wandb["trial-000"]
    assert [(entry["epoch"], entry["accuracy"]) for entry in noted["history"]] == steps
    assert (noted["group"], noted["tags"], noted["summary"]["state"]) == ("longer", {"retrained"}, "complete")
    assert noted["config"]["key"] == row["key"]
    scalars = tensorboard_run(logs, "trial-000").Scalars("accuracy")
    assert [(event.step, event.value) for event in scalars] == [(s, pytest.approx(v)) for s, v in steps]


def test_a_retraining_logs_nothing_unless_asked_and_a_bad_name_is_refused(services):
    run = search(config(services, trials=1, log="tensorboard"))
    with pytest.raises(ConfigError, match="log is 'tensorbord'"):
        se_nas.retrain(run, out=services / "net", log="tensorbord", device="cpu")
    assert not (services / "net.partial").exists()
    se_nas.retrain(run, out=services / "net", epochs=1, device="cpu", progress=False)
    assert not (run.path / "logs" / "retrained").exists()


def test_a_training_that_diverges_is_logged_from_its_new_beginning(tmp_path):
    logger = Recorder()
    logged = LoggedTraining([feed(logger, tmp_path)], {"number": 7, "phase": "retrained"}, Progress())
    entries = [{"epoch": epoch, "accuracy": 1.0} for epoch in (1, 2)]
    logged.epoch(entries[:1])
    logged.epoch(entries)
    while ("epoch", 2) not in logger.calls:
        time.sleep(0.01)
    logged.epoch(entries[:1])
    logged.end({"accuracy": 1.0})
    logged.close()
    epochs = [number for name, number in (call for call in logger.calls if len(call) == 2) if name == "epoch"]
    assert epochs[-1] == 1
    assert logger.calls[-2:] == [("end", "complete"), ("close",)]


def test_names_and_values_fit_every_service():
    assert base.run_name({"number": 7}) == "trial-007"
    assert base.flat({"a": {"b": 1, "c": [1, 2]}, "d": None}) == {"a.b": 1, "a.c": "[1, 2]", "d": "None"}
    assert base.numbers({"epoch": 1, "lr": 0.1, "on": True, "loss": None}) == {"lr": 0.1}
    assert base.labels({"phase": "final", "baseline": "plain"}) == ["final", "baseline", "plain"]
