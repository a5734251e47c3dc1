"""Backends by name, and what the built-in ones prepare."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import EntryPoint

import pytest
import torch
from torch import nn

from se_nas import plugins
from se_nas.cost import (
    LatencySettings,
    Prepared,
    backend_names,
    resolve_backend,
)
from se_nas.cost.backends import onnxruntime as onnx_backend
from se_nas.cost.backends import torch as torch_backend
from se_nas.cost.memory import check_batch_fits, peak_of_tensors
from se_nas.errors import ConfigError, DeviceError, InfeasibleError

SMALL = LatencySettings(input_size=(3, 8, 8), mode="eager")


class Recorder(nn.Module):
    """Remembers what it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.seen: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(images)
        return self.conv(images)


def my_backend(model: nn.Module, images: torch.Tensor, settings: LatencySettings) -> Prepared:
    return Prepared(run=lambda: None)


NOT_A_FUNCTION = 3


@pytest.fixture
def _plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    def entry_points(group: str) -> list[EntryPoint]:
        assert group == "se_nas.costs"
        return [
            EntryPoint("mine", f"{__name__}:my_backend", group),
            EntryPoint("broken", "no_such_module:prepare", group),
            EntryPoint("number", f"{__name__}:NOT_A_FUNCTION", group),
        ]

    monkeypatch.setattr(plugins, "entry_points", entry_points)


@pytest.mark.usefixtures("_plugins")
def test_plugins_are_found_by_name() -> None:
    assert backend_names() == ["torch", "onnxruntime", "broken", "mine", "number"]
    assert resolve_backend("mine").__name__ == "my_backend"


@pytest.mark.usefixtures("_plugins")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mien", "allowed: torch, onnxruntime, broken, mine, number. Did you mean 'mine'"),
        ("broken", r"'broken' \(no_such_module:prepare\) cannot be imported: ModuleNotFoundError"),
        ("number", "'number' is 3, which cannot be called"),
    ],
)
def test_a_broken_plugin_fails_only_when_chosen(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_backend(name)


def test_torch_casts_weights_and_images() -> None:
    model = Recorder().eval()
    settings = LatencySettings(input_size=(3, 8, 8), mode="eager", precision="bf16", channels_last=True)
    torch_backend.prepare(model, torch.zeros(2, 3, 8, 8), settings).run()
    last = model.seen[-1]
    assert last.dtype == torch.bfloat16
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert model.conv.weight.dtype == torch.bfloat16


def test_a_network_moves_in_memory_and_stays_what_it_is() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)
    ).eval()
    model[3].weight = model[2].weight
    recorder = Recorder().eval()
    model.append(recorder)
    recorder.conv = nn.Conv2d(4, 4, 1)
    settings = replace(SMALL, channels_last=True)
    prepared = torch_backend.prepare(model, torch.randn(2, 3, 8, 8), settings)
    tensors = [*model.parameters(), *model.buffers()]
    before = [(tensor.data_ptr(), tensor.clone(), tensor.stride()) for tensor in tensors]
    prepared.run()
    prepared.move()
    prepared.run()
    assert [id(tensor) for tensor in (*model.parameters(), *model.buffers())] == [id(t) for t in tensors]
    for tensor, (place, values, strides) in zip(tensors, before, strict=True):
        assert torch.equal(tensor, values)
        assert tensor.stride() == strides
        assert tensor.data_ptr() != place
    assert model[3].weight.data_ptr() == model[2].weight.data_ptr(), "shared weights stay shared"
    assert torch.equal(recorder.seen[-1], recorder.seen[-2])


@pytest.mark.slow
def test_what_may_know_addresses_is_not_moved() -> None:
    settings = LatencySettings(input_size=(3, 8, 8), mode="compile")
    assert torch_backend.prepare(nn.Conv2d(3, 4, 3).eval(), torch.zeros(1, 3, 8, 8), settings).move is None


def test_peak_memory_by_hand() -> None:
    """Two 1x1 convolutions in a row: weights, images, and both outputs of 4x8x8 floats at the second."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(4, 4, 1, bias=False)).eval()
    images = torch.zeros(2, 3, 8, 8)
    weights = 4 * (3 * 4 + 4 * 4)
    maps = 4 * 2 * (3 + 4 + 4) * 8 * 8
    assert peak_of_tensors(model, images) == weights + maps


def test_views_and_freed_tensors_are_not_counted_again() -> None:
    class Views(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            for _ in range(5):
                images = (images + 1).view(2, -1).view(2, 3, 8, 8).relu_()
            return images

    images = torch.zeros(2, 3, 8, 8)
    assert peak_of_tensors(Views(), images) == 3 * images.nbytes


def test_a_batch_that_does_not_fit_is_refused_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("se_nas.cost.memory._available_memory", lambda: 10_000)
    model, image = nn.Conv2d(3, 4, 1), torch.zeros(1, 3, 8, 8)
    needed = 4 * (3 + 4) * 8 * 8
    check_batch_fits(model, image, 10_000 // needed)
    with pytest.raises(InfeasibleError, match=f"batch_size is 6.*enough for {10_000 // needed} images"):
        check_batch_fits(model, image, 6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_onnxruntime_runs_the_exported_network() -> None:
    pytest.importorskip("onnxruntime")
    prepared = onnx_backend.prepare(nn.Conv2d(3, 4, 3).eval(), torch.zeros(2, 3, 8, 8), SMALL)
    prepared.run()
    assert set(prepared.versions) == {"onnxruntime"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "compile"}, "mode is 'compile'"),
        ({"channels_last": True}, "channels_last"),
        ({"precision": "bf16"}, "precision"),
    ],
)
def test_onnxruntime_refuses_what_is_torchs_alone(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        onnx_backend.prepare(nn.Identity(), torch.zeros(1), replace(SMALL, **change))


def test_onnxruntime_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_backend, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(ConfigError, match=r"needs onnxscript; install with: pip install 'se-nas\[onnx\]'"):
        onnx_backend.prepare(nn.Identity(), torch.zeros(1), SMALL)


def test_onnxruntime_without_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["OtherProvider"])
    with pytest.raises(DeviceError, match="has OtherProvider"):
        onnx_backend.prepare(nn.Identity(), torch.zeros(1), SMALL)


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["eager", "compile", "graph"])
def test_cuda_modes_run_and_know_their_memory(mode: str) -> None:
    settings = LatencySettings(input_size=(3, 32, 32), device="cuda", mode=mode, precision="fp16")
    model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3)).eval()
    prepared = torch_backend.prepare(model, torch.randn(8, 3, 32, 32), settings)
    prepared.run()
    weights = sum(parameter.numel() for parameter in model.parameters()) * 2
    assert prepared.peak_memory is not None
    assert prepared.peak_memory > weights
