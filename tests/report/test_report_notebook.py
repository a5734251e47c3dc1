"""What a notebook shows of runs, reports, comparisons, architectures and spaces."""

import base64
import re
import xml.etree.ElementTree as ElementTree
from html import unescape
from html.parser import HTMLParser

import matplotlib
import pandas as pd
import pytest
from synthetic_run import SITES, widths_of, write_run
from test_report_page import EVIL, evil_run

from se_nas import Architecture, SearchSpace
from se_nas.documents.typed import parse
from se_nas.errors import RunError
from se_nas.report import ParetoReport, candidates_csv, compare, front_table, open_run
from se_nas.sites import Site

SITE_LIST = tuple(parse(Site, site) for site in SITES)


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def pictures(text):
    """SVG files in the images of an HTML text, each parsed."""
    sources = [attributes["src"] for tag, attributes in Tags(text).found if tag == "img"]
    prefix = "data:image/svg+xml;base64,"
    assert all(source.startswith(prefix) for source in sources)
    return [ElementTree.fromstring(base64.b64decode(source.removeprefix(prefix))) for source in sources]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return open_run(write_run(tmp_path_factory.mktemp("runs") / "first", trials=16))


def test_representations_are_one_short_line(run, tmp_path):
    architecture = Architecture(
        backbone="resnet50",
        position="standard",
        sites=SITE_LIST,
        widths=tuple(widths_of([None, None, None, 16])),
    )
    report = run.report
    other = ParetoReport.load(write_run(tmp_path / "other", trials=8))
    assert repr(run) == f"Run({str(run.path)!r}, status='finished')"
    assert repr(report) == f"ParetoReport('first': front of {len(report.front)} of 16; {report.label})"
    assert (
        repr(compare([report, other])) == "Comparison('first', 'other'; objectives=['accuracy', 'latency'])"
    )
    assert repr(architecture) == f"Architecture('resnet50', key='{architecture.key}', 'stage 3: 3/3 γ=16')"


def test_a_run_shows_its_verdict_its_table_and_its_figure(run):
    text = run._repr_html_()
    assert text == run.report._repr_html_()
    assert f"<b>{run.report.decision.headline}</b>" in unescape(text)
    rows = front_table(run.report)
    assert text.count("<tr>") == len(rows) + 1
    for row in rows:
        assert row["accuracy %"] in text
    assert len(pictures(text)) == 1


def test_a_comparison_shows_its_verdict_its_tables_and_its_figure(run, tmp_path):
    other = ParetoReport.load(write_run(tmp_path / "o$th$er", trials=12, seed=1))
    comparison = compare([run.report, other])
    text = comparison._repr_html_()
    assert comparison.verdict.split("\n")[0] in unescape(text)
    assert text.count("<table") == len(comparison.tables())
    assert len(pictures(text)) == 1


def test_architectures_and_spaces_show_tables():
    architecture = Architecture(
        backbone="resnet50",
        position="standard",
        sites=SITE_LIST,
        widths=tuple(widths_of([None, None, None, 16])),
    )
    text = architecture._repr_html_()
    assert text.count("<tr>") == 5
    assert ">– – –<" in text
    assert ">128 128 128<" in text
    space = SearchSpace.from_sites(
        {"granularity": "block", "reduction": [8, 16]}, SITE_LIST, backbone="resnet50"
    )
    text = space._repr_html_()
    assert f"custom: {space.size:,} architectures of resnet50" in text
    assert set(re.findall(r"<tr><td[^>]*>([^<]*)<", text)) <= {*space.choices, "…"}


def test_text_of_users_stays_text_in_a_notebook(tmp_path):
    text = ParetoReport.load(evil_run(tmp_path / "evil"))._repr_html_()
    assert EVIL not in text
    assert {tag for tag, _ in Tags(text).found} <= {
        *("p", "b", "img", "div", "table", "caption", "thead", "tbody", "tr", "th", "td")
    }


def test_a_run_that_has_just_begun_is_shown_and_cannot_be_drawn(tmp_path):
    run = open_run(write_run(tmp_path / "new", rows=[], status="running", provisional=True))
    assert "no candidate has finished" in run._repr_html_()
    assert "front of 0 of 0" in repr(run.report)
    with pytest.raises(RunError, match="new cannot be drawn: no candidate has finished yet"):
        run.plot()


def test_plot_gives_axes_with_the_front(run):
    with matplotlib.rc_context({"backend": "agg"}):
        axes = run.plot()
        assert isinstance(axes, matplotlib.axes.Axes)
        assert axes.get_xlabel() == "latency, ms"
        stairs = next(line for line in axes.lines if line.get_drawstyle() == "steps-post")
        assert [round(value, 3) for value in stairs.get_ydata()] == [
            round(candidate.accuracy, 3) for candidate in run.front
        ]
        assert run.report.plot(ax=axes) is axes
        matplotlib.pyplot.close(axes.get_figure())
    with pytest.raises(RunError, match="cost is 'macs'; first has latency"):
        run.plot(cost="macs")


def test_dataframe_has_the_numbers_of_the_csv(run, tmp_path):
    frame = run.report.to_dataframe()
    (tmp_path / "candidates.csv").write_text(candidates_csv(run.report))
    read = pd.read_csv(tmp_path / "candidates.csv")
    assert list(frame.columns) == list(read.columns)
    for column in ("number", "accuracy", "accuracy_low", "latency_ms", "num_params", "readings", "on_front"):
        pd.testing.assert_series_equal(frame[column], read[column], check_dtype=False)
