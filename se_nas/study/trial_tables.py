"""A trial in Optuna's tables: read from their rows and written to them, with digests of what was written."""

from __future__ import annotations

import json
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Any

import sqlalchemy
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.storages._rdb.models import (
    TrialIntermediateValueModel,
    TrialModel,
    TrialParamModel,
    TrialSystemAttributeModel,
    TrialUserAttributeModel,
    TrialValueModel,
)
from optuna.trial import FrozenTrial
from pydantic_core import from_json
from sqlalchemy import ColumnElement, Connection, Table

from se_nas.run.files import sha256
from se_nas.run.study_file import ROW, SEALS

_Children = Mapping[str, Sequence[tuple[Any, ...]]]
"""Rows of a trial in the tables of `_CHILDREN`."""
_CHILDREN: Mapping[str, tuple[Table, tuple[str, ...]]] = {
    "params": (TrialParamModel.__table__, ("param_name", "param_value", "distribution_json")),
    "values": (TrialValueModel.__table__, ("objective", "value", "value_type")),
    "user_attrs": (TrialUserAttributeModel.__table__, ("key", "value_json")),
    "system_attrs": (TrialSystemAttributeModel.__table__, ("key", "value_json")),
}
"""Attributes of a trial, with the table and the columns in which each is stored."""
_FACTS = ("number", "state", "datetime_start", "datetime_complete")
_STEP = ("step", "intermediate_value", "intermediate_value_type")
_AT_A_TIME = 500
"""Trials of which everything that is stored is read at once: the rows take ten times the room of the trials."""


def read_trials(
    connection: Connection, wanted: ColumnElement[bool], described: Mapping[int, FrozenTrial]
) -> Iterator[tuple[int, FrozenTrial]]:
    """Trials with their ids in the tables, in order of number; in a `FrozenTrial`, the id is the number.

    Args:
        connection: in a transaction, so that all tables are as they were at one moment.
        wanted: a condition on `TrialModel`.
        described: trials by their ids in the tables whose parameters are as they were: most rows of a trial, which are
            not read again. Only of a database without digests.

    Raises:
        ValueError: a trial is not what was written.
    """
    trials = TrialModel.__table__
    found = connection.execute(sqlalchemy.select(trials).where(wanted).order_by(trials.c.number)).all()
    for first in range(0, len(found), _AT_A_TIME):
        yield from _together(connection, found[first : first + _AT_A_TIME], described)


def _together(
    connection: Connection, rows: Sequence[Any], described: Mapping[int, FrozenTrial]
) -> Iterator[tuple[int, FrozenTrial]]:
    """The trials of some rows of their own table."""
    ids = [row.trial_id for row in rows]
    undescribed = [own for own in ids if own not in described]

    def rows_of(table: Table, columns: Sequence[str], ids: Sequence[int] = ids) -> dict[int, list[Any]]:
        """Some columns of a table's rows by trial."""
        found: dict[int, list[Any]] = defaultdict(list)
        chosen = sqlalchemy.select(table.c.trial_id, *(table.c[name] for name in columns))
        for own, *row in connection.execute(
            chosen.where(table.c.trial_id.in_(ids)).order_by(table.primary_key.columns[0])
        ):
            found[own].append(tuple(row))
        return found

    stored = {
        name: rows_of(*where, undescribed if name == "params" else ids) for name, where in _CHILDREN.items()
    }
    steps = rows_of(TrialIntermediateValueModel.__table__, _STEP)
    for row in rows:
        own = row.trial_id
        children: _Children = {name: stored[name][own] for name in _CHILDREN}
        _check(row, children)
        yield own, _trial(row, children, steps[own], described.get(own))


def _trial(
    row: Any, children: _Children, steps: Sequence[tuple[Any, ...]], described: FrozenTrial | None
) -> FrozenTrial:
    params, distributions = (
        _parameters(row, children) if described is None else (described.params, described.distributions)
    )
    user_attrs = _attributes(children["user_attrs"])
    own = user_attrs.get(ROW)
    if isinstance(own, dict) and own.get("params") == params:
        own["params"] = params
    return FrozenTrial(
        number=row.number,
        trial_id=row.number,
        state=row.state,
        value=None,
        values=[
            TrialValueModel.stored_repr_to_value(value, kind) for _, value, kind in sorted(children["values"])
        ]
        or None,
        datetime_start=_local(row.datetime_start),
        datetime_complete=_local(row.datetime_complete),
        params=params,
        distributions=distributions,
        user_attrs=user_attrs,
        system_attrs=_attributes(pair for pair in children["system_attrs"] if pair[0] != SEALS),
        intermediate_values={
            step: TrialIntermediateValueModel.stored_repr_to_intermediate_value(value, kind)
            for step, value, kind in steps
        },
    )


def _parameters(row: Any, children: _Children) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """Values and distributions by name. The trials of a study share names and distributions."""
    distributions = _distributions(tuple((name, text) for name, _, text in children["params"]))
    params = {
        sys.intern(name): distributions[name].to_external_repr(value) for name, value, _ in children["params"]
    }
    # A trial that has not ended may get more of them.
    return params, distributions if row.state.is_finished() else dict(distributions)


def _attributes(stored: Iterable[tuple[Any, ...]]) -> dict[str, Any]:
    """Keys with their values, from pairs of a key and a text of JSON; the parser keeps one text of each key."""
    return {sys.intern(key): from_json(text, cache_strings="keys") for key, text in stored}


def write_trial(
    connection: Connection,
    study_id: int,
    trial: FrozenTrial,
    *,
    own: int | None,
    before: FrozenTrial | None,
    sealed: bool,
) -> int:
    """Write a trial; returns its id in the tables.

    Args:
        connection: in a transaction.
        study_id: the study's number in the database.
        trial: what it is to be.
        own: its id in the tables; None if it is new.
        before: as it was last read or written: what it shares with that, as the same object, is not written again.
        sealed: whether it gets digests.
    """
    table = TrialModel.__table__
    moments = _utc(trial.datetime_start), _utc(trial.datetime_complete)
    facts = dict(zip(_FACTS, (trial.number, trial.state, *moments), strict=True))
    known = own is not None
    if own is None:
        added = table.insert().values(study_id=study_id, **facts)
        own = connection.execute(added).inserted_primary_key[0]  # type: ignore[index]
    else:
        connection.execute(table.update().where(table.c.trial_id == own).values(facts))
    children = _children(trial)
    for name, (child, columns) in _CHILDREN.items():
        if before is not None and getattr(before, name) is getattr(trial, name):
            continue
        if known:
            connection.execute(child.delete().where(child.c.trial_id == own))
        if children[name]:
            rows = [{"trial_id": own, **dict(zip(columns, row, strict=True))} for row in children[name]]
            connection.execute(child.insert(), rows)
    if sealed:
        seals = json.dumps(_seals(facts, children))
        # There is one of each key: this replaces that of the save before.
        replaced = TrialSystemAttributeModel.__table__.insert().prefix_with("OR REPLACE")
        connection.execute(replaced.values(trial_id=own, key=SEALS, value_json=seals))
    return own


def _children(trial: FrozenTrial) -> _Children:
    return {
        "params": [
            (name, float(distribution.to_internal_repr(trial.params[name])), _json(distribution))
            for name, distribution in trial.distributions.items()
        ],
        "values": [
            (objective, *TrialValueModel.value_to_stored_repr(value))
            for objective, value in enumerate(trial.values or ())
        ],
        "user_attrs": [(key, json.dumps(value)) for key, value in trial.user_attrs.items()],
        "system_attrs": [(key, json.dumps(value)) for key, value in trial.system_attrs.items()],
    }


def _seals(facts: Mapping[str, Any], children: _Children) -> dict[str, str]:
    """The digests of a trial, as `study_file.SEALS` describes them; ``facts`` are those of its own table."""
    rest: list[Any] = list(facts.values())
    for name, rows in children.items():
        rest.append(sorted(row for row in rows if not (name == "user_attrs" and row[0] == ROW)))
    rows_text = [text for key, text in children["user_attrs"] if key == ROW]
    return {
        **({"row": sha256(rows_text[0])} if rows_text else {}),
        "rest": sha256(json.dumps(rest, default=_stable)),
    }


def _stable(value: Any) -> str:
    """What the digests say of a state or a moment, in any version of Python."""
    return value.isoformat() if isinstance(value, datetime) else value.name


def _check(row: Any, children: _Children) -> None:
    """Refuse a trial that is not what was written; one without digests is taken as it is."""
    attributes = children["system_attrs"]
    found = [text for key, text in attributes if key == SEALS]
    if not found:
        return
    whole = {**children, "system_attrs": [item for item in attributes if item[0] != SEALS]}
    if json.loads(found[0]) != _seals({name: getattr(row, name) for name in _FACTS}, whole):
        raise ValueError(f"trial {row.number} is not what was written")


@lru_cache(maxsize=1000)
def _distributions(stored: tuple[tuple[str, str], ...]) -> dict[str, BaseDistribution]:
    """Distributions by name. Trials of a space share them: 10,000 trials would have 200,000 otherwise."""
    return {sys.intern(name): _distribution(text) for name, text in stored}


@cache
def _distribution(text: str) -> BaseDistribution:
    with warnings.catch_warnings():
        # Optuna warns of choices that it cannot store, so they were not what it stored.
        warnings.simplefilter("error")
        try:
            return json_to_distribution(text)
        except UserWarning as error:
            raise ValueError(str(error)) from None


@cache
def _json(distribution: BaseDistribution) -> str:
    return distribution_to_json(distribution)


def _utc(moment: datetime | None) -> datetime | None:
    """Optuna has naive local time in a trial, and naive UTC in the database."""
    return None if moment is None else moment.astimezone(UTC).replace(tzinfo=None)


def _local(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
