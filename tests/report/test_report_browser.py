"""The pages in headless Chromium: what a reader does with mouse and keyboard, and an empty console."""

import base64
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from synthetic_run import SITES, rows_of, write_run
from test_report_page import effect_row, evil_run

from se_nas.report import ParetoReport, compare, labels, write_comparison, write_html

pytestmark = pytest.mark.browser
CHARTS = Path(labels.__file__).parent / "templates" / "charts.js"
PIXELS = 96 / 72
"""Of a point."""
PHONE = {"width": 390, "height": 800, "deviceScaleFactor": 2, "mobile": True}


@pytest.fixture(scope="module")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip(
            "no Chromium with its driver on this machine (Debian: apt-get install chromium chromium-driver)"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,1000"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield chrome
    chrome.quit()


@pytest.fixture
def page(browser, tmp_path):
    """Opens a page and gives the browser back; at the end its console must be empty."""

    def open_page(path):
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.get(path.as_uri())
        assert script(browser, "return document.documentElement.dataset.ready") == "true"
        return browser

    browser.get_log("browser")
    yield open_page
    assert browser.get_log("browser") == []


def script(browser, code, *arguments):
    return browser.execute_script(code, *arguments)


def find(browser, selector):
    return browser.find_element("css selector", selector)


def resize(browser, width):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    time.sleep(0.3)


def all_of(browser, selector):
    return browser.find_elements("css selector", selector)


def hover(browser, element):
    from selenium.webdriver import ActionChains

    script(browser, "arguments[0].scrollIntoView({block: 'center'})", element)
    time.sleep(0.3)  # the scroll event comes late, and scrolling hides the tip
    ActionChains(browser).move_to_element(element).perform()
    time.sleep(0.1)


@pytest.fixture
def report(tmp_path):
    return ParetoReport.load(write_run(tmp_path / "run"))


@pytest.fixture
def opened(page, report, tmp_path):
    return page(write_html(report, tmp_path / "report.html"))


def test_every_chart_is_drawn(opened):
    charts = all_of(opened, ".chart")
    assert len(charts) >= 8
    for chart in charts:
        assert chart.find_elements("css selector", "svg"), chart.get_attribute("id")
    assert "NaN" not in script(opened, "return document.querySelector('main').innerHTML")


def test_hover_shows_the_architecture_drawn(opened, report):
    best = report.front[-1]
    tip = find(opened, "#tip")
    assert not tip.is_displayed()
    hover(opened, find(opened, f"#front-chart [data-number='{best.number}']"))
    assert tip.is_displayed()
    blocks = tip.find_elements("css selector", ".block")
    assert len(blocks) == 16
    gated = [block.text for block in blocks if "se" in block.get_attribute("class").split()]
    assert gated == [str(width) for width in best.widths if width]
    assert f"{best.accuracy:.2f}" in tip.text


def test_click_opens_the_card_with_curves_and_the_export_command(opened, report):
    best = report.front[-1]
    script(
        opened,
        "document.querySelector(arguments[0]).dispatchEvent(new MouseEvent('click', {bubbles: true}))",
        f"#front-chart [data-number='{best.number}']",
    )
    card = find(opened, "#card")
    assert card.is_displayed()
    assert f"Trial {best.number}" in card.text
    assert f"--pick {best.key}" in card.text
    curves = card.find_element("css selector", ".chart path.run").get_attribute("d")
    assert curves.count("M") == len(best.readings)
    assert len(card.find_elements("css selector", "tbody tr")) == len(best.readings)
    card.find_element("css selector", "button").click()
    assert not card.is_displayed()


def test_card_opens_by_keyboard(opened, report):
    from selenium.webdriver.common.keys import Keys

    mark = find(opened, f"#front-chart [data-number='{report.front[0].number}']")
    script(opened, "arguments[0].focus()", mark)
    mark.send_keys(Keys.ENTER)
    card = find(opened, "#card")
    assert card.is_displayed()
    card.send_keys(Keys.ESCAPE)
    assert not card.is_displayed()


def test_card_opens_from_a_table(opened):
    button = find(opened, "#all-candidates button.open[data-number='1']")
    script(opened, "arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()
    assert find(opened, "#card").is_displayed()
    assert "Trial 1 " in find(opened, "#card-title").text


def test_tables_sort_up_and_down_with_empty_cells_last(opened):
    table = find(opened, "#all-candidates")
    heads = table.find_elements("css selector", "th")
    column = [head.text.split("\n")[0].strip() for head in heads].index("accuracy %")
    button = heads[column].find_element("css selector", "button")
    cells = f"#all-candidates tbody td:nth-child({column + 1})"

    def values():
        return script(
            opened, "return [...document.querySelectorAll(arguments[0])].map(c => c.dataset.sort)", cells
        )

    for direction in ("ascending", "descending"):
        script(opened, "arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()
        assert heads[column].get_attribute("aria-sort") == direction
        numbers = [float(value) for value in values() if value]
        assert numbers == sorted(numbers, reverse=direction == "descending")
        known = [bool(value) for value in values()]
        assert known == sorted(known, reverse=True)


def test_filter_hides_rows(opened, report):
    box = find(opened, "#filter")
    box.send_keys("stopped")
    shown = script(
        opened, "return document.querySelectorAll('#all-candidates tbody tr:not([hidden])').length"
    )
    assert shown == sum(candidate.state == "stopped" for candidate in report.candidates)


def test_choosing_another_cost_redraws_the_front(opened, report):
    mark = f"#front-chart [data-number='{report.front[-1].number}']"
    before = find(opened, mark).get_attribute("transform")
    options = all_of(opened, "#front-axis option")
    assert [option.get_attribute("value") for option in options] == [
        "latency",
        "macs",
        "params",
        "activations",
    ]
    options[2].click()
    assert find(opened, mark).get_attribute("transform") != before
    assert "parameters, M" in find(opened, "#front-chart").text


@pytest.fixture
def surface(page, tmp_path):
    """A run with two costs."""
    run = write_run(tmp_path / "surface", objectives=["accuracy", "latency", "params"])
    report = ParetoReport.load(run)
    return page(write_html(report, tmp_path / "surface.html")), report


def test_two_costs_are_two_pictures_of_one_front(surface):
    opened, report = surface
    titles = [find(opened, f"#{name}").text for name in ("front-chart", "front-chart-2")]
    assert ["latency, ms" in titles[0], "parameters, M" in titles[1]] == [True, True]
    for chart in ("front-chart", "front-chart-2"):
        fronts = all_of(opened, f"#{chart} .point.shaded")
        assert {int(mark.get_attribute("data-number")) for mark in fronts} == {c.number for c in report.front}
    # Fuller where the cost that the picture leaves out is higher.
    fills = {
        int(mark.get_attribute("data-number")): float(mark.get_attribute("fill-opacity"))
        for mark in all_of(opened, "#front-chart .point.shaded")
    }
    by_params = sorted(report.front, key=lambda c: c.num_params)
    assert [fills[c.number] for c in by_params] == sorted(fills.values())
    assert "Fill by parameters, M" in find(opened, "#front-shade").text


def test_a_candidate_is_marked_in_both_pictures(surface):
    opened, report = surface
    number = report.front[-1].number
    hover(opened, find(opened, f"#front-chart-2 [data-number='{number}']"))
    linked = all_of(opened, ".point.linked")
    assert {mark.get_attribute("data-number") for mark in linked} == {str(number)}
    for chart in ("front-chart", "front-chart-2"):
        assert len(all_of(opened, f"#{chart} .point.linked")) == 1
    assert find(opened, "#tip").is_displayed()


def test_choosing_the_first_cost_swaps_the_pictures(surface):
    opened, _ = surface
    script(opened, "document.querySelector('#front-axis option[value=params]').selected = true")
    script(opened, "document.getElementById('front-axis').dispatchEvent(new Event('change'))")
    assert "parameters, M" in find(opened, "#front-chart").text
    assert "latency, ms" in find(opened, "#front-chart-2").text
    assert "Fill by latency, ms" in find(opened, "#front-shade").text


def test_two_pictures_fit_a_phone(surface):
    opened, _ = surface
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    time.sleep(0.3)
    assert script(opened, "return document.documentElement.scrollWidth") <= 390
    tops = [find(opened, f"#{name}").location["y"] for name in ("front-chart", "front-chart-2")]
    assert tops[1] > tops[0] + 300


def test_controls_and_marks_have_accessible_names(opened):
    nameless = script(
        opened,
        """
        const named = (e) => e.getAttribute("aria-label") || e.textContent.trim() || (e.labels && e.labels.length);
        return [...document.querySelectorAll("button, select, input, a, [role=button], [role=region], svg[role]")]
          .filter((e) => !named(e)).map((e) => e.outerHTML);
        """,
    )
    assert nameless == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(opened, scheme):
    """WCAG AA for the colours that text is written in, against the page."""
    opened.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    ratios = script(
        opened,
        """
        const style = getComputedStyle(document.documentElement);
        const light = (name) => {
          const hex = style.getPropertyValue(name).trim();
          const part = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255)
            .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
          return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
        };
        const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
        return ["--ink", "--muted", "--blue", "--vermillion", "--green"].map((name) => ratio(name, "--paper"))
          .concat(ratio("--on-blue", "--blue"));
        """,
    )
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert min(ratios) >= 4.0, ratios
    assert min(ratios[:2]) >= 4.5


def test_nothing_is_wider_than_a_phone(opened):
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    time.sleep(0.3)
    assert script(opened, "return document.documentElement.scrollWidth") <= 390
    sizes = script(
        opened,
        """
        return [...document.querySelectorAll("#front-chart text")]
          .map((t) => t.getBoundingClientRect().height).filter((h) => h > 0);
        """,
    )
    assert min(sizes) >= 9


@pytest.fixture
def by_block(page, tmp_path):
    """A run whose sampler told the effect of SE in each block."""
    effects = [
        effect_row(f"stage{site['stage']}.block{site['block']}", True, (number - 7) / 20, half=0.15)
        for number, site in enumerate(SITES)
    ]
    report = ParetoReport.load(write_run(tmp_path / "blocks", effects=effects))
    return page(write_html(report, tmp_path / "blocks.html"))


@pytest.mark.parametrize("width", [400, 1400])
def test_effects_of_blocks_are_a_heat_map_over_a_closed_table(by_block, width):
    resize(by_block, width)
    cells = all_of(by_block, "#blocks-chart rect.heat")
    assert len(cells) == len(SITES)
    values = [(number - 7) / 20 for number in range(len(SITES))]
    assert ["loss" in cell.get_attribute("class").split() for cell in cells] == [v < 0 for v in values]
    clear = ["unclear" not in cell.get_attribute("class").split() for cell in cells]
    assert clear == [abs(value) > 0.15 for value in values]
    strengths = [float(cell.get_attribute("fill-opacity")) for cell in cells]
    order = sorted(range(len(cells)), key=lambda i: abs(values[i]))
    assert [strengths[i] for i in order] == sorted(strengths)
    texts = [text.text for text in all_of(by_block, "#blocks-chart .heat-text:not(.half)")]
    assert texts == [f"{value:+.2f}".replace("-", "−") if value else "0.00" for value in values]
    room = script(by_block, "return document.getElementById('blocks-chart').getBoundingClientRect().right")
    assert all(cell.rect["x"] + cell.rect["width"] <= room + 1 for cell in cells)
    table = find(by_block, "#all-effects")
    assert not table.is_displayed()
    script(by_block, "arguments[0].closest('details').querySelector('summary').click()", table)
    assert table.is_displayed()


@pytest.mark.parametrize("width", [400, 1400])
def test_no_column_is_cut_off(by_block, width):
    resize(by_block, width)
    for details in all_of(by_block, "details"):
        script(by_block, "arguments[0].open = true", details)
    cut = script(
        by_block,
        """
        return [...document.querySelectorAll(".scroll, .tall, .chart")]
          .filter((host) => host.scrollWidth > host.clientWidth + 1).map((host) => host.outerHTML.slice(0, 80));
        """,
    )
    assert cut == []
    assert script(by_block, "return document.documentElement.scrollWidth") <= width


COLLISIONS = """
    const chart = document.getElementById("front-chart"), room = chart.getBoundingClientRect();
    const inner = (node, x, y) => {
      const box = node.getBoundingClientRect();
      return { left: box.left + x, right: box.right - x, top: box.top + y, bottom: box.bottom - y };
    };
    const overlap = (a, b) => a.left < b.right && a.right > b.left && a.top < b.bottom && a.bottom > b.top;
    // A line of text is taller than its letters.
    const labels = [...chart.querySelectorAll("text.label")].map((node) => [inner(node, 1, 3), node.textContent]);
    const marks = [...chart.querySelectorAll(".point, .whisker, .seed")]
      .map((node) => [inner(node, 0, 0), node.getAttribute("class")]);
    const found = [];
    labels.forEach(([box, text], index) => {
      for (const [other, name] of [...marks, ...labels.slice(index + 1)]) {
        if (overlap(box, other)) found.push(`${text} on ${name}`);
      }
      if (box.right > room.right || box.left < room.left) found.push(`${text} is cut off`);
    });
    return [labels.length, found];
"""


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize(
    "changes",
    [{"seed": seed} for seed in range(4)]
    + [{"trials": 14, "seeds": 0}, {"trials": 120, "finalists": 12}, {"trials": 5, "seeds": 2}],
    ids=str,
)
def test_labels_touch_nothing(page, tmp_path, changes, width):
    opened = page(
        write_html(ParetoReport.load(write_run(tmp_path / "run", **changes)), tmp_path / "run.html")
    )
    resize(opened, width)
    count, collisions = script(opened, COLLISIONS)
    assert count >= 3
    assert collisions == []


def test_ticks_of_trials_are_whole_and_single_readings_have_bars(page, tmp_path):
    report = ParetoReport.load(write_run(tmp_path / "run", trials=4, seeds=0))
    opened = page(write_html(report, tmp_path / "report.html"))
    bottom = script(
        opened,
        """
        const ticks = [...document.querySelectorAll("#history-chart .tick[text-anchor=middle]")];
        return ticks.map((tick) => tick.textContent);
        """,
    )
    assert bottom == ["0", "1", "2", "3", "4"]
    assert len(all_of(opened, "#front-chart .whisker.images")) == len(
        {candidate.key for candidate in (*report.front, *report.baselines)}
    )
    assert "95 % interval over the choice of 12,000 images alone" in find(opened, "#front-legend").text


def test_learning_curves_that_were_not_kept_are_not_drawn(page, tmp_path):
    rows = [row | {"curve": row["curve"][:1]} for row in rows_of(trials=8, seeds=0)]
    report = ParetoReport.load(write_run(tmp_path / "run", rows=rows, provisional=True))
    opened = page(write_html(report, tmp_path / "report.html"))
    assert all_of(opened, "#curves-chart") == []
    script(opened, "document.querySelector('button.open').click()")
    card = find(opened, "#card")
    assert "Readings" in card.text
    assert "Learning curves" not in card.text


def test_it_prints(opened):
    printed = base64.b64decode(opened.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})["data"])
    assert printed.startswith(b"%PDF")
    assert len(printed) > 50_000


def test_charts_are_drawn_as_wide_as_paper_when_they_are_printed(opened):
    """Drawn for a wide window and shrunk to the page, their text would be too small to read."""
    resize(opened, 1400)
    wide = "return Math.max(...[...document.querySelectorAll('.chart svg')].map((node) => node.viewBox.baseVal.width))"
    assert script(opened, wide) > 1000
    script(opened, "dispatchEvent(new Event('beforeprint'))")
    assert 600 < script(opened, wide) <= 700
    script(opened, "dispatchEvent(new Event('afterprint'))")
    assert script(opened, wide) > 1000


def test_text_of_users_does_nothing(page, tmp_path):
    opened = page(write_html(ParetoReport.load(evil_run(tmp_path / "evil")), tmp_path / "evil.html"))
    script(opened, "document.querySelector('button.open').click()")
    assert all_of(opened, "img") == []
    assert script(opened, "return document.scripts.length") == 2
    assert "<script>alert" in find(opened, "#card").text


def test_runs_without_repeats_and_without_trials_open_cleanly(page, tmp_path):
    page(
        write_html(ParetoReport.load(write_run(tmp_path / "one", trials=14, seeds=0)), tmp_path / "one.html")
    )
    empty = write_run(tmp_path / "empty", rows=[], status="running", provisional=True)
    page(write_html(ParetoReport.load(empty), tmp_path / "empty.html"))


def test_a_thousand_trials_open_in_under_two_seconds(page, browser, tmp_path):
    """Of the main thread's own time, which other programs on the machine do not lengthen."""
    path = write_html(
        ParetoReport.load(write_run(tmp_path / "big", trials=1000, finalists=12)), tmp_path / "big.html"
    )
    browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    page(path)
    metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    browser.execute_cdp_cmd("Performance.disable", {})
    spent = {metric["name"]: metric["value"] for metric in metrics}
    assert spent["TaskDuration"] < 2, spent


def test_comparison_page(page, tmp_path):
    reports = [ParetoReport.load(write_run(tmp_path / name, seed=seed)) for seed, name in enumerate("ab")]
    opened = page(write_comparison(compare(reports), tmp_path / "comparison.html"))
    assert len(all_of(opened, ".chart svg")) == 2
    mark = find(opened, "#fronts-chart path.mark:not(.off)")
    hover(opened, mark)
    assert find(opened, "#tip").is_displayed()
    assert "trial" in find(opened, "#tip").text
    heads = all_of(opened, "#table-0 th button")
    heads[3].click()
    assert find(opened, "#table-0 th:nth-child(4)").get_attribute("aria-sort") == "ascending"


@pytest.mark.parametrize("width", [400, 1400])
def test_long_names_leave_comparisons_whole(page, tmp_path, width):
    names = ("resnet50-fashion-mnist-per-block-pareto-2026-11-28", "resnet50_fashion_mnist_random", "c")
    reports = [ParetoReport.load(write_run(tmp_path / name, seed=seed)) for seed, name in enumerate(names)]
    opened = page(write_comparison(compare(reports), tmp_path / "comparison.html"))
    resize(opened, width)
    cut = script(
        opened,
        """
        const cells = [...document.querySelectorAll("th, td")].filter((cell) => cell.textContent.trim());
        const text = (node) => {
          const range = document.createRange();
          range.selectNodeContents(node);
          return range.getBoundingClientRect();
        };
        const room = document.documentElement.clientWidth;
        return [...cells, ...document.querySelectorAll("h1, h2, h3, .chart text, .legend li")]
          .filter((node) => { const box = text(node); return box.right > room + 1 || box.left < -1; })
          .map((node) => node.textContent);
        """,
    )
    assert cut == []
    hosts = "return [...document.querySelectorAll('.scroll, .chart')].filter((e) => e.scrollWidth > e.clientWidth + 1)"
    assert script(opened, hosts) == []


@pytest.mark.parametrize("seed", range(12))
def test_labels_of_page_and_figure_have_the_same_places(browser, seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 40))
    marks = np.column_stack([rng.uniform(0, 400, count), rng.uniform(0, 300, count)])
    sizes = np.column_stack([rng.uniform(20, 120, count), np.full(count, 14.0)])
    corners = rng.uniform((0, 0), (400, 300), (int(rng.integers(0, 60)), 2, 2))
    # Bars are along one axis.
    corners[::2, 1, 0], corners[1::2, 1, 1] = corners[::2, 0, 0], corners[1::2, 0, 1]
    obstacles = np.concatenate([corners.min(axis=1) - 3, corners.max(axis=1) + 3], axis=1)
    expected = labels.place(np.hstack([marks, sizes]).tolist(), obstacles.tolist(), (0, 0, 400, 300), PIXELS)
    assert sum(spot is not None for spot in expected) > 0

    browser.get("about:blank")
    # On the page, the second axis points down.
    flip = (1, -1)
    found = script(
        browser,
        CHARTS.read_text(encoding="utf-8") + "; return labelPlaces(...arguments);",
        np.hstack([marks * flip, sizes]).tolist(),
        (obstacles[:, [0, 3, 2, 1]] * (flip * 2)).tolist(),
        [0, -300, 400, 0],
    )
    assert len(found) == len(expected)
    for spot, wanted in zip(found, expected, strict=True):
        assert (spot is None) == (wanted is None)
        if wanted is None:
            continue
        left, bottom, right, top = wanted.box
        assert spot["box"] == pytest.approx([left, -top, right, -bottom])
        if wanted.leader is None:
            assert spot["leader"] is None
        else:
            (x1, y1), (x2, y2) = wanted.leader
            assert spot["leader"] == pytest.approx([x1, -y1, x2, -y2])
