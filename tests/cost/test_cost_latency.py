"""Latency: what is measured, stored and refused. No timing is asserted; the device is made up where it matters."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from se_nas import Architecture, measure_latency
from se_nas.cost import LatencyMeter, LatencySettings, Prepared, backends, conditions_key
from se_nas.cost.latency import meter as latency
from se_nas.cost.latency.paired import Pairs
from se_nas.errors import BackboneError, ConfigError, DeviceError, InfeasibleError

SIZE = (3, 32, 32)
SE = Architecture.uniform("resnet18", reduction=16)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SE_NAS_CACHE", str(tmp_path))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """A backend that takes 10 ms, and 1 ms more for every SE block; gives the networks it was handed."""
    handed: list[nn.Module] = []

    def prepare(model: nn.Module, images: torch.Tensor, settings: LatencySettings) -> Prepared:
        handed.append(model)
        blocks = sum(type(module).__name__ == "SqueezeExcite" for module in model.modules())
        run = lambda: 10.0 + blocks  # noqa: E731
        return Prepared(run=run, peak_memory=1000 + blocks, versions={"fake": "1"})

    def timer(run: Callable[[], float], iterations: int) -> Callable[[], float]:
        return run

    monkeypatch.setitem(backends.NAMES.built_in, "fake", prepare)
    monkeypatch.setattr(latency, "_timer", timer)
    return handed


def test_everything_is_in_the_result(fake: list[nn.Module]) -> None:
    measured = measure_latency(SE, input_size=SIZE, batch_size=4, backend="fake", threads=1)
    assert (measured.median_ms, measured.baseline_ms) == (18.0, 10.0)
    assert measured.ratio == pytest.approx(1.8)
    assert measured.interval == pytest.approx((1.8, 1.8))
    assert measured.repetitions == 30
    assert measured.throughput == pytest.approx(4 / 0.018)
    assert measured.peak_memory == 1008
    assert measured.narrow_enough
    assert measured.note is None
    assert measured.conditions["threads"] == 1
    assert measured.conditions["versions"]["fake"] == "1"
    assert json.loads(json.dumps(measured.to_dict()))["interval"] == pytest.approx([1.8, 1.8])
    assert not any(model.training for model in fake)


def test_the_backbone_itself_has_a_ratio_of_one(fake: list[nn.Module]) -> None:
    meter = LatencyMeter(SE, LatencySettings(input_size=SIZE, backend="fake"))
    plain = meter.measure(Architecture.plain("resnet18"))
    assert (plain.ratio, plain.interval, plain.median_ms) == (1.0, (1.0, 1.0), 10.0)
    assert len(fake) == 1
    assert meter.measure_against_itself().ratio == pytest.approx(1.0)
    assert len(fake) == 2


def test_both_networks_move_before_every_quartet(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    def prepare(model: nn.Module, images: torch.Tensor, settings: LatencySettings) -> Prepared:
        name = "B" if any("SqueezeExcite" in type(module).__name__ for module in model.modules()) else "A"
        return Prepared(
            run=lambda: events.append(name.lower()),
            move=lambda: events.append(f"move {name}"),
        )

    def timer(run: Callable[[], object], iterations: int) -> Callable[[], float]:
        return lambda: (run(), 1.0)[1]

    monkeypatch.setitem(backends.NAMES.built_in, "fake", prepare)
    monkeypatch.setattr(latency, "_timer", timer)
    meter = LatencyMeter(SE, LatencySettings(input_size=SIZE, backend="fake"))
    assert meter.measure(SE).repetitions == 30
    quartets = events[events.index("move A") :]
    first = ["move A", "move B", *"baabba"]
    second = ["move B", "move A", *"baabba"]
    assert quartets == (first + second) * 7 + first


@pytest.mark.usefixtures("fake")
def test_a_short_limit_is_exceeded_where_little_more_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timings that take next to no time and scatter by 1 %."""
    generator = np.random.default_rng(0)
    monkeypatch.setattr(latency, "_timer", lambda run, iterations: lambda: float(generator.normal(10, 0.1)))
    meter = LatencyMeter(SE, LatencySettings(input_size=SIZE, backend="fake"))
    short = meter.measure(SE, max_seconds=1e-9)
    assert (short.repetitions, short.narrow_enough) == (8, False)
    longer = meter.measure(SE, max_seconds=1e-9, least_seconds=30.0)
    assert (longer.repetitions >= 30, longer.narrow_enough, longer.note) == (True, True, None)


@pytest.mark.parametrize(
    ("seconds", "needed", "load", "note"),
    [
        (
            0.34, 6.25, 0.2,
            "after 0.34 s the interval of the ratio is 4.96 % wide instead of 1.00 %; about 6.2 s per"
            " network would be enough.",
        ),
        (
            20.0, 61.4, 1.5,
            "after 20 s the interval of the ratio is 4.96 % wide instead of 1.00 %; about 61 s per"
            " network would be enough."
            " The machine is busy: 1.5 processes compete for each core.",
        ),
    ],
)  # fmt: skip
def test_a_wide_interval_says_what_would_do(seconds: float, needed: float, load: float, note: str) -> None:
    times = np.array([1.0])
    pairs = Pairs(
        baseline=times,
        candidate=times,
        ratio=1.0,
        interval=(0.9752, 1.0248),
        seconds=seconds,
        narrow_enough=False,
        seconds_needed=needed,
    )
    assert latency._too_wide(pairs, 0.01, load) == note


def test_the_first_mode_that_works_is_taken_and_recorded(
    fake: list[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU with a network that cannot be captured."""
    plain_prepare = backends.NAMES.built_in["fake"]
    tried: list[str] = []

    def prepare(model: nn.Module, images: torch.Tensor, settings: LatencySettings) -> Prepared:
        tried.append(settings.mode)
        if settings.mode in refused:
            raise ConfigError("no capture here.")
        return plain_prepare(model, images, settings)

    def resolved(settings: LatencySettings, device: torch.device) -> list[LatencySettings]:
        return [replace(settings, device="cuda", mode=mode) for mode in ("graph", "eager")]

    monkeypatch.setitem(backends.NAMES.built_in, "fake", prepare)
    monkeypatch.setattr(LatencySettings, "resolved", resolved)
    refused = {"graph"}
    meter = LatencyMeter(SE, LatencySettings(input_size=SIZE, backend="fake"))
    assert meter.mode_note == "latency mode is 'eager', because no capture here."
    assert meter.measure(SE).conditions["mode"] == meter.settings.mode == "eager"
    assert tried == ["graph", "eager", "eager"]
    refused = set()
    meter = LatencyMeter(SE, LatencySettings(input_size=SIZE, backend="fake"))
    assert (meter.mode_note, meter.settings.mode, meter.conditions["mode"]) == (None, "graph", "graph")
    refused = {"graph", "eager"}
    with pytest.raises(ConfigError, match="no capture here"):
        LatencyMeter(SE, LatencySettings(input_size=SIZE, backend="fake"))


def test_auto_is_eager_on_a_cpu(fake: list[nn.Module]) -> None:
    meter = LatencyMeter(SE, LatencySettings(input_size=SIZE, backend="fake"))
    assert (meter.settings.mode, meter.conditions["mode"], meter.mode_note) == ("eager", "eager", None)


@pytest.mark.gpu
def test_auto_is_a_graph_on_cuda_unless_the_network_cannot_be_captured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = LatencySettings(input_size=SIZE, device="cuda")
    assert LatencyMeter(SE, settings).conditions["mode"] == "graph"

    def waiting(self: nn.ReLU, x: torch.Tensor) -> torch.Tensor:
        torch.cuda.synchronize()
        return x.relu_()

    monkeypatch.setattr(nn.ReLU, "forward", waiting)
    meter = LatencyMeter(SE, settings)
    assert meter.conditions["mode"] == "eager"
    assert "latency mode 'graph' does not work here" in str(meter.mode_note)


def test_a_meter_serves_other_positions_but_no_other_backbone(fake: list[nn.Module]) -> None:
    meter = LatencyMeter(SE, LatencySettings(input_size=SIZE, backend="fake"))
    other = Architecture.uniform("resnet18", reduction=16, position="pre")
    assert meter.measure(other).ratio > 1
    for arch in (Architecture.plain("resnet34"), Architecture.plain("resnet18", act_layer="silu")):
        with pytest.raises(ConfigError, match="make a meter for that backbone"):
            meter.measure(arch)


@pytest.mark.usefixtures("fake")
def test_a_busy_device_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)

    def timer(run: Callable[[], float], iterations: int) -> Callable[[], float]:
        return lambda: 10 + 5 * float(generator.random())

    monkeypatch.setattr(latency, "_timer", timer)
    meter = LatencyMeter(SE, LatencySettings(input_size=SIZE, backend="fake"))
    measured = meter.measure(SE, width=0.001, max_seconds=0.3)
    assert not measured.narrow_enough
    assert re.match(
        r"after 0\.\d+ s the interval of the ratio is \d+\.\d\d % wide instead of 0\.10 %; about \d+(\.\d)? (s|min|h)"
        r" per network would be enough\.",
        str(measured.note),
    )
    assert measured.interval[0] < measured.ratio < measured.interval[1]


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory."), MemoryError(), RuntimeError("can't allocate memory: 9")],
)
def test_a_network_that_is_too_large_is_infeasible(
    fake: list[nn.Module], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    meter = LatencyMeter(SE, LatencySettings(input_size=SIZE, backend="fake"))

    def prepare(*args: object) -> Prepared:
        raise error

    monkeypatch.setitem(backends.NAMES.built_in, "fake", prepare)
    with pytest.raises(InfeasibleError, match="does not fit"):
        meter.measure(SE)


def test_other_errors_stay_what_they_are(fake: list[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    meter = LatencyMeter(SE, LatencySettings(input_size=SIZE, backend="fake"))

    def prepare(*args: object) -> Prepared:
        raise RuntimeError("a bug")

    monkeypatch.setitem(backends.NAMES.built_in, "fake", prepare)
    with pytest.raises(RuntimeError, match="a bug"):
        meter.measure(SE)


def test_measuring_leaves_random_numbers_and_threads_alone(fake: list[nn.Module]) -> None:
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    measure_latency(SE, input_size=SIZE, backend="fake", threads=threads + 1)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("option", ["width", "max_seconds", "min_pairs"])
@pytest.mark.parametrize("value", [0, -1, "1", float("nan")])
def test_numbers_must_be_above_zero(fake: list[nn.Module], option: str, value: object) -> None:
    meter = LatencyMeter(SE, LatencySettings(input_size=SIZE, backend="fake"))
    with pytest.raises(ConfigError, match=f"{option} is"):
        meter.measure(SE, **{option: value})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"device": "gpu0"}, DeviceError, "device is 'gpu0'"),
        ({"backend": "onnx"}, ConfigError, "Did you mean 'onnxruntime'"),
        ({"input_size": (1, 32, 32)}, BackboneError, "in_chans=1"),
        ({"batch_size": 10**9}, InfeasibleError, "batch_size is 1000000000"),
    ],
)
def test_mistakes_are_named(options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        measure_latency(SE, **{"input_size": SIZE, **options})


@pytest.mark.parametrize("backend", ["torch", pytest.param("onnxruntime", marks=pytest.mark.slow)])
def test_a_real_measurement(backend: str) -> None:
    if backend != "torch":
        pytest.importorskip(backend)
    measured = measure_latency(SE, input_size=SIZE, backend=backend, max_seconds=1.0, threads=1)
    assert measured.median_ms > 0
    assert measured.interval[0] <= measured.ratio <= measured.interval[1]
    assert measured.repetitions >= 8
    assert measured.conditions["backend"] == backend
    assert (measured.peak_memory is None) == (backend != "torch")
    if measured.peak_memory is not None:
        assert measured.peak_memory > 4 * 11_779_624


def test_optimised_networks_are_measured_against_the_optimised_backbone(fake: list[nn.Module]) -> None:
    settings = LatencySettings(input_size=SIZE, backend="fake", optimize=True)
    meter = LatencyMeter(SE, settings)
    assert meter.measure(SE).conditions["optimize"] is True
    assert conditions_key(meter.conditions) != conditions_key(
        LatencyMeter(SE, replace(settings, optimize=False)).conditions
    )


@pytest.mark.slow
def test_a_compiled_network_is_measured() -> None:
    assert measure_latency(SE, input_size=SIZE, mode="compile", max_seconds=2.0).median_ms > 0


@pytest.mark.gpu
def test_cuda_latency_has_memory_and_hardware_name() -> None:
    measured = measure_latency(SE, device="cuda", max_seconds=5.0)
    assert measured.conditions["device"] == "cuda"
    assert measured.peak_memory is not None
    assert measured.peak_memory > 4 * 11_779_624
