"""Peak memory of one inference: weights, images and the feature maps alive at the fullest moment.

On CUDA it is read from torch's allocator; on a CPU it is the largest sum of live tensors (``memory.py``), without
the scratch space of kernels. Both are the same in every run under the same conditions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from se_nas.architecture import Architecture
from se_nas.cost.axes import Measuring
from se_nas.cost.preparation import prepare_inference
from se_nas.cost.settings import LatencySettings, conditions, differences
from se_nas.errors import ConfigError, RunError
from se_nas.objectives import MEMORY, Objective

_MIB = 2**20
_ONLY_TIME = ("cpu_count", "threads", "platform", "clock_mhz", "load")


def measure_memory(arch: Architecture, settings: LatencySettings | None = None) -> float:
    """Peak memory of one inference of a batch in MiB, weights and images included.

    A CUDA graph needs what the eager inference needs that it was captured from, so modes graph and auto are measured
    eagerly.

    Args:
        arch: the architecture.
        settings: the conditions; those that change the time alone (threads) have no effect.

    Raises:
        BackboneError: the backbone cannot take images of this size.
        ConfigError: the backend is unknown, lacks a setting, or does not say how much memory it takes.
        DeviceError: the device does not exist.
        InfeasibleError: the network is too large for the memory.
    """
    return _measure(arch, settings or LatencySettings())[0]


def _measure(arch: Architecture, settings: LatencySettings) -> tuple[float, dict[str, Any]]:
    """The peak in MiB, and everything that it depends on besides the network."""
    from se_nas.device import resolve_device

    device = resolve_device(settings.device)
    mode = "compile" if settings.mode == "compile" else "eager"
    settings = replace(settings, device=str(device), mode=mode)
    prepared = prepare_inference(arch, settings)
    if prepared.peak_memory is None:
        raise ConfigError(
            f"latency_backend is {settings.backend!r}, which does not say how much memory an inference takes on"
            f" device {device.type!r}; allowed with objective 'memory': torch, on a CPU or on CUDA."
        )
    found = conditions(settings, device, prepared.versions)
    irrelevant = _ONLY_TIME if device.type == "cuda" else (*_ONLY_TIME, "device_name")
    return prepared.peak_memory / _MIB, {
        name: value for name, value in found.items() if name not in irrelevant
    }


@dataclass(kw_only=True)
class MemoryAxis:
    """Peak memory of an inference of each candidate, measured once; see ``CostAxis`` for the methods."""

    settings: LatencySettings
    baseline: float
    conditions: Mapping[str, Any]
    objective: Objective = MEMORY
    quiet: Callable[[], AbstractContextManager[None]] = nullcontext
    _known: dict[str, float] = field(default_factory=dict)

    @classmethod
    def prepare(cls, objective: Objective, measuring: Measuring) -> MemoryAxis:
        baseline, found = _measure(measuring.plain, measuring.settings)
        frozen = measuring.frozen.get(objective.name)
        if frozen is not None:
            differing = differences(frozen["conditions"], found)
            if differing:
                raise RunError(
                    "memory would be measured under other conditions than before, so the values could not be"
                    f" compared: {'; '.join(differing)}."
                )
            baseline = float(frozen["baseline"])
        return cls(
            objective=objective,
            settings=measuring.settings,
            baseline=baseline,
            conditions=found,
            _known={measuring.plain.key: baseline},
        )

    def fields(self, architecture: Architecture, *, measure: bool = False) -> dict[str, Any]:
        """The peak in MiB, always measured: which moment is the fullest depends on the whole network."""
        key = architecture.key
        if key not in self._known:
            with self.quiet():
                self._known[key] = measure_memory(architecture, self.settings)
        return {self.objective.column: self._known[key]}

    def by_widths(self) -> None:
        return None

    def remember(self, row: Mapping[str, Any]) -> None:
        if row.get(self.objective.column) is not None:
            self._known[row["key"]] = row[self.objective.column]

    def adopt(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The value as it is: under equal conditions every run measures the same."""
        return {self.objective.column: row[self.objective.column]}
