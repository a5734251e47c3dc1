import sys
import textwrap

import pytest

import se_nas
from se_nas.run import RunFolder
from se_nas.space import SearchSpace
from se_nas.study import search
from se_nas.study.analysis import by_stage


@pytest.fixture
def late_stage_pays(tmp_path, monkeypatch):
    """A trainer by which SE in the last stage brings 2 points and SE elsewhere nothing; noise of 0.1."""
    (tmp_path / "late.py").write_text(
        textwrap.dedent(
            """
            import zlib
            import numpy as np

            def train(model, context):
                names = [f".{name}." for name, _ in model.named_parameters()]
                has_se = any(".layer4." in name and ".se." in name for name in names)
                rng = np.random.default_rng([context.seed, zlib.crc32(context.name.encode())])
                value = 70 + 2 * has_se + 0.1 * rng.standard_normal()
                context.report(1, accuracy=float(value))
                loss = 1.5 - 0.1 * has_se + 0.002 * rng.standard_normal()
                return {"accuracy": float(value), "loss": float(loss)}
            """
        )
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "late:train"
    sys.modules.pop("late", None)


def configured(tmp_path, trainer, **settings):
    return se_nas.SearchConfig(
        objectives="accuracy,params",
        epochs=1,
        device="cpu",
        trainer=trainer,
        final_seeds=0,
        runs=str(tmp_path / "runs"),
        **settings,
    )


@pytest.mark.parametrize("sampler", ["pareto", "random"])
def test_a_run_says_which_stage_mattered_whichever_sampler_it_had(tmp_path, late_stage_pays, sampler):
    config = configured(
        tmp_path, late_stage_pays, backbone="resnet18", space="per_stage", sampler=sampler, trials=16
    )
    run = search(config)
    manifest = RunFolder.open(run.path).manifest
    shares = manifest.importance
    assert shares["reason"] is None
    assert set(shares["objective"]) == {f"stage{stage}.reduction" for stage in range(4)}
    assert sum(shares["objective"].values()) == pytest.approx(1)
    assert shares["best"] == 5 / 16
    found = {row["group"]: row for row in manifest.effects if row["choice"] is None}
    assert list(found) == ["stage 0", "stage 1", "stage 2", "stage 3"]
    # Four of the five choices have SE: four fifths of 2 points on average.
    low, high = found["stage 3"]["interval"]
    assert 0.5 < low < 1.6 < high
    assert found["stage 0"]["interval"][0] < 0.1
    assert found["stage 3"]["cost_percent"] > 0
    assert {row["choice"] for row in manifest.effects if row["group"] == "stage3.reduction"} == {
        4,
        8,
        16,
        32,
    }
    # The loss falls where accuracy rises, and both samplers' trainings have it.
    assert manifest.evidence["readings"] == 16
    assert -1 <= manifest.evidence["correlation"] < -0.5
    assert manifest.evidence["equivalent_readings"] > 1
    page = (run.path / "report.html").read_text()
    assert (
        "The model also used the validation loss of 16 trainings. It correlates with accuracy at −0." in page
    )
    assert "averages over the search space in the sampler's model" in page.replace("&#39;", "'")
    assert "Importance of the parameters" in page


def test_a_parameter_that_always_builds_one_network_has_no_part(tmp_path, late_stage_pays):
    # timm rounds hidden widths to multiples of 8: at the 32 channels of stage 0 every γ gives 8.
    space = SearchSpace.load("per_block", backbone="test_resnet")
    config = configured(
        tmp_path, late_stage_pays, backbone="test_resnet", space="per_block", sampler="random", trials=14
    )
    manifest = RunFolder.open(search(config).path).manifest
    used = set(space.choices) - {"stage0.reduction"}
    assert len(used) == 7
    for shares in (manifest.importance["objective"], manifest.importance["trade_off"]):
        assert set(shares) == used
        assert sum(shares.values()) == pytest.approx(1)
    groups = {row["group"] for row in manifest.effects}
    assert groups == used | {f"stage {stage}" for stage in range(4)}


def test_parameters_by_stage():
    names = ["stage10.block0", "stage2.reduction", "stage10.reduction", "position"]
    assert by_stage(names) == {
        "stage 2": ["stage2.reduction"],
        "stage 10": ["stage10.block0", "stage10.reduction"],
    }
