"""The room that a run takes is told before it begins, and is what its files take."""

import shutil
from collections import namedtuple

import pytest
import timm
import torch
from small_cases import SEARCH

import se_nas
from se_nas.study.disk_space import WEIGHT_BYTES, copies_in_state, disk_notes
from se_nas.study.plan import resolve
from se_nas.training import Recipe, Runtime
from se_nas.training.checkpoint import save_state
from se_nas.training.train_state import TrainState

Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lion", "adafactor"])
@pytest.mark.parametrize("ema_decay", [None, 0.99])
def test_a_training_state_takes_what_was_told(tmp_path, optimizer, ema_decay):
    recipe = Recipe.preset("tiny", optimizer=optimizer, ema_decay=ema_decay)
    model = timm.create_model("test_resnet", num_classes=10)
    state = TrainState(model, recipe, Runtime(), 1.0)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    state.optimizer.step()
    save_state(tmp_path / "a-s0.state", state.state_dict([0.1] * len(state.optimizer.param_groups)))
    told = WEIGHT_BYTES * copies_in_state(recipe) * sum(parameter.numel() for parameter in model.parameters())
    assert (tmp_path / "a-s0.state").stat().st_size == pytest.approx(told, rel=0.15)


@pytest.fixture
def free(monkeypatch):
    def give(size):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, size))

    return give


def test_a_disk_that_is_too_small_is_named_with_numbers(tmp_path, free):
    recipe = Recipe.preset("tiny", optimizer="sgd", ema_decay=None)
    free(3 * 2**30)
    [note] = disk_notes(tmp_path / "runs" / "run", recipe, 2**20 * 25, trainings=40, at_a_time=4)
    assert "has 3.0 GiB free and the run takes about 5.5 GiB" in note
    assert "weights of 100 MiB for each of 40 trainings" in note
    assert "4 training states of 200 MiB" in note
    free(6 * 2**30)
    assert disk_notes(tmp_path / "runs" / "run", recipe, 2**20 * 25, trainings=40, at_a_time=4) == []


def test_what_a_run_has_written_is_not_needed_again(tmp_path, free):
    recipe = Recipe.preset("tiny")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "a-s0.safetensors").write_bytes(bytes(30 * 2**20))
    free(40 * 2**20)
    assert disk_notes(tmp_path, recipe, 10, trainings=1, at_a_time=1) == []
    assert disk_notes(tmp_path, recipe, 10 * 2**20, trainings=1, at_a_time=1) != []


@pytest.mark.parametrize("trainer", ["default", "golden_trainer:train"])
def test_a_plan_says_so_before_anything_is_trained(tmp_path, free, trainer):
    free(2**20)
    plan = resolve(se_nas.SearchConfig(**SEARCH, trials=5, trainer=trainer, runs=str(tmp_path)))
    told = [text for label, text in plan.describe() if label == "note" and "free and the run takes" in text]
    # What a user's trainer writes nobody knows.
    assert len(told) == (trainer == "default")
