"""The latency axis of a run: one meter, one median of the backbone, and a table if there is a good one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from se_nas.architecture import Architecture
from se_nas.cost.axes import Measuring
from se_nas.cost.latency.meter import LatencyMeter
from se_nas.cost.latency.table import LatencyTable
from se_nas.cost.settings import differences
from se_nas.errors import ConfigError, RunError
from se_nas.objectives import LATENCY, Objective
from se_nas.space.costs import WidthCost

FIELDS = (LATENCY.column, *LATENCY.columns)
MEASURED, PREDICTED = "measured", "predicted"
LONGEST = 20.0
"""Seconds that one candidate's measurement may take at most."""
LEAST = 2.0
"""Seconds that one may take although its share of the run's time is shorter, if the interval gets narrow by then."""
TABLE_SECONDS = 150.0
"""Time that a table needs. With less, or without a budget of time and a pack, candidates are measured one by one,
unless ``se-nas profile`` has left a table."""
MOST_TABLE_SECONDS = 300.0


@dataclass(kw_only=True)
class LatencyAxis:
    """Latency of candidates as their ratio to the unmodified backbone times one common median.

    Timings of different minutes do not mix, ratios of interleaved timings do. With a table that passed its check,
    candidates are predicted and finalists measured; without one, every candidate is measured.

    Attributes:
        meter: measures a candidate against the backbone.
        baseline: the common median of the backbone in milliseconds.
        table: predicts, or None.
        position: of the space's gates, for which a table can hold; None if the space has several.
        max_seconds: time limit of one measurement, ``LEAST`` aside.
        width: wanted width of the 95 % interval of a ratio.
        say: is given a note, once, if an interval does not get as narrow as asked.
        quiet: see ``CostAxis``.
    """

    meter: LatencyMeter
    baseline: float
    table: LatencyTable | None
    position: str | None
    max_seconds: float
    width: float = 0.01
    quiet: Callable[[], AbstractContextManager[None]] = nullcontext
    say: Callable[[str], object] = lambda text: None
    objective: Objective = LATENCY
    _said: bool = False
    _known: dict[str, dict[str, Any]] = field(default_factory=dict)

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
                    "latency would be measured under other conditions than before, and the two cannot stand on"
                    f" one axis: {'; '.join(differing)}."
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

    def by_widths(self) -> dict[str, WidthCost] | None:
        """Latency in milliseconds as a function of widths; None without a table."""
        table = self.table
        if table is None or self.position is None:
            return None
        return {self.position: lambda widths: self.baseline * table.ratio(widths)}

    def fields(self, architecture: Architecture, *, measure: bool = False) -> dict[str, Any]:
        """Fields of a candidate's row: predicted if a table can and ``measure`` is False, else measured.

        An architecture is measured once.
        """
        known = self._known.get(architecture.key)
        if known is None or (measure and known["latency_source"] != MEASURED):
            predicted = self.table is not None and not measure
            if predicted:
                assert self.table is not None
                known = predicted_fields(self.table, self.baseline, architecture)
            else:
                known = self._measure(architecture)
            self._known[architecture.key] = known
        return known

    def remember(self, row: Mapping[str, Any]) -> None:
        """Take the latency of an earlier trial of this run instead of measuring again."""
        if row.get(LATENCY.column) is not None:
            self._known[row["key"]] = {name: row[name] for name in FIELDS}

    def adopt(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The ratio of another run's row, times this run's median of the backbone."""
        fields = {name: row[name] for name in FIELDS}
        if fields["latency_ratio"] is not None:
            fields[LATENCY.column] = fields["latency_ratio"] * self.baseline
        return fields

    def _measure(self, architecture: Architecture) -> dict[str, Any]:
        with self.quiet():
            latency = self.meter.measure(
                architecture, width=self.width, max_seconds=self.max_seconds, least_seconds=LEAST
            )
        if latency.note is not None and not self._said:
            self._said = True
            self.say(
                f"latency of {architecture.describe()}: {latency.note} Other candidates may have intervals as wide;"
                " the table of trials has them all."
            )
        values = (latency.ratio * self.baseline, latency.ratio, list(latency.interval), MEASURED)
        return dict(zip(FIELDS, values, strict=True))


def predicted_fields(table: LatencyTable, baseline: float, architecture: Architecture) -> dict[str, Any]:
    """Fields of a row, from a table that passed its check and the backbone's median in milliseconds."""
    ratio = float(table.ratio(np.array([architecture.widths]))[0])
    return dict(zip(FIELDS, (ratio * baseline, ratio, None, PREDICTED), strict=True))


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
