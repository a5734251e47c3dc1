"""What a stored study must hold before anything is read from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from se_nas.documents.typed import NonNegative, parse
from se_nas.errors import RunError
from se_nas.run import rows_from_json
from se_nas.study.attributes import ROW

SPENT = "spent"
"""Attribute of a study that one process writes: the seconds that the run has used."""
ENDED = "se_nas:search_ended"
"""Attribute of a shared study: why no worker suggests anything more."""


@dataclass(frozen=True)
class _Progress:
    spent: NonNegative = 0.0
    ended: str | None = None


def check_study(
    trials: Sequence[FrozenTrial], objectives: int, attributes: Mapping[str, Any], where: str
) -> None:
    """Refuse a study with rows, values or times that are none.

    Args:
        trials: of the study.
        objectives: their number.
        attributes: the study's user attributes.
        where: the file, for messages.

    Raises:
        RunError: with what is wrong.
    """
    described = [trial for trial in trials if trial.user_attrs.get(ROW) is not None]
    for trial in described:
        if not isinstance(trial.user_attrs[ROW], dict):
            raise RunError(f"{where} is damaged: the row of trial {trial.number} is not a mapping.")
    rows_from_json([{**trial.user_attrs[ROW], "number": trial.number} for trial in described], where)
    for trial in described:
        if trial.user_attrs[ROW].get("params") != trial.params:
            raise RunError(f"{where} is damaged: trial {trial.number} has two sets of parameters.")
    for trial in trials:
        if trial.state == TrialState.COMPLETE and sum(map(math.isfinite, trial.values or ())) != objectives:
            raise RunError(f"{where} is damaged: trial {trial.number} lacks a value.")
    try:
        parse(_Progress, {"spent": attributes.get(SPENT, 0.0), "ended": attributes.get(ENDED)})
    except ValueError as error:
        raise RunError(f"{where} is damaged: {error}.") from error
