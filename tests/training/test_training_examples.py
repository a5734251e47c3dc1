"""The examples of docs/examples are run as a search would run them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from se_nas.training import load_trainer

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.fixture(autouse=True)
def on_path(monkeypatch):
    if not EXAMPLES.is_dir():
        pytest.skip("docs/examples is not beside the tests")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield
    for name in ("custom_loop", "with_accelerate"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", ["custom_loop", "with_accelerate"])
def test_example_trains_and_can_be_stopped(name, small_net, make_context):
    if name == "with_accelerate":
        pytest.importorskip("accelerate", reason="accelerate is not installed")
    trainer = load_trainer(f"{name}:train")
    with torch.random.fork_rng(devices=[]):
        result = trainer(small_net(), make_context(epochs=8, lr=1e-2))
        assert (result.state, result.epochs) == ("complete", 8)
        assert result.accuracy > 90
        stopped = trainer(small_net(), make_context(epochs=8, on_epoch=lambda epoch, metrics: epoch < 2))
        assert (stopped.state, stopped.epochs) == ("stopped", 2)
        polls = iter(range(100))
        cut = trainer(small_net(), make_context(epochs=8, stop=lambda: next(polls) > 3))
        assert (cut.state, cut.epochs) == ("unfinished", cut.epochs)
        assert cut.epochs < 8
