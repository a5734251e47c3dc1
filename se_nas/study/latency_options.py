"""How latency is measured, from a configuration."""

from __future__ import annotations

from se_nas.cost import LatencySettings
from se_nas.data import ImageData
from se_nas.study.config import SearchConfig


def latency_settings(config: SearchConfig, data: ImageData, device: str) -> LatencySettings:
    """The conditions of a search's measurements, on its images."""
    return LatencySettings(
        input_size=data.input_size,
        batch_size=config.latency_batch,
        device=device,
        num_classes=data.num_classes,
        precision=config.latency_precision,
        channels_last=config.latency_channels_last,
        mode=config.latency_mode,
        threads=config.latency_threads,
        optimize=config.latency_optimize,
        backend=config.latency_backend,
    )


def idle_latency_options(config: SearchConfig) -> list[str]:
    """A note on options that change nothing, for a search in which nothing is measured."""
    fields = type(config).model_fields
    idle = [
        name
        for name in fields
        if name.startswith("latency_") and getattr(config, name) != fields[name].default
    ]
    names = ", ".join(idle)
    return [f"{names} without effect: no objective or limit needs a measurement."] if idle else []
