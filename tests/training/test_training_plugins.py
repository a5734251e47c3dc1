"""Users' trainers and loggers, by object, by name and by entry point."""

from __future__ import annotations

import sys
import types
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from se_nas import plugins
from se_nas.errors import ConfigError
from se_nas.training import adapt, load_logger, load_trainer, make_logger, train, trainers


def by_epochs(model, context):
    """A trainer that reports made-up values, to be compared with what arrives."""
    for epoch in range(1, context.epochs + 1):
        context.report(epoch, 10.0 * epoch, loss=1.0 / epoch)
    return {"accuracy": 42.0, "loss": 0.5, "per_class": [40.0, 44.0]}


@pytest.fixture
def module(monkeypatch):
    made = types.ModuleType("someones_package")
    made.train = by_epochs
    made.number = 3
    monkeypatch.setitem(sys.modules, "someones_package", made)


def test_by_module_and_function(module, small_net, make_context):
    result = load_trainer("someones_package:train")(small_net(), make_context())
    assert (result.state, result.accuracy, result.loss, result.per_class) == (
        "complete",
        42.0,
        0.5,
        (40.0, 44.0),
    )
    assert [row["accuracy"] for row in result.curve] == [10.0, 20.0, 30.0]
    assert (result.epochs, result.epochs_planned) == (3, 3)


def test_by_entry_point(module, monkeypatch, small_net, make_context):
    points = [
        EntryPoint("mine", "someones_package:train", trainers.NAMES.group),
        EntryPoint("broken", "missing_package:train", trainers.NAMES.group),
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points if group == "se_nas.trainers" else [])
    assert load_trainer("mine")(small_net(), make_context()).accuracy == 42.0
    with pytest.raises(ConfigError, match=r"'broken'.*missing_package"):
        load_trainer("broken")
    with pytest.raises(ConfigError, match=r"'min'; allowed: default, broken, mine.*Did you mean 'mine'"):
        load_trainer("min")


def test_default_is_the_built_in_loop():
    assert load_trainer("default") is train


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("someones_package:missing", "has no attribute 'missing'"),
        ("someones_package:number", "cannot be called"),
        ("no_such_package:train", "No module named 'no_such_package'"),
        ("train", "package.module:function"),
    ],
)
def test_names_that_lead_nowhere(module, name, message):
    with pytest.raises(ConfigError, match=message):
        load_trainer(name)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "returned NoneType"),
        ({"acc": 3}, "'acc'"),
        ({"accuracy": 120.0}, "accuracy 120.0"),
        ({"accuracy": float("nan")}, "accuracy nan"),
        ({"accuracy": "good"}, "accuracy 'good'"),
        ({"accuracy": True}, "accuracy True"),
        ({"accuracy": None}, "accuracy None"),
        ({"accuracy": 5.0, "loss": float("inf")}, "loss inf"),
        ({"accuracy": 5.0, "correct": [True, False]}, r"shape \(2,\); .* each of the 24 validation images"),
        ({"accuracy": 5.0, "correct": [1] * 24}, "correct with type int64"),
        ({"accuracy": 5.0, "state": "done"}, "state 'done'; allowed: complete"),
    ],
)
def test_what_it_returns_is_checked(small_net, make_context, returned, message):
    with pytest.raises(ConfigError, match=message):
        adapt(lambda model, context: returned)(small_net(), make_context())


def test_real_numbers_of_numpy_are_numbers(small_net, make_context):
    def trainer(model, context):
        context.report(1, np.float32(74.5), loss=np.float32(0.5), seen=np.int64(3))
        return {"accuracy": np.float32(74.5), "loss": np.float64(0.5)}

    result = adapt(trainer)(small_net(), make_context())
    assert (result.accuracy, result.loss) == (74.5, 0.5)
    assert type(result.accuracy) is type(result.loss) is float
    assert {type(value) for value in result.curve[0].values()} == {int, float}


def test_it_may_say_which_images_were_right(small_net, make_context):
    correct = [index % 4 > 0 for index in range(24)]
    trainer = adapt(lambda model, context: {"accuracy": 75.0, "correct": correct})
    assert trainer(small_net(), make_context()).correct.tolist() == correct
    assert adapt(lambda model, context: {"accuracy": 75.0})(small_net(), make_context()).correct is None
    assert adapt(train)(small_net(), make_context()).correct.shape == (24,)


def test_study_stops_it_early_without_its_help(small_net, make_context):
    context = make_context(on_epoch=lambda epoch, metrics: epoch < 2)
    result = adapt(by_epochs)(small_net(), context)
    assert (result.state, result.accuracy, result.loss, result.epochs) == ("stopped", 20.0, 0.5, 2)


def test_stop_signal_makes_it_unfinished(small_net, make_context):
    def patient(model, context):
        context.report(1, 30.0)
        assert context.should_stop()
        return {"accuracy": 30.0}

    assert adapt(patient)(small_net(), make_context(stop=lambda: True)).state == "unfinished"


def test_its_own_errors_pass_through(small_net, make_context):
    def broken(model, context):
        raise ZeroDivisionError("theirs")

    with pytest.raises(ZeroDivisionError, match="theirs"):
        adapt(broken)(small_net(), make_context())


class Memory:
    def __init__(self, folder=None):
        self.folder, self.rows, self.ends = folder, [], []

    def on_epoch(self, name, epoch, metrics):
        self.rows.append((name, epoch, metrics["accuracy"]))

    def on_end(self, name, result):
        self.ends.append((name, result.state))


def test_loggers_see_every_epoch(small_net, make_context):
    memory = Memory()
    result = train(small_net(), make_context(loggers=(memory,), name="net"))
    assert memory.rows == [("net", row["epoch"], row["accuracy"]) for row in result.curve]
    assert memory.ends == [("net", "complete")]


def test_logger_by_name(monkeypatch, tmp_path):
    made = types.ModuleType("someones_logs")
    made.Memory = Memory
    monkeypatch.setitem(sys.modules, "someones_logs", made)
    assert make_logger("someones_logs:Memory", tmp_path).folder == tmp_path
    with pytest.raises(ConfigError, match=r"allowed: package\.module:Class"):
        make_logger("wandb", tmp_path)
    with pytest.raises(ConfigError, match="no_such_package"):
        make_logger("no_such_package:Memory", tmp_path)
    with pytest.raises(ConfigError, match=r"log 'math:pi' is 3\.14.*cannot be called"):
        load_logger("math:pi")
    with pytest.raises(ConfigError, match=r"log 'math:sqrt' failed with TypeError: must be real number"):
        make_logger("math:sqrt", tmp_path)
