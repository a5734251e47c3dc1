import pytest
from synthetic_run import rows_of, write_run

from se_nas.report import ParetoReport
from se_nas.report.methods import methods_paragraph
from se_nas.report.page import render
from se_nas.report.selection import finalists


def adaptive_run(path, ended="decided", **changes):
    """Three base seeds each; the first found finalist has five, the second four, a third's training failed."""
    rows = rows_of()
    keys = list(dict.fromkeys(row["key"] for row in rows if row["phase"] == "final"))
    found = [key for key in keys if not any(row["baseline"] for row in rows if row["key"] == key)]
    for key, seeds in ((found[0], (1004, 1005)), (found[1], (1004,))):
        last = next(row for row in reversed(rows) if row["key"] == key)
        rows += [{**last, "number": len(rows) + i, "seed": seed} for i, seed in enumerate(seeds)]
    broken = next(row for row in reversed(rows) if row["key"] == found[2])
    broken |= {"state": "diverged", "error": "the loss exploded twice"}
    reasons = ["baseline" if key not in found else "front" for key in keys]
    reasons[-1] = "near the front"
    phase = {
        "base_seeds": 3,
        "most_seeds": 5,
        "ended": ended,
        "chosen": [
            {"key": key, "reason": reason, "probability": 0.25 + 0.05 * place}
            for place, (key, reason) in enumerate(zip(keys, reasons, strict=True))
        ],
    }
    return ParetoReport.load(write_run(path, rows=rows, finals=phase | changes)), found, keys


def test_every_finalist_says_why_it_was_chosen_and_why_so_often(tmp_path):
    report, found, keys = adaptive_run(tmp_path / "run")
    told = {item.candidate.key: item for item in finalists(report)}
    assert list(told) == keys
    assert told[keys[0]].reason == "baseline"
    assert told[found[0]].reason.startswith("probably on the front (P = 0.")
    assert told[keys[-1]].reason.startswith("possibly on the front (P = 0.")
    assert (told[found[0]].seeds, told[found[1]].seeds, told[found[2]].seeds) == (5, 4, 2)
    assert told[found[0]].why.startswith("2 more than planned")
    assert "5 is the most allowed" in told[found[0]].why
    assert told[found[1]].why.startswith("1 more than planned")
    assert "decided" in told[found[1]].why
    assert told[found[2]].why == "a training diverged, so no further ones were tried"
    assert "no further reading was needed" in told[keys[0]].why


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        ("budget", "the time ran out before any more"),
        ("stopped", "the run was stopped before any more"),
        ("exhausted", "further readings were more informative elsewhere"),
    ],
)
def test_why_there_are_no_more(tmp_path, ended, words):
    report, _, _ = adaptive_run(tmp_path / "run", ended)
    assert words in finalists(report)[0].why


def test_too_few_seeds_are_explained(tmp_path):
    report, _, _ = adaptive_run(tmp_path / "run", "budget", base_seeds=4)
    assert finalists(report)[0].why == "the time ran out before the planned 4"


def test_page_and_methods_say_it(tmp_path):
    report, _, _ = adaptive_run(tmp_path / "run")
    page = render(report)
    assert 'id="finalists"' in page
    assert "a training diverged, so no further ones were tried" in page
    assert "The plan was 3 seeds each; additional ones, up to 5" in methods_paragraph(report)


def test_runs_that_do_not_say_have_no_such_table(tmp_path):
    report = ParetoReport.load(write_run(tmp_path / "run"))
    assert finalists(report) == []
    assert 'id="finalists"' not in render(report)
