"""The conformance suite: the built-in backends pass, and backends with each fault are caught."""

from __future__ import annotations

import pytest
import torch

from se_nas.cost import LatencySettings, Prepared, backends
from se_nas.cost.backends import torch as torch_backend
from se_nas.testing import CostConformance


class TestTorch(CostConformance):
    backend = "torch"
    modes = ("eager",)


@pytest.mark.slow
class TestOnnxRuntime(CostConformance):
    backend = "onnxruntime"

    @pytest.fixture(autouse=True)
    def _installed(self):
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")


@pytest.mark.gpu
class TestTorchOnCuda(CostConformance):
    backend = "torch"
    settings = LatencySettings(input_size=(3, 32, 32), device="cuda")


def prepare_nothing(model, images, settings):
    return Prepared(run=lambda: None)


def prepare_something_else(model, images, settings):
    return lambda: model(images)


def prepare_weightless(model, images, settings):
    return Prepared(run=torch_backend.prepare(model, images, settings).run, peak_memory=7)


def prepare_carelessly(model, images, settings):
    if settings.precision != "fp32":
        raise KeyError(settings.precision)
    return torch_backend.prepare(model, images, settings)


def prepare_first_layers(model, images, settings):
    return torch_backend.prepare(model[:2], images, settings)


@pytest.mark.parametrize(
    ("prepare", "check", "message"),
    [
        (prepare_nothing, "run_does_the_work", "eight times the layers took"),
        (prepare_first_layers, "run_does_the_work", "eight times the layers took"),
        (prepare_something_else, "prepares", "prepare returned function, not Prepared"),
        (prepare_weightless, "peak_memory_holds_the_weights", "0 bytes more for 2097152 of weights"),
        (prepare_carelessly, "settings_are_honoured_or_refused", "precision='bf16' raised KeyError"),
    ],
)
def test_faults_are_caught(monkeypatch, prepare, check, message):
    class Case(CostConformance):
        backend = "faulty"
        modes = ("eager",)

    monkeypatch.setitem(backends.NAMES.built_in, "faulty", prepare)
    with pytest.raises(AssertionError, match=message):
        getattr(Case(), f"test_{check}")()


def test_a_backend_of_ones_own_passes(monkeypatch):
    """The one of docs/costs.md, by another way to a frozen graph."""

    def prepare(model, images, settings):
        from se_nas.errors import ConfigError

        if (settings.precision, settings.mode, settings.channels_last) != ("fp32", "eager", False):
            raise ConfigError("fp32, eager and the usual memory format alone.")
        program = torch.export.export(model, (images,)).module()

        def run():
            with torch.inference_mode():
                program(images)

        return Prepared(run=run, versions={"mine": "1.0"})

    class Case(CostConformance):
        backend = "mine"

    monkeypatch.setitem(backends.NAMES.built_in, "mine", prepare)
    for name in dir(CostConformance):
        if name.startswith("test_"):
            getattr(Case(), name)()
