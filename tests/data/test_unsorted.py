"""Validation images as ImageNet, Tiny-ImageNet and others publish them: in one folder, with their classes in a file."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from image_files import write_images

from se_nas.data import load_data
from se_nas.errors import DataError

DOCS = Path(__file__).parents[2] / "docs" / "data.md"


def imagenet_val(folder, labels=("n01", "n02", "n01", "n02")):
    """Flat files under ImageNet's names, and Kaggle's table of their classes beside the folder."""
    write_images(folder, (".",), count=len(labels), suffix=".JPEG", seed=1)
    rows = ["ImageId,PredictionString"]
    for index, label in enumerate(labels):
        name = f"ILSVRC2012_val_{index + 1:08d}"
        (folder / f"{index}.JPEG").rename(folder / f"{name}.JPEG")
        rows.append(f"{name},{label} 1 2 3 4 ")
    (folder.parent / "LOC_val_solution.csv").write_text("\n".join(rows) + "\n")


def tiny_imagenet(root):
    """As Tiny-ImageNet is unpacked: classes in train, all of val and test in one folder each."""
    write_images(root / "train", ("n01/images", "n02/images"), suffix=".JPEG")
    write_images(root / "val", ("images",), count=4, suffix=".JPEG", seed=1)
    rows = [f"{index}.JPEG\t{label}\t0\t0\t62\t62\n" for index, label in enumerate(("n01", "n02") * 2)]
    (root / "val" / "val_annotations.txt").write_text("".join(rows))
    return root


def documented(language, holding):
    """The one block of docs/data.md that has a word in it."""
    blocks = re.findall(rf"```{language}\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    (found,) = [block for block in blocks if holding in block]
    return found


def test_tiny_imagenets_validation_images(tmp_path):
    root = tiny_imagenet(tmp_path / "tiny")
    with pytest.raises(
        DataError, match=r"/val' .* 'images', which is not a class.*in 'val_annotations\.txt'"
    ):
        load_data(root)
    subprocess.run(["sh", "-ec", documented("sh", "val_annotations.txt")], cwd=root, check=True)
    data = load_data(root)
    assert data.class_names == ("n01", "n02")
    assert (len(data.train), len(data.val)) == (20, 4)
    assert data.val.labels.tolist() == [0, 0, 1, 1]


def test_tiny_imagenets_test_images(tmp_path):
    root = write_images(tmp_path / "tiny" / "train", ("n01", "n02")).parent
    write_images(root / "test", ("images",), count=3)
    with pytest.raises(DataError, match=r"/test' .* 'images', which is not a class.*'n01', 'n02'"):
        load_data(root)


def test_validation_images_given_alone(tmp_path):
    root = tiny_imagenet(tmp_path / "tiny")
    with pytest.raises(DataError, match=r"one class, 'images'.*classes seem to be in 'val_annotations\.txt'"):
        load_data(root / "val")


def test_imagenets_validation_images(tmp_path):
    root = write_images(tmp_path / "train", ("n01", "n02"), suffix=".JPEG").parent
    imagenet_val(root / "val")
    with pytest.raises(DataError, match=r"/val' has 4 images.*; sort ImageNet's validation images into one"):
        load_data(root)
    subprocess.run(["sh", "-ec", documented("sh", "LOC_val_solution.csv")], cwd=root, check=True)
    assert load_data(root).val.labels.tolist() == [0, 0, 1, 1]


def test_imagenets_test_images(tmp_path):
    root = write_images(tmp_path / "train").parent
    write_images(root / "test", (".",), count=2)
    for image in (root / "test").iterdir():
        image.rename(image.with_name(f"ILSVRC2012_test_0000000{image.stem}.JPEG"))
    with pytest.raises(DataError, match="ImageNet's test images have no labels, so leave them out"):
        load_data(root)


def test_images_beside_a_table_of_labels(tmp_path):
    write_images(tmp_path / "dogs", (".",), count=3)
    (tmp_path / "dogs" / "labels.csv").write_text("id,breed\n")
    with pytest.raises(DataError, match=r"no class folders.*seem to be in 'labels\.csv': sort them"):
        load_data(tmp_path / "dogs")
