"""The picture of the front as a file: every candidate, the baselines, intervals and seeds; one panel per cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from se_nas.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which people with any common kind of colour vision can tell apart.
BLUE, VERMILLION, GREY, PURPLE = "#0072b2", "#d55e00", "#8c959e", "#cc79a7"
COLOURS = (BLUE, VERMILLION, "#009e73", PURPLE, "#e69f00", GREY)
Segment = tuple[float, float, float, float, float]
"""Something that is drawn along an axis, in data coordinates: x and y of both ends, and half its width in points."""
_NAMED = 8
"""A front of more members has names only at picks and baselines."""
APART = 2000
"""More marks or lines of one kind are one image in an SVG or PDF, which viewers would draw for seconds otherwise."""
MARKERS = {"plain": "s", "all_se_16": "^", "native": "D", "last_stage": "v"}


def draw_front(figure: Figure, data: Mapping[str, Any]) -> bool:
    """One picture per cost of the run; with two, colour shows the cost that a picture leaves out."""
    if not data["front"]:
        return False
    costs = [axis for axis in data["axes"] if axis["objective"]]
    panels = figure.subplots(1, len(costs), sharey=True, squeeze=False)[0]
    for place, (axes, axis) in enumerate(zip(panels, costs, strict=True)):
        other = costs[1 - place] if len(costs) == 2 else None
        draw_panel(figure, axes, data, axis, other, first=place == 0)
    return True


def draw_panel(
    figure: Figure,
    axes: Axes,
    data: Mapping[str, Any],
    axis: Mapping[str, Any],
    other: Mapping[str, Any] | None = None,
    *,
    first: bool = True,
) -> None:
    """Accuracy against one cost; the colour of a mark shows ``other``. The ``first`` panel says what is drawn."""
    _front_panel(figure, axes, data, axis, other)
    if first:
        axes.set_ylabel(f"validation top-1 accuracy, %{' (mean over seeds)' if data['final'] else ''}")
        _legend(figure, axes, data)
        if not data["final"]:
            axes.set_title(data["basis"], loc="left", fontsize=8, color=VERMILLION)


def _legend(figure: Figure, axes: Axes, data: Mapping[str, Any]) -> None:
    """What is drawn, below the axes: inside, it would lie on marks."""
    from matplotlib.transforms import ScaledTranslation

    axes.plot([], [], "o", color=BLUE, label="on the front")
    axes.plot([], [], "s", color=VERMILLION, label="baselines (hollow: dominated)")
    if data["intervals"]:
        axes.plot([], [], "-", color=GREY, lw=1.2, label=data["intervals"])
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(0, 0),
        bbox_transform=axes.transAxes + ScaledTranslation(-30 / 72, -32 / 72, figure.dpi_scale_trans),
        borderaxespad=0,
        ncols=2,
        columnspacing=1.2,
        fontsize=8,
    )


def _front_panel(
    figure: Figure,
    axes: Axes,
    data: Mapping[str, Any],
    axis: Mapping[str, Any],
    other: Mapping[str, Any] | None,
) -> None:
    from se_nas.report.label_artist import MarkLabels

    name = axis["name"]
    rows = [item for item in data["candidates"] if shown_accuracy(item) is not None and name in item["costs"]]
    others = [item for item in rows if not item["front"] and not item["role"]]
    retrained = [item for item in others if data["final"] and item["accuracy"] is not None]
    read_once = [item for item in others if not data["final"] or item["accuracy"] is None]
    for members, fill, label in (
        (read_once, "white", "other candidates, read by the search" if data["final"] else "other candidates"),
        (retrained, GREY, "retrained, dominated"),
    ):
        if members:
            xs, ys = zip(*((cost_of(item, name), shown_accuracy(item)) for item in members), strict=True)
            many = len(members) > APART
            axes.plot(xs, ys, "o", mfc=fill, mec=GREY, ms=4, mew=0.8, label=label, rasterized=many)
    for item in others:
        if (band := _drawn_band(data, item)) is not None:
            axes.plot([cost_of(item, name)] * 2, band, "-", color=GREY, lw=0.8, alpha=0.7)
    by_number = {item["number"]: item for item in rows}
    members = [by_number[number] for number in data["front"] if number in by_number]
    stairs = _stairs(axes, members, name, projected=other is not None)
    shades = None if other is None else _shades(figure, axes, members, other)
    notable = [item for item in rows if item["front"] or item["role"]]
    for item in sorted(notable, key=lambda item: bool(item["role"])):
        _mark(axes, item, name, shades)
    axes.set_xlabel(axis["title"])
    _clip_to_core(axes, rows)
    named = [item for item in notable if item["role"] or item["picks"]]
    if len(members) <= _NAMED:
        named += [item for item in members if item not in named]
    MarkLabels(
        axes,
        [
            (cost_of(item, name), shown_accuracy(item) or 0.0, " · ".join([name_of(item), *item["picks"]]))
            for item in named
        ],
        [*stairs, *(segment for item in rows for segment in _segments(data, item, name))],
    )


def _drawn_band(data: Mapping[str, Any], item: Mapping[str, Any]) -> Any:
    """The vertical bar of a candidate: of those that are neither on the front nor baselines, only what was repeated."""
    if item["front"] or item["role"]:
        return band_of(item)
    repeated = data["final"] or len(item["seeds"]) > 1
    return item["interval"] if repeated and item["accuracy"] is not None else None


def _segments(data: Mapping[str, Any], item: Mapping[str, Any], cost: str) -> list[Segment]:
    """Everything that is drawn of a candidate."""
    x, y, notable = cost_of(item, cost), shown_accuracy(item) or 0.0, item["front"] or bool(item["role"])
    found: list[Segment] = [(x, y, x, y, 4.0 if notable else 2.5)]
    if (band := _drawn_band(data, item)) is not None:
        found.append((x, band[0], x, band[1], 0.5))
    if notable and (spread := item["costs"][cost]["interval"]):
        found.append((spread[0], y, spread[1], y, 0.5))
    if notable and len(item["seeds"]) > 1:
        found += [(x, seed, x, seed, 1.5) for seed in item["seeds"]]
    return found


def _stairs(axes: Axes, members: list[dict[str, Any]], cost: str, *, projected: bool) -> list[Segment]:
    """The front's line; if it is a surface, the best accuracy at each cost, dashed."""
    points: list[tuple[float, float]] = []
    for item in sorted(members, key=lambda item: (cost_of(item, cost), -item["accuracy"])):
        if not projected or not points or item["accuracy"] > points[-1][1]:
            points.append((cost_of(item, cost), item["accuracy"]))
    style: dict[str, Any] = {"lw": 1.0, "ls": "--", "alpha": 0.7} if projected else {"lw": 1.4}
    axes.step(*zip(*points, strict=True), where="post", color=BLUE, zorder=2, **style)
    segments: list[Segment] = []
    for (x1, y1), (x2, y2) in pairwise(points):
        segments += [(x1, y1, x2, y1, 0.7), (x2, y1, x2, y2, 0.7)]
    return segments


def _shades(
    figure: Figure, axes: Axes, members: list[dict[str, Any]], other: Mapping[str, Any]
) -> Callable[[Mapping[str, Any]], Any]:
    """Colour of a mark by its other cost, with its scale beside the picture. Cividis is safe for the colour-blind."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    values = [cost_of(item, other["name"]) for item in members]
    scale = ScalarMappable(Normalize(min(values), max(values)), colormaps["cividis_r"])
    figure.colorbar(scale, ax=axes, label=other["title"], fraction=0.05, pad=0.02)

    def shade(item: Mapping[str, Any]) -> Any:
        value: Any = cost_of(item, other["name"])
        return scale.to_rgba(value)

    return shade


def _mark(
    axes: Axes, item: Mapping[str, Any], cost: str, shades: Callable[[Mapping[str, Any]], Any] | None
) -> None:
    color = VERMILLION if item["role"] else BLUE
    x, y = cost_of(item, cost), shown_accuracy(item)
    assert y is not None
    spread, band = item["costs"][cost]["interval"], band_of(item)
    axes.errorbar(
        x,
        y,
        yerr=None if band is None else [[max(y - band[0], 0)], [max(band[1] - y, 0)]],
        xerr=[[max(x - spread[0], 0)], [max(spread[1] - x, 0)]] if spread else None,
        fmt=MARKERS.get(item["role"] or "", "o"),
        color=color,
        mfc="white" if not item["front"] else color if shades is None else shades(item),
        ms=6,
        elinewidth=1,
        zorder=3,
    )
    if len(item["seeds"]) > 1:
        axes.plot([x] * len(item["seeds"]), item["seeds"], ".", color=color, ms=3, alpha=0.5)


def _clip_to_core(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """Leave candidates far below the front, the baselines and most others out of the picture, and say so."""
    values = sorted(value for item in rows if (value := shown_accuracy(item)) is not None)
    core = [(band_of(item) or [shown_accuracy(item)])[0] for item in rows if item["front"] or item["role"]]
    floor = min([*core, values[len(values) // 20]])
    hidden = sum(value < floor for value in values)
    if hidden:
        margin = 0.06 * (values[-1] - floor)
        axes.set_ylim(bottom=floor - margin)
        axes.set_title(
            f"{counted(hidden, 'weaker candidate')} below the plot", loc="right", fontsize=7.5, color=GREY
        )


def band_of(candidate: Mapping[str, Any]) -> Any:
    """The 95 % interval that is drawn: of a single reading, that over the choice of images; None if unknown."""
    return candidate["interval"] or candidate["images"]


def cost_of(candidate: Mapping[str, Any], name: str) -> float:
    """A known cost, in the unit of its axis."""
    return float(candidate["costs"][name]["value"])


def name_of(candidate: Mapping[str, Any]) -> str:
    """A baseline's name, or the number of the trial."""
    return candidate["baselines"][0] if candidate["baselines"] else f"#{candidate['number']}"


def shown_accuracy(candidate: Mapping[str, Any]) -> float | None:
    """The mean after retraining, or else the search's own reading; percent."""
    return candidate["search"] if candidate["accuracy"] is None else candidate["accuracy"]
