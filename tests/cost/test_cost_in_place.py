"""Times of gates inside a running network, with a clock that is made up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from se_nas import Architecture
from se_nas.cost import LatencyMeter, LatencySettings
from se_nas.cost.latency.gate_timing import gate_shares
from se_nas.errors import ConfigError

SETTINGS = LatencySettings(input_size=(3, 32, 32), threads=1)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SE_NAS_CACHE", str(tmp_path))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Takes(nn.Module):
    """Lets the clock go on by so many seconds."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def forward(self, x: Tensor) -> Tensor:
        self.clock.now += self.seconds
        return x


def test_shares_of_the_time_outside_of_gates() -> None:
    clock = Clock()
    layer, gate, other = (Takes(clock, seconds) for seconds in (10.0, 1.0, 0.5))
    x = torch.zeros(1)

    def run() -> object:
        return layer(other(gate(layer(gate(x)))))

    shares = gate_shares(run, [gate, None, other], max_seconds=1.0, clock=clock)
    # Two calls of the first gate, 20 seconds in layers.
    assert shares.tolist() == pytest.approx([2 / 20, 0.0, 0.5 / 20])
    assert clock.now == (3 + 8) * 22.5
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in (layer, gate, other))


@pytest.mark.parametrize("backbone", ["resnet10t", "mobilenetv3_small_050"])
@pytest.mark.parametrize("optimize", [False, True])
def test_every_gate_of_a_network_is_timed(backbone: str, optimize: bool) -> None:
    sites = Architecture.plain(backbone).sites
    widths = [0 if index % 2 else 8 for index in range(len(sites))]
    arch = replace(Architecture.plain(backbone), widths=tuple(widths))
    meter = LatencyMeter(arch, LatencySettings(input_size=(3, 32, 32), threads=1, optimize=optimize))
    shares = meter.gate_shares(arch, max_seconds=0.01)
    assert ((shares > 0) == (np.array(widths) > 0)).all()
    assert shares.sum() < 1


@pytest.mark.parametrize("position", ["pre", "identity"])
def test_gates_at_other_positions(position: str) -> None:
    arch = Architecture.uniform("resnet10t", reduction=16, position=position)
    assert (LatencyMeter(arch, SETTINGS).gate_shares(arch, max_seconds=0.01) > 0).all()


def test_gates_of_a_program_that_is_no_module_cannot_be_seen() -> None:
    arch = Architecture.uniform("resnet10t", reduction=16)
    meter = LatencyMeter(arch, SETTINGS)
    meter.settings = LatencySettings(input_size=(3, 32, 32), mode="compile")
    assert not meter.sees_gates
    with pytest.raises(ConfigError, match="mode 'eager'"):
        meter.gate_shares(arch, max_seconds=0.01)
