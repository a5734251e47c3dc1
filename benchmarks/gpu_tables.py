"""The tables that ``benchmarks/gpu.py`` prints; ``python benchmarks/gpu_tables.py FILE`` prints those of the last run.

Throughput is in images per second. The ratios are of the best of se-nas' contenders to timm's pieces and to the bare
loop in the same run.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from se_nas.wording import counted

Row = dict[str, Any]
VERSIONS = ("device", "host", "cpus", "python", "torch", "cuda", "timm", "se_nas")
RIVALS = ("bare", "bare compiled", "timm")
GOALS = (
    (("resnet18", 64, 128), 80_000, 10, "timm"),
    (("resnet18", 64, 32), 40_000, 15, "timm"),
    (("resnet10t", 32, 32), 90_000, None, "timm"),
    (("resnet50", 224, 128), None, 1, "bare compiled"),
)
"""For one H100: a case, the least images per second and the least multiple of a rival, as far as there is such a goal,
and the rival."""


def show(rows: Sequence[Row]) -> None:
    """Print a table for each part that has rows."""
    if not rows:
        print("\nnothing was measured")
        return
    print("\n" + ", ".join(f"{name} {rows[0][name]}" for name in VERSIONS))
    for part, write in WRITERS.items():
        mine = [row for row in rows if row["part"] == part]
        if mine:
            print(f"\n### {part}\n")
            write([row for row in mine if "error" not in row])
            for row in mine:
                what = [str(row[name]) for name in WHAT if name in row]
                if "error" in row:
                    print(f"- {' '.join(what) or part}: {row['error']}")
                elif row.get("note"):
                    print(f"- {' '.join(what) or part}: {row['note']}")
    _goals(rows)


WHAT = ("test", "contender", "mode", "backbone", "side", "batch", "shape", "training")


def goals(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """What is aimed at on one H100, as text: the measure, the goal, and what this run found ("–": nothing)."""
    measured = [row for row in rows if "error" not in row]
    cases = _cases(measured)
    lines = []
    for key, least, times, rival in GOALS:
        case = cases.get(key, {})
        best = max((rate for name, rate in case.items() if name not in RIVALS), default=None)
        name = f"{key[0]}, {key[1]} px, batch {key[2]}: images per second"
        if least is not None:
            lines.append((name, f"≥ {least:,}", "–" if best is None else f"{best:,.0f}"))
        if times is not None:
            ratio = f"{best / case[rival]:.2f}" if best is not None and rival in case else "–"
            lines.append((f"{name}, times {rival}", f"≥ {times}", ratio))
    found = [row for row in measured if "trainings_per_hour" in row]
    for name, goal, field, form in (
        ("a search: trainings an hour", "≥ 1,500", "trainings_per_hour", ",.0f"),
        ("a search: time outside training and evaluation", "< 5 %", "outside_training", ".1%"),
    ):
        lines.append((name, goal, format(found[-1][field], form) if found else "–"))
    paired = [row["interval"] for row in measured if "interval" in row and "pairs" in row]
    between = f"{paired[-1][0]:+.2f} to {paired[-1][1]:+.2f}" if paired else "–"
    lines.append(("accuracy packed minus alone, 95 %, points", "within ±0.5, around 0", between))
    return lines


def _tests(rows: Sequence[Row]) -> None:
    for row in rows:
        if "passed" in row:
            print(
                f"{row['passed']} passed, {row['failed']} failed, {row['broken']} broken; {row['last_line']}"
            )


def _cases(rows: Sequence[Row]) -> dict[tuple[str, int, int], dict[str, float]]:
    """Images per second by contender, for each network, side and batch size."""
    cases: dict[tuple[str, int, int], dict[str, float]] = defaultdict(dict)
    for row in rows:
        if "contender" in row:
            case = cases[row["backbone"], row["side"], row["batch"]]
            if "pack" in row["contender"]:
                ending = row["contender"].removeprefix("pack")
                case |= {f"K={size}{ending}": rate for size, rate in row["rates"].items()}
            else:
                case[row["contender"]] = row["images_per_second"]
    return cases


def _throughput(rows: Sequence[Row]) -> None:
    cases = _cases(rows)
    columns = list(dict.fromkeys(name for case in cases.values() for name in case))
    _header(
        "network", "pixels", "batch", *columns, "se-nas / timm", "se-nas / bare", "se-nas / bare compiled"
    )
    for key, case in cases.items():
        best = max((rate for name, rate in case.items() if name not in RIVALS), default=None)
        ratios = [
            f"{best / case[name]:.2f}" if best and name in case else "–"
            for name in ("timm", "bare", "bare compiled")
        ]
        _line(*key, *(f"{case[name]:,.0f}" if name in case else "–" for name in columns), *ratios)


def _search(rows: Sequence[Row]) -> None:
    for row in rows:
        if "places" in row:
            print(
                f"{row['backbone']} at {row['side']} pixels on {row['data']} ({row['training_images']:,} +"
                f" {row['validation_images']:,} images), {counted(row['epochs'], 'epoch')}, {row['places']} at a time:"
                f" {row['trainings_per_hour']:,.0f} trainings an hour ({row['with_start']:,.0f} with the start);"
                f" {row['outside_training']:.1%} of {row['seconds']:.0f} s outside of training and evaluation,"
                f" evaluation {row['evaluation']:.1%}; {row['preparation']:.0f} s of preparation"
            )
            print(f"packing: {row['packing']}\ncompiling: {row['compile']}")


def _accuracy(rows: Sequence[Row]) -> None:
    _header("seed", "packed", "alone")
    for row in rows:
        if "seed" in row:
            _line(row["seed"], f"{row['packed']:.2f}", f"{row['alone']:.2f}")
    for row in rows:
        if "pairs" in row:
            low, high = row.get("interval", (float("nan"), float("nan")))
            print(
                f"\n{row['backbone']} on {row['data']}, {counted(row['epochs'], 'epoch')}: packed minus alone"
                f" {row['difference']:+.2f} points (95 %: {low:+.2f} to {high:+.2f}, {row['pairs']} pairs)"
            )


def _latency(rows: Sequence[Row]) -> None:
    _header("network", "batch", "mode", "plain ms", "SE everywhere ms", "added", "95 %")
    for row in rows:
        if "mode" in row:
            low, high = row["interval"]
            _line(
                row["backbone"],
                row["batch"],
                row["took_mode"],
                f"{row['plain_ms']:.3f}",
                f"{row['se_ms']:.3f}",
                f"{row['added']:+.1%}",
                f"{low:+.1%} to {high:+.1%}",
            )


def _se_block(rows: Sequence[Row]) -> None:
    print("Time as a share of timm's SEModule: below 1 is faster.\n")
    for training in (False, True):
        found = [row for outer in rows if outer.get("training") == training for row in outer["rows"]]
        if found:
            forms = list(found[0]["ratios"])
            _header("training" if training else "inference", "format", *forms, "largest difference")
            for row in found:
                cells = [f"{m:.2f} ({low:.2f} to {high:.2f})" for m, low, high in row["ratios"].values()]
                _line(row["shape"], row["format"], *cells, f"{row['largest_difference']:.0e}")
            print()


def _goals(rows: Sequence[Row]) -> None:
    print("\n### goals, for one H100\n")
    _header("measure", "goal", "found")
    for line in goals(rows):
        _line(*line)


def _header(*names: str) -> None:
    _line(*names)
    print("|---" * len(names) + "|")


def _line(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |")


WRITERS: dict[str, Callable[[Sequence[Row]], None]] = {
    "tests": _tests,
    "throughput": _throughput,
    "search": _search,
    "accuracy": _accuracy,
    "latency": _latency,
    "se_block": _se_block,
}


if __name__ == "__main__":
    lines = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
    every = [json.loads(line) for line in lines]
    show([row for row in every if row["run"] == every[-1]["run"]])
