"""Whether known functions give what trials are told: a wrong number of an objective, or another unit, shows here."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial

from se_nas.errors import ConfigError
from se_nas.samplers._grid import Grid
from se_nas.samplers._observations import DUPLICATE, MODEL, proposed_params

TOLERANCE = 0.01
"""Share of a value by which a known function may be off: values are rounded, and units differ by more."""
ENOUGH = 2
"""So many trials decide."""


class Told:
    """What the first trials of each study were told, until one of at least two agrees with the known functions.

    Only what the sampler itself proposed counts, and no further reading of a point: others may be told what was
    measured, where the function predicts.
    """

    def __init__(self) -> None:
        self._trials: dict[Hashable, list[tuple[int, Mapping[str, Any], Sequence[float]]]] = {}
        self._settled: set[Hashable] = set()

    def add(self, study: Hashable, trial: FrozenTrial, values: Sequence[float]) -> None:
        """Note what a trial is told."""
        source = trial.system_attrs.get(MODEL, {}).get("source", "given")
        if study in self._settled or source in ("given", "repeat", "again") or DUPLICATE in trial.user_attrs:
            return
        params = proposed_params(trial) | trial.params
        self._trials.setdefault(study, []).append((trial.number, params, values))

    def check(self, study: Hashable, grid: Grid) -> None:
        """Compare what was told with what the known functions of ``grid`` give.

        Raises:
            ConfigError: at least `ENOUGH` trials were told, and none of them what a function gives.
        """
        noted = [(number, grid.row(params), values) for number, params, values in self._trials.get(study, [])]
        found = [(number, row, values) for number, row, values in noted if row is not None]
        if len(found) < ENOUGH:
            return
        given = grid.functions(np.array([row for _, row, _ in found]))
        told = np.array([values for *_, values in found])
        decided = True
        for i, column in enumerate(grid.known_columns):
            says, heard = given[:, i], told[:, column]
            wrong = np.abs(heard - says) > TOLERANCE * np.maximum(np.abs(heard), np.abs(says))
            # Nothing is nothing in any unit.
            right = ~wrong & (says != 0)
            if wrong.any() and not right.any():
                pairs = "; ".join(
                    f"{heard[k]:g} in trial {number}, where it gives {says[k]:g}"
                    for k, (number, *_) in enumerate(found)
                )
                raise ConfigError(
                    f"known[{column}] is not what trials return as objective {column}: {pairs}. Check the number of the"
                    " objective (from 0) and the unit, or leave it out of known."
                )
            decided &= bool(right.any())
        if decided:
            self._settled.add(study)
            del self._trials[study]
