"""Labels of marks as matplotlib draws them: placed anew in each drawing, when the layout is known.

Imported only when something is drawn, because it needs matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import IdentityTransform
from numpy.typing import NDArray

from se_nas.report.labels import MARGIN, place

FONT_SIZE = 7.5


class MarkLabels(Artist):
    """Labels beside marks of some Axes.

    Args:
        axes: where the marks are, in data coordinates.
        labels: x and y of the mark, and the text; the first choose their places first.
        segments: lines along the axes and points that no label may lie on: x and y of both ends, and half of the
            width in points.
    """

    def __init__(
        self,
        axes: Axes,
        labels: Sequence[tuple[float, float, str]],
        segments: Sequence[tuple[float, float, float, float, float]],
    ) -> None:
        super().__init__()
        self._host = axes
        self._marks = [(x, y) for x, y, _ in labels]
        self._segments = segments
        self.texts = [
            Text(0, 0, text, fontsize=FONT_SIZE, va="bottom", parse_math=False, transform=IdentityTransform())
            for *_, text in labels
        ]
        self.leaders: list[Line2D] = []
        # Labels have no influence on the layout that they depend on.
        self.set_in_layout(False)
        self.set_zorder(4)
        axes.add_artist(self)
        figure: Any = axes.get_figure()
        for text in self.texts:
            text.set_figure(figure)

    def draw(self, renderer: Any) -> None:
        axes = self._host
        figure: Any = axes.get_figure()
        unit = figure.dpi / 72
        bounds = axes.get_window_extent(renderer)
        sizes = []
        for text in self.texts:
            text.set_position((0, 0))
            extent = text.get_window_extent(renderer)
            sizes.append((extent.width, extent.height))
        marks = axes.transData.transform(self._marks).tolist() if self._marks else []
        found = place(
            [(x, y, *size) for (x, y), size in zip(marks, sizes, strict=True)],
            self._boxes(axes, unit),
            (bounds.x0, bounds.y0, bounds.x1, bounds.y1),
            unit,
        )
        self.leaders = []
        for text, spot in zip(self.texts, found, strict=True):
            text.set_visible(spot is not None)
            if spot is None:
                continue
            if spot.leader is not None:
                (x1, y1), (x2, y2) = spot.leader
                leader = Line2D([x1, x2], [y1, y2], lw=0.5, color="#8c959e", transform=IdentityTransform())
                leader.set_figure(figure)
                leader.draw(renderer)
                self.leaders.append(leader)
            text.set_position(spot.box[:2])
            text.draw(renderer)

    def _boxes(self, axes: Axes, unit: float) -> NDArray[np.float64]:
        """What no label may lie on, as boxes (left, bottom, right, top) in pixels, shape (segments, 4)."""
        segments = np.array(self._segments, dtype=float).reshape(-1, 5)
        ends = axes.transData.transform(segments[:, :4].reshape(-1, 2)).reshape(-1, 2, 2)
        room = (segments[:, 4:] + MARGIN) * unit
        return np.hstack([ends.min(axis=1) - room, ends.max(axis=1) + room])
