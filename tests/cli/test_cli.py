import json
import os
import re
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from main_in_process import exit_code_of
from PIL import Image
from safetensors.torch import save_file

from se_nas.cli import app
from se_nas.cli.exit_codes import MEANINGS
from se_nas.cost.latency import axis, meter
from se_nas.data.checking import Checker
from se_nas.run import RunFolder, write_json
from se_nas.study import SearchConfig, schedule, search


@pytest.fixture
def se(monkeypatch, capsys, tmp_path):
    """Runs ``se-nas`` in an empty folder and returns (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = exit_code_of(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


SEARCH = (
    "search",
    "--backbone",
    "test_resnet",
    "--objectives",
    "accuracy,macs",
    "--epochs",
    "1",
    "--device",
    "cpu",
)


def image_folder(path, classes=2, images=12, side=32):
    rng = np.random.default_rng(0)
    for label in range(classes):
        folder = path / f"class{label}"
        folder.mkdir(parents=True)
        for index in range(images):
            pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{index}.png")
    return path


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    config = SearchConfig(
        backbone="test_resnet",
        objectives="accuracy,macs",
        recipe={"preset": "tiny", "batch_size": 128},
        epochs=1,
        trials=3,
        final_seeds=0,
        device="cpu",
        runs=str(tmp_path_factory.mktemp("runs")),
    )
    return search(config).path


MISTAKES = [
    (("search",), "backbone is missing"),
    (("search", "--backbone", "resnet51q9"), r"'resnet51q9' is unknown to timm.*Did you mean 'resnet51q'"),
    (("search", "--backbone", "mixer_s16_224"), "mixer_s16_224"),
    (("search", "--backbone", "vit_tiny_patch16_224"), "vit_tiny_patch16_224"),
    ((*SEARCH, "--data", "/nowhere"), "'/nowhere' is neither"),
    ((*SEARCH, "--trials", "0"), "trials is 0"),
    ((*SEARCH, "--budget", "3 weeks"), "budget is '3 weeks'.*90s, 8m or 2h"),
    ((*SEARCH, "--space", "per_blok"), "'per_blok'.*per_block"),
    ((*SEARCH, "--space", "missing.yaml"), "missing.yaml"),
    ((*SEARCH, "--position", "standart"), "'standart'.*Did you mean 'standard'"),
    ((*SEARCH, "--sampler", "anneal"), "sampler is 'anneal'.*pareto, tpe"),
    ((*SEARCH, "--sampler", "math:sin"), "is not a subclass of optuna"),
    ((*SEARCH, "--recipe", "tinny"), "recipe is 'tinny'.*tiny"),
    ((*SEARCH, "--checkpoint", "none.pt"), "no checkpoint none.pt"),
    ((*SEARCH, "--name", "a b"), "'a b' cannot name a run"),
    ((*SEARCH, "--keep", "frnt"), "keep is 'frnt'; allowed: front, all, none. Did you mean 'front'"),
    ((*SEARCH, "--latency-mode", "eagre"), "latency_mode is 'eagre'; allowed: .*Did you mean 'eager'"),
    ((*SEARCH, "--latency-precision", "fp61"), "latency_precision is 'fp61'; allowed: .*Did you mean 'fp16'"),
    ((*SEARCH, "--compile", "of"), "compile is 'of'; allowed: .*Did you mean 'off'"),
    ((*SEARCH, "--executor", "loca"), "executor is 'loca': it is local, ray or .*Did you mean 'local'"),
    ((*SEARCH, "--early-stopping", "curve"), "'curve' is unknown; allowed: .*Did you mean 'curves'"),
    ((*SEARCH, "--latency-backend", "onnxruntim"), "'onnxruntim'; allowed: .*Did you mean 'onnxruntime'"),
    (
        ("search", "--backbone", "test_resnet", "--objectives", "acuracy,macs"),
        "'acuracy' is unknown; allowed: accuracy, .*Did you mean 'accuracy'",
    ),
    (
        ("search", "--backbone", "test_resnet", "--device", "cup"),
        "device is 'cup'; allowed: auto, cpu.*'cpu'",
    ),
    (("search", "--backbon", "test_resnet"), "there is no option --backbon. Did you mean '--backbone'"),
    (("serch",), "there is no command 'serch'; allowed: search, .*Did you mean 'search'"),
    (("show", "a", "b"), "unexpected extra argument"),
    (("export", "runs/none"), "missing option '--out'"),
    (("search", "--epochs", "few"), "invalid value for '--epochs'"),
    (("profile", "resnet18", "--device", "cup"), "device is 'cup'; allowed: auto, cpu.*'cpu'"),
    (("profile", "resnet18", "--max-seconds", "-3"), "max_seconds is -3; it must be above 0"),
    ((*SEARCH, "--config", "none.yaml"), "none.yaml cannot be read"),
    (("search", "--backbone", "test_resnet", "--device", "cuda:77"), "'cuda:77'"),
    (("search", "--backbone", "test_resnet", "--device", "gpu"), "'gpu'"),
    (
        ("search", "--backbone", "inception_v3", "--input-size", "40", "--device", "cpu"),
        "cannot take --input-size 40.*48|75|96",
    ),
    (("inspect", "resnet18", "--reduction", "0"), "reduction is 0"),
    (("inspect", "resnet18", "--reduction", "-4"), "reduction is -4"),
    (("inspect", "resnet18", "--reduction", "5000"), "5000 is larger than the channels allow"),
    (("inspect", "resnet18", "--reduction", "x"), "--reduction is 'x'"),
    (("show", "runs/none"), "no run folder runs/none"),
    (("report", "runs/none"), "no run folder runs/none"),
    (("resume", "runs/none"), "no run folder runs/none"),
    (("export", "runs/none", "--out", "x"), "no run folder runs/none"),
    (("retrain", "runs/none", "--out", "x"), "no run folder runs/none"),
    (("retrain", "runs/none", "--out", "x", "--format", "onx"), "format is 'onx'.*onnx"),
    (("compare", "runs/none", "runs/other"), "no run folder runs/none"),
]


@pytest.mark.parametrize(
    ("arguments", "message"),
    MISTAKES,
    ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else "",
)
def test_mistakes_are_explained_and_nothing_is_written(se, tmp_path, arguments, message):

    code, out, err = se(*arguments)
    assert code == 2
    assert re.search(message, err, re.DOTALL), err
    assert "Traceback" not in err + out
    assert err.startswith("error: ") or "\nerror: " in err
    assert list(tmp_path.iterdir()) == []


def test_unknown_options_and_commands(se):
    assert se("search", "--backbon", "x")[0] == 2
    assert se("serch")[0] == 2


def test_folder_with_one_class(se, tmp_path):
    image_folder(tmp_path / "one", classes=1)
    code, _, err = se(*SEARCH, "--data", "one")
    assert code == 2
    assert "class" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one"]


def test_empty_folder(se, tmp_path):
    (tmp_path / "empty").mkdir()
    code, _, err = se(*SEARCH, "--data", "empty")
    assert code == 2
    assert "empty" in err


def test_unreadable_image_is_named_and_skipped_or_an_error(se, tmp_path):
    folder = image_folder(tmp_path / "data", images=20)
    whole = (folder / "class0" / "3.png").read_bytes()
    (folder / "class0" / "3.png").write_bytes(whole[: len(whole) // 2])
    code, _, err = se(*SEARCH, "--data", "data", "--strict", "--trials", "1")
    assert code == 2
    assert "3.png" in err
    assert not (tmp_path / "runs").exists()
    code, _, err = se(*SEARCH, "--data", "data", "--trials", "1", "--final-seeds", "0", "--batch-size", "8")
    assert code == 0
    assert "1 file (cannot be decoded): class0/3.png" in err
    manifest = json.loads(next(tmp_path.glob("runs/*/manifest.json")).read_text())
    assert any("3.png" in name for name in manifest["data"]["skipped"])


def test_tar_of_class_folders(se, tmp_path):
    image_folder(tmp_path / "data", images=20)
    with tarfile.open(tmp_path / "data.tar", "w") as tar:
        tar.add(tmp_path / "data", arcname=".")
    code, _, err = se(*SEARCH, "--data", "data.tar", "--dry-run")
    assert code == 0
    assert "2 classes" in err


def test_unknown_key_in_a_file(se, tmp_path):
    (tmp_path / "c.yaml").write_text("backbone: test_resnet\nepoch: 3\n")
    code, _, err = se("search", "--config", "c.yaml")
    assert code == 2
    assert "unknown key 'epoch'. Did you mean 'epochs'" in err


def test_space_with_a_reduction_that_makes_no_sense(se, tmp_path):
    for value in ("0", "-4", "100000"):
        (tmp_path / "space.yaml").write_text(f"granularity: stage\nreduction: [{value}]\n")
        code, _, err = se(*SEARCH, "--space", "space.yaml")
        assert code == 2
        assert value in err
    assert not (tmp_path / "runs").exists()


def test_checkpoint_that_does_not_fit(se, tmp_path):
    save_file({"a.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    code, _, err = se(*SEARCH, "--checkpoint", "other.safetensors")
    assert code == 2
    assert "a.weight" in err or "other.safetensors" in err
    assert not (tmp_path / "runs").exists()


def test_checkpoint_that_is_none(se, tmp_path):
    (tmp_path / "text.pt").write_text("hello")
    code, _, err = se(*SEARCH, "--checkpoint", "text.pt")
    assert code == 2
    assert "text.pt" in err


def test_run_folder_that_exists(se, run_folder):
    before = sorted(run_folder.rglob("*"))
    code, _, err = se(*SEARCH, "--runs", run_folder.parent, "--name", run_folder.name)
    assert code == 2
    assert "already exists" in err
    assert sorted(run_folder.rglob("*")) == before


def test_run_folder_of_a_newer_schema(se, run_folder, tmp_path):
    import shutil

    copy = shutil.copytree(run_folder, tmp_path / "newer")
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "schema": 99}))
    for command in ("show", "report", "resume"):
        code, _, err = se(command, copy)
        assert code == 2
        assert "schema 99" in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk(se, run_folder, tmp_path):
    (tmp_path / "runs").mkdir()
    code, _, err = se("report", run_folder, "--out", "/dev/full/report.html")
    assert code == 2
    assert "/dev/full" in err


def test_dry_run_prints_configuration_and_plan_and_writes_nothing(se, tmp_path):
    code, out, err = se(*SEARCH, "--trials", "3", "--dry-run")
    assert code == 0
    for label in (
        "backbone",
        "sites",
        "space",
        "data",
        "device",
        "objectives",
        "training",
        "budget",
        "folder",
    ):
        assert f"\n{label}" in "\n" + err
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "again.yaml").write_text(out)
    assert se("search", "--config", "again.yaml", "--dry-run")[1] == out


def test_dry_run_measures_nothing_reads_no_image_and_takes_no_lock(se, tmp_path, monkeypatch):
    def refused(*_, **__):
        raise AssertionError("a dry run did it")

    image_folder(tmp_path / "photos")
    monkeypatch.setattr(meter, "LatencyMeter", refused)
    monkeypatch.setattr(meter, "device_lock", refused)
    monkeypatch.setattr(axis, "LatencyMeter", refused)
    monkeypatch.setattr(schedule, "measure_step_time", refused)
    monkeypatch.setattr(Checker, "read", refused)
    command = ("search", "--backbone", "test_resnet", "--data", "photos", "--budget", "2h")
    code, _, err = se(*command, "--max-latency", "1.05x", "--dry-run")
    assert code == 0, err
    assert "2 classes" in err
    assert "as many epochs as the budget allows" in err
    assert "--measure works it out now" in err
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
    # What can be known without a measurement is still checked.
    assert se(*command, "--max-latency", "5 parsecs", "--dry-run")[0] == 2


def test_a_measured_dry_run_says_what_fits(se, tmp_path):
    code, _, err = se(*SEARCH, "--budget", "1h", "--dry-run", "--measure")
    assert code == 0, err
    assert re.search(r"candidates and \d+ final trainings fit", err)
    assert list(tmp_path.iterdir()) == []
    code, _, err = se(*SEARCH, "--measure")
    assert code == 2
    assert "--measure goes with --dry-run" in err


def test_flags_win_over_the_file(se, tmp_path):
    (tmp_path / "c.yaml").write_text("backbone: test_resnet\nepochs: 3\ntrials: 2\ndevice: cpu\n")
    _, out, _ = se("search", "--config", "c.yaml", "--epochs", "1", "--dry-run")
    assert "epochs: 1" in out
    assert "trials: 2" in out


def test_show_prints_the_front_with_baselines(se, run_folder):
    code, out, _ = se("show", run_folder)
    assert code == 0
    assert "plain backbone" in out
    assert "SE everywhere, γ=16" in out
    code, out, _ = se("show", run_folder, "--json")
    assert json.loads(out)["kind"] == "se-nas report"


def test_report_is_written_beside_or_where_asked(se, run_folder, tmp_path):
    code, out, _ = se("report", run_folder, "--out", tmp_path / "page.html")
    assert code == 0
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    assert str(tmp_path / "page.html") in out


def test_compare_a_run_with_itself(se, run_folder, tmp_path):
    code, _, _ = se("compare", run_folder, run_folder / "report.json", "--out", tmp_path / "c.html")
    assert code == 0
    assert (tmp_path / "c.html").exists()
    assert se("compare", run_folder, run_folder, "--fail-if-worse")[0] == 6
    assert json.loads(se("compare", run_folder, run_folder, "--json")[1])


def test_a_worse_run_is_an_exit_code_for_ci(se, run_folder, tmp_path):
    """The readings of a search decide nothing; those of two seeds do."""
    searched = json.loads((run_folder / "report.json").read_text())
    paths = {}
    for name, gain in (("good", 0.0), ("bad", -9.0)):
        rows = [
            {**row, "number": 100 * seed + row["number"], "phase": "final", "seed": seed}
            | {"accuracy": row["accuracy"] + gain + (-1) ** row["number"] * 0.1 * seed}
            for row in searched["trials"]
            for seed in (1, 2)
        ]
        final = searched | {"trials": rows, "manifest": searched["manifest"] | {"provisional": False}}
        paths[name] = tmp_path / f"{name}.json"
        paths[name].write_text(json.dumps(final))
    code, out, err = se("compare", paths["good"], paths["bad"], "--fail-if-worse", "--json")
    assert (code, err) == (3, "")
    assert json.loads(out)["worse"] is True
    assert se("compare", paths["good"], paths["bad"])[0] == 0
    assert se("compare", paths["bad"], paths["good"], "--fail-if-worse")[0] == 0
    code, _, err = se("compare", paths["good"], run_folder, "--fail-if-worse")
    assert code == 6
    assert re.fullmatch(r"undecided: .* is provisional, and .*\.\n", err)


def test_inspect_lists_every_site_with_what_se_adds(se):
    code, out, _ = se("inspect", "resnet18", "--reduction", "16", "--json")
    assert code == 0
    table = json.loads(out)
    assert len(table["sites"]) == 8
    # se_blocks of the paper: 2·C·h + h + C parameters, 2·C·h multiply-adds, with C = 512 and h = 32.
    assert table["sites"][-1]["added"]["16"] == {"rd_channels": 32, "num_params": 33312, "macs": 32768}
    _, text, _ = se("inspect", "resnet18", "--reduction", "16")
    assert "layer4.1.bn2" in text
    assert "+33,312" in text


def test_spaces_are_listed(se):
    code, out, _ = se("spaces")
    assert code == 0
    assert {line.split()[0] for line in out.splitlines()} == {"per_block", "per_stage", "paper"}


def test_every_command_has_an_example_that_names_its_own_options():
    command = typer.main.get_command(app)
    assert len(command.commands) >= 9
    for name, sub in command.commands.items():
        assert f"Example:  se-nas {name}" in sub.help, name
        example = sub.help.split("Example:")[1].split("\n\n")[0]
        options = {option for parameter in sub.params for option in parameter.opts}
        for word in example.split():
            if word.startswith("--"):
                assert word in options, (name, word)


def test_ctrl_c_says_how_to_go_on(se, monkeypatch):
    import signal

    from se_nas.study.executors import task as jobs

    train = jobs.load_trainer("default")

    def interrupted(model, context):
        os.kill(os.getpid(), signal.SIGINT)
        return train(model, context)

    monkeypatch.setattr(jobs, "load_trainer", lambda name: interrupted)
    code, out, err = se(*SEARCH, "--trials", "4")
    assert code == 130
    assert "se-nas resume runs/test_resnet-digits-1" in out
    assert "Traceback" not in err


@pytest.mark.parametrize(("keep", "command"), [("front", "export"), ("none", "retrain")])
def test_search_ends_with_a_command_that_can_be_carried_out(se, keep, command):
    code, out, err = se(*SEARCH, "--trials", "2", "--final-seeds", "0", "--keep", keep)
    assert code == 0, err
    line = out.splitlines()[-1]
    assert line == f"{command:<8}se-nas {command} runs/test_resnet-digits-1 --pick best --out best"


def test_a_search_that_finishes_nothing_says_how_to_go_on(se):
    code, out, err = se(*SEARCH, "--budget", "1s", "--force")
    assert code == 4
    assert re.search(
        r"No candidate has finished\. Continue with:  se-nas resume runs/test_resnet-digits-1 --budget \d+[smh]$",
        err.rstrip(),
    )
    assert "--pick best" not in out


def test_the_way_on_is_said_to_programs_too(se):
    code, out, err = se(*SEARCH, "--budget", "1s", "--force", "--json")
    assert code == 4
    finished = json.loads(out.splitlines()[-1])
    assert finished["exit_code"] == 4
    assert finished["resume"].startswith("se-nas resume runs/test_resnet-digits-1 --budget ")
    assert err.rstrip().endswith(finished["resume"])


def test_a_budget_that_ends_before_the_front_is_final_has_a_way_on(se):
    code, out, err = se(*SEARCH, "--trials", "2", "--final-seeds", "0", "--budget", "1h")
    assert code == 0, err
    assert "Continue with" not in out  # no final seeds were asked for
    folder = RunFolder.open("runs/test_resnet-digits-1")
    write_json(folder.path / "config.json", {**folder.config, "final_seeds": 3})
    folder.update_manifest(budget=replace(folder.manifest.budget, spent=3600.0))
    code, out, err = se("resume", "runs/test_resnet-digits-1")
    assert code == 0, err
    assert re.search(
        r"^The budget ended before the front was final\. Continue with:  se-nas resume runs/test_resnet-digits-1"
        r" --budget \d+[smh]$",
        out,
        re.MULTILINE,
    )


def test_a_budget_for_less_than_two_candidates_is_refused(se, tmp_path):
    code, _, err = se(*SEARCH, "--budget", "1s")
    assert code == 2
    assert "the budget of 1 s is too short" in err
    assert "--force" in err
    assert list(tmp_path.iterdir()) == []


def test_help_and_documentation_have_the_exit_codes(se):
    _, out, _ = se("--help")
    page = (Path(__file__).parents[2] / "docs" / "exit-codes.md").read_text()
    assert dict(re.findall(r"^\| (\d\S*) \| (.+) \|$", page, re.MULTILINE)) == MEANINGS
    for code, meaning in MEANINGS.items():
        assert re.search(rf"{re.escape(code)} +{re.escape(meaning)}", out), meaning


def test_retrain_writes_an_export_and_mends_nothing_by_itself(se, run_folder, tmp_path):
    code, out, err = se(
        "retrain", run_folder, "--epochs", 1, "--out", "net", "--device", "cpu", "--standalone"
    )
    assert code == 0, err
    assert "net: CITATION.cff, README.md, architecture.json" in out
    assert "epoch 1 of 1: " in err
    assert {"README.md", "config.json", "model.safetensors", "model.py"} <= {
        path.name for path in (tmp_path / "net").iterdir()
    }
    code, _, err = se("retrain", run_folder, "--out", "net")
    assert code == 2
    assert "already holds an exported network" in err
