"""The picture of the front as a file: every candidate, the baselines, intervals and seeds; one panel per cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which people with any common kind of colour vision can tell apart.
BLUE, VERMILLION, GREY, PURPLE = "#0072b2", "#d55e00", "#8c959e", "#cc79a7"
COLOURS = (BLUE, VERMILLION, "#009e73", PURPLE, "#e69f00", GREY)
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
        axes.plot([], [], "o", color=BLUE, label="on the front")
        axes.plot([], [], "s", color=VERMILLION, label="baselines (hollow: dominated)")
        if data["intervals"]:
            axes.plot([], [], "-", color=GREY, lw=1.2, label=data["intervals"])
        axes.legend(loc="lower right", fontsize=8)
        if not data["final"]:
            axes.set_title(data["basis"], loc="left", fontsize=8, color=VERMILLION)


def _front_panel(
    figure: Figure,
    axes: Axes,
    data: Mapping[str, Any],
    axis: Mapping[str, Any],
    other: Mapping[str, Any] | None,
) -> None:
    name = axis["name"]
    rows = [item for item in data["candidates"] if shown_accuracy(item) is not None and name in item["costs"]]
    others = [item for item in rows if not item["front"] and not item["role"]]
    axes.plot(
        [cost_of(item, name) for item in others],
        [shown_accuracy(item) or 0.0 for item in others],
        "o",
        mfc="white",
        mec=GREY,
        ms=4,
        mew=0.8,
        label="other candidates",
    )
    for item in others:
        if item["interval"] and (data["final"] or len(item["seeds"]) > 1) and item["accuracy"] is not None:
            axes.plot([cost_of(item, name)] * 2, item["interval"], "-", color=GREY, lw=0.8, alpha=0.7)
    members = [item for number in data["front"] for item in rows if item["number"] == number]
    _stairs(axes, members, name, projected=other is not None)
    shades = None if other is None else _shades(figure, axes, members, other)
    costs = [cost_of(item, name) for item in rows]
    right = min(costs) + 0.6 * (max(costs) - min(costs))
    for item in sorted(rows, key=lambda item: bool(item["role"])):
        if item["front"] or item["role"]:
            _mark(
                axes,
                item,
                name,
                label_left=cost_of(item, name) > right,
                shades=shades,
                named=len(members) <= 8,
            )
    axes.set_xlabel(axis["title"])
    _clip_to_core(axes, rows)


def _stairs(axes: Axes, members: list[dict[str, Any]], cost: str, *, projected: bool) -> None:
    """The front's line; if it is a surface, the best accuracy at each cost, dashed."""
    points: list[tuple[float, float]] = []
    for item in sorted(members, key=lambda item: (cost_of(item, cost), -item["accuracy"])):
        if not projected or not points or item["accuracy"] > points[-1][1]:
            points.append((cost_of(item, cost), item["accuracy"]))
    style: dict[str, Any] = {"lw": 1.0, "ls": "--", "alpha": 0.7} if projected else {"lw": 1.4}
    axes.step(*zip(*points, strict=True), where="post", color=BLUE, zorder=2, **style)


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
    axes: Axes,
    item: Mapping[str, Any],
    cost: str,
    *,
    label_left: bool,
    shades: Callable[[Mapping[str, Any]], Any] | None = None,
    named: bool = True,
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
    if not named and not item["role"] and not item["picks"]:
        return
    label = " · ".join([name_of(item), *item["picks"]])
    axes.annotate(
        label,
        (x, y),
        (-5 if label_left else 5, 5),
        textcoords="offset points",
        ha="right" if label_left else "left",
        fontsize=7.5,
        parse_math=False,
    )


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
            f"{hidden} weaker candidates lie below the picture", loc="right", fontsize=7.5, color=GREY
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
