import base64
import hashlib
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest
from scipy import stats
from synthetic_run import manifest, report_of, rows_of, write_run
from test_report_decision import final_rows

from se_nas.errors import RunError
from se_nas.notebook import paragraph, picture, table
from se_nas.report import ParetoReport, compare, figures, write_figures, write_html
from se_nas.report.chart_data import nominal, usage, view, wilson
from se_nas.report.effects import block_effects
from se_nas.report.methods import methods_paragraph
from se_nas.report.page import render
from se_nas.wording import printable

EVIL = "</script><script>alert('x')</script><img src=x onerror=alert(1)>"


class Elements(HTMLParser):
    """Tags with their attributes, and the text of script elements."""

    def __init__(self):
        super().__init__()
        self.tags, self.scripts, self._in = [], [], None

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "script" and self.scripts and self.lasttag == "script":
            self.scripts[-1] += data


def parse(text):
    parser = Elements()
    parser.feed(text)
    return parser


@pytest.fixture
def page(make_run):
    return render(ParetoReport.load(make_run()))


def test_page_loads_nothing_from_anywhere(page):
    for tag, attributes in parse(page).tags:
        assert tag not in ("link", "iframe", "object", "embed", "base"), tag
        assert "src" not in attributes, tag
        for name in ("href", "action", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:text/csv")), attributes
        assert not any(name.startswith("on") for name in attributes), attributes
    assert "@import" not in page
    assert "url(" not in page.replace("url(#${id})", "")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)


def test_content_security_policy_names_the_hash_of_the_only_script(page):
    parsed = parse(page)
    policy = next(a["content"] for t, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    script = page[page.rindex("<script>") + len("<script>") : page.rindex("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy


def evil_run(path, evil=EVIL):
    rows = rows_of(trials=14, seeds=2)
    for row in rows:
        row["description"] = evil
        row["error"] = evil
        row["position"] = evil
        row["baseline"] = evil if row["baseline"] else None
    return write_run(
        path,
        rows=rows,
        **dict.fromkeys(("name", "backbone", "command", "stop_reason"), evil),
        data=manifest()["data"] | {"name": evil, evil: evil},
        recipe={evil: evil},
        device={"type": "cpu", "name": evil},
        versions={evil: evil},
        warnings=[evil],
        sites={evil: manifest()["sites"]["standard"]},
        provisional=False,
    )


def test_text_of_users_stays_text(tmp_path):
    text = render(ParetoReport.load(evil_run(tmp_path / "evil")))
    assert EVIL not in text
    parsed = parse(text)
    assert sum(tag == "script" for tag, _ in parsed.tags) == 2
    assert not any(tag == "img" for tag, _ in parsed.tags)
    data = json.loads(parsed.scripts[0])
    assert data["name"] == EVIL


def test_control_characters_of_names_are_shown_as_escapes(tmp_path, monkeypatch):
    evil = "=\x1b]0;owned\x07 \x9b31m \u202egnp.exe"
    report = ParetoReport.load(evil_run(tmp_path / "evil", evil))
    monkeypatch.setattr(figures, "_FIGURES", {"front": figures._FIGURES["front"]})
    write_figures(report, tmp_path)
    card = (
        paragraph(report.name) + table([{report.name: report.name}], report.name) + picture("", report.name)
    )
    for text in (
        render(report),
        *((tmp_path / name).read_text() for name in ("front.svg", "candidates.csv")),
        card,
    ):
        assert not [letter for letter in text if letter not in "\n\t" and printable(letter) != letter]
        assert "\\x1b]0;owned" in text
    ElementTree.parse(tmp_path / "front.svg")


def test_data_in_the_page_are_the_numbers_of_the_report(make_run):
    report = ParetoReport.load(make_run())
    data = json.loads(parse(render(report)).scripts[0])
    assert data["front"] == [candidate.number for candidate in report.front]
    by_number = {candidate["number"]: candidate for candidate in data["candidates"]}
    for candidate in report.counted:
        assert by_number[candidate.number]["accuracy"] == pytest.approx(candidate.accuracy, abs=1e-3)
        assert by_number[candidate.number]["export"].startswith("se-nas export ")
        assert candidate.key in by_number[candidate.number]["export"]


def test_page_gives_the_hypervolume_with_its_interval(make_run):
    report = ParetoReport.load(make_run())
    low, high = report.hypervolume_interval
    assert low < high
    assert f"Hypervolume {report.hypervolume():.3g} (95 % interval {low:.3g} to {high:.3g})." in render(
        report
    )


def test_page_says_final_or_provisional(make_run):
    assert '<span class="pill final">final</span>' in render(ParetoReport.load(make_run("final")))
    text = render(ParetoReport.load(make_run("single", trials=14, seeds=0)))
    assert '<span class="pill provisional">provisional</span>' in text
    assert "each accuracy is a single reading, so differences may be due to chance" in text


def test_a_plain_backbone_that_is_best_has_no_added_cost():
    def tiles(accuracies):
        text = render(report_of(final_rows(accuracies)))
        return text[text.index('<dl class="tiles">') : text.index("</dl>")]

    assert "added latency" not in tiles([(93, 92), (90, 91)])
    assert "added latency" in tiles([(90, 91), (93, 92)])


def test_page_of_a_run_that_has_just_begun(make_run):
    text = render(ParetoReport.load(make_run(rows=[], status="running", provisional=True)))
    assert "no candidate has finished" in text


@pytest.mark.parametrize("objectives", [["accuracy", "params"], ["accuracy", "latency", "macs"]])
def test_page_with_other_objectives(make_run, objectives):
    text = render(ParetoReport.load(make_run(objectives=objectives)))
    assert "The front" in text


def test_page_of_a_run_without_latency_and_sites(make_run):
    rows = rows_of(trials=14, seeds=0)
    for row in rows:
        row |= {"latency_ms": None, "latency_ratio": None, "latency_interval": None, "latency_source": None}
    text = render(
        ParetoReport.load(make_run(rows=rows, objectives=["accuracy", "macs"], sites={}, provisional=True))
    )
    assert "<h2>Measured against predicted latency</h2>" not in text
    assert "<h2>Measured against predicted latency</h2>" in render(ParetoReport.load(make_run("timed")))


def test_a_manifest_without_what_may_be_missing_is_survived(make_run):
    fields = ("seed", "created", "se_nas_version", "stop_reason", "finals", "early_stopping", "importance")
    report = ParetoReport.load(make_run(measured={}, versions={}, recipe={}, **dict.fromkeys(fields)))
    assert "The front" in render(report)
    assert methods_paragraph(report)


def test_write_html_refuses_a_folder_that_is_not_there(make_run, tmp_path):
    report = ParetoReport.load(make_run(trials=4, seeds=0))
    with pytest.raises(RunError, match="cannot be written"):
        write_html(report, tmp_path / "nowhere" / "report.html")


def test_thousand_trials_stay_a_small_file(tmp_path):
    text = render(ParetoReport.load(write_run(tmp_path / "big", trials=1000, finalists=12)))
    assert len(text.encode()) < 3_000_000


def test_figures_are_pictures(make_run, tmp_path):
    written = write_figures(ParetoReport.load(make_run()), tmp_path / "figures")
    names = {path.name for path in written}
    kinds = ("front", "sites", "usage", "effects", "hypervolume", "curves", "predicted", "retraining")
    assert names == {f"{kind}.{suffix}" for kind in kinds for suffix in ("png", "svg", "pdf")} | {
        "candidates.csv"
    }
    for path in written:
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG\r\n")
            assert path.stat().st_size > 5000
        elif path.suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag.endswith("svg")
        elif path.suffix == ".pdf":
            assert path.read_bytes().startswith(b"%PDF-")


def texts(path):
    """Text of an SVG file, which only real text has."""
    return [element.text for element in ElementTree.parse(path).iter() if element.tag.endswith("}text")]


def test_figures_say_what_bars_are_and_count_trials_in_whole_numbers(make_run, tmp_path):
    write_figures(ParetoReport.load(make_run()), tmp_path / "final")
    assert "95 % interval over seeds" in texts(tmp_path / "final" / "front.svg")
    assert "accuracy, points (95 % intervals)" in texts(tmp_path / "final" / "effects.svg")
    report = ParetoReport.load(make_run("four", trials=4, seeds=0))
    write_figures(report, tmp_path / "single")
    assert "95 % interval over the choice of 12,000 images alone (one reading)" in texts(
        tmp_path / "single" / "front.svg"
    )
    numbers = texts(tmp_path / "single" / "hypervolume.svg")
    across = numbers[: numbers.index("trials that ended")]
    assert across == [str(int(number)) for number in across]
    again = {path.name: path.read_bytes() for path in write_figures(report, tmp_path / "again")}
    for path in (tmp_path / "single").iterdir():
        assert again[path.name] == path.read_bytes()


@pytest.mark.parametrize(("right", "images"), [(0, 40), (37, 40), (250, 250), (9131, 12000)])
def test_interval_of_a_single_reading_is_wilsons(right, images):
    expected = stats.binomtest(right, images).proportion_ci(0.95, method="wilson")
    assert wilson(100 * right / images, images) == pytest.approx(
        (100 * expected.low, 100 * expected.high), abs=1e-4
    )


def test_a_single_reading_has_the_interval_of_its_images_in_pictures_alone(make_run):
    report = ParetoReport.load(make_run(trials=8, seeds=0))
    for candidate, drawn in zip(report.candidates, view(report)["candidates"], strict=True):
        assert candidate.accuracy_interval is drawn["interval"] is None
        assert drawn["images"] == pytest.approx(wilson(candidate.accuracy, 12000), abs=1e-3)
    assert all(item["images"] is None for item in view(ParetoReport.load(make_run("final")))["candidates"])


def test_two_costs_are_two_panels_with_the_scale_of_the_other_cost(make_run, tmp_path):
    report = ParetoReport.load(make_run(objectives=["accuracy", "latency", "params"]))
    write_figures(report, tmp_path / "figures")
    drawn = (tmp_path / "figures" / "front.svg").read_text()
    # Each is an axis of one panel and the scale of the other's colours.
    assert drawn.count(">latency, ms</text>") == drawn.count(">parameters, M</text>") == 2
    assert "looks dominated in one picture" in render(report)
    one = ParetoReport.load(make_run("one"))
    assert "looks dominated in one picture" not in render(one)
    assert 'id="front-chart-2"' not in render(one)


def test_figures_without_numbers_are_left_out(make_run, tmp_path):
    written = write_figures(ParetoReport.load(make_run(trials=3, seeds=0)), tmp_path / "figures")
    names = {path.stem for path in written}
    assert "retraining" not in names
    assert "front" in names


def test_figures_are_refused_where_a_file_is_in_the_way(make_run, tmp_path):
    (tmp_path / "figures").write_text("")
    with pytest.raises(RunError, match="figures cannot be written: File exists"):
        write_figures(ParetoReport.load(make_run(trials=4, seeds=0)), tmp_path / "figures")


def test_what_the_manifest_says_of_early_stopping_and_importance_is_shown(make_run):
    run = make_run(
        early_stopping={"controls": 4, "would_stop": 3, "wrong": 1, "wrong_interval": [0.008, 0.906]},
        importance={
            "objective": {"stage2": 0.75},
            "trade_off": {"stage2": 0.5, "stage3": 0.5},
            "reason": None,
        },
        effects=[
            {"group": "stage 2", "choice": None, "effect": 0.5, "interval": [0.2, 0.8], "cost_percent": 4.0}
            | {"per_percent": 0.125, "per_percent_interval": [0.05, 0.2]},
            {"group": "stage0", "choice": 16, "effect": -0.1, "interval": None, "cost_percent": 0.0},
        ],
    )
    text = render(ParetoReport.load(run))
    assert (
        "As a control, 4 candidates ran to the end regardless of the rule; it would have stopped 3 of them."
        " That would have been wrong for 1, which ended on the front (95 % interval of the wrong share: 1 to 91 %)."
    ) in text
    assert ">stage2</td>" in text
    assert ">75.0</td>" in text
    assert ">+0.500 [+0.200, +0.800]</td>" in text
    assert ">stage0 = 16</td>" in text
    assert ">−0.100</td>" in text


def test_what_an_earlier_run_was_worth_is_said(make_run):
    earlier = {"run": "/runs/before", "differs": ["backbone", "data"], "trainings": 16, "explained": 0.6}
    text = render(ParetoReport.load(make_run("known", earlier=[earlier | {"trust": 0.42}])))
    assert (
        "The sampler began with what 16 trainings of before say of SE by depth and width (that run differs in:"
        " backbone; data). In the end this explained 42 % of how its predictions of accuracy differ"
    ) in text
    unknown = render(ParetoReport.load(make_run("unknown", earlier=[earlier])))
    assert "16 trainings of before" in unknown
    assert "In the end this explained" not in unknown
    readings = render(ParetoReport.load(make_run("readings", earlier=[{"run": "/runs/x", "trainings": 4}])))
    assert "The sampler began with" not in readings


def test_a_loss_that_told_nothing_is_not_spoken_of(make_run):
    told = {"readings": 24, "correlation": -0.7, "noise_correlation": 0.05, "equivalent_readings": 2.13}
    expected = (
        "The model also used the validation loss of 24 trainings. It correlates with accuracy at −0.70 (their noise"
        " at +0.05), so each member of the front rests on the equivalent of 2.1 readings of accuracy."
    )
    assert expected in render(ParetoReport.load(make_run("told", evidence=told)))
    nothing = told | {"correlation": None, "noise_correlation": None}
    for name, evidence in (("nothing", nothing), ("unknown", None)):
        assert "validation loss of" not in render(ParetoReport.load(make_run(name, evidence=evidence)))


def effect_row(group, choice, effect, half=0.2):
    return {
        "group": group,
        "choice": choice,
        "effect": effect,
        "interval": [effect - half, effect + half],
    } | {
        "cost_percent": 1.5,
        "per_percent": None,
        "per_percent_interval": None,
    }


def test_one_model_of_effects_is_shown(make_run):
    least_squares = render(ParetoReport.load(make_run("fitted")))
    assert "least squares" in least_squares
    assert "sampler's model" not in least_squares
    rows = [effect_row("stage 2", None, 0.5), effect_row("stage2.reduction", 8, 0.1)]
    report = ParetoReport.load(make_run("modelled", effects=rows))
    modelled = render(report)
    assert "sampler's model" in modelled
    assert "least squares" not in modelled
    assert ">stage 2 at γ=8</td>" in modelled
    data = json.loads(parse(modelled).scripts[0])
    assert [(effect["stage"], effect["accuracy"]) for effect in data["effects"]] == [(2, [0.5, 0.2])]
    assert data["effects"][0]["costs"] == {"latency": [1.5, None]}


def test_effects_of_blocks_are_those_of_having_se(make_run):
    rows = [
        effect_row("stage1.block10", True, 0.25),
        effect_row("stage1.block2", False, 0.25),
        effect_row("stage1.reduction", 8, 0.1),
        effect_row("position", "pre", 0.1),
    ]
    report = ParetoReport.load(make_run(effects=rows))
    found = [(b.stage, b.block, b.accuracy.value, b.cost_percent) for b in block_effects(report)]
    assert found == [(1, 2, -0.25, -1.5), (1, 10, 0.25, 1.5)]
    text = render(report)
    for name in ("stage 1, block 10", "stage 1, block 2 without SE", "stage 1 at γ=8", "position = pre"):
        assert f">{name}</td>" in text


def test_controls_that_were_rightly_condemned_are_not_said_to_be_on_the_front(make_run):
    run = make_run(
        early_stopping={"controls": 4, "would_stop": 2, "wrong": 0, "wrong_interval": [0.0, 0.842]},
    )
    assert (
        "it would have stopped 2 of them. That would have been wrong for none: none ended on the front"
        " (95 % interval of the wrong share: 0 to 84 %)."
    ) in render(ParetoReport.load(run))


def test_methods_paragraph_says_what_was_done(make_run):
    text = methods_paragraph(ParetoReport.load(make_run()))
    for words in (
        "placed in resnet50 by se-nas 0.1.0: 16 sites in the standard position",
        "search space 'per_block' of 16,777,216 architectures",
        "top-1 accuracy on validation data and latency",
        "fashion-mnist (10 classes; 48,000 images for training, 12,000 for validation and 10,000 kept",
        "trained for 12 epochs",
        "AMD EPYC 7B13",
        "9 finalists, baselines among them, were retrained with 3 new seeds for 12 epochs",
        "torch 2.15.0",
    ):
        assert words in text


def test_methods_paragraph_of_a_provisional_front_warns(make_run):
    assert "provisional" in methods_paragraph(ParetoReport.load(make_run(seeds=0)))


@pytest.mark.parametrize(
    ("ratio", "expected"), [(15.6, 16), (17.1, 16), (8, 8), (1, 1), (0.8, 1), (22, 16), (23, 32)]
)
def test_nominal_reduction_is_the_nearest_power_of_two(ratio, expected):
    assert nominal(ratio) == expected


def test_usage_counts_sites_by_stage(make_run):
    report = ParetoReport.load(make_run())
    stages = usage(report)
    assert [stage["stage"] for stage in stages] == [0, 1, 2, 3]
    assert sum(stages[2]["front"].values()) == 6 * len(report.front)
    assert sum(stages[2]["all"].values()) == 6 * len(report.candidates)


def test_hypervolumes_are_read_in_the_units_of_the_axes(make_run):
    report = ParetoReport.load(make_run(objectives=["accuracy", "params"]))
    assert report.hypervolume() > 1e4
    shown = float(re.search(r"Hypervolume ([\d.]+) \(95 % interval", render(report))[1])
    assert shown == pytest.approx(report.hypervolume() / 1e6, rel=0.01)
    last = view(report)["history"][-1][3]
    assert 0 < last < 100
    comparison = compare(
        [report, ParetoReport.load(make_run(name="other", objectives=["accuracy", "params"], seed=1))]
    )
    assert all(float(row["hypervolume"]) < 100 for row in comparison.table)
    assert "e+0" not in comparison.verdict
