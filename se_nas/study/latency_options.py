"""How latency is measured, from a configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from se_nas.cost import LatencySettings
from se_nas.cost.axes import CostAxis, Measuring
from se_nas.cost.latency.elsewhere import LatencyElsewhere, Measurer
from se_nas.data import ImageData
from se_nas.objectives import LATENCY, Objective
from se_nas.study.config import SearchConfig


def latency_settings(config: SearchConfig, data: ImageData, device: str) -> LatencySettings:
    """The conditions of a search's measurements, on its images."""
    return LatencySettings(
        input_size=data.input_size,
        batch_size=config.latency_batch,
        # That of another machine is its own affair.
        device="auto" if config.latency_on is not None else device,
        num_classes=data.num_classes,
        precision=config.latency_precision,
        channels_last=config.latency_channels_last,
        mode=config.latency_mode,
        threads=config.latency_threads,
        optimize=config.latency_optimize,
        backend=config.latency_backend,
    )


def measured_elsewhere(
    config: SearchConfig, *, fresh: bool, say: Callable[[str], object]
) -> Mapping[str, Callable[[Objective, Measuring], CostAxis]]:
    """What prepares the latency axis of a search whose latency is measured on another machine, by name of the cost.

    Args:
        config: what the user asked.
        fresh: whether the search begins.
        say: is given a line if the other machine does not answer.

    Raises:
        SeNasError: Ray or the database cannot be used.
    """
    if config.latency_on is None:
        return {}
    measurer: Measurer
    if config.on_ray:
        # Either is an extra.
        from se_nas.study.latency_ray import RayMeasurer

        measurer = RayMeasurer(config)
    else:
        from se_nas.study.latency_mail import Mail, MailMeasurer
        from se_nas.study.patience import Patience

        assert config.storage is not None
        assert config.study is not None
        mail = Mail(config.storage, config.study, Patience(say))
        measurer = MailMeasurer(mail, config.latency_on, fresh=fresh, say=say)

    def prepare(objective: Objective, measuring: Measuring) -> CostAxis:
        # mypy takes a default that is a function for a method, which could not be set.
        return cast("CostAxis", LatencyElsewhere.prepare(objective, measuring, measurer))

    return {LATENCY.name: prepare}


def idle_latency_options(config: SearchConfig) -> list[str]:
    """A note on options that change nothing, for a search in which nothing is measured."""
    fields = type(config).model_fields
    idle = [
        name
        for name in fields
        if name.startswith("latency_") and getattr(config, name) != fields[name].default
    ]
    names = ", ".join(idle)
    return (
        [
            f"{names} {'has' if len(idle) == 1 else 'have'} no effect: no objective or limit needs a measurement."
        ]
        if idle
        else []
    )
