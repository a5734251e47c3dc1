"""What SE brings at a site, by the site's depth and by γ: what a run knows that holds for another backbone too.

The accuracy of a network is modelled as a constant, plus the effect of every SE block, plus noise. The effect is a
Gaussian process over the site's relative depth (0 for the first site of the backbone, 1 for the last) and the logarithm
of γ, bilinear between knots. Its length in depth, the share that is the same for all γ, and the noise are those of
greatest restricted likelihood on a grid, so that an effect is believed as far as readings bear it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from se_nas.errors import RunError
from se_nas.sites import ABSENT, Site

Array = NDArray[np.float64]
DEPTHS = np.linspace(0.0, 1.0, 16)
"""Relative depths at which an effect is stored."""
LOG_RATIOS = np.arange(7.0)
"""Binary logarithms of the γ at which it is: 1 to 64. A gate without a bottleneck counts as γ = 1."""
_LENGTHS, _SHARES, _RATIO_LENGTH = (0.05, 0.15, 0.5), (0.5, 0.9), 2.0
_NOISES = np.geomspace(1e-3, 1e3, 25)
"""Variance of a reading's noise, in mean variances of what the effects add up to."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A trained network: its sites in order, the hidden width at each, and its accuracy in percent."""

    sites: Sequence[Site]
    widths: Sequence[int]
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class SiteEffects:
    """Effects of SE blocks in points of accuracy.

    Attributes:
        table: (len(DEPTHS), len(LOG_RATIOS)) effect of a block.
        explained: share of the variance of the readings that the effects are estimated to explain, 0 to 1.
    """

    table: Array
    explained: float

    @classmethod
    def from_table(cls, table: Sequence[Sequence[float]], explained: float) -> SiteEffects:
        """From a stored table.

        Raises:
            RunError: it has another shape.
        """
        if [len(row) for row in table] != [LOG_RATIOS.size] * DEPTHS.size:
            raise RunError(
                f"the manifest is damaged: the effects of an earlier run must be {DEPTHS.size} rows of"
                f" {LOG_RATIOS.size} numbers."
            )
        return cls(table=np.array(table, dtype=float), explained=explained)

    def of(self, sites: Sequence[Site], widths: NDArray[np.int_]) -> Array:
        """Sum of the effects (n,) in networks with these hidden widths (n, n_sites)."""
        total = np.zeros(len(widths))
        for site, depth, column in zip(sites, _depths(len(sites)), np.asarray(widths).T, strict=True):
            known, place = np.unique(column, return_inverse=True)
            effects = [
                0.0
                if width == ABSENT
                else float((_cell(depth, _log_ratio(site, int(width))) * self.table).sum())
                for width in known
            ]
            total += np.array(effects)[place.reshape(-1)]
        return total


def site_effects(readings: Sequence[Reading]) -> SiteEffects | None:
    """The effects that explain some readings best; None if the networks do not differ in SE."""
    rows = np.zeros((len(readings), DEPTHS.size * LOG_RATIOS.size))
    for row, reading in zip(rows, readings, strict=True):
        for site, depth, width in zip(
            reading.sites, _depths(len(reading.sites)), reading.widths, strict=True
        ):
            if width != ABSENT:
                row += _cell(depth, _log_ratio(site, width)).ravel()
    rows -= rows.mean(axis=0)
    if not np.abs(rows).max(initial=0.0) > 1e-9:
        return None
    y = np.array([reading.accuracy for reading in readings])
    y = y - y.mean()
    best, found = -np.inf, None
    for length, share in product(_LENGTHS, _SHARES):
        root = np.kron(_root(DEPTHS, length), _root(LOG_RATIOS, _RATIO_LENGTH, share))
        design = rows @ root
        scale = np.sqrt((design**2).sum() / len(y))
        u, s, vt = np.linalg.svd(design / scale, full_matrices=False)
        kept = s > 1e-8 * s[0]
        u, s, vt = u[:, kept], s[kept], vt[kept]
        seen, freedom = u.T @ y, len(y) - 1
        rest = max(float(y @ y - seen @ seen), 0.0)
        for noise in _NOISES:
            variances = s**2 + noise
            unit = max((float((seen**2 / variances).sum()) + rest / noise) / freedom, 1e-300)
            likelihood = freedom * np.log(unit) + np.log(variances).sum() + (freedom - len(s)) * np.log(noise)
            if -likelihood > best:
                best = -likelihood
                table = root @ (vt.T @ (s / variances * seen)) / scale
                found = SiteEffects(
                    table=table.reshape(DEPTHS.size, LOG_RATIOS.size), explained=float(1 / (1 + noise))
                )
    return found


def _depths(count: int) -> list[float]:
    return [0.5] if count == 1 else np.linspace(0.0, 1.0, count).tolist()


def _log_ratio(site: Site, width: int) -> float:
    """Binary logarithm of the γ of a block; 0 for a gate without a bottleneck."""
    return float(np.log2(max(site.reduction_base / width, 1.0))) if width > 0 else 0.0


@lru_cache(maxsize=4096)
def _cell(depth: float, log_ratio: float) -> Array:
    """(len(DEPTHS), len(LOG_RATIOS)) weights of the knots around a block."""
    return np.outer(_hats(depth, DEPTHS), _hats(log_ratio, LOG_RATIOS))


def _hats(value: float, knots: Array) -> Array:
    """Weights of the knots by which linear interpolation gives ``value``; at its nearest end if it is outside."""
    return np.array([np.interp(value, knots, unit) for unit in np.eye(len(knots))])


def _root(knots: Array, length: float, share: float = 0.0) -> Array:
    """A root of the covariance of the knots: a Gaussian of their distance, with a share that all have in common."""
    near = np.exp(-0.5 * ((knots[:, None] - knots) / length) ** 2)
    values, vectors = np.linalg.eigh(share + (1 - share) * near)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))
