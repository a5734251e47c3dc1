import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
import timm
import torch
from PIL import Image
from small_cases import SEARCH, search_script, table

import se_nas
from se_nas.errors import RunError, SeNasError
from se_nas.report import open_run
from se_nas.report.methods import methods_paragraph
from se_nas.run import CONFIG, ROW_FIELDS, RunFolder, read_json, write_json
from se_nas.study import resume, search
from se_nas.study.attributes import LOSS, ROW
from se_nas.study.executors import task as jobs
from se_nas.study.plan import resolve
from se_nas.study.progress import Progress

RESULT = [name for name in ROW_FIELDS if name not in ("seconds", "started", "finished", "elapsed", "curve")]


def results(path):
    return [{name: row[name] for name in RESULT} for row in table(path)]


def curves(path):
    return [
        [{name: value for name, value in entry.items() if name != "seconds"} for entry in row["curve"] or []]
        for row in table(path)
    ]


@pytest.fixture
def small(tmp_path):
    """Makes the configuration of a search that takes seconds; keywords change it."""

    def make(**changes):
        return se_nas.SearchConfig(**{**SEARCH, "runs": str(tmp_path / "runs"), **changes})

    return make


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    config = se_nas.SearchConfig(**SEARCH, runs=str(tmp_path_factory.mktemp("runs")), trials=5, final_seeds=2)
    return search(config)


def test_run_folder_is_complete(finished):
    manifest = RunFolder.open(finished.path).manifest
    assert manifest.status == "finished"
    assert manifest.stop_reason == "all 5 candidates have been evaluated"
    assert manifest.versions.keys() >= {"python", "torch", "timm", "optuna", "fvcore"}
    assert len(manifest.data.fingerprint) == 64
    # digits has 32 pixels, and the first stage of test_resnet works at a quarter.
    assert [site.resolution for site in manifest.sites["standard"]] == [(8, 8), (4, 4), (2, 2), (1, 1)]
    assert (finished.path / "report.html").stat().st_size > 10_000
    assert json.loads((finished.path / "report.json").read_text())["kind"] == "se-nas report"
    assert {path.suffix for path in (finished.path / "figures").iterdir()} >= {".png", ".svg"}


def test_baselines_come_first_and_no_architecture_twice(finished):
    rows = [row for row in table(finished.path) if row["phase"] == "search"]
    assert [row["baseline"] for row in rows] == ["plain", "all_se_16", "last_stage", None, None]
    assert len({row["key"] for row in rows}) == len(rows) == 5
    assert all(row["state"] == "complete" and row["accuracy"] > 0 for row in rows)


def test_costs_are_those_of_the_built_models(finished):
    row = next(row for row in table(finished.path) if row["baseline"] == "all_se_16")
    arch = se_nas.Architecture.uniform("test_resnet", reduction=16)
    assert row["key"] == arch.key
    model = se_nas.build_model(arch, num_classes=10)
    assert row["num_params"] == sum(parameter.numel() for parameter in model.parameters())


def test_finalists_are_trained_with_fresh_seeds(finished):
    rows = table(finished.path)
    finals = [row for row in rows if row["phase"] == "final"]
    assert finals
    assert {row["seed"] for row in finals} >= {1, 2}
    assert {row["seed"] for row in finals} <= {1, 2, 3, 4}
    manifest = RunFolder.open(finished.path).manifest
    assert {entry.key for entry in manifest.finals.chosen} == {row["key"] for row in finals}
    assert (manifest.finals.base_seeds, manifest.finals.most_seeds) == (2, 4)
    assert {row["key"] for row in finals} >= {row["key"] for row in rows if row["baseline"]}
    assert all(row["test_accuracy"] is not None for row in finals)
    assert not RunFolder.open(finished.path).manifest.provisional
    assert finished.report.final
    assert finished.report.over_images
    kept = {int(path.stem) for path in (finished.path / "correct").iterdir()}
    assert kept == {row["number"] for row in rows}
    for row in rows:
        right = RunFolder.open(finished.path).read_correct(row["number"])
        assert 100 * right.mean() == pytest.approx(row["accuracy"])


def test_front_is_what_optuna_finds_among_the_search_readings(finished):
    from se_nas.report import ParetoReport

    report = ParetoReport.load(finished.path)
    searched = ParetoReport(
        manifest=replace(report.manifest, provisional=True),
        rows=tuple(row for row in report.rows if row.phase == "search"),
    )
    study = optuna.load_study(study_name="se-nas", storage=f"sqlite:///{finished.path / 'study.db'}")
    best = optuna.create_study(directions=study.directions)
    best.add_trials([trial for trial in study.trials if trial.user_attrs[ROW]["phase"] == "search"])
    assert {member.key for member in searched.front} == {
        trial.user_attrs[ROW]["key"] for trial in best.best_trials
    }


def test_dataframe_is_tidy(finished):
    frame = finished.to_dataframe()
    assert len(frame) == len(RunFolder.open(finished.path).rows())
    assert {
        "accuracy",
        "loss",
        "num_params",
        "macs",
        "state",
        "seconds",
        "widths",
        "stage0",
        "stage3",
    } <= set(frame)
    everywhere = frame[frame.baseline == "all_se_16"].iloc[0]
    assert everywhere.stage0 == "1/1 γ=4"


def test_open_run_gives_the_same_front(finished):
    assert [member.key for member in open_run(finished.path).front] == [
        member.key for member in finished.front
    ]


def test_resuming_a_finished_run_changes_nothing(finished):
    before = results(finished.path)
    assert resume(finished.path).path == finished.path
    assert results(finished.path) == before


def test_same_seed_same_results(finished, tmp_path, small):
    again = search(small(trials=5, final_seeds=2))
    assert results(again.path) == results(finished.path)
    assert curves(again.path) == curves(finished.path)


def test_existing_name_is_refused_before_anything_is_done(finished, small):
    with pytest.raises(RunError, match="already exists"):
        search(small(name=finished.path.name, runs=str(finished.path.parent), trials=1))


class Stop(Progress):
    """Presses Ctrl-C at an epoch of a trial."""

    def __init__(self, trial, epoch=1):
        self.trial, self.at = trial, epoch

    def epoch(self, row, metrics):
        if row["number"] == self.trial and metrics["epoch"] == self.at:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("trial", [2, 7])
def test_ctrl_c_stops_cleanly_and_resume_ends_with_the_same_results(small, finished, trial):
    run = search(small(trials=5, final_seeds=2, epochs=1), Stop(trial=trial))
    assert run.interrupted
    manifest = RunFolder.open(run.path).manifest
    assert manifest.status == "interrupted"
    assert manifest.provisional
    assert manifest.finals.ended == "stopped"
    assert len(results(run.path)) == trial + 1
    assert (run.path / "report.html").exists()
    resumed = resume(run.path)
    assert not resumed.interrupted
    assert results(run.path) == results(finished.path)


def test_kill_in_mid_training_and_resume(tmp_path, small):
    config = small(trials=3, final_seeds=0, epochs=3, name="killed")
    script = search_script(config)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.split() == ["1", "1"]:
                break
        time.sleep(0.2)
        process.kill()
    folder = RunFolder.open(tmp_path / "runs" / "killed")
    assert folder.manifest.status == "running"
    resume(folder.path)
    assert folder.manifest.status == "finished"
    whole = search(small(trials=3, final_seeds=0, epochs=3, name="whole"))
    assert results(folder.path) == results(whole.path)
    assert curves(folder.path) == curves(whole.path)


def test_a_longer_budget_goes_on(small):
    run = search(small(trials=3, final_seeds=0))
    resume(run.path, trials=4)
    assert len(results(run.path)) == 4
    folder = RunFolder.open(run.path)
    assert (folder.config["trials"], folder.manifest.budget.trials) == (3, 4)
    resume(run.path)
    assert (len(results(run.path)), folder.manifest.budget.trials) == (4, 4)


def test_two_processes_cannot_work_on_one_run(small):
    run = search(small(trials=1, final_seeds=0))
    with RunFolder.open(run.path).lock(), pytest.raises(RunError, match="another se-nas process"):
        resume(run.path)


def test_changed_data_is_refused(small, monkeypatch):
    run = search(small(trials=1, final_seeds=0))
    folder = RunFolder.open(run.path)
    folder.update_manifest(data=replace(folder.manifest.data, fingerprint="0" * 64))
    with pytest.raises(RunError, match="fingerprint has changed"):
        resume(run.path, trials=2)


def test_a_failing_candidate_does_not_end_the_search(small, monkeypatch):
    train = jobs.load_trainer("default")

    def sometimes(model, context):
        if failing.pop():
            raise RuntimeError("a worker died")
        return train(model, context)

    failing = [False, False, True, False]
    monkeypatch.setattr(jobs, "load_trainer", lambda name: sometimes)
    run = search(small(trials=4, final_seeds=0))
    states = [row["state"] for row in table(run.path)]
    assert states == ["complete", "failed", "complete", "complete"]
    assert "RuntimeError: a worker died" in table(run.path)[1]["error"]


def test_candidates_that_fail_in_a_row_stop_the_run_which_can_go_on(small, monkeypatch):
    def broken(model, context):
        raise RuntimeError("no space in the cache")

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "load_trainer", lambda name: broken)
        with pytest.raises(RunError, match=r"3 candidates in a row failed.*no space in the cache") as error:
            search(small(trials=4, final_seeds=0, name="failing"))
    path = str(error.value).rpartition("continue with:  se-nas resume ")[2]
    assert RunFolder.open(path).manifest.status == "interrupted"
    run = resume(path)
    assert [row["state"] for row in table(run.path)] == ["failed"] * 3 + ["complete"]


def test_a_space_that_is_smaller_than_the_trials(small, tmp_path):
    space = tmp_path / "one.yaml"
    space.write_text("granularity: stage\nreduction: [4]\nstages: [3]\n")
    run = search(small(space=str(space), trials=50, final_seeds=0))
    manifest = RunFolder.open(run.path).manifest
    assert "every architecture of the space" in manifest.stop_reason
    # None or γ=4 in the last stage, and the baselines outside the space.
    assert {row["baseline"] for row in table(run.path)} == {
        "plain",
        "all_se_16",
        "last_stage",
        None,
    }


def test_a_budget_ends_the_search_and_leaves_a_provisional_front(small):
    run = search(small(budget="20s", epochs=None))
    manifest = RunFolder.open(run.path).manifest
    assert manifest.status == "finished"
    assert manifest.budget.spent < 40
    assert run.front


@pytest.mark.parametrize("rule", ["moasha", "curves"])
def test_stopped_candidates_keep_their_curve_and_are_not_on_the_front(small, rule):
    run = search(small(early_stopping=rule, trials=6, epochs=2, final_seeds=0))
    folder = RunFolder.open(run.path)
    stopped = [row for row in table(folder.path) if row["state"] == "stopped"]
    assert folder.manifest.early_stopping["stopped"] == len(stopped)
    assert bool(stopped) == (rule == "moasha")
    for row in stopped:
        assert (row["epochs"], len(row["curve"]), row["epochs_planned"]) == (1, 1, 2)
        assert row["key"] not in {member.key for member in run.front}


def test_a_rule_without_a_rung_is_said_to_be_idle(small):
    (note,) = resolve(small(early_stopping="curves", epochs=1, budget=None, trials=3)).notes
    assert note.startswith("early_stopping curves has no effect: with 1 epoch")
    assert resolve(small(early_stopping="curves", epochs=2, budget=None, trials=3)).notes == ()
    assert resolve(small(epochs=1, budget=None, trials=3)).notes == ()


def test_weights_are_kept_by_policy(small, finished):
    members = {member.key for member in (*finished.front, *finished.report.baselines)}
    stems = {path.stem.rpartition("-s")[0] for path in (finished.path / "checkpoints").glob("*.safetensors")}
    assert stems == members
    run = search(small(trials=2, final_seeds=0, keep="none"))
    assert list((run.path / "checkpoints").iterdir()) == []


def test_warm_start_takes_readings_over_and_trains_nothing_twice(small, finished, monkeypatch):
    monkeypatch.chdir(finished.path.parent)
    run = search(small(trials=1, final_seeds=0, warm_start=finished.path.name))
    (earlier,) = RunFolder.open(run.path).manifest.earlier
    assert (earlier.run, earlier.differs, earlier.trainings) == (str(finished.path), (), 5)
    rows = table(run.path)
    before = [row for row in table(finished.path) if row["phase"] == "search"]
    assert [row["key"] for row in rows[:5]] == [row["key"] for row in before]
    assert [row["accuracy"] for row in rows[:5]] == [row["accuracy"] for row in before]
    assert len({row["key"] for row in rows}) == len(rows) == 6
    # The sampler reads their losses, as it does those of its own trainings.
    study = optuna.load_study(study_name="se-nas", storage=f"sqlite:///{run.path / 'study.db'}")
    read = [trial.user_attrs[LOSS] for trial in study.trials if ROW in trial.user_attrs]
    assert read == [row["loss"] for row in rows]
    assert all(row["loss"] > 0 for row in rows)


def test_what_makes_readings_of_an_earlier_run_other_ones(small, finished, tmp_path, monkeypatch):
    # It has trained five networks, too few to say where SE pays.
    weights = next((finished.path / "checkpoints").glob("*.safetensors"))
    with pytest.raises(
        RunError, match=r"5 different networks to the end, but at least 8 are needed .* in: recipe"
    ):
        search(small(trials=1, epochs=2, warm_start=str(finished.path)))
    with pytest.raises(RunError, match="no run folder"):
        search(small(trials=1, warm_start=[str(finished.path), "nowhere"]))
    (tmp_path / "theirs.py").write_text("def train(model, context): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    for change in ({"trainer": "theirs:train"}, {"init": "default"}, {"checkpoint": str(weights)}):
        with pytest.raises(RunError, match=f"differs in: {next(iter(change))}\\."):
            resolve(small(trials=1, warm_start=str(finished.path), **change))
    with pytest.raises(
        RunError, match=r"differs in: recipe.* --sampler pareto can use it .* the sampler is tpe"
    ):
        resolve(small(trials=1, epochs=2, warm_start=str(finished.path), sampler="tpe"))
    assert not (tmp_path / "runs").exists()


def test_a_reading_that_two_earlier_runs_have_is_taken_over_once(small, finished):
    first = search(small(trials=1, final_seeds=0, warm_start=str(finished.path)))
    # Its own reading has the accuracy of no other, so the second has one more than the first.
    second = search(small(trials=1, final_seeds=0, warm_start=[str(finished.path), str(first.path)]))
    assert len(table(first.path)) == 6
    assert len({row["key"] for row in table(second.path)}) == len(table(second.path)) == 7


def test_a_users_trainer(small, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "def train(model, context):\n"
        "    context.report(1, accuracy=50.0 + sum(p.numel() for p in model.parameters()) / 1e6)\n"
        "    return {'accuracy': context.curve[-1]['accuracy'], 'loss': 1.0}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    run = search(small(trials=3, final_seeds=0, trainer="mine:train"))
    for row in table(run.path):
        assert row["accuracy"] == pytest.approx(50.0 + row["num_params"] / 1e6)


def test_weights_to_start_from_bring_their_own_normalisation(small, tmp_path):
    import timm
    from safetensors.torch import save_file

    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "plain.safetensors")
    weights = str(tmp_path / "plain.safetensors")
    run = search(small(trials=1, final_seeds=0, checkpoint=weights))
    manifest = RunFolder.open(run.path).manifest
    assert manifest.data.mean == timm.create_model("test_resnet").pretrained_cfg["mean"]
    assert manifest.start == f"fine-tuned from {weights}"
    assert f"Each candidate was fine-tuned from {weights} for 1 epoch (" in methods_paragraph(run.report)
    # The file may move, and the manifest says from where; its content may not change.
    moved = tmp_path / "elsewhere.safetensors"
    Path(weights).rename(moved)
    resume(run.path, trials=2, checkpoint=moved)
    manifest = RunFolder.open(run.path).manifest
    assert len(RunFolder.open(run.path).rows()) == 2
    assert (manifest.start, manifest.paths["checkpoint"]) == (f"fine-tuned from {moved}", str(moved))
    other = tmp_path / "other.safetensors"
    save_file({"fc.weight": torch.zeros(2)}, other)
    with pytest.raises(RunError, match=r"other.safetensors' is not what .* was searched with"):
        resume(run.path, trials=3, checkpoint=other)
    other.replace(moved)
    with pytest.raises(RunError, match="its fingerprint has changed"):
        resume(run.path, trials=3)


def test_a_run_without_a_checkpoint_goes_on_without(finished, tmp_path):
    with pytest.raises(RunError, match="was started without a checkpoint"):
        resume(finished.path, trials=9, checkpoint=tmp_path / "w.pth")


def test_latency_conditions_are_stored_and_kept(small):
    asked = {"latency_batch": 2, "latency_channels_last": True, "latency_threads": 1, "latency_width": 1.0}
    run = search(small(objectives="accuracy,latency", trials=1, final_seeds=0, **asked))
    before = RunFolder.open(run.path).manifest.measured["latency"].conditions
    chosen = {name: before[name] for name in ("batch_size", "channels_last", "threads", "precision", "mode")}
    assert chosen == {
        "batch_size": 2,
        "channels_last": True,
        "threads": 1,
        "precision": "fp32",
        "mode": "eager",
    }
    folder = RunFolder.open(resume(run.path, trials=2).path)
    assert folder.manifest.measured["latency"].conditions == before
    assert [row["latency_source"] for row in table(folder.path)] == ["measured", "measured"]
    write_json(folder.path / CONFIG, {**folder.config, "latency_channels_last": False})
    with pytest.raises(RunError, match=r"other conditions than before.*channels_last: True against False"):
        resume(run.path, trials=3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latency_backend": "onnxrutime"}, "backend is 'onnxrutime'.*Did you mean 'onnxruntime'"),
        ({"latency_mode": "graph"}, "mode is 'graph', which needs a CUDA device"),
        (
            {"latency_backend": "onnxruntime", "latency_mode": "compile"},
            "mode is 'compile'; backend 'onnxruntime' allows only 'eager'",
        ),
    ],
)
def test_latency_options_that_do_not_work_are_refused_before_anything_is_written(
    small, tmp_path, changes, message
):
    with pytest.raises(SeNasError, match=message):
        search(small(objectives="accuracy,latency", trials=1, **changes))
    assert not (tmp_path / "runs").exists()


def test_fine_tuning_without_weights_is_pointed_out_in_the_plan(small):
    (note,) = resolve(small(trials=1, recipe="finetune")).notes
    assert "nothing is normalized" in note


def test_latency_options_without_a_latency_are_said_to_be_idle(small):
    plan = resolve(small(trials=1, latency_mode="compile"))
    assert plan.notes == ("latency_mode has no effect: no objective or limit needs a measurement.",)


def images_in(folder):
    draws = np.random.default_rng(0)
    for label in range(2):
        (folder / f"class{label}").mkdir(parents=True)
        for index in range(30):
            pixels = draws.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"class{label}" / f"{index}.png")
    return folder


def test_a_run_goes_on_from_another_working_directory(small, tmp_path, monkeypatch):
    images_in(tmp_path / "begun" / "images")
    monkeypatch.chdir(tmp_path / "begun")
    torch.save(timm.create_model("test_resnet", num_classes=3).state_dict(), "weights.pth")
    recipe = {**SEARCH["recipe"], "batch_size": 16}
    options = {
        "data": "images",
        "checkpoint": "weights.pth",
        "runs": "runs",
        "recipe": recipe,
        "input_size": 32,
    }
    run = search(small(trials=1, final_seeds=0, **options))
    typed = read_json(run.path / CONFIG)
    assert (typed["data"], typed["checkpoint"]) == ("images", "weights.pth")
    absolute = {name: str(tmp_path / "begun" / typed[name]) for name in ("data", "checkpoint")}
    assert read_json(run.path / "manifest.json")["paths"] == absolute
    where = run.path.absolute()
    monkeypatch.chdir(tmp_path)
    assert len(table(resume(where, trials=2).path)) == 2
    se_nas.retrain(where, "best", out=tmp_path / "best", epochs=1)
    # The whole folder moves: from inside, what was typed is right.
    (tmp_path / "begun").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    assert len(table(resume(Path("runs") / where.name, trials=3).path)) == 3


def test_a_run_goes_on_where_its_images_have_moved_to(small, tmp_path):
    images_in(tmp_path / "images")
    recipe = {**SEARCH["recipe"], "batch_size": 16}
    config = small(data=str(tmp_path / "images"), trials=1, final_seeds=0, input_size=32, recipe=recipe)
    run = search(config)
    moved, other = tmp_path / "elsewhere", tmp_path / "other"
    (tmp_path / "images").rename(moved)
    with pytest.raises(SeNasError, match="images"):
        resume(run.path, trials=2)
    shutil.copytree(moved, other)
    (other / "class0" / "0.png").unlink()
    with pytest.raises(RunError, match="its fingerprint has changed"):
        resume(run.path, trials=2, data=other)
    assert len(table(resume(run.path, trials=2, data=moved).path)) == 2
    # From now on that is where they are.
    assert len(table(resume(run.path, trials=3).path)) == 3
