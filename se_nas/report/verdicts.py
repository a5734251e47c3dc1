"""A difference between two fronts in plain words, with its confidence."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from se_nas.report.attainment import Difference


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """The second run or group against the first.

    ``cheapest`` holds the lowest cost at which each side has a candidate; costs are divided by ``scale`` to be
    given in ``unit``, hypervolumes by ``volume_unit``.
    """

    first: str
    second: str
    difference: Difference
    cheapest: tuple[float, float]
    unit: str
    scale: float
    volume_unit: float

    def regions(self) -> Iterator[tuple[int, float, float]]:
        """Stretches of cost where one side is ahead: 1 for the second or -1 for the first, from, to."""
        ahead, budgets = self.difference.ahead, self.difference.budgets
        edges = np.flatnonzero(np.diff(ahead, prepend=0, append=0))
        for begin, end in pairwise(edges):
            if ahead[begin]:
                stop = budgets[end] if end < len(budgets) else math.inf
                yield int(ahead[begin]), float(budgets[begin]), float(stop)

    def to_dict(self) -> dict[str, Any]:
        found = self.difference
        return {
            "first": self.first,
            "second": self.second,
            "basis": found.basis,
            "budgets": found.budgets.tolist(),
            "accuracy_difference": _finite(found.value),
            "low": _finite(found.low),
            "high": _finite(found.high),
            "ahead": [
                {"run": self.second if side > 0 else self.first, "from": start, "to": _or_none(stop)}
                for side, start, stop in self.regions()
            ],
            "hypervolume_difference": found.volume,
            "hypervolume_interval": found.volume_interval and list(found.volume_interval),
            "verdict": words(self),
        }


def words(pair: Pair) -> str:
    """``B's front is ahead of A's between 6.0 and 6.8 ms; elsewhere the runs cannot be told apart.``"""
    found = pair.difference
    if not np.isfinite(found.low).any():
        return f"{pair.second} and {pair.first} cannot be told apart: {found.basis}.{_volume(pair)}"
    regions = list(pair.regions())
    clauses = []
    for side, name, other in ((1, pair.second, pair.first), (-1, pair.first, pair.second)):
        stretches = [_stretch(pair, start, stop) for own, start, stop in regions if own == side]
        if stretches:
            clauses.append(f"{name}'s front is ahead of {other}'s {_listed(stretches)}")
    if not clauses:
        text = f"{pair.second} and {pair.first} cannot be told apart at any cost"
    elif (found.ahead != 0).all():
        text = "; ".join(clauses)
    else:
        text = f"{'; '.join(clauses)}; elsewhere the runs cannot be told apart"
    return f"{text} ({found.basis}).{_alone(pair)}{_volume(pair)}"


def _stretch(pair: Pair, start: float, stop: float) -> str:
    begin = f"{start / pair.scale:.4g}"
    whole = start <= pair.difference.budgets[0]
    if math.isinf(stop):
        return "at every cost that both reach" if whole else f"from {begin} {pair.unit} up"
    return f"between {begin} and {stop / pair.scale:.4g} {pair.unit}"


def _alone(pair: Pair) -> str:
    """A sentence if one side has cheaper candidates than the other; otherwise empty."""
    first, second = pair.cheapest
    if math.isclose(first, second, rel_tol=1e-3):
        return ""
    name = pair.second if second < first else pair.first
    return f" Below {max(first, second) / pair.scale:.4g} {pair.unit} only {name} has candidates."


def _volume(pair: Pair) -> str:
    found = pair.difference
    if found.volume_interval is None:
        return ""
    volume, low, high = (value / pair.volume_unit for value in (found.volume, *found.volume_interval))
    sign = f"{volume:+.3g} [{low:+.3g}, {high:+.3g}]".replace("-", "−")
    return f" Hypervolume of {pair.second} minus that of {pair.first}: {sign}."


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _finite(values: np.ndarray) -> list[float | None]:
    return [_or_none(float(value)) for value in values]


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
