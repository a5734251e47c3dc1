"""A device that is made up, so that the truth about its latency is known."""

from __future__ import annotations

import numpy as np

from se_nas import Architecture
from se_nas.cost import CostModel, Latency, LatencySettings
from se_nas.sites import native_width

SETTINGS = LatencySettings(input_size=(3, 64, 64))
PLAIN = Architecture.plain("resnet18")


class FakeMeter:
    """A device on which a gate costs 0.5 %, 2e-8 for each map element and 1e-7 for each weight, and noise."""

    def __init__(
        self,
        arch: Architecture = PLAIN,
        settings: LatencySettings = SETTINGS,
        noise: float = 0.0,
        any_gate: float = 0.0,
        sees_gates: bool = False,
    ) -> None:
        self.plain, self.settings, self.noise, self.any_gate = arch, settings, noise, any_gate
        self.sees_gates, self.mode_note = sees_gates, None
        self.conditions = {"device": "cpu", "device_name": "made up", "threads": 1} | {
            "batch_size": settings.batch_size,
            "precision": "fp32", "mode": "eager", "backend": "torch", "versions": {"torch": "2"}, "noise": noise,
        }  # fmt: skip
        self.measured: list[Architecture] = []
        self._generator = np.random.default_rng(0)

    def truth(self, arch: Architecture) -> float:
        model = CostModel.for_architecture(arch, self.settings.input_size)
        plain = np.array([native_width(site) for site in arch.sites])
        ratio = 1.0 + (0.0 if arch.is_plain else self.any_gate)
        for width, own, fixed, slope in zip(arch.widths, plain, model.fixed, model.slope, strict=True):
            ratio += (0.005 + 2e-8 * fixed[3]) * ((width != 0) - int(own != 0))
            ratio += 1e-7 * slope[1] * (max(width, 0) - max(own, 0))
        return ratio

    def measure(self, arch: Architecture, **options: float) -> Latency:
        self.measured.append(arch)
        ratio = self.truth(arch) * float(np.exp(self.noise * self._generator.normal()))
        reach = 2 * self.noise + 0.001
        return Latency(
            median_ms=20 * ratio,
            ratio=ratio,
            interval=(ratio - reach, ratio + reach),
            repetitions=30,
            baseline_ms=20.0,
            throughput=50.0,
            peak_memory=None,
            conditions=self.conditions,
            narrow_enough=True,
            seconds=1.0,
            note=None,
        )
