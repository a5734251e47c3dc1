"""A cost that is added to the table of objectives alone appears in everything that is made from a run."""

import csv
import io
import json
import sys
from types import MappingProxyType

import numpy as np
import pytest
from synthetic_run import BASE_MS, CONDITIONS, rows_of, write_run

from se_nas import objectives
from se_nas.architecture import Architecture
from se_nas.errors import RunError
from se_nas.exporting.card import model_card
from se_nas.inference import Folded
from se_nas.objectives import Objective
from se_nas.report import (
    ParetoReport,
    candidates_csv,
    compare,
    front_table,
    pick,
    write_comparison,
    write_figures,
)
from se_nas.report.methods import methods_paragraph
from se_nas.report.page import render

MEMORY = Objective(
    name="memory",
    column="memory_mib",
    direction="minimize",
    title="memory",
    unit="MiB",
    limit_units={"MiB": 1.0, "GiB": 1024.0},
    limit_example="1.05x or 500MiB",
    axis="somewhere:Axis",
    digits=1,
)
BASE_MIB = 400.0


@pytest.fixture(autouse=True)
def memory(monkeypatch):
    """The table of objectives with one more row, for every module that reads it."""
    for name in ("OBJECTIVES", "COSTS"):
        table = getattr(objectives, name)
        longer = MappingProxyType({**table, MEMORY.name: MEMORY})
        for module in list(sys.modules.values()):
            if module.__name__.startswith("se_nas.") and getattr(module, name, None) is table:
                monkeypatch.setattr(module, name, longer)


def mib(row):
    return BASE_MIB + sum(row["widths"]) / 8


@pytest.fixture
def make_report(tmp_path):
    def make(name="run", costs=("memory",), seed=0, conditions=None):
        rows = rows_of(seed=seed)
        measured = {"memory": {"conditions": conditions or {"batch_size": 1}, "baseline": BASE_MIB}}
        if "latency" in costs:
            measured["latency"] = {"conditions": CONDITIONS, "baseline": BASE_MS}
        path = write_run(
            tmp_path / name,
            rows=[row | {"memory_mib": mib(row)} for row in rows],
            seed=seed,
            objectives=["accuracy", *costs],
            measured=measured,
        )
        return ParetoReport.load(path)

    return make


def test_front_is_over_it(make_report):
    report = make_report()
    finals = {}
    for row in rows_of():
        if row["phase"] == "final":
            finals.setdefault(row["key"], []).append(row)
    points = {key: (np.mean([row["accuracy"] for row in rows]), mib(rows[0])) for key, rows in finals.items()}
    expected = {
        key
        for key, (accuracy, cost) in points.items()
        if not any(a >= accuracy and c <= cost and (a, c) != (accuracy, cost) for a, c in points.values())
    }
    assert {candidate.key for candidate in report.front} == expected
    assert [candidate.value(MEMORY) for candidate in report.front] == sorted(
        points[key][1] for key in expected
    )


def test_tables(make_report, tmp_path):
    report = make_report()
    for row, candidate in zip(front_table(report), sorted_members(report), strict=True):
        assert row["memory MiB"] == f"{candidate.costs['memory'].value:.1f}"
    records = list(csv.DictReader(io.StringIO(candidates_csv(report))))
    assert [float(record["memory_mib"]) for record in records] == [
        candidate.costs["memory"].value for candidate in report.candidates
    ]
    again = ParetoReport.load(report.save(tmp_path / "report.json"))
    assert again.to_dict() == report.to_dict()
    assert all("memory_mib" in row for row in report.to_dict()["trials"])


def sorted_members(report):
    members = {candidate.key: candidate for candidate in (*report.front, *report.baselines)}.values()
    return sorted(members, key=lambda member: (member.costs["memory"].value, -member.accuracy))


def test_page(make_report):
    report = make_report()
    text = render(report)
    data = json.loads(text[text.index('id="data">') + len('id="data">') : text.rindex("</script>\n<script>")])
    assert data["axes"][0] == {
        "name": "memory",
        "title": "memory, MiB",
        "word": "memory",
        "unit": "MiB",
        "digits": 1,
        "objective": True,
    }
    by_number = {candidate["number"]: candidate for candidate in data["candidates"]}
    for candidate in report.candidates:
        assert by_number[candidate.number]["costs"]["memory"]["value"] == candidate.costs["memory"].value
    assert any(effect["costs"]["memory"] for effect in data["effects"])
    for words in ("Memory conditions", "its added memory", "memory MiB", 'id="effect-memory"', "400.0 MiB"):
        assert words in text


def test_figures_beside_a_second_cost(make_report, tmp_path):
    write_figures(make_report(costs=("latency", "memory")), tmp_path / "figures")
    drawn = (tmp_path / "figures" / "front.svg").read_text()
    assert drawn.count(">latency, ms</text>") == drawn.count(">memory, MiB</text>") == 2
    assert "memory, % of the plain backbone" in (tmp_path / "figures" / "effects.svg").read_text()


@pytest.mark.parametrize(
    ("name", "limit"),
    [("500MiB", 500), ("0.5 GiB", 512), ("1.1x", 440), ("1.1xmemory", 440), ("500mibmemory", 500)],
)
def test_picks(make_report, name, limit):
    report = make_report()
    chosen = pick(report, f"under:{name}")
    within = [member for member in report.counted if member.costs["memory"].value <= limit]
    assert chosen.candidate.accuracy == max(member.accuracy for member in within)
    assert "% memory" in pick(report, "best").reason
    with pytest.raises(RunError, match=r"the smallest value is 400 MiB \(memory\)\."):
        pick(report, "under:399MiB")


def test_comparison(make_report, tmp_path):
    first, second = make_report("a"), make_report("b", seed=1)
    comparison = compare([first, second])
    assert all("memory ≤ MiB" in row for row in comparison.equal_cost)
    assert comparison.units == {"memory": {"resnet50 []": BASE_MIB}}
    for entry in comparison.entries:
        assert entry.values[:, 1].tolist() == [member.costs["memory"].value for member in entry.members]
    assert "memory, MiB" in write_comparison(comparison, tmp_path / "page.html").read_text()
    other = make_report("c", conditions={"batch_size": 8})
    with pytest.raises(RunError, match="memory condition batch_size differs: 1 in a, 8 in c"):
        compare([first, other])


def test_methods_and_card(make_report):
    report = make_report()
    assert (
        "Memory was measured on AMD EPYC 7B13 (batch size 1); that of the plain backbone was 400.0 MiB."
        in methods_paragraph(report)
    )
    architecture = Architecture.plain("resnet10t")
    facts = {"manifest": report.manifest, "row": report.front[0].readings[0]}
    assert "| memory | 400.0 MiB, measured on AMD EPYC 7B13 |" in model_card(
        architecture, None, facts, ["model.safetensors"], None, Folded()
    )
