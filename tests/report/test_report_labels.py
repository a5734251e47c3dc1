"""Labels lie on no bar, no point and no other label: by geometry, on many random fronts."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from se_nas.report.front_figure import draw_front
from se_nas.report.label_artist import MarkLabels
from se_nas.report.labels import place

AXIS = {
    "name": "latency",
    "title": "latency, ms",
    "word": "latency",
    "unit": "ms",
    "digits": 3,
    "objective": True,
}
OTHER = AXIS | {"name": "params", "title": "parameters, M", "word": "parameters"}
ROLES = {"plain": "plain backbone", "all_se_16": "SE everywhere, γ=16", "last_stage": "SE in the last stage"}
PICKS = (["best"], ["knee"], ["one-se", "knee"])


def random_front(seed, *, costs=1):
    """What pictures draw, of a random run: crowded or sparse, with and without intervals, seeds and latency bars."""
    rng = np.random.default_rng(seed)
    count, final = int(rng.integers(3, 60)), bool(rng.integers(2))
    noise = 10 ** rng.uniform(-2, 0.7)
    cost = np.round(10 * 10 ** rng.uniform(-0.3, 0.3, (count, 2)), 3)
    accuracy = np.round(70 + 5 * np.log(cost[:, 0]) + rng.normal(0, 1, count), 3)
    order = np.argsort(cost[:, 0], kind="stable")
    front = [
        int(i) for place, i in enumerate(order) if place == 0 or accuracy[i] > accuracy[order[:place]].max()
    ]
    roles = dict(zip(rng.permutation(count)[: len(ROLES)].tolist(), ROLES, strict=True))
    candidates = []
    for number in range(count):
        notable = number in front or number in roles
        seeds = int(rng.integers(2, 5)) if final and (notable or rng.random() < 0.2) else 1
        half = noise * rng.uniform(0.5, 1.5)
        known = seeds > 1 or not final
        candidates.append(
            {
                "number": number,
                "baselines": [ROLES[roles[number]]] if number in roles else [],
                "role": roles.get(number),
                "front": number in front,
                "accuracy": float(accuracy[number]) if known else None,
                "search": float(accuracy[number]),
                "interval": [accuracy[number] - half, accuracy[number] + half] if seeds > 1 else None,
                "images": None if final else [accuracy[number] - 2 * half, accuracy[number] + half],
                "seeds": (accuracy[number] + rng.normal(0, noise, seeds)).tolist(),
                "picks": PICKS[rng.integers(3)] if rng.random() < 0.2 and notable else [],
                "costs": {
                    name: {
                        "value": float(cost[number, place]),
                        "interval": [cost[number, place] * 0.99, cost[number, place] * 1.02]
                        if notable
                        else None,
                    }
                    for place, name in enumerate(("latency", "params"))
                },
            }
        )
    for number in front:
        candidates[number]["accuracy"] = float(accuracy[number])
    return {
        "candidates": candidates,
        "front": front,
        "axes": [AXIS, OTHER][:costs],
        "final": final,
        "basis": "provisional",
        "intervals": "95 % interval over the choice of 12,000 images alone (one reading)",
    }


def drawn(data, size=(6.4, 4.0)):
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    draw_front(figure, data)
    figure.canvas.draw()
    return figure


def boxes_of_marks(axes):
    """Boxes, in pixels, of every point, bar and step in some axes, from what matplotlib drew."""
    boxes = []
    unit = axes.get_figure().dpi / 72
    for line in axes.lines:
        points = axes.transData.transform(line.get_xydata()) if len(line.get_xydata()) else np.empty((0, 2))
        if line.get_marker() not in ("None", None, ""):
            # A point of matplotlib's "." is half as large as the size of its marker.
            radius = line.get_markersize() * unit / (4 if line.get_marker() == "." else 2)
            boxes += [(x - radius, y - radius, x + radius, y + radius) for x, y in points]
        if line.get_linestyle() not in ("None", "none", ""):
            stepped = line.get_drawstyle() == "steps-post"
            for (x1, y1), (x2, y2) in pairwise(points):
                boxes += (
                    [segment(x1, y1, x2, y1), segment(x2, y1, x2, y2)]
                    if stepped
                    else [segment(x1, y1, x2, y2)]
                )
    for collection in axes.collections:
        if isinstance(collection, LineCollection):
            for part in collection.get_segments():
                (x1, y1), (x2, y2) = axes.transData.transform(part)
                boxes.append(segment(x1, y1, x2, y2))
    return boxes


def segment(x1, y1, x2, y2):
    return (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))


def overlap(a, b):
    return a[0] < b[2] and a[2] > b[0] and a[1] < b[3] and a[3] > b[1]


def labels_of(axes):
    """Box → text of the labels that were drawn."""
    (labels,) = [artist for artist in axes.get_children() if isinstance(artist, MarkLabels)]
    renderer = axes.get_figure().canvas.get_renderer()
    return {
        tuple(text.get_window_extent(renderer).extents): text.get_text()
        for text in labels.texts
        if text.get_visible()
    }


@pytest.mark.parametrize("costs", [1, 2])
@pytest.mark.parametrize("seed", range(12))
def test_labels_touch_nothing(seed, costs):
    figure = drawn(random_front(seed, costs=costs), (6.4, 4.0) if costs == 1 else (10.4, 4.2))
    panels = [axes for axes in figure.axes if axes.get_xlabel()]
    assert len(panels) == costs
    for axes in panels:
        labels, marks = labels_of(axes), boxes_of_marks(axes)
        assert labels
        for box, text in labels.items():
            assert not [mark for mark in marks if overlap(box, mark)], text
            inside = axes.get_window_extent()
            assert inside.x0 - 1 <= box[0], text
            assert box[2] <= inside.x1 + 1, text
            assert inside.y0 - 1 <= box[1], text
            assert box[3] <= inside.y1 + 1, text
        assert not [names for names in combinations(labels, 2) if overlap(*names)]


def test_baselines_and_picks_find_a_place():
    missing = total = 0
    for seed in range(20):
        data = random_front(seed)
        texts = set(labels_of(drawn(data).axes[0]).values())
        for candidate in data["candidates"]:
            if candidate["role"] or candidate["picks"]:
                total += 1
                missing += not any(
                    text.split(" · ")[0] == (candidate["baselines"] or [f"#{candidate['number']}"])[0]
                    for text in texts
                )
    assert total > 60
    assert missing <= total // 20


def test_the_legend_lies_below_everything():
    figure = drawn(random_front(3))
    axes = figure.axes[0]
    legend = axes.get_legend().get_window_extent()
    assert legend.y1 <= axes.xaxis.label.get_window_extent().y0
    assert legend.y0 >= 0
    assert legend.x1 <= figure.bbox.x1
    assert "95 % interval" in " ".join(text.get_text() for text in axes.get_legend().get_texts())


def test_axes_reach_as_far_as_the_bars():
    for seed in range(6):
        data = random_front(seed)
        low, high = drawn(data).axes[0].get_ylim()
        for candidate in data["candidates"]:
            if candidate["front"] or candidate["role"]:
                band = candidate["interval"] or candidate["images"]
                assert band is None or (low <= band[0] and band[1] <= high)


def test_the_nearest_free_place_is_taken():
    near, east_taken, none = (
        place([(50, 50, 20, 10)], obstacles, (0, 0, 100, 100))[0]
        for obstacles in ([(46, 46, 54, 54)], [(46, 46, 54, 54), (55, 40, 100, 60)], [(0, 0, 100, 100)])
    )
    assert near.box == (56, 45, 76, 55)
    assert east_taken.box == (24, 45, 44, 55)
    assert near.leader is None
    assert none is None


def test_a_label_far_from_its_mark_has_a_line_to_it():
    crowd = [(30, 30, 70, 70)]
    (found,) = place([(50, 50, 20, 10)], crowd, (0, 0, 100, 100))
    assert found.leader == ((50, 50), (found.box[0], 50))
    assert not overlap(found.box, crowd[0])


def test_later_labels_avoid_earlier_ones():
    found = place([(50, 50, 30, 10), (52, 50, 30, 10), (54, 50, 30, 10)], [], (0, 0, 100, 100))
    assert None not in found
    assert not [pair for pair in combinations([spot.box for spot in found], 2) if overlap(*pair)]
