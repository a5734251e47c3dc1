"""Images that vanish while a search trains on them."""

import numpy as np
import pytest
from PIL import Image
from small_cases import SEARCH, table

import se_nas
from se_nas.errors import RunError
from se_nas.report.run import Run
from se_nas.run import RunFolder
from se_nas.study import resume, search
from se_nas.study.progress import Progress

SIDE = 128
"""Pixels: too many for images to be kept in memory, so they are read whenever they are needed."""


class Thief(Progress):
    """Moves an image away after the first epoch."""

    def __init__(self, image):
        self.image, self.messages = image, []

    def epoch(self, row, metrics):
        if self.image.exists():
            self.image.rename(self.image.with_suffix(".away"))

    def message(self, text):
        self.messages.append(text)


@pytest.fixture
def images(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "write_report", lambda run: run.path)
    draws = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 6)):
        for label in range(2):
            folder = tmp_path / split / f"class{label}"
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = draws.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path


def config(images, name):
    return se_nas.SearchConfig(
        **{
            **SEARCH,
            "recipe": {**SEARCH["recipe"], "batch_size": 16},
            "data": str(images / "train"),
            "val_data": str(images / "val"),
            "input_size": SIDE,
            "objectives": "accuracy,params",
            "trials": 2,
            "final_seeds": 0,
            "epochs": 2,
            "runs": str(images / "runs"),
            "name": name,
        }
    )


def results(path):
    return [(row["key"], row["seed"], row["state"], row["accuracy"], row["error"]) for row in table(path)]


def test_without_a_validation_image_the_run_stops_and_goes_on_when_it_is_back(images):
    whole = results(search(config(images, "whole")).path)
    image = images / "val" / "class1" / "3.png"
    with pytest.raises(
        RunError, match=r"1 validation image can no longer be read: .*class1/3\.png.*\n.*resume"
    ):
        search(config(images, "run"), Thief(image))
    folder = RunFolder.open(images / "runs" / "run")
    assert folder.manifest.status == "interrupted"
    assert "class1/3.png" in folder.manifest.stop_reason
    image.with_suffix(".away").rename(image)
    assert results(resume(folder.path).path) == whole


def test_a_training_image_that_vanishes_is_named_and_another_takes_its_place(images):
    thief = Thief(images / "train" / "class0" / "5.png")
    run = search(config(images, "run"), thief)
    [said] = [text for text in thief.messages if "can no longer be read" in text]
    assert "1 training image can no longer be read" in said
    assert "class0/5.png" in said
    assert RunFolder.open(run.path).manifest.warnings[-1] == said
    assert [row["state"] for row in table(run.path)] == ["complete", "complete"]
