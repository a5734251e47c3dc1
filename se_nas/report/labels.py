"""Places for labels: beside their marks, on no bar, no point and no other label.

``labelPlaces`` in ``templates/charts.js`` does the same on the page, whose width changes with its window; a test in
``tests/report/test_report_browser.py`` compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

Box = tuple[float, float, float, float]
"""Left, bottom, right, top."""

GAP = 6.0
"""Distance of a label's box from its mark's centre, in points, and of each ring of places from the one before."""
MARGIN = 1.5
"""Points that a label keeps from others, and from what it must not touch."""
RINGS = 24
NEAR = 2
"""Rings from here on have a line from the mark to the label."""
# East, west, the corners, above and below, and then between these: (x, y) of the direction.
DIRECTIONS = (
    *((1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1)),
    *((1, 0.5), (1, -0.5), (-1, 0.5), (-1, -0.5), (0.5, 1), (0.5, -1), (-0.5, 1), (-0.5, -1)),
)


@dataclass(frozen=True)
class Place:
    """Where a label goes: its box, and the line that leads to it, if it is far from its mark."""

    box: Box
    leader: tuple[tuple[float, float], tuple[float, float]] | None


def place(
    labels: Sequence[tuple[float, float, float, float]],
    obstacles: Sequence[Box] | np.ndarray,
    bounds: Box,
    unit: float = 1.0,
) -> list[Place | None]:
    """A place for each label, in order: earlier labels choose first.

    Args:
        labels: centre of the mark (x, y), width and height of the text.
        obstacles: what no label may lie on; they may overlap each other and the bounds.
        bounds: labels stay inside.
        unit: length of a point in the unit of everything else.

    Returns:
        For each label the nearest free place; None if there is none.
    """
    taken = np.array(obstacles, dtype=float).reshape(-1, 4)
    texts = np.empty((0, 4))
    found: list[Place | None] = []
    for x, y, width, height in labels:
        free = None
        for candidate in _places(x, y, width, height, unit):
            box, leader = candidate.box, candidate.leader
            if box[0] < bounds[0] or box[1] < bounds[1] or box[2] > bounds[2] or box[3] > bounds[3]:
                continue
            if _overlaps(box, taken) or (
                leader and any(_overlaps(part, texts) for part in _along(leader, unit))
            ):
                continue
            free = candidate
            break
        found.append(free)
        if free is not None:
            left, bottom, right, top = free.box
            kept = (left - MARGIN * unit, bottom - MARGIN * unit, right + MARGIN * unit, top + MARGIN * unit)
            texts = np.vstack([texts, kept])
            parts = list(_along(free.leader, unit)) if free.leader else []
            taken = np.vstack([taken, kept, *parts])
    return found


def _places(x: float, y: float, width: float, height: float, unit: float) -> Iterator[Place]:
    """Places for a label, nearest first."""
    for ring in range(RINGS):
        gap = GAP * (ring + 1) * unit
        for across, up in DIRECTIONS:
            left = x + gap * across - (0 if across > 0 else width if across < 0 else width / 2)
            bottom = y + gap * up - (0 if up > 0 else height if up < 0 else height / 2)
            box = (left, bottom, left + width, bottom + height)
            end = (min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3]))
            yield Place(box, ((x, y), end) if ring >= NEAR else None)


def _along(line: tuple[tuple[float, float], tuple[float, float]], unit: float) -> Iterator[Box]:
    """A line as small boxes."""
    (x1, y1), (x2, y2) = line
    count = max(1, int(max(abs(x2 - x1), abs(y2 - y1)) / (3 * unit)))
    for step in range(count):
        x, y = x1 + (x2 - x1) * step / count, y1 + (y2 - y1) * step / count
        yield (x - unit, y - unit, x + unit, y + unit)


def _overlaps(box: Box, others: np.ndarray) -> bool:
    return bool(
        np.any(
            (others[:, 0] < box[2])
            & (others[:, 2] > box[0])
            & (others[:, 1] < box[3])
            & (others[:, 3] > box[1])
        )
    )
