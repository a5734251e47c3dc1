"""The report's pictures as PNG, SVG and PDF files, for papers and READMEs: matplotlib needs no browser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from se_nas.arguments import checked
from se_nas.documents import without_collections
from se_nas.report.chart_data import nominal
from se_nas.report.front_figure import (
    APART,
    BLUE,
    GREY,
    MARKERS,
    PURPLE,
    VERMILLION,
    cost_of,
    draw_front,
    name_of,
    shown_accuracy,
)
from se_nas.report.pareto_report import ParetoReport
from se_nas.report.pdf_fonts import without_setting
from se_nas.run import whole_file, write_text, writing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e9ecf0",
    "axes.axisbelow": True,
    "axes.edgecolor": "#8c959e",
    "legend.frameon": False,
    "svg.hashsalt": "se-nas",
    # Text that can be searched, edited and set in the paper's font.
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}
OUTLINE = "#d8dde3"
"""Of cells."""
# Without the time, the same report gives the same bytes.
_FORMATS: dict[str, dict[str, Any]] = {
    ".png": {"Software": "se-nas"},
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
}


@checked
def write_figures(report: ParetoReport, folder: str | Path) -> list[Path]:
    """Write each picture that the run has numbers for as PNG, SVG and PDF, and the table as ``candidates.csv``.

    The pictures: front, sites, usage (γ by stage), effects, hypervolume, curves, predicted (measured costs against
    predicted, one per cost that has both) and retraining.

    Raises:
        DiskError: the folder cannot be written.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    folder = Path(folder)
    data = report.drawn
    written = []
    with writing(folder), without_collections(), without_setting():
        folder.mkdir(parents=True, exist_ok=True)
        with mpl.rc_context({**STYLE, "figure.autolayout": False, "figure.constrained_layout.use": False}):
            for name, (draw, size) in _FIGURES.items():
                figure = Figure(figsize=size(data), layout="constrained")
                if not draw(figure, data):
                    continue
                # Laid out once: each savefig would do it again, and with any engine would draw everything twice.
                engine = figure.get_layout_engine()
                assert engine is not None
                engine.execute(figure)
                figure.set_layout_engine(None)
                for suffix, metadata in _FORMATS.items():
                    path = folder / f"{name}{suffix}"
                    with whole_file(path) as temporary:
                        figure.savefig(temporary, format=suffix[1:], dpi=200, metadata=metadata)
                    written.append(path)
    write_text(folder / "candidates.csv", report.csv)
    return [*written, folder / "candidates.csv"]


def _by_number(data: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    return {candidate["number"]: candidate for candidate in data["candidates"]}


def _sites(figure: Figure, data: Mapping[str, Any]) -> bool:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    rows = _map_rows(data)
    if not rows:
        return False
    sites = data["stages"][rows[0]["position"]]
    axes = figure.subplots()
    stages = sorted({site[0] for site in sites})
    xs = [index + 0.4 * stages.index(site[0]) for index, site in enumerate(sites)]
    cells, fills = [], []
    for row, item in enumerate(rows):
        for x, site, width in zip(xs, sites, item["widths"], strict=True):
            ratio = nominal(site[5] / width) if width > 0 else None
            alpha = _strength(ratio) if ratio else 1.0
            color = PURPLE if width < 0 else BLUE if ratio else "white"
            cells.append(Rectangle((x + 0.04, row + 0.08), 0.92, 0.84))
            fills.append((color, alpha))
            if ratio and len(sites) <= 40:
                ink = "white" if alpha > 0.55 else "black"
                text = axes.text(
                    x + 0.5, row + 0.5, f"{ratio:g}", ha="center", va="center", fontsize=6.5, color=ink
                )
                text.set_in_layout(False)
    lines = [(OUTLINE, alpha) for _, alpha in fills]
    axes.add_collection(
        PatchCollection(cells, facecolors=fills, edgecolors=lines, linewidths=0.6), autolim=False
    )
    for stage in stages:
        first = next(x for x, site in zip(xs, sites, strict=True) if site[0] == stage)
        axes.text(first, -0.25, f"stage {stage}", fontsize=7.5, color="#58626d")
    axes.set(xlim=(-0.2, xs[-1] + 1.2), ylim=(len(rows), -0.9), xticks=[], aspect="auto")
    labels = [f"{name_of(item)} · {shown_accuracy(item):.2f} %" for item in rows]
    axes.set_yticks([row + 0.5 for row in range(len(rows))], labels, parse_math=False)
    axes.tick_params(length=0)
    axes.grid(False)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_title("γ of SE by site, input to output; candidates cheapest first", loc="left", fontsize=8)
    return True


def _map_rows(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = [
        item
        for item in data["candidates"]
        if (item["front"] or item["role"]) and shown_accuracy(item) is not None
    ]
    rows.sort(key=lambda item: cost_of(item, data["cost"]) if data["cost"] in item["costs"] else 0.0)
    position = rows[0]["position"] if rows else None
    sites = data["stages"].get(position, [])
    return [row for row in rows if row["position"] == position and len(row["widths"]) == len(sites) > 0]


def _strength(ratio: float) -> float:
    """Opacity of a cell: the wider the block, the darker."""
    return max(0.18, min(1.0, 1.12 - 0.17 * (int(ratio).bit_length() - 1)))


def _usage(figure: Figure, data: Mapping[str, Any]) -> bool:
    """Share of each stage's sites by γ, on the front and in everything that was tried."""
    if not data["usage"]:
        return False
    axes = figure.subplots()
    labels: list[str] = []
    for stage in data["usage"]:
        for group in ("front", "all"):
            counts, left, row = stage[group], 0.0, len(labels)
            labels.append(f"stage {stage['stage']}, {'front' if group == 'front' else 'all tried'}")
            for label in sorted(counts, key=lambda name: {"none": 1e9, "kept": 1e8}.get(name) or float(name)):
                share = 100 * counts[label] / sum(counts.values())
                plain = label in ("none", "kept")
                alpha = 1.0 if plain else _strength(float(label))
                color = "white" if label == "none" else PURPLE if label == "kept" else BLUE
                axes.barh(row, share, left=left, color=color, alpha=alpha, ec=OUTLINE, lw=0.6, height=0.8)
                if share > 5:
                    ink = "white" if not plain and alpha > 0.55 else "black"
                    axes.text(left + share / 2, row, label, ha="center", va="center", fontsize=7, color=ink)
                left += share
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set(xlim=(0, 100), xlabel="share of the stage's sites, %, by nearest power of two of γ")
    axes.grid(False)
    return True


def _effects(figure: Figure, data: Mapping[str, Any]) -> bool:
    if not any(effect["accuracy"] for effect in data["effects"]):
        return False
    panels = [("accuracy, points", BLUE, [effect["accuracy"] for effect in data["effects"]])]
    for cost in data["costs"]:
        gains = [effect["costs"].get(cost["name"]) for effect in data["effects"]]
        if any(gains):
            panels.append((f"{cost['word']}, % of the plain backbone", VERMILLION, gains))
    for axes, (title, color, gains) in zip(
        figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True
    ):
        axes.axvline(0, color=GREY, lw=0.8, ls="--")
        for row, gain in enumerate(gains):
            if gain:
                value, half = gain
                axes.errorbar(value, row, xerr=half, fmt="o", color=color, ms=5, elinewidth=1.6)
        axes.set_title(
            f"{title} (95 % intervals)" if any(gain and gain[1] is not None for gain in gains) else title,
            loc="left",
            fontsize=9,
        )
        axes.set_yticks(
            range(len(data["effects"])), [f"stage {effect['stage']}" for effect in data["effects"]]
        )
        axes.set_ylim(len(data["effects"]) - 0.5, -0.5)
    return True


def _hypervolume(figure: Figure, data: Mapping[str, Any]) -> bool:
    if not data["history"]:
        return False
    axes = figure.subplots()
    axes.step(
        [0, *(p[0] for p in data["history"])], [0, *(p[3] for p in data["history"])], where="post", color=BLUE
    )
    axes.set(
        xlabel="trials that ended",
        ylabel="hypervolume of the search's readings",
        ylim=(0, None),
        xlim=(0, None),
    )
    axes.locator_params(axis="x", integer=True)
    return True


def _curves(figure: Figure, data: Mapping[str, Any]) -> bool:
    from matplotlib.collections import LineCollection

    curves, styles, ends = [], [], []
    for item in data["candidates"]:
        for reading in item["readings"]:
            if reading["phase"] != "search" or len(reading["curve"]) < 2:
                continue
            stopped = reading["state"] == "stopped"
            color = VERMILLION if stopped else BLUE if item["front"] else GREY
            curves.append(reading["curve"])
            styles.append(((color, 0.9 if item["front"] or stopped else 0.45), 1.2 if item["front"] else 0.8))
            if stopped:
                ends.append(reading["curve"][-1])
    if not curves:
        return False
    axes = figure.subplots()
    colors, widths = zip(*styles, strict=True)
    many = len(curves) > APART
    # Thousands of lines of their own would take half a minute.
    axes.add_collection(LineCollection(curves, colors=colors, linewidths=widths, rasterized=many))
    axes.plot([x for x, _ in ends], [y for _, y in ends], "x", color=VERMILLION, ms=4, rasterized=many)
    axes.plot([], [], color=BLUE, label="on the front")
    axes.plot([], [], color=GREY, label="ran to the end")
    axes.plot([], [], "x-", color=VERMILLION, label="stopped early")
    axes.set(xlabel="epoch", ylabel="validation top-1 accuracy, %")
    axes.locator_params(axis="x", integer=True)
    axes.legend(loc="lower right", fontsize=8)
    return True


def _predicted(figure: Figure, data: Mapping[str, Any]) -> bool:
    """Measured against predicted costs, a panel per cost."""
    if not data["predicted"]:
        return False
    panels = figure.subplots(1, len(data["predicted"]), squeeze=False)[0]
    for axes, cost in zip(panels, data["predicted"], strict=True):
        _predicted_panel(axes, cost, _by_number(data))
    return True


def _predicted_panel(axes: Axes, cost: Mapping[str, Any], items: Mapping[int, Mapping[str, Any]]) -> None:
    for pair in cost["pairs"]:
        x, y = 100 * (pair["predicted"] - 1), 100 * (pair["measured"] - 1)
        role = items[pair["number"]]["role"]
        errors = None
        if pair["interval"]:
            low, high = (100 * (bound - 1) for bound in pair["interval"])
            errors = [[max(y - low, 0)], [max(high - y, 0)]]
        axes.errorbar(x, y, yerr=errors, fmt=MARKERS.get(role or "", "o"), color=BLUE, ms=5, elinewidth=1)
    low, high = min(*axes.get_xlim(), *axes.get_ylim()), max(*axes.get_xlim(), *axes.get_ylim())
    axes.plot([low, high], [low, high], color=GREY, ls="--", lw=1)
    axes.set(
        xlabel=f"predicted added {cost['word']}, %",
        ylabel=f"measured added {cost['word']}, %",
        aspect="equal",
    )


def _retraining(figure: Figure, data: Mapping[str, Any]) -> bool:
    rows = sorted(data["retrained"], key=lambda row: row["final"])
    if not rows:
        return False
    axes, items = figure.subplots(), _by_number(data)
    for y, row in enumerate(rows):
        item = items[row["number"]]
        color = VERMILLION if item["role"] else BLUE if item["front"] else GREY
        axes.plot([row["search"], row["final"]], [y, y], color=GREY, lw=1)
        axes.plot(row["search"], y, "o", mfc="white", mec=GREY, ms=5, zorder=4)
        low, high = row["interval"] or (row["final"], row["final"])
        errors = [[row["final"] - low], [high - row["final"]]]
        axes.errorbar(
            row["final"], y, xerr=errors, fmt=MARKERS.get(item["role"] or "", "o"), color=color, ms=5
        )
    axes.set_yticks(range(len(rows)), [name_of(items[row["number"]]) for row in rows], parse_math=False)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel("validation top-1 accuracy, %")
    axes.set_title(
        "hollow: at selection; filled: retrained, 95 % interval", loc="right", fontsize=7.5, color=GREY
    )
    axes.grid(axis="y", visible=False)
    return True


_FIGURES: dict[
    str,
    tuple[Callable[[Any, Mapping[str, Any]], bool], Callable[[Mapping[str, Any]], tuple[float, float]]],
] = {
    "front": (
        draw_front,
        lambda data: (6.4, 4.0) if sum(a["objective"] for a in data["axes"]) == 1 else (10.4, 4.2),
    ),
    "sites": (_sites, lambda data: (7.2, 0.7 + 0.26 * max(1, len(_map_rows(data))))),
    "usage": (_usage, lambda data: (6.4, 0.9 + 0.5 * len(data["usage"]))),
    "effects": (_effects, lambda data: (6.4, 0.9 + 0.36 * len(data["effects"]))),
    "hypervolume": (_hypervolume, lambda data: (5.2, 3.0)),
    "curves": (_curves, lambda data: (6.0, 3.4)),
    "predicted": (_predicted, lambda data: (4.2 * max(1, len(data["predicted"])), 4.0)),
    "retraining": (_retraining, lambda data: (6.4, 0.9 + 0.28 * len(data["retrained"]))),
}
