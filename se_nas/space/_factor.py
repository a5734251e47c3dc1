"""The arithmetic of a search space: independent factors, each a union of boxes of width vectors.

A factor (a stage, or the whole network) is in one of several modes (its γ), and switches turn groups of its
columns off. In one mode the reachable width vectors are a product set, a box: every switch offers its widths
or "off". Different modes can share vectors (nothing on; two γ that round alike), so distinct vectors are
counted by inclusion and exclusion over modes, and each vector has a canonical point: switches without effect
off, lowest mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray

INDEX = np.int16
WIDTH = np.int32
Scalar = bool | int | float | str


@dataclass(frozen=True, kw_only=True, eq=False)
class Factor:
    """One independent part of a space.

    Attributes:
        modes: parameter name → choices, for the parameters that together select the mode (C order).
        switches: names of the on/off parameters.
        columns: columns of the space's width array that this factor sets, shape (k,).
        on: widths by mode, shape (n_modes, k).
        off: widths where the switch is off, shape (k,).
        owner: index of the switch that governs each column, -1 for none, shape (k,).
    """

    modes: dict[str, tuple[Scalar, ...]]
    switches: tuple[str, ...]
    columns: NDArray[np.int64]
    on: NDArray[np.int32]
    off: NDArray[np.int32]
    owner: NDArray[np.int64]

    @cached_property
    def choices(self) -> dict[str, tuple[Scalar, ...]]:
        """Parameter name → choices, in the order of index columns."""
        return {**self.modes, **dict.fromkeys(self.switches, (False, True))}

    @cached_property
    def _live(self) -> NDArray[np.bool_]:
        """(n_modes, n_switches): whether turning the switch on changes anything in that mode."""
        return (
            np.stack(
                [(self.on != self.off)[:, self.owner == b].any(axis=1) for b in range(len(self.switches))],
                axis=1,
            )
            if self.switches
            else np.zeros((len(self.on), 0), dtype=bool)
        )

    @cached_property
    def _same(self) -> NDArray[np.bool_]:
        """(n_modes, n_modes, n_switches): whether two modes give a switched group the same widths."""
        equal = self.on[:, None, :] == self.on[None, :, :]
        groups = [equal[:, :, self.owner == b].all(axis=2) for b in range(len(self.switches))]
        return np.stack(groups, axis=2) if groups else np.zeros((*equal.shape[:2], 0), dtype=bool)

    @cached_property
    def _same_rest(self) -> NDArray[np.bool_]:
        """(n_modes, n_modes): whether two modes agree on the columns that no switch governs."""
        rest = self.on[:, self.owner < 0]
        agree: NDArray[np.bool_] = (rest[:, None, :] == rest[None, :, :]).all(axis=2)
        return agree

    @cached_property
    def _boxes(self) -> list[int]:
        """Modes whose box no earlier mode has."""
        same_box = self._same_rest & self._same.all(axis=2)
        return [mode for mode in range(len(self.on)) if not same_box[:mode, mode].any()]

    @cached_property
    def size(self) -> int:
        """Number of distinct width vectors."""
        total, left = 0, self._boxes
        while left:
            # Boxes that differ where nothing is switched are disjoint.
            together = [mode for mode in left if self._same_rest[left[0], mode]]
            left = [mode for mode in left if mode not in together]
            total += sum(self._count(together[i:], self._live[together[i]], 1) for i in range(len(together)))
        return total

    def _count(self, modes: list[int], common: NDArray[np.bool_], sign: int) -> int:
        """Signed sizes of the intersections of modes[0]'s box, already narrowed, with all sets of later ones.

        ``common``: the switches for which every mode of the intersection offers the same widths; each doubles
        the intersection, which always holds the vector with all switches off.
        """
        if not common.any():
            return sign if len(modes) == 1 else 0
        total = sign * 2 ** int(common.sum())
        for i in range(1, len(modes)):
            total += self._count(modes[i:], common & self._same[modes[0], modes[i]], -sign)
        return total

    @cached_property
    def _strides(self) -> NDArray[np.int64]:
        sizes = [len(values) for values in self.modes.values()]
        return np.array([int(np.prod(sizes[i + 1 :])) for i in range(len(sizes))], dtype=np.int64)

    def _split(self, indices: NDArray[np.int16]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        mode = indices[:, : len(self.modes)].astype(np.int64) @ self._strides
        return mode, indices[:, len(self.modes) :] != 0

    def _join(self, mode: NDArray[np.int64], on: NDArray[np.bool_]) -> NDArray[np.int16]:
        sizes = np.array([len(values) for values in self.modes.values()], dtype=np.int64)
        digits = mode[:, None] // self._strides % sizes
        return np.concatenate([digits.astype(INDEX), on.astype(INDEX)], axis=1)

    def widths(self, indices: NDArray[np.int16]) -> NDArray[np.int32]:
        """Choice indices (n, n_params) → widths (n, k)."""
        mode, on = self._split(indices)
        widths = self.on[mode]
        if self.switches:
            padded = np.concatenate([on, np.ones((len(on), 1), dtype=bool)], axis=1)
            widths = np.where(padded[:, self.owner], widths, self.off)
        return widths

    def canonical(self, indices: NDArray[np.int16]) -> NDArray[np.int16]:
        """The canonical point of each row: equal rows for equal width vectors."""
        mode, on = self._split(indices)
        on = on & self._live[mode]
        lowest = mode.copy()
        for other in reversed(range(len(self.on))):
            shared = self._same_rest[other, mode] & (self._same[other, mode] | ~on).all(axis=1)
            lowest[shared] = other
        return self._join(lowest, on)

    def sample(self, rng: np.random.Generator, count: int) -> NDArray[np.int16]:
        """``count`` canonical points, uniform over distinct vectors (Karp and Luby's union sampling)."""
        boxes = np.array(self._boxes)
        sizes = [2 ** int(live.sum()) for live in self._live[boxes]]
        ends = np.cumsum([size / sum(sizes) for size in sizes])
        drawn = np.empty((0, len(self.choices)), dtype=INDEX)
        while len(drawn) < count:
            # At least one draw in len(boxes) is accepted.
            missing = 2 * (count - len(drawn)) + 8
            mode = boxes[np.searchsorted(ends[:-1], rng.random(missing), side="right")]
            on = rng.integers(0, 2, (missing, len(self.switches))).astype(bool) & self._live[mode]
            points = self._join(mode, on)
            lowest, _ = self._split(self.canonical(points))
            drawn = np.concatenate([drawn, points[lowest == mode]])
        return drawn[:count]

    def enumerate(self) -> Iterator[tuple[int, ...]]:
        """Every canonical point once, lazily."""
        for mode in self._boxes:
            for on in product(*((0, 1) if live else (0,) for live in self._live[mode])):
                point = self._join(np.array([mode]), np.array([on], dtype=bool))
                if (self.canonical(point) == point).all():
                    yield tuple(point[0].tolist())

    def table(self) -> NDArray[np.int16]:
        """Every canonical point, shape (size, n_params), in the order of ``enumerate``."""
        parts = []
        for mode in self._boxes:
            live = np.flatnonzero(self._live[mode])
            on = np.zeros((2 ** len(live), len(self.switches)), dtype=bool)
            on[:, live] = np.arange(len(on))[:, None] >> np.arange(len(live))[::-1] & 1
            points = self._join(np.full(len(on), mode), on)
            parts.append(points[(self.canonical(points) == points).all(axis=1)])
        return np.concatenate(parts)

    def find(self, widths: NDArray[np.int32]) -> NDArray[np.int16] | None:
        """The canonical point that gives ``widths`` (k,), or None."""
        for mode in self._boxes:
            free = self.owner < 0
            if (widths != self.on[mode])[free].any():
                continue
            off = np.array(
                [(widths == self.off)[self.owner == b].all() for b in range(len(self.switches))], bool
            )
            on = np.array(
                [(widths == self.on[mode])[self.owner == b].all() for b in range(len(self.switches))], bool
            )
            if (off | on).all():
                return self._join(np.array([mode]), ~off[None])[0]
        return None
