"""What people bring, as the command line takes and says it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from se_nas.cli import main

SEARCH = (
    "search",
    "--backbone",
    "test_resnet",
    "--objectives",
    "accuracy,params",
    "--epochs",
    "1",
    "--device",
    "cpu",
)


@pytest.fixture
def se(monkeypatch, capsys, tmp_path):
    """Runs a search in an empty folder and returns (exit code, standard error)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["se-nas", *SEARCH, "--input-size", "32", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as stopped:
            code = stopped.code or 0
        return code, " ".join(capsys.readouterr().err.split())

    return run


def pictures(folder, classes=("cat", "dog"), count=12, seed=0):
    draws = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = draws.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        *(
            ((option, ""), option)
            for option in ("--data", "--val-data", "--test-data", "--checkpoint", "--name")
        ),
        (("--data", "  "), "--data"),
        (("--data=",), "--data"),
        (("--config", ""), "--config"),
    ],
)
def test_a_variable_of_the_shell_that_is_not_set(se, tmp_path, arguments, name):
    pictures(tmp_path / "figures")
    code, err = se(*arguments)
    assert code == 2
    assert f"{name} is empty" in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "words",
    [["show", ""], ["export", "run", "--out", ""], ["compare", "run", ""], ["resume", "run", "--data", ""]],
)
def test_an_empty_path_is_never_the_current_folder(monkeypatch, capsys, tmp_path, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["se-nas", *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "is empty" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_splits_under_other_names_are_not_trained_on(se, tmp_path):
    pictures(tmp_path / "pets" / "Training", count=20)
    pictures(tmp_path / "pets" / "Testing", count=8, seed=1)
    code, err = se("--data", "pets", "--dry-run")
    assert code == 0
    assert "32 training, 8 validation, 16 test images, 2 classes" in err


def test_what_is_left_out_is_said(se, tmp_path):
    pictures(tmp_path / "pets")
    shutil.copy(tmp_path / "pets" / "cat" / "0.png", tmp_path / "pets" / "beside.png")
    (tmp_path / "pets" / "dog" / "notes.txt").write_text("good dog")
    (tmp_path / "pets" / "dog" / "3.png").write_bytes(b"")
    code, err = se("--data", "pets", "--dry-run", "--measure")
    assert code == 0
    for line in (
        "1 file (beside the class folders): beside.png",
        "1 file (not an image by its suffix): dog/notes.txt",
        "1 file (cannot be decoded): dog/3.png",
    ):
        assert line in err


def test_validation_images_that_are_training_images_are_said(se, tmp_path):
    pictures(tmp_path / "pets")
    pictures(tmp_path / "held", count=3, seed=1)
    shutil.copy(tmp_path / "pets" / "cat" / "0.png", tmp_path / "held" / "cat" / "copy.png")
    code, err = se("--data", "pets", "--val-data", "held", "--dry-run", "--measure")
    assert code == 0
    assert "1 of the 7 validation images have the same content as training images" in err


@pytest.mark.parametrize("size", ["32", "128"])
def test_strict_stops_at_a_truncated_image_of_any_size(se, tmp_path, size):
    path = pictures(tmp_path / "pets") / "cat" / "3.png"
    path.write_bytes(path.read_bytes()[:900])
    code, err = se("--data", "pets", "--strict", "--input-size", size)
    assert code == 2
    assert "image 'cat/3.png' cannot be decoded" in err


def damaged_jpegs(folder):
    """Pictures of which one has a whole frame, which is all that is checked, and tables that decode to nothing."""
    pictures(folder)
    for path in sorted(folder.glob("*/*.png")):
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
    path = folder / "cat" / "3.jpg"
    content = path.read_bytes()
    tables = content.index(b"\xff\xc4") + 5
    path.write_bytes(content[:tables] + b"\xff" * 16 + content[tables + 16 :])
    with Image.open(path) as image, pytest.raises(OSError, match="broken data stream"):
        image.load()
    for index, other in enumerate(("held", "tested"), 1):
        pictures(folder.parent / other, count=3, seed=index)
    return (
        "--data",
        "pets",
        "--val-data",
        "held",
        "--test-data",
        "tested",
        "--input-size",
        "128",
        "--trials",
        "2",
    )


def test_damage_that_only_decoding_shows_is_in_manifest_and_report(se, tmp_path):
    code, err = se(*damaged_jpegs(tmp_path / "pets"), "--final-seeds", "0", "--name", "r")
    assert code == 0
    assert "1 training image can no longer be read: cat/3.jpg" in err
    for name in ("manifest.json", "report.json"):
        text = (tmp_path / "runs" / "r" / name).read_text(encoding="utf-8")
        found = json.loads(text).get("manifest", json.loads(text))["data"]
        assert (found["skipped"], found["reasons"]) == (["cat/3.jpg"], ["cannot be decoded"])


def test_strict_stops_at_damage_that_only_decoding_shows(se, tmp_path):
    code, err = se(*damaged_jpegs(tmp_path / "pets"), "--final-seeds", "0", "--strict")
    assert code == 2
    assert "1 training image can no longer be read: cat/3.jpg, and --strict allows none." in err
    assert "Traceback" not in err


def test_the_moving_average_that_is_taken_is_said(se, tmp_path):
    state = timm.create_model("test_resnet", num_classes=3).state_dict()
    torch.save({"state_dict": state, "state_dict_ema": state}, tmp_path / "last.pth.tar")
    pictures(tmp_path / "pets")
    code, err = se("--data", "pets", "--checkpoint", "last.pth.tar", "--dry-run")
    assert code == 0
    assert "last.pth.tar: the moving average of the weights ('state_dict_ema') is used." in err
    assert "does not fit and starts at zero" in err


def test_map_sizes_are_those_of_the_images():
    """resnet18 halves the image five times, its first stage works at a quarter."""
    out = subprocess.run(
        [sys.executable, "-m", "se_nas", "inspect", "resnet18", "--input-size", "64", "--json"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert [site["resolution"] for site in json.loads(out)["sites"]] == [
        [side, side] for side in (16, 16, 8, 8, 4, 4, 2, 2)
    ]


def test_a_name_cannot_steer_the_terminal(tmp_path):
    source = Path(__file__).parent.parent / "run" / "data" / "v0.1.0-finished"
    run = tmp_path / "evil\x1b[31mred"
    shutil.copytree(source, run)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["name"] = manifest["data"]["name"] = "evil\x1b]0;owned\x07"
    (run / "manifest.json").write_text(json.dumps(manifest))
    for command in (
        ["show", str(run)],
        ["compare", str(run), str(source), "--force"],
        ["show", str(run) + "x"],
    ):
        done = subprocess.run([sys.executable, "-m", "se_nas", *command], capture_output=True, text=True)
        assert "\x1b" not in done.stdout + done.stderr
    assert "\\x1b" in done.stderr
