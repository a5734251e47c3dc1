import sys
import textwrap

import pytest
from small_cases import table

import se_nas
from se_nas.run import RunFolder
from se_nas.study import resume, search
from se_nas.study.phases.search import has_settled


@pytest.fixture
def small(tmp_path):
    """Makes the configuration of a search on digits by parameters; keywords change it."""

    def make(**changes):
        settings = {"backbone": "test_resnet", "objectives": "accuracy,params", "epochs": 1, "device": "cpu"}
        return se_nas.SearchConfig(**{**settings, "runs": str(tmp_path / "runs"), **changes})

    return make


@pytest.fixture
def noisy_trainer(tmp_path, monkeypatch):
    """A trainer whose accuracy is a saturating function of the parameters, with noise set by seed and widths."""
    (tmp_path / "noisy.py").write_text(
        textwrap.dedent(
            """
            import zlib
            import numpy as np

            DEVIATION = 0.3

            def train(model, context):
                added = sum(p.numel() for name, p in model.named_parameters() if "se" in name.split("."))
                rng = np.random.default_rng([context.seed, zlib.crc32(context.name.encode())])
                value = 70 + 2 * np.tanh(added / 5e3) + DEVIATION * rng.standard_normal()
                context.report(1, accuracy=float(value))
                return {"accuracy": float(value), "loss": 1.0}
            """
        )
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "noisy:train"
    sys.modules.pop("noisy", None)


def test_a_settled_search_ends_says_why_and_can_be_made_to_go_on(small, noisy_trainer, monkeypatch):
    import noisy

    monkeypatch.setattr(noisy, "DEVIATION", 0.0)
    run = search(small(trials=60, final_seeds=0, trainer=noisy_trainer, stop_when_settled=True))
    manifest = RunFolder.open(run.path).manifest
    count = len(RunFolder.open(run.path).rows())
    assert 8 <= count < 60
    assert manifest.status == "finished"
    assert manifest.stop_reason == (
        "the search has settled: each of the last 5 suggestions promised less than 0.1 % more hypervolume"
        f" ({count} candidates)"
    )
    assert "the search has settled" in (run.path / "report.html").read_text()
    resume(run.path)
    assert len(RunFolder.open(run.path).rows()) == count
    resume(run.path, stop_when_settled=False, trials=count + 2)
    assert len(RunFolder.open(run.path).rows()) == count + 2


@pytest.mark.parametrize(
    ("improvements", "expected"),
    [
        ([0.0009] * 5, True),
        ([0.0009] * 4, False),
        ([0.0009] * 4 + [0.001], False),
        ([0.5, *[0.0] * 5], True),
        ([*[0.0] * 4, None], False),
    ],
)
def test_settled_takes_five_suggestions_in_a_row(improvements, expected):
    assert has_settled([{"improvement": value} for value in improvements]) == expected


def test_another_reading_of_a_network_has_another_seed_and_both_count(small, noisy_trainer):
    run = search(small(trials=30, final_seeds=2, trainer=noisy_trainer, seed=1))
    rows = table(run.path)
    searched = [row for row in rows if row["phase"] == "search"]
    readings = {}
    for row in searched:
        readings.setdefault(row["key"], []).append(row)
    again = {key: found for key, found in readings.items() if len(found) > 1}
    assert again
    for key, found in again.items():
        assert [row["seed"] for row in found] == [1, *range(10_001, 10_000 + len(found))]
        candidate = next(member for member in run.report.candidates if member.key == key)
        assert candidate.selection_accuracy == pytest.approx(
            sum(row["accuracy"] for row in found) / len(found)
        )
    assert {2, 3} <= {row["seed"] for row in rows if row["phase"] == "final"} <= {2, 3, 4, 5}
