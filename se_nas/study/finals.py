"""Which trainings the final phase spends its time on: finalists with fresh seeds, at the full schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from se_nas.pareto import non_dominated
from se_nas.study.plan import Plan
from se_nas.study.store import COLUMNS, FINAL, SEARCH

Row = Mapping[str, Any]
MIN_SEEDS = 2
"""Readings that a mean needs before it has an interval."""


def finalists(rows: Sequence[Row], plan: Plan) -> list[Row]:
    """Rows of the search that deserve final seeds: the front, cheapest first, then the baselines.

    Several readings of one network count as their mean.
    """
    columns = [COLUMNS[name] for name in plan.config.objectives]
    done: list[Row] = [
        row
        for row in rows
        if row["phase"] == SEARCH
        and row["state"] == "complete"
        and all(row[column] is not None for column in columns)
    ]
    if not done:
        return []
    accuracies: dict[str, list[float]] = {}
    for row in done:
        accuracies.setdefault(row["key"], []).append(row["accuracy"])
    done = [
        {**row, "accuracy": fmean(accuracies.pop(row["key"]))} for row in done if row["key"] in accuracies
    ]
    values = np.array([[row[column] for column in columns] for row in done], dtype=float)
    front = non_dominated(values, ["maximize"] + ["minimize"] * (len(columns) - 1))
    members = [row for row, on_front in zip(done, front, strict=True) if on_front]
    members.sort(key=lambda row: row[columns[1]])
    keys = {row["key"] for row in members}
    return members + [row for row in done if row["baseline"] is not None and row["key"] not in keys]


def next_final(
    rows: Sequence[Row], plan: Plan, seconds_left: float, seconds_each: float
) -> tuple[Row, int] | None:
    """The finalist and the seed to train next; None where all have theirs, or too little time is left.

    Finalists that cannot get ``MIN_SEEDS`` readings in the time left are dropped from the end of the list, so
    that those that stay get intervals.
    """
    chosen = finalists(rows, plan)
    wanted = plan.config.final_seeds
    counts = {row["key"]: len(_final_readings(rows, row["key"])) for row in chosen}
    if seconds_each > 0 and math.isfinite(seconds_left):
        affordable = int(seconds_left // seconds_each)
        while (
            chosen and sum(max(0, min(MIN_SEEDS, wanted) - counts[row["key"]]) for row in chosen) > affordable
        ):
            chosen.pop()
    missing = [row for row in chosen if counts[row["key"]] < wanted]
    if not missing:
        return None
    row = min(missing, key=lambda row: counts[row["key"]])
    return row, plan.config.seed + 1 + counts[row["key"]]


def settled(rows: Sequence[Row], plan: Plan) -> bool:
    """Whether every finalist has enough final readings for the front to rest on them."""
    chosen = finalists(rows, plan)
    enough = min(MIN_SEEDS, plan.config.final_seeds)
    return (
        enough > 0
        and bool(chosen)
        and all(len(_final_readings(rows, row["key"])) >= enough for row in chosen)
    )


def _final_readings(rows: Sequence[Row], key: str) -> list[Row]:
    return [
        row for row in rows if row["key"] == key and row["phase"] == FINAL and row["accuracy"] is not None
    ]
