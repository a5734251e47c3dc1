"""Pictures of many candidates, and the fonts of PDF files."""

import io
import re
import xml.etree.ElementTree as ElementTree
import zlib

import pytest
from fontTools.subset import Options
from fontTools.ttLib import TTFont
from synthetic_run import write_run

from se_nas.report import ParetoReport, figures, front_figure, write_figures
from se_nas.report.pdf_fonts import without_setting


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return ParetoReport.load(write_run(tmp_path_factory.mktemp("made") / "run", trials=40))


def kinds(path):
    """How many elements of each kind an SVG file has."""
    tags = [element.tag.rpartition("}")[2] for element in ElementTree.parse(path).iter()]
    return {tag: tags.count(tag) for tag in tags}


def test_each_mark_and_curve_is_an_element_of_its_own(report, tmp_path):
    write_figures(report, tmp_path)
    readings = [one for item in report.drawn["candidates"] for one in item["readings"]]
    curves = sum(one["phase"] == "search" and len(one["curve"]) > 1 for one in readings)
    assert kinds(tmp_path / "front.svg").get("image", 0) == 0
    drawn = kinds(tmp_path / "curves.svg")
    assert drawn.get("image", 0) == 0
    assert drawn["path"] >= curves > 30


def test_thousands_are_one_image_in_an_svg_under_all_else(report, tmp_path, monkeypatch):
    write_figures(report, tmp_path / "apart")
    monkeypatch.setattr(front_figure, "APART", 5)
    monkeypatch.setattr(figures, "APART", 5)
    write_figures(report, tmp_path / "joined")
    for name in ("front.svg", "curves.svg"):
        apart, joined = (kinds(tmp_path / folder / name) for folder in ("apart", "joined"))
        assert 1 <= joined["image"] <= 2
        assert joined["text"] == apart["text"]
        assert joined["path"] + joined["use"] < apart["path"] + apart["use"] - 15
    # A PNG is such an image anyway.
    for name in ("front.png", "curves.png"):
        assert (tmp_path / "joined" / name).read_bytes() == (tmp_path / "apart" / name).read_bytes()


def fonts(path):
    """The TrueType fonts in a PDF file."""
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", path.read_bytes(), re.DOTALL)
    for stream in streams:
        try:
            content = zlib.decompress(stream)
        except zlib.error:
            continue
        if content.startswith(b"\x00\x01\x00\x00"):
            yield TTFont(io.BytesIO(content))


def test_pdf_files_embed_outlines_without_rules_for_setting_text(report, tmp_path):
    write_figures(report, tmp_path)
    for path in tmp_path.glob("*.pdf"):
        found = list(fonts(path))
        assert found
        for font in found:
            assert {"glyf", "loca", "hmtx"} <= set(font.keys())
            assert not {"GDEF", "GPOS", "GSUB"} & set(font.keys())
            assert 1 < len(font.getGlyphOrder()) < 120


def test_fonttools_is_as_it_was_afterwards():
    from fontTools import subset

    with without_setting():
        assert "GSUB" in subset.Options().drop_tables
    assert subset.Options is Options
    assert "GSUB" not in subset.Options().drop_tables
