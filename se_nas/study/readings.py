"""What the trials of a study say, kept as it changes: rows, values by architecture, seeds, the front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from se_nas.run import ROW_FIELDS, SEARCH
from se_nas.study.attributes import IMPORTED, ROW

_OPEN = ("running", "unfinished")


class Readings:
    """Answers about trials without looking at all of them again.

    Args:
        directions: of the objectives.
    """

    def __init__(self, directions: Sequence[StudyDirection]) -> None:
        self._signs = [1 if direction == StudyDirection.MAXIMIZE else -1 for direction in directions]
        self._rows: dict[int, dict[str, Any]] = {}
        self._in_order: list[dict[str, Any]] | None = None
        self._seeds: dict[str, set[int]] = {}
        self._evaluated: set[int] = set()
        self._front: list[tuple[int, tuple[float, ...]]] = []
        self.values: dict[str, list[float] | None] = {}
        """Objective values of every architecture that was begun, by key; None without values yet."""

    def rows(self) -> list[dict[str, Any]]:
        """One row per trial that is a reading of its own, in order of number."""
        if self._in_order is None:
            self._in_order = [self._rows[number] for number in sorted(self._rows)]
        return self._in_order

    def row(self, number: int) -> dict[str, Any]:
        """The row of one trial."""
        return self._rows[number]

    def seeds_of(self, key: str) -> set[int]:
        """Seeds with which the search has begun an architecture."""
        return self._seeds.get(key, set())

    @property
    def num_evaluated(self) -> int:
        """Candidates of the search that were evaluated, without those of another run."""
        return len(self._evaluated)

    @property
    def front_size(self) -> int:
        """Readings that no other reading dominates."""
        return len(self._front)

    @property
    def front_numbers(self) -> tuple[int, ...]:
        """Trials of these readings, in order."""
        return tuple(sorted(number for number, _ in self._front))

    def learn(self, trial: FrozenTrial) -> None:
        """Follow a change of a trial."""
        fields = trial.user_attrs.get(ROW)
        if fields is None or trial.state == TrialState.WAITING:
            return
        row = {name: fields.get(name) for name in ROW_FIELDS}
        row |= {"number": trial.number, "params": trial.params, "state": fields.get("state", "running")}
        self._rows[trial.number], self._in_order = row, None
        key = row["key"]
        values = list(trial.values) if trial.state == TrialState.COMPLETE else None
        if self.values.get(key) is None:
            self.values[key] = values
        if row["phase"] != SEARCH:
            return
        self._seeds.setdefault(key, set()).add(row["seed"])
        if row["state"] not in _OPEN and IMPORTED not in trial.user_attrs:
            self._evaluated.add(trial.number)
        if values is not None:
            self._add_to_front(trial.number, values)

    def _add_to_front(self, number: int, values: Sequence[float]) -> None:
        point = tuple(sign * value for sign, value in zip(self._signs, values, strict=True))
        if any(_dominates(other, point) for _, other in self._front):
            return
        kept = [(one, other) for one, other in self._front if not _dominates(point, other)]
        self._front = [*kept, (number, point)]


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))
