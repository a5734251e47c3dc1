"""SE in every architecture that timm lists: which sites are found, which checks pass, which fail and why.

    python benchmarks/zoo_coverage.py                      # all; continues where an earlier run stopped
    python benchmarks/zoo_coverage.py --family resnet --limit 5
    python benchmarks/zoo_coverage.py --tables             # only write the tables from existing results

The denominator is every architecture whose trace shows at least six spatial convolutions. Networks with
attention products (scaled dot products, or softmax over tokens times tokens) are counted separately as hybrids. Up to
60 M parameters the passes are real; above that, structure, wiring, parameters and MACs are checked on the meta device.
Results go to docs/zoo-coverage.csv, one row per architecture, and docs/zoo-coverage.md, by family. The section on use
is made from docs/zoo-usage.csv, which tests/test_model_usage.py checks.
"""

from __future__ import annotations

import argparse
import csv
import gc
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import timm
import torch

from se_nas.backbones._graph import ATTENTION, is_spatial
from se_nas.backbones._tracing import Trace, trace
from se_nas.backbones.creation import create_on_meta, input_size_of
from se_nas.errors import SeNasError
from se_nas.testing import CHECKS, META_CHECKS, examine

DOCS = Path(__file__).resolve().parent.parent / "docs"
MIN_SPATIAL = 6
MAX_REAL_PARAMS = 60e6
SIZES = (64, 96, 128)
COLUMNS = (
    *(
        "name",
        "family",
        "nature",
        "params",
        "spatial_convs",
        "position",
        "num_sites",
        "num_native",
        "positions",
    ),
    *("passes", "seconds", *CHECKS, "error"),
)


def main() -> None:
    options = _options()
    table = options.out / "zoo-coverage.csv"
    rows = _read(table)
    if not options.tables:
        torch.set_num_threads(1)
        names = [name for name in _interleaved(options.family) if options.again or name not in rows]
        for name in names[: options.limit]:
            row = _row(name)
            rows[name] = row
            _write(table, rows)
            failed = {
                check: row[check] for check in (*CHECKS, "error") if row[check] not in ("", "ok", "meta")
            }
            print(
                f"{name:40s} {row['nature']:7s} {row['num_sites'] or 0:>4} sites {row['num_native'] or 0:>4} native"
                f" {row['passes']:5s} {row['seconds']:>6} s  {failed or ''}",
                flush=True,
            )
            gc.collect()
    (options.out / "zoo-coverage.md").write_text(_markdown(rows), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--family", help="only models of this module of timm.models")
    parser.add_argument("--limit", type=int, help="at most this many architectures in this run")
    parser.add_argument("--again", action="store_true", help="also those that are already in the table")
    parser.add_argument("--tables", action="store_true", help="run nothing, only write the summary")
    parser.add_argument("--out", type=Path, default=DOCS, help="folder of the tables")
    return parser.parse_args()


def _family(name: str) -> str:
    return str(timm.model_entrypoint(name).__module__.rpartition(".")[2])


def _interleaved(family: str | None) -> list[str]:
    """Every name, taking one of each family in turn, so a run that is cut short has covered all families."""
    members: dict[str, list[str]] = {}
    for name in timm.list_models():
        if family in (None, _family(name)):
            members.setdefault(_family(name), []).append(name)
    return [
        names[rank]
        for rank in range(max(map(len, members.values()), default=0))
        for names in members.values()
        if rank < len(names)
    ]


def _row(name: str) -> dict[str, Any]:
    start = time.perf_counter()
    row: dict[str, Any] = dict.fromkeys(COLUMNS, "") | {"name": name, "family": _family(name)}
    try:
        model = create_on_meta(name)
        size = input_size_of(model)
        traced = trace(model, size)
    except Exception as error:
        row |= {"nature": "unknown", "error": f"no trace: {_line(error)}"}
        return row | {"seconds": round(time.perf_counter() - start, 1)}
    spatial = sum(is_spatial(node) and len(node.shape) == 4 for node in traced.nodes)
    num_params = sum(parameter.numel() for parameter in model.parameters())
    row |= {"params": num_params, "spatial_convs": spatial, "nature": _nature(traced, spatial)}
    if row["nature"] != "other":
        real = num_params <= MAX_REAL_PARAMS
        row["passes"] = "real" if real else "meta"
        _examine(row, _smallest_size(model, size) if real else size, real)
    return row | {"seconds": round(time.perf_counter() - start, 1)}


def _examine(row: dict[str, Any], size: tuple[int, int, int], real: bool) -> None:
    from se_nas.architecture import Architecture
    from se_nas.backbones.discovery import survey

    name = row["name"]
    try:
        found = survey(name)
        arch = Architecture.plain(name)
    except SeNasError as error:
        row["error"] = _line(error)
        return
    native = sum(site.native is not None for site in arch.sites)
    row |= {
        "position": arch.position,
        "num_sites": len(arch.sites),
        "num_native": native,
        "positions": " ".join(found.positions),
    }
    results = examine(name, checks=CHECKS if real else META_CHECKS, input_size=size)
    for check in CHECKS:
        row[check] = "meta" if check not in results else results[check] or "ok"


def _nature(traced: Trace, spatial: int) -> str:
    """conv, hybrid (attention products besides the convolutions) or other (too few convolutions)."""
    if spatial < MIN_SPATIAL:
        return "other"
    fused = any(node.op in ATTENTION for node in traced.nodes)
    products = {n.index for n in traced.nodes if n.op in ("bmm", "baddbmm") and len(n.parents) == 2}
    soft = any(node.op in ("_softmax", "softmax", "_safe_softmax") for node in traced.nodes)
    return "hybrid" if fused or (products and soft) else "conv"


def _smallest_size(model: torch.nn.Module, size: tuple[int, int, int]) -> tuple[int, int, int]:
    """A small input size that the network accepts, to save time; its default size if it accepts no other."""
    for side in SIZES:
        candidate = (size[0], side, side)
        if side < size[1]:
            try:
                trace(model, candidate)
            except SeNasError:
                continue
            return candidate
    return size


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _read(table: Path) -> dict[str, dict[str, Any]]:
    if not table.exists():
        return {}
    with table.open(newline="", encoding="utf-8") as stream:
        return {row["name"]: row for row in csv.DictReader(stream)}


def _write(table: Path, rows: dict[str, dict[str, Any]]) -> None:
    partial = table.with_suffix(".partial")
    with partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[name] for name in sorted(rows))
    partial.replace(table)


def _passed(row: dict[str, Any]) -> bool:
    return (
        not row["error"] and int(row["num_sites"] or 0) > 0 and all(row[c] in ("ok", "meta") for c in CHECKS)
    )


def _markdown(rows: dict[str, dict[str, Any]]) -> str:
    counted = [row for row in rows.values() if row["nature"] in ("conv", "hybrid")]
    lines = [
        "# SE in timm's architectures",
        "",
        f"Written by `benchmarks/zoo_coverage.py` with timm {timm.__version__}, torch {torch.__version__}.",
        f"timm lists {len(timm.list_models())} architectures; {len(rows)} are in this table. Counted are the"
        f" {len(counted)} whose forward pass has at least {MIN_SPATIAL} spatial convolutions.",
        "",
        "| nature | architectures | all checks pass | of these checked with numbers too | sites | native gates |",
        "|---|---|---|---|---|---|",
    ]
    for nature in ("conv", "hybrid"):
        lines.append(_summary(nature, [row for row in counted if row["nature"] == nature]))
    lines += [
        "",
        "Checks on numbers (the plain checkpoint loads, the identity start leaves the output unchanged bit for bit,"
        " gradients reach every block) run on models of up to 60 M parameters, at the smallest of 64, 96 and 128"
        " pixels that the network accepts, or at its default size. Wiring, parameters and MACs are checked for all.",
        "",
        "## By family",
        "",
        "| family | nature | architectures | all checks pass | checked with numbers too | sites | native gates |",
        "|---|---|---|---|---|---|---|",
    ]
    for family, nature in sorted({(row["family"], row["nature"]) for row in counted}):
        members = [row for row in counted if (row["family"], row["nature"]) == (family, nature)]
        lines.append("| " + family + " " + _summary(nature, members))
    with (DOCS / "zoo-usage.csv").open(newline="", encoding="utf-8") as stream:
        lines += ["", usage_section(list(csv.DictReader(stream)))]
    lines += ["", "## Exceptions", "", "| architecture | nature | what fails | reason |", "|---|---|---|---|"]
    for row in sorted(counted, key=lambda row: row["name"]):
        if not _passed(row):
            failed = {c: row[c] for c in (*CHECKS, "error") if row[c] not in ("", "ok", "meta")}
            reason = "; ".join(text.replace("|", "/") for text in failed.values()) or "no site"
            lines.append(f"| {row['name']} | {row['nature']} | {', '.join(failed) or 'sites'} | {reason} |")
    others = Counter(row["nature"] for row in rows.values())
    lines += [
        "",
        f"{others['other']} architectures have fewer than {MIN_SPATIAL} spatial convolutions and are not counted"
        f" (transformers, MLPs); {others['unknown']} could not be traced.",
        "",
    ]
    lines += [
        f"- {row['name']}: {row['error']}"
        for row in sorted(rows.values(), key=lambda row: row["name"])
        if row["nature"] == "unknown"
    ]
    return "\n".join(lines).rstrip() + "\n"


def usage_section(rows: list[dict[str, str]]) -> str:
    """What people do with a built model next, and what timm's plain model cannot do.

    Args:
        rows: rows of docs/zoo-usage.csv: family, nature, model, side, and for every use a reason or an empty string.
    """
    uses = [column for column in rows[0] if column not in ("family", "nature", "model", "side")]
    exceptions = [(row, use) for row in rows for use in uses if row[use]]
    lines = [
        "## Further uses",
        "",
        f"One small model of each of the {len(rows)} rows above, built with SE, goes through {len(uses)} uses:"
        f" {', '.join(uses)} (`tests/test_model_usage.py`; six families by default, all with `-m slow`). An exception"
        ' is a use that timm\'s plain model does not pass either, unless the reason begins with "with SE"; the test'
        " runs the plain model too and requires that it fails in the same way, or passes."
        f" There are {len(exceptions)} exceptions in {len(rows) * len(uses)} uses.",
        "",
        "| family | nature | model | use | reason |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['family']} | {row['nature']} | {row['model']} | {use} | {row[use]} |"
        for row, use in exceptions
    ]
    return "\n".join(lines)


def _summary(nature: str, members: list[dict[str, Any]]) -> str:
    passed = [row for row in members if _passed(row)]
    real = sum(row["passes"] == "real" for row in passed)
    sites = sum(int(row["num_sites"] or 0) for row in members)
    native = sum(int(row["num_native"] or 0) for row in members)
    return f"| {nature} | {len(members)} | {len(passed)} | {real} | {sites} | {native} |"


if __name__ == "__main__":
    sys.exit(main())
