"""The latency axis of a run: one meter, one median of the backbone, and a table if there is a good one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from se_nas.architecture import Architecture
from se_nas.cost.axes import Measuring
from se_nas.cost.latency.meter import LatencyMeter
from se_nas.cost.latency.ratio_axis import FIELDS, MEASURED, RatioAxis
from se_nas.cost.latency.table import LatencyTable
from se_nas.cost.settings import differences
from se_nas.errors import ConfigError, RunError
from se_nas.objectives import Objective

LONGEST = 20.0
"""Seconds that one candidate's measurement may take at most."""
LEAST = 2.0
"""Seconds that one may take although its share of the run's time is shorter, if the interval gets narrow by then."""
TABLE_SECONDS = 150.0
"""Time that a table needs. With less, or without a budget of time and a pack, candidates are measured one by one,
unless ``se-nas profile`` has left a table."""
MOST_TABLE_SECONDS = 300.0


@dataclass(kw_only=True)
class LatencyAxis(RatioAxis):
    """The latency axis of the device of this process.

    Attributes:
        meter: measures a candidate against the backbone.
        max_seconds: time limit of one measurement, ``LEAST`` aside.
        width: wanted width of the 95 % interval of a ratio.
        say: is given a note, once, if an interval does not get as narrow as asked.
    """

    meter: LatencyMeter
    max_seconds: float
    width: float = 0.01
    say: Callable[[str], object] = lambda text: None
    _said: bool = False

    @classmethod
    def prepare(cls, objective: Objective, measuring: Measuring) -> LatencyAxis:
        """Build and time the backbone; take the table from the cache, or measure one if there is time.

        Raises:
            SeNasError: the backbone does not fit or the device is not there.
            RunError: the conditions are not those of the run that goes on.
        """
        space, seconds, say = measuring.space, measuring.seconds, measuring.say
        meter = LatencyMeter(measuring.plain, measuring.settings)
        if meter.mode_note is not None:
            say(meter.mode_note)
        max_seconds = LONGEST if seconds is None else min(LONGEST, seconds / measuring.candidates)
        frozen = measuring.frozen.get(objective.name)
        if frozen is not None:
            differing = differences(frozen["conditions"], meter.conditions)
            if differing:
                raise RunError(
                    "latency would be measured under other conditions than before, so the values could not be"
                    f" compared: {'; '.join(differing)}."
                )
            baseline = float(frozen["baseline"])
        else:
            say("timing the unmodified backbone")
            plain = meter.measure(
                measuring.plain, width=measuring.width, max_seconds=max_seconds, least_seconds=LEAST
            )
            baseline = plain.median_ms
        table = None
        if space.position is not None:
            table = LatencyTable.load(meter, space.sample(np.random.default_rng(0)))
            available = _seconds_for_table(measuring)
            if table is None and frozen is None and available is not None:
                table = _measured_table(meter, measuring, available)
        if table is not None:
            say(table.check.describe())
            if not table.passed:
                table = None
        return cls(
            objective=objective,
            meter=meter,
            baseline=baseline,
            table=table,
            position=space.position,
            max_seconds=max_seconds,
            width=measuring.width,
            say=say,
        )

    @property
    def conditions(self) -> Mapping[str, Any]:
        """Device, input, precision, threads and versions under which latency is measured."""
        return self.meter.conditions

    def _measured(self, architecture: Architecture) -> dict[str, Any]:
        with self.quiet():
            latency = self.meter.measure(
                architecture, width=self.width, max_seconds=self.max_seconds, least_seconds=LEAST
            )
        if latency.note is not None and not self._said:
            self._said = True
            self.say(
                f"latency of {architecture.describe()}: {latency.note} Other candidates may have intervals just as"
                " wide; the table of trials lists them all."
            )
        values = (latency.ratio * self.baseline, latency.ratio, list(latency.interval), MEASURED)
        return dict(zip(FIELDS, values, strict=True))


def _seconds_for_table(measuring: Measuring) -> float | None:
    """Time for a table; None if each candidate is measured instead."""
    if measuring.seconds is None:
        return MOST_TABLE_SECONDS if measuring.packed else None
    return min(measuring.seconds / 2, MOST_TABLE_SECONDS) if measuring.seconds >= TABLE_SECONDS else None


def _measured_table(meter: LatencyMeter, measuring: Measuring, seconds: float) -> LatencyTable | None:
    measuring.say(f"measuring a latency table, for up to {seconds:.0f} s")
    try:
        table = LatencyTable.measure(
            meter, measuring.space.sample, max_seconds=seconds, progress=measuring.measured
        )
        table.save()
    except ConfigError as error:
        measuring.say(str(error))
        return None
    return table
