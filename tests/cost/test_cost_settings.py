"""Conditions, their key, and the lock of a device."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest
import torch

from se_nas import Architecture
from se_nas.cost import LatencySettings, conditions_key, device_lock, differences, settings
from se_nas.cost.latency.meter import LatencyMeter
from se_nas.cost.latency.time_limit import TimeLimit
from se_nas.cost.settings import conditions
from se_nas.errors import ConfigError, DeviceError

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SE_NAS_CACHE", str(tmp_path))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("precision", "fp8", "fp32, bf16, fp16"),
        ("mode", "eagre", "Did you mean 'eager'"),
        ("mode", "graph", "needs a CUDA device and not 'cpu'; allowed: auto, eager, compile"),
        ("mode", "cudagraph", "mode is 'graph'"),
        ("batch_size", 0, "at least 1"),
        ("batch_size", True, "at least 1"),
        ("threads", -1, "at least 1"),
    ],
)
def test_wrong_settings_are_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LatencySettings(**{field: value})


@pytest.mark.parametrize(
    ("settings_", "device", "modes"),
    [
        (LatencySettings(), "cpu", ["eager"]),
        (LatencySettings(device="auto"), "mps", ["eager"]),
        (LatencySettings(device="auto"), "cuda:1", ["graph", "eager"]),
        (LatencySettings(device="cuda", backend="onnxruntime"), "cuda:0", ["eager"]),
        (LatencySettings(device="cuda", mode="eager"), "cuda:0", ["eager"]),
        (LatencySettings(device="cuda", mode="cudagraph"), "cuda:0", ["graph"]),
        (LatencySettings(mode="compile"), "cpu", ["compile"]),
    ],
)
def test_modes_are_tried_in_order(settings_: LatencySettings, device: str, modes: list[str]) -> None:
    found = settings_.resolved(torch.device(device))
    assert [(choice.mode, choice.device) for choice in found] == [(mode, device) for mode in modes]


def test_a_graph_needs_cuda_where_auto_finds_none() -> None:
    with pytest.raises(ConfigError, match="needs a CUDA device and not 'cpu'"):
        LatencySettings(device="auto", mode="graph").resolved(CPU)


def test_conditions_of_earlier_runs_keep_their_meaning() -> None:
    """Run folders of 0.1.0 call a graph cudagraph."""
    now = conditions(LatencySettings(device="cuda", mode="graph"), CPU, {})
    then = now | {"mode": "cudagraph"}
    assert differences(then, now) == differences(now, then) == []
    assert conditions_key(then) == conditions_key(now)
    assert differences(then, now | {"mode": "eager"}) == ["mode: 'graph' against 'eager'"]


def test_key_ignores_what_only_describes_the_moment() -> None:
    found = conditions(LatencySettings(), CPU, {"onnxruntime": "1.2"})
    json.dumps(found)
    assert conditions_key(found) == conditions_key(found | {"clock_mhz": 1.0, "load": 9.0})
    assert differences(found, found | {"clock_mhz": 1.0}) == []


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 2},
        {"threads": 7},
        {"precision": "bf16"},
        {"channels_last": True},
        {"input_size": (3, 64, 64)},
    ],
)
def test_key_and_differences_tell_conditions_apart(change: dict[str, object]) -> None:
    first, second = (conditions(LatencySettings(**options), CPU, {}) for options in ({}, change))
    assert conditions_key(first) != conditions_key(second)
    assert [line.split(":")[0] for line in differences(first, second)] == list(change)
    assert differences(first, {**first, "new": 1}) == ["new: None against 1"]


def hold(ready: multiprocessing.Event, release: multiprocessing.Event) -> None:
    with device_lock("cpu"):
        ready.set()
        release.wait(60)


def test_lock_keeps_another_process_out(monkeypatch: pytest.MonkeyPatch) -> None:
    context = multiprocessing.get_context("fork")
    ready, release = context.Event(), context.Event()
    holder = context.Process(target=hold, args=(ready, release))
    holder.start()
    try:
        assert ready.wait(60)
        monkeypatch.setattr(settings, "_LOCK_SECONDS", 0.1)
        with pytest.raises(DeviceError, match="in use by another measurement"), device_lock("cpu"):
            pass
        monkeypatch.setattr(settings, "_LOCK_SECONDS", 1800)
        # No longer than a time limit that is enforced.
        with TimeLimit(5.0).enforced(), pytest.raises(DeviceError, match="another measurement for"):
            LatencyMeter(Architecture.plain("test_resnet"), LatencySettings(input_size=(3, 32, 32)))
    finally:
        release.set()
        holder.join(60)
    with device_lock("cpu"), device_lock("cpu"):
        pass
