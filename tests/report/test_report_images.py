import json

import numpy as np
import pytest
from synthetic_run import rows_of, write_run

from se_nas.errors import RunError
from se_nas.report import ParetoReport, compare
from se_nas.report.page import render
from se_nas.run import RunFolder

IMAGES = 3000


def run_with_bits(path, seed=0, seeds=3):
    """A run whose final trainings agree on most images, with accuracies that are those of their bits."""
    rows = rows_of(seed=seed, seeds=seeds)
    difficulty = np.random.default_rng(7).random(IMAGES)
    bits = {}
    for row in rows:
        if row["phase"] == "final":
            rng = np.random.default_rng([row["number"], seed])
            hits = difficulty + rng.normal(0, 0.01, IMAGES) < row["accuracy"] / 100
            bits[row["number"]] = hits
            row["accuracy"] = 100 * float(hits.mean())
    folder = RunFolder(write_run(path, rows=rows, seed=seed))
    for number, own in bits.items():
        folder.write_correct(number, own)
    return folder


@pytest.fixture
def folder(tmp_path):
    return run_with_bits(tmp_path / "run")


def without(folder):
    report = ParetoReport.load(folder.path)
    return ParetoReport(manifest=report.manifest, rows=report.rows, source=report.source)


def test_bits_come_back_as_they_were(tmp_path):
    folder = RunFolder(tmp_path)
    correct = np.random.default_rng(0).random(1001) < 0.8
    folder.write_correct(12, correct)
    assert np.array_equal(folder.read_correct(12), correct)
    assert folder.read_correct(12).dtype == np.bool_
    assert folder.read_correct(13) is None
    assert [path.name for path in (tmp_path / "correct").iterdir()] == ["12.npz"]
    (tmp_path / "correct" / "12.npz").write_bytes(b"half")
    with pytest.raises(RunError, match=r"12\.npz is damaged"):
        folder.read_correct(12)


def test_intervals_cover_the_choice_of_images(folder):
    report, seeds_alone = ParetoReport.load(folder.path), without(folder)
    assert (report.basis, seeds_alone.basis) == ("over seeds and validation images", "over seeds")
    plain, best = report.plain, report.front[-1]
    # One proportion of about 91 % on 3000 images: 100 sqrt(.09 * .91 / 3000) = 0.52 points.
    share = best.accuracy / 100
    images = 1.96 * 100 * np.sqrt(share * (1 - share) / IMAGES)
    alone = seeds_alone.deviation(best)
    assert report.deviation(best) == pytest.approx(np.hypot(alone, images), rel=0.15)
    # What is hard for both cancels: the difference is far better known than either.
    assert report.deviation(best, plain) < 0.8 * report.deviation(best)
    assert report.deviation(best, plain) >= seeds_alone.deviation(best, plain)
    assert report.seed_deviation == seeds_alone.seed_deviation
    assert report.standard_error(best) == seeds_alone.standard_error(best)
    low, high = report.hypervolume_interval
    low_alone, high_alone = seeds_alone.hypervolume_interval
    assert high - low > high_alone - low_alone


def test_probability_of_membership_is_over_images_too(folder):
    report, seeds_alone = ParetoReport.load(folder.path), without(folder)
    assert [c.key for c in report.counted] == [c.key for c in seeds_alone.counted]

    def undecided(report):
        return sum(min(c.probability, 1 - c.probability) for c in report.counted)

    assert undecided(report) > undecided(seeds_alone)


def test_a_saved_report_needs_no_run_folder(folder, tmp_path):
    report = ParetoReport.load(folder.path)
    path = report.save(tmp_path / "report.json")
    size = path.stat().st_size
    again = ParetoReport.load(path)
    assert again.to_dict() == report.to_dict()
    assert again.over_images
    text = json.loads(path.read_text())["correct"]
    assert len(json.dumps(text)) < 0.1 * size
    assert text.keys() == {str(row.number) for row in report.rows if row.phase == "final"}


def test_one_training_without_bits_leaves_seeds_alone(folder):
    final = next(row.number for row in folder.rows() if row.phase == "final")
    (folder.path / "correct" / f"{final}.npz").unlink()
    assert ParetoReport.load(folder.path).basis == "over seeds"


@pytest.mark.parametrize("damage", [[8, "!!"], [100_000, "eJwDAAAAAAE="], "text", {"a": 1}])
def test_damaged_bits_in_a_report_are_said(folder, tmp_path, damage):
    data = ParetoReport.load(folder.path).to_dict()
    number = next(iter(data["correct"]))
    data["correct"] = {number: damage} if isinstance(damage, list) else damage
    path = tmp_path / "report.json"
    path.write_text(json.dumps(data))
    with pytest.raises(RunError, match="the correct images are damaged"):
        ParetoReport.load(path)


def test_page_and_methods_name_the_basis(folder):
    page = render(ParetoReport.load(folder.path))
    assert "95 % intervals over seeds and validation images" in page
    assert "differences are paired by seed and image" in page


def test_runs_on_the_same_images_are_compared_over_them(tmp_path):
    first, second = (run_with_bits(tmp_path / name, seed=seed) for seed, name in enumerate("ab"))
    joint = compare([ParetoReport.load(first.path), ParetoReport.load(second.path)]).pairs[0].difference
    assert joint.basis.startswith("95 % over seeds and validation images")
    alone = compare([without(first), without(second)]).pairs[0].difference
    assert alone.basis.startswith("95 % over seeds,")
    assert np.mean(joint.high - joint.low) > np.mean(alone.high - alone.low)
