"""What every latency axis shares: ratios times one median of the backbone, predicted where a table can."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from se_nas.architecture import Architecture
from se_nas.cost.latency.table import LatencyTable
from se_nas.objectives import LATENCY, Objective
from se_nas.space.costs import WidthCost

FIELDS = (LATENCY.column, *LATENCY.columns)
MEASURED, PREDICTED = "measured", "predicted"


@dataclass(kw_only=True)
class RatioAxis(ABC):
    """Latency of candidates as their ratio to the unmodified backbone times one common median.

    Timings of different minutes do not mix, ratios of interleaved timings do. With a table that passed its check,
    candidates are predicted and finalists measured; without one, every candidate is measured.

    Attributes:
        baseline: the common median of the backbone in milliseconds.
        table: predicts, or None.
        position: of the space's gates, for which a table can hold; None if the space has several.
        quiet: see ``CostAxis``.
    """

    baseline: float
    table: LatencyTable | None
    position: str | None
    objective: Objective = LATENCY
    quiet: Callable[[], AbstractContextManager[None]] = nullcontext
    _known: dict[str, dict[str, Any]] = field(default_factory=dict)

    @abstractmethod
    def _measured(self, architecture: Architecture) -> dict[str, Any]:
        """Fields of a candidate's row, measured."""

    def by_widths(self) -> dict[str, WidthCost] | None:
        """Latency in milliseconds as a function of widths; None without a table."""
        table = self.table
        if table is None or self.position is None:
            return None
        return {self.position: partial(_predicted_ms, table, self.baseline)}

    def fields(self, architecture: Architecture, *, measure: bool = False) -> dict[str, Any]:
        """Fields of a candidate's row: predicted if a table can and ``measure`` is False, else measured.

        An architecture is measured once.

        Raises:
            SeNasError: it cannot be measured.
        """
        known = self._known.get(architecture.key)
        if known is None or (measure and known["latency_source"] != MEASURED):
            if self.table is not None and not measure:
                known = _predicted(self.table, self.baseline, architecture)
            else:
                known = self._measured(architecture)
            self._known[architecture.key] = known
        return known

    def remember(self, row: Mapping[str, Any]) -> None:
        """Take the latency of an earlier trial of this run instead of measuring it again."""
        if row.get(LATENCY.column) is not None:
            self._known[row["key"]] = {name: row[name] for name in FIELDS}

    def adopt(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The ratio of another run's row, times this run's median of the backbone."""
        fields = {name: row[name] for name in FIELDS}
        if fields["latency_ratio"] is not None:
            fields[LATENCY.column] = fields["latency_ratio"] * self.baseline
        return fields


def _predicted(table: LatencyTable, baseline: float, architecture: Architecture) -> dict[str, Any]:
    """Fields of a row, from a table that passed its check and the backbone's median in milliseconds."""
    ratio = float(table.ratio(np.array([architecture.widths]))[0])
    return dict(zip(FIELDS, (ratio * baseline, ratio, None, PREDICTED), strict=True))


def _predicted_ms(table: LatencyTable, baseline: float, widths: np.ndarray) -> np.ndarray:
    """Latency in milliseconds as a function of widths; it can be sent to another process."""
    return baseline * table.ratio(widths)
