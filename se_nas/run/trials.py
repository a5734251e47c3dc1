"""``trials.json`` of a run folder: one row per trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from se_nas.documents.typed import Count, Integer, NonNegative, Percent, Positive, Real, Share, Switch, parse
from se_nas.errors import RunError
from se_nas.objectives import COSTS, Objective
from se_nas.sites import KEEP

SEARCH, FINAL = "search", "final"
"""Phases of a run, in a row's field ``phase``."""
MEASURED = "measured"
"""``source`` of a cost that was measured on the candidate itself."""
Width = Annotated[int, Field(ge=KEEP, strict=True)]


@dataclass(frozen=True, kw_only=True)
class CostReading:
    """A cost of one architecture.

    Attributes:
        value: in the unit of the cost's column.
        ratio: to the unmodified backbone's; None if it is not known apart from ``value``.
        interval: 95 % interval of the ratio; None without repetitions.
        source: "measured" or "predicted"; None for a cost that is always taken in one way.
    """

    value: Count | NonNegative
    ratio: Positive | None = None
    interval: tuple[Real, Real] | None = None
    source: str | None = None

    @property
    def measured(self) -> bool:
        """Whether it was taken on the network itself, not predicted."""
        return self.source in (None, MEASURED)


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """One training of a candidate, or what became of it.

    Attributes:
        number: of the trial.
        key: of the architecture, with its ``description`` in words.
        baseline: the role of a baseline: plain, all_se_16, native or last_stage; None for any other candidate.
        position: where in the block the sites are.
        widths: realised hidden width at each site; 0 without SE, -1 for a native gate that stays.
        params: the search space's parameters; empty if the space cannot express the architecture.
        gate, act, bias: of the SE blocks; ``act`` is None for the family's own.
        seed: of the training.
        phase: "search" or "final".
        epochs: that were trained, of ``epochs_planned``.
        state: "complete", "stopped", "running", "unfinished", "diverged", "failed" or "infeasible".
        accuracy, top5, test_accuracy: in percent.
        loss, train_loss: on validation and training images.
        ece: expected calibration error, from 0 to 1.
        correct: digest of the file in ``correct/`` that says which validation images were classified correctly.
        curve: one entry per epoch.
        costs: by objective name (`se_nas.objectives.COSTS`), as far as they are known.
        seconds: of the training itself, without waiting.
        started, finished: the time of day, which is wrong where the machine's clock is.
        elapsed: seconds that the run had taken when the trial ended, without the time in which it was stopped.
        error: why there is no result.
    """

    number: Count
    key: str
    description: str | None = None
    baseline: str | None = None
    position: str | None = None
    widths: tuple[Width, ...]
    params: Mapping[str, Any] = field(default_factory=dict)
    gate: str | None = None
    act: str | None = None
    bias: Switch | None = None
    seed: Integer | None = None
    phase: str
    epochs: Count = 0
    epochs_planned: Count = 0
    state: str
    accuracy: Percent | None = None
    top5: Percent | None = None
    loss: Real | None = None
    train_loss: Real | None = None
    ece: Share | None = None
    test_accuracy: Percent | None = None
    correct: str | None = field(default=None, repr=False)
    curve: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    costs: Mapping[str, CostReading] = field(default_factory=dict)
    seconds: NonNegative | None = None
    started: datetime | None = None
    finished: datetime | None = None
    elapsed: NonNegative | None = None
    error: str | None = None

    @property
    def complete(self) -> bool:
        """Trained to the end of its schedule, with an accuracy."""
        return self.state == "complete" and self.accuracy is not None

    @classmethod
    def from_json(cls, data: Any, where: str = "a row") -> TrialRow:
        """From one row of the file; null is what is not known.

        Raises:
            RunError: it is damaged.
        """
        if not isinstance(data, Mapping):
            raise RunError(f"{where} is damaged: it must be a JSON object.")
        known = {name: value for name, value in data.items() if value is not None}
        known["costs"] = {
            name: reading for name, cost in COSTS.items() if (reading := _reading(cost, known)) is not None
        }
        try:
            return parse(cls, known)
        except ValueError as error:
            raise RunError(f"{where} is damaged: {error}.") from error

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, every column of the table; ``from_json`` gives an equal row back."""
        found: dict[str, Any] = {}
        for name in _FIELDS:
            value = getattr(self, name)
            if name == "costs":
                found |= cost_columns(value)
            else:
                found[name] = _plain(value) if type(value) in _NOT_JSON else value
        return found


def cost_columns(costs: Mapping[str, CostReading]) -> dict[str, Any]:
    """The costs as columns, null if unknown."""
    found: dict[str, Any] = dict(_UNKNOWN)
    for name, reading in costs.items():
        for column, part in COSTS[name].parts:
            found[column] = _plain(getattr(reading, part))
    return found


def row_fields() -> tuple[str, ...]:
    """Columns of ``trials.json``, in their order."""
    return tuple(column for name in _FIELDS for column in (cost_columns({}) if name == "costs" else (name,)))


def rows_from_json(data: Any, where: str) -> tuple[TrialRow, ...]:
    """The parsed table of trials.

    Raises:
        RunError: it is damaged.
    """
    if not isinstance(data, Sequence) or isinstance(data, str):
        raise RunError(f"{where} is damaged: it must be a list of rows.")
    return tuple(TrialRow.from_json(row, f"row {index} of {where}") for index, row in enumerate(data))


def _reading(cost: Objective, row: Mapping[str, Any]) -> dict[str, Any] | None:
    if cost.column not in row:
        return None
    return {part: row[column] for column, part in cost.parts if column in row}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return list(value) if isinstance(value, tuple) else value


_FIELDS = tuple(item.name for item in fields(TrialRow))
_NOT_JSON = (tuple, datetime)
_UNKNOWN = {column: None for cost in COSTS.values() for column, _ in cost.parts}
"""The columns of costs."""
