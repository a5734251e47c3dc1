"""The latency axis of a run: one meter, one median of the backbone, and a table where there is a good one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from se_nas.architecture import Architecture
from se_nas.cost import LatencyMeter, LatencySettings, LatencyTable, differences
from se_nas.errors import ConfigError, RunError

FIELDS = ("latency_ms", "latency_ratio", "latency_interval", "latency_source")
MEASURED, PREDICTED = "measured", "predicted"
LONGEST = 20.0
"""Seconds that one candidate's measurement may take at most."""
TABLE_SECONDS = 150.0
"""Time that a table needs. With less, or without a budget of time, candidates are measured one by one, unless
``se-nas profile`` has left a table."""

MOST_TABLE_SECONDS = 300.0


@dataclass(kw_only=True)
class LatencyAxis:
    """Latency of candidates as their ratio to the unmodified backbone times one common median.

    Timings of different minutes do not mix, ratios taken in turn do. With a table that passed its check,
    candidates are predicted and finalists measured; without one, every candidate is measured.

    Attributes:
        meter: measures a candidate against the backbone.
        baseline_ms: the common median of the backbone in milliseconds.
        table: predicts, or None.
        max_seconds: time limit of one measurement.
        width: wanted width of the interval of a ratio.
        say: told once where an interval does not get as narrow as asked.
        quiet: entered while something is measured, to keep other work of this run off the device.
    """

    meter: LatencyMeter
    baseline_ms: float
    table: LatencyTable | None
    max_seconds: float
    width: float = 0.01
    quiet: Callable[[], AbstractContextManager[None]] = nullcontext
    say: Callable[[str], object] = lambda text: None
    _said: bool = False
    _known: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def prepare(
        cls,
        plain: Architecture,
        settings: LatencySettings,
        seconds: float | None,
        *,
        candidates: int,
        width: float = 0.01,
        frozen: Mapping[str, Any] | None = None,
        sample: Callable[[np.random.Generator], Architecture] | None,
        say: Callable[[str], None],
    ) -> LatencyAxis:
        """Build and time the backbone; take the table from the cache, or measure one where time allows.

        Args:
            plain: the backbone as timm makes it.
            settings: the conditions of all measurements.
            seconds: time for all measurements of the run; None for no limit.
            candidates: how many candidates share that time.
            width: wanted width of the interval of a ratio; 0.01 is one percent of the backbone's latency.
            frozen: the manifest of a run that goes on: its median stays.
            sample: draws architectures of the space; None where it has several positions: a table is for one.
            say: told what takes time, and what was decided.

        Raises:
            SeNasError: the backbone does not fit or the device is not there.
            RunError: the conditions are not those of the run that goes on.
        """
        meter = LatencyMeter(plain, settings)
        max_seconds = LONGEST if seconds is None else min(LONGEST, seconds / candidates)
        if frozen is not None:
            differing = differences(frozen["latency"], meter.conditions)
            if differing:
                raise RunError(
                    "latency would be measured under other conditions than before, and the two cannot stand on"
                    f" one axis: {'; '.join(differing)}."
                )
            baseline_ms = float(frozen["baseline_latency_ms"])
        else:
            say("timing the unmodified backbone")
            baseline_ms = meter.measure(plain, width=width, max_seconds=max_seconds).median_ms
        table = None if sample is None else LatencyTable.load(meter, sample(np.random.default_rng(0)))
        unmeasured = table is None and frozen is None
        if unmeasured and sample is not None and seconds is not None and seconds >= TABLE_SECONDS:
            say("measuring a latency table")
            try:
                table = LatencyTable.measure(meter, sample, max_seconds=min(seconds / 2, MOST_TABLE_SECONDS))
                table.save()
            except ConfigError as error:
                say(str(error))
        if table is not None:
            say(table.check.describe())
            if not table.passed:
                table = None
        return cls(
            meter=meter, baseline_ms=baseline_ms, table=table, max_seconds=max_seconds, width=width, say=say
        )

    def predictions(self) -> Callable[[np.ndarray], np.ndarray] | None:
        """Latency in milliseconds as a function of widths; None without a table."""
        table = self.table
        return None if table is None else lambda widths: self.baseline_ms * table.ratio(widths)

    def fields(self, architecture: Architecture, *, measure: bool = False) -> dict[str, Any]:
        """Fields of a candidate's row: predicted where a table can and ``measure`` is False, else measured.

        An architecture is measured once.
        """
        known = self._known.get(architecture.key)
        if known is None or (measure and known["latency_source"] != MEASURED):
            predicted = self.table is not None and not measure
            known = self._predict(architecture) if predicted else self._measure(architecture)
            self._known[architecture.key] = known
        return known

    def remember(self, row: Mapping[str, Any]) -> None:
        """Take the latency of an earlier trial of this run instead of measuring again."""
        if row.get("latency_ms") is not None:
            self._known[row["key"]] = {name: row[name] for name in FIELDS}

    def _predict(self, architecture: Architecture) -> dict[str, Any]:
        assert self.table is not None
        ratio = float(self.table.ratio(np.array([architecture.widths]))[0])
        return dict(zip(FIELDS, (ratio * self.baseline_ms, ratio, None, PREDICTED), strict=True))

    def _measure(self, architecture: Architecture) -> dict[str, Any]:
        with self.quiet():
            latency = self.meter.measure(architecture, width=self.width, max_seconds=self.max_seconds)
        if latency.note is not None and not self._said:
            self._said = True
            self.say(f"latency of {architecture.describe()}: {latency.note} Later ones are not announced.")
        values = (latency.ratio * self.baseline_ms, latency.ratio, list(latency.interval), MEASURED)
        return dict(zip(FIELDS, values, strict=True))
