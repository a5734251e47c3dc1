"""Peak memory of an inference against sums by hand, and its axis in a run."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import nn

from se_nas import Architecture, SearchSpace, build_model
from se_nas.cost import LatencySettings, memory_axis
from se_nas.cost.axes import Measuring
from se_nas.cost.limits import Limit
from se_nas.cost.memory_axis import MemoryAxis, measure_memory
from se_nas.errors import ConfigError, RunError
from se_nas.objectives import MEMORY

SETTINGS = LatencySettings(input_size=(3, 32, 32), num_classes=10)
PLAIN = Architecture.plain("resnet10t")
SE = Architecture.uniform("resnet10t", reduction=4)
MIB = 2**20


def chain(arch: Architecture, num_classes: int) -> nn.Module:
    """Three maps of 16, 16 and 32 channels, of which two are alive at a time."""
    return nn.Sequential(nn.Conv2d(3, 16, 1, bias=False), nn.ReLU(), nn.Conv2d(16, 32, 1, bias=False))


@pytest.mark.parametrize(
    ("change", "bytes_each"),
    [({}, 4), ({"precision": "bf16"}, 2), ({"batch_size": 5}, 4), ({"mode": "auto", "threads": 1}, 4)],
)
def test_a_chain_of_layers_by_hand(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, object], bytes_each: int
) -> None:
    """The fullest moment is the last convolution: images, its input of 16 channels, its output of 32."""
    monkeypatch.setattr("se_nas.model.build_model", chain)
    settings = replace(SETTINGS, **change)
    weights = 3 * 16 + 16 * 32
    maps = settings.batch_size * (3 + 16 + 32) * 32 * 32
    assert measure_memory(PLAIN, settings) * MIB == (weights + maps) * bytes_each


def test_weights_once_and_feature_maps_per_image() -> None:
    model = build_model(SE, num_classes=10)
    weights = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    one, two, five = (measure_memory(SE, replace(SETTINGS, batch_size=size)) * MIB for size in (1, 2, 5))
    assert two - one == (five - two) / 3 > 3 * 32 * 32 * 4
    assert one - (two - one) == weights


def test_it_is_the_same_every_time_and_leaves_random_numbers_alone() -> None:
    state = torch.random.get_rng_state()
    assert measure_memory(SE, SETTINGS) == measure_memory(SE, SETTINGS) > measure_memory(PLAIN, SETTINGS)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_backend_that_does_not_know_its_memory_is_refused() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    with pytest.raises(
        ConfigError, match=r"latency_backend is 'onnxruntime'.*allowed with objective 'memory': torch"
    ):
        measure_memory(PLAIN, replace(SETTINGS, backend="onnxruntime"))


@pytest.fixture
def measuring() -> Measuring:
    return Measuring(
        space=SearchSpace.load("per_block", backbone="resnet10t"),
        plain=PLAIN,
        settings=SETTINGS,
        seconds=None,
        candidates=4,
        width=0.01,
        frozen={},
        say=lambda text: None,
        measured=lambda done, total: None,
    )


def test_every_architecture_is_measured_once(measuring: Measuring, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    paused: list[bool] = []
    original = memory_axis._measure

    def counted(arch: Architecture, settings: LatencySettings) -> tuple[float, dict[str, object]]:
        asked.append(arch.key)
        return original(arch, settings)

    @contextmanager
    def quiet():
        paused.append(True)
        yield

    monkeypatch.setattr(memory_axis, "_measure", counted)
    axis = MemoryAxis.prepare(MEMORY, measuring)
    axis.quiet = quiet
    assert axis.baseline == measure_memory(PLAIN, SETTINGS)
    assert axis.by_widths() is None
    del asked[:]
    assert axis.fields(PLAIN) == {"memory_mib": axis.baseline}
    found = axis.fields(SE)
    assert axis.fields(Architecture.uniform("resnet10t", reduction=4), measure=True) == found
    assert (asked, paused) == ([SE.key], [True])
    other = Architecture.uniform("resnet10t", reduction=8)
    axis.remember({"key": other.key, "memory_mib": 7.5})
    axis.remember({"key": "failed", "memory_mib": None})
    assert axis.fields(other) == axis.adopt({"memory_mib": 7.5}) == {"memory_mib": 7.5}
    assert asked == [SE.key]


def test_conditions_are_what_memory_depends_on(measuring: Measuring) -> None:
    axis = MemoryAxis.prepare(MEMORY, measuring)
    assert set(axis.conditions) == {
        "device", "input_size", "batch_size", "num_classes", "precision", "channels_last", "mode", "optimize",
        "backend", "versions",
    }  # fmt: skip
    assert axis.conditions["mode"] == "eager"
    frozen = {"conditions": dict(axis.conditions), "baseline": 12.0}
    again = MemoryAxis.prepare(MEMORY, replace(measuring, frozen={"memory": frozen}))
    assert again.baseline == 12.0
    threads = replace(measuring, settings=replace(SETTINGS, threads=2), frozen={"memory": frozen})
    assert MemoryAxis.prepare(MEMORY, threads).conditions == axis.conditions
    batch = replace(measuring, settings=replace(SETTINGS, batch_size=2), frozen={"memory": frozen})
    with pytest.raises(
        RunError, match=r"memory would be measured under other conditions.*batch_size: 1 against 2"
    ):
        MemoryAxis.prepare(MEMORY, batch)


@pytest.mark.parametrize(
    ("text", "mib"), [("64MiB", 64.0), ("512KiB", 0.5), ("1.5 GiB", 1536.0), ("8mib", 8.0)]
)
def test_limits_in_binary_units(text: str, mib: float) -> None:
    assert Limit.parse(text, "memory").value == mib


@pytest.mark.gpu
def test_on_cuda_a_graph_needs_what_the_eager_inference_needs() -> None:
    settings = replace(SETTINGS, device="cuda")
    eager = measure_memory(SE, replace(settings, mode="eager"))
    assert measure_memory(SE, settings) == measure_memory(SE, replace(settings, mode="graph")) == eager
    model = build_model(SE, num_classes=10)
    weights = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers())) / MIB
    assert eager > weights
