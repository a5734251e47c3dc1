"""Which parameters a trial asks for: learned from what earlier trials asked for, since no sampler is told."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]

_MOST_COLUMNS = 4096
_WEIGHTS = np.random.default_rng(0).integers(1, 2**62, size=_MOST_COLUMNS)
"""Turn the choices of some parameters into one number; different choices agree only by chance."""


@dataclass(frozen=True)
class _Reason:
    """The choices of the parameters ``columns``, as codes, at which another parameter is not asked for."""

    columns: tuple[int, ...]
    lacking: frozenset[int]


@dataclass(frozen=True)
class Conditions:
    """Which parameters are asked for, by the choices of others.

    A parameter depends on the one other whose choices decide it in all trials so far; of several such, on those
    with the fewest choices, and it counts as not asked for where they agree. If there is none, what is known are
    the very combinations that were tried. What was tried is thus always told correctly, provided that the
    objective asks for the same parameters if it gets the same values.

    Attributes:
        rules: number of a parameter and its reasons, those first on which others depend.
    """

    rules: tuple[tuple[int, tuple[_Reason, ...]], ...] = ()

    @classmethod
    def learned(cls, asked: Index) -> Conditions:
        """Learn from (n_trials, n_params) choices in the order of trials, -1 where a parameter was not asked for."""
        lacking = asked < 0
        if not lacking.any():
            return cls()
        # Whatever a parameter depends on is asked for at least as often.
        order = np.argsort(lacking.sum(axis=0), kind="stable").tolist()
        rules = []
        for place, column in enumerate(order):
            reasons = _reasons(asked, lacking[:, column], order[:place])
            if reasons:
                rules.append((column, reasons))
        return cls(rules=tuple(rules))

    def levels(self, rows: Index) -> Index:
        """``rows`` (n, n_params) with -1 for the parameters that are not asked for."""
        levels = rows.copy()
        for column, reasons in self.rules:
            absent = np.ones(len(rows), dtype=bool)
            for reason in reasons:
                absent &= np.isin(_codes(levels, reason.columns), list(reason.lacking))
            levels[absent, column] = -1
        return levels

    def canonical(self, rows: Index) -> Index:
        """``rows`` (n, n_params) with the first choice of every parameter that is not asked for."""
        return np.maximum(self.levels(rows), 0) if self.rules else rows


def _codes(levels: Index, columns: tuple[int, ...]) -> Index:
    chosen = list(columns)
    return (levels[:, chosen] + 1) @ _WEIGHTS[chosen]


def _reasons(asked: Index, absent: NDArray[np.bool_], earlier: list[int]) -> tuple[_Reason, ...]:
    """What tells when a parameter is not asked for; nothing if it always is, or if nothing tells."""
    if not absent.any() or not earlier:
        return ()
    found: dict[int, list[_Reason]] = {}
    for column in earlier:
        codes = _codes(asked, (column,))
        lacking, having = set(codes[absent].tolist()), set(codes[~absent].tolist())
        if lacking.isdisjoint(having):
            reason = _Reason((column,), frozenset(lacking))
            found.setdefault(len(lacking) + len(having), []).append(reason)
    if found:
        return tuple(found[min(found)])
    # The latest trial decides, in case the objective was changed between two sessions.
    everything = tuple(earlier)
    latest = dict(zip(_codes(asked, everything).tolist(), absent.tolist(), strict=True))
    return (_Reason(everything, frozenset(code for code, lacks in latest.items() if lacks)),)
