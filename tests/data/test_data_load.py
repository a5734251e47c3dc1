"""``load_data``: splits, fingerprints, sizes, sources and every mistake that a user can make with data."""

from __future__ import annotations

import gc
import tarfile
from dataclasses import replace
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch
from image_files import write_images
from PIL import Image
from sklearn.datasets import load_digits

from se_nas import plugins as plugins_module
from se_nas.data import ImageData, load_data, named, sources
from se_nas.errors import ConfigError, DataError


@pytest.fixture
def pets(tmp_path):
    return write_images(tmp_path / "pets")


def test_digits_are_the_real_ones():
    data = load_data()
    images = load_digits()
    assert data.class_names == tuple("0123456789")
    assert data.input_size == (3, 32, 32)
    assert (len(data.train), len(data.val), data.test) == (1438, 359, None)
    assert data.train.pixels.dtype == torch.uint8
    assert data.train.pixels.shape == (1438, 3, 32, 32)
    assert not data.mirror
    # The mean of every upscaled image is that of the original; labels stay with their images.
    means = data.val.pixels.float().mean((1, 2, 3)) / 255
    originals = images.images.mean((1, 2)) / 16
    for index, label in enumerate(data.val.labels.tolist()):
        candidates = originals[images.target == label]
        assert np.abs(candidates - means[index].item()).min() < 0.01


def test_split_is_stratified_seeded_and_disjoint():
    data = load_data(val_fraction=0.25, test_fraction=0.1, split_seed=3)
    whole = np.bincount(load_digits().target)
    assert data.val.class_counts(10) == [round(0.25 * count) for count in whole]
    assert data.test.class_counts(10) == [round(0.1 * count) for count in whole]
    flat = [split.pixels.flatten(1).numpy() for split in (data.train, data.val, data.test)]
    assert sum(map(len, flat)) == 1797
    rows = [{row.tobytes() for row in part} for part in flat]
    assert not rows[0] & rows[1]
    assert not (rows[0] | rows[1]) & rows[2]

    again, other = load_data(val_fraction=0.25, test_fraction=0.1, split_seed=3), load_data(split_seed=4)
    assert torch.equal(data.val.pixels, again.val.pixels)
    assert not torch.equal(data.val.pixels[:300], other.val.pixels[:300])
    assert data.fingerprint == again.fingerprint == other.fingerprint


def test_statistics_are_those_of_the_training_images(pets):
    data = load_data(str(pets))
    scaled = data.train.pixels.double() / 255
    assert data.mean == pytest.approx(scaled.mean((0, 2, 3)).tolist(), abs=1e-12)
    assert data.std == pytest.approx(scaled.std((0, 2, 3), correction=0).tolist(), abs=1e-12)


def test_pretrained_weights_bring_their_own_statistics():
    data = load_data().with_statistics((0.5,) * 3, [0.25] * 3)
    assert (data.mean, data.std) == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def test_folder_and_tar_are_the_same_data(pets, tmp_path):
    with tarfile.open(tmp_path / "pets.tar", "w") as tar:
        tar.add(pets, arcname=".")
    folder, tar = load_data(str(pets)), load_data(str(tmp_path / "pets.tar"))
    assert folder.class_names == tar.class_names == ("cat", "dog")
    assert folder.input_size == (3, 20, 20)
    assert torch.equal(folder.train.pixels, tar.train.pixels)
    assert torch.equal(folder.val.labels, tar.val.labels)


def test_fingerprint_is_of_names_labels_and_content(pets, tmp_path):
    first = load_data(str(pets)).fingerprint
    pets.rename(tmp_path / "moved")
    moved = tmp_path / "moved"
    assert load_data(str(moved)).fingerprint == first
    assert load_data(str(moved), input_size=8).fingerprint == first
    (moved / "cat" / "0.png").rename(moved / "cat" / "renamed.png")
    renamed = load_data(str(moved)).fingerprint
    assert renamed != first
    Image.new("RGB", (20, 20), (1, 2, 3)).save(moved / "cat" / "renamed.png")
    assert load_data(str(moved)).fingerprint != renamed


def test_large_images_stay_on_disk_with_a_cheap_fingerprint(pets):
    data = load_data(str(pets), input_size=128)
    assert not data.in_memory
    assert data.train.pixels is None
    assert data.input_size == (3, 128, 128)
    assert sorted([*data.train.indices, *data.val.indices]) == list(range(20))
    assert data.fingerprint == load_data(str(pets), input_size=128).fingerprint
    (pets / "cat" / "0.png").write_bytes((pets / "cat" / "0.png").read_bytes() + b" ")
    assert data.fingerprint != load_data(str(pets), input_size=128).fingerprint


def test_images_of_several_sizes_get_the_usual_input_size(pets):
    Image.new("RGB", (30, 20)).save(pets / "cat" / "wide.png")
    assert load_data(str(pets)).input_size == (3, 224, 224)


@pytest.mark.parametrize(
    ("given", "size"), [(48, (3, 48, 48)), ((40, 48), (3, 40, 48)), ((3, 24, 32), (3, 24, 32))]
)
def test_input_size(pets, given, size):
    data = load_data(str(pets), input_size=given)
    assert data.input_size == size
    assert data.train.pixels.shape[1:] == size


def test_resizing_keeps_the_aspect_ratio_and_crops_the_centre():
    from se_nas.data.pixels import resized

    image = Image.new("RGB", (40, 20), (200, 0, 0))
    image.paste((0, 0, 200), (10, 0, 30, 20))
    assert set(resized(image, (20, 20)).getcolors()) == {(400, (0, 0, 200))}


def test_separate_validation_and_test_data(pets, tmp_path):
    val = write_images(tmp_path / "val", count=3, seed=1)
    test = write_images(tmp_path / "test", count=2, seed=2)
    data = load_data(str(pets), val_data=str(val), test_data=str(test))
    assert (len(data.train), len(data.val), len(data.test)) == (20, 6, 4)


def test_folder_of_splits(tmp_path):
    root = tmp_path / "root"
    for split, count in (("train", 8), ("val", 3), ("test", 2)):
        write_images(root / split, count=count, seed=count)
    data = load_data(str(root))
    assert (len(data.train), len(data.val), len(data.test)) == (16, 6, 4)
    assert data.class_names == ("cat", "dog")


def test_classes_named_like_splits_are_classes(tmp_path):
    assert load_data(str(write_images(tmp_path / "traffic", ("bus", "train")))).class_names == (
        "bus",
        "train",
    )


def test_validation_data_without_one_class_keeps_the_labels(pets, tmp_path):
    val = write_images(tmp_path / "val", ("dog",), count=3)
    assert load_data(str(pets), val_data=str(val)).val.labels.tolist() == [1, 1, 1]


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
def test_damaged_image_is_skipped_and_named_or_an_error(pets, damage):
    path = pets / "dog" / "4.png"
    path.write_bytes({"truncated": path.read_bytes()[:300], "garbage": b"\x00" * 900, "empty": b""}[damage])
    data = load_data(str(pets))
    assert data.skipped == ("dog/4.png",)
    assert len(data.train) + len(data.val) == 19
    with pytest.raises(DataError, match=r"dog/4\.png"):
        load_data(str(pets), strict=True)


def test_missing_folder_names_it_and_the_known(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.*digits"):
        load_data(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="Did you mean 'digits'"):
        load_data("digit")


def test_empty_folder(tmp_path):
    with pytest.raises(DataError, match="no images"):
        load_data(str(tmp_path))


def test_empty_tar(tmp_path):
    with tarfile.open(tmp_path / "none.tar", "w"):
        pass
    with pytest.raises(DataError, match=r"none\.tar"):
        load_data(str(tmp_path / "none.tar"))


def test_a_file_that_is_no_tar(tmp_path):
    (tmp_path / "data.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"data\.zip"):
        load_data(str(tmp_path / "data.zip"))
    (tmp_path / "data.tar").write_bytes(b"no tar")
    with pytest.raises(DataError, match=r"data\.tar"):
        load_data(str(tmp_path / "data.tar"))


def test_one_class(tmp_path):
    with pytest.raises(DataError, match=r"one class, 'cat'; a classifier needs at least two\.$"):
        load_data(str(write_images(tmp_path / "cats", ("cat",))))


def test_validation_data_with_other_classes(pets, tmp_path):
    val = write_images(tmp_path / "val", ("dog", "horse"))
    with pytest.raises(DataError, match=r"'horse'.*training classes: 'cat', 'dog'"):
        load_data(str(pets), val_data=str(val))


def test_all_images_of_a_class_damaged(pets):
    for path in (pets / "dog").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(DataError, match="'dog'"):
        load_data(str(pets), input_size=20)


def test_too_few_images_to_split(tmp_path):
    with pytest.raises(DataError, match="'cat' has 1 image,"):
        load_data(str(write_images(tmp_path / "few", count=1)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"val_fraction": 0.0},
        {"val_fraction": 1.5},
        {"test_fraction": -0.1},
        {"val_fraction": 0.6, "test_fraction": 0.5},
        {"input_size": 0},
        {"input_size": (1, 32, 32)},
        {"input_size": "large"},
    ],
)
def test_values_that_make_no_sense(wrong):
    with pytest.raises(ConfigError, match=str(next(iter(wrong.values())))[:3].replace("(", r"\(")):
        load_data(**wrong)


def test_torchvision_set_with_its_own_test_images(tmp_path):
    """A real MNIST layout, written by hand: IDX files with 30 and 20 images."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    draws = np.random.default_rng(0)
    for prefix, count in (("train", 30), ("t10k", 20)):
        images = draws.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        header = np.array([0x803, count, 28, 28], dtype=">i4").tobytes()
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(
            np.array([0x801, count], dtype=">i4").tobytes() + labels.tobytes()
        )
    data = load_data("torch/mnist", root=str(tmp_path), val_fraction=0.34)
    assert (len(data.train), len(data.val), len(data.test)) == (20, 10, 20)
    assert data.input_size == (3, 28, 28)
    assert len(data.class_names) == 10
    assert not data.mirror


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its shards open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_held_out_shards_may_lack_the_last_class(tmp_path):
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    draws = np.random.default_rng(0)
    for name, classes in (("train", 3), ("val", 2)):
        with webdataset.TarWriter(str(tmp_path / f"{name}-0000.tar")) as sink:
            for index in range(6):
                pixels = draws.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                sink.write(
                    {"__key__": f"{index:03d}", "png": Image.fromarray(pixels), "cls": index % classes}
                )
    data = load_data(f"wds/{tmp_path}:train-0000.tar", val_data=f"wds/{tmp_path}:val-0000.tar")
    assert data.num_classes == 3
    assert data.val.labels.tolist() == [0, 1, 0, 1, 0, 1]
    gc.collect()  # here, where the warnings are filtered


def test_unknown_torchvision_set(tmp_path):
    with pytest.raises(DataError, match="torch/nothing"):
        load_data("torch/nothing", root=str(tmp_path))


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its shards open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_shards(tmp_path):
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    draws = np.random.default_rng(0)
    for shard in range(2):
        with webdataset.TarWriter(str(tmp_path / f"train-{shard:04d}.tar")) as sink:
            for index in range(10):
                pixels = draws.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                sink.write(
                    {"__key__": f"{shard}{index:03d}", "png": Image.fromarray(pixels), "cls": index % 2}
                )
    data = load_data(f"wds/{tmp_path}:train-{{0000..0001}}.tar")
    assert len(data.train) + len(data.val) == 20
    assert data.num_classes == 2
    assert data.input_size == (3, 16, 16)
    gc.collect()  # here, where the warnings are filtered


def stripes_plugin(**keywords) -> ImageData:
    return load_data("digits", split_seed=keywords["split_seed"])


def broken_plugin(**keywords):
    raise KeyError("lost")


@pytest.fixture
def plugins(monkeypatch):
    points = [
        EntryPoint("mine", f"{__name__}:stripes_plugin", sources.NAMES.group),
        EntryPoint("broken", f"{__name__}:broken_plugin", sources.NAMES.group),
    ]
    monkeypatch.setattr(plugins_module, "entry_points", lambda group: points)


def test_entry_point(plugins):
    assert load_data("mine", split_seed=4).split_seed == 4
    with pytest.raises(
        DataError, match=r"data 'broken' failed with KeyError: 'lost' \(broken_plugin, line \d+\)"
    ):
        load_data("broken")
    with pytest.raises(DataError, match="Did you mean 'mine'"):
        load_data("mines")


@pytest.mark.parametrize("label", [10, -1])
def test_labels_beyond_the_classes_of_the_head(label):
    data = load_data("digits")
    labels = data.val.labels.clone()
    labels[3] = label
    with pytest.raises(
        DataError, match=rf"'digits' has label {label} in its val images, beyond the 10 classes"
    ):
        replace(data, val=replace(data.val, labels=labels))


def test_digits_are_read_without_scikit_learn_and_through_it_if_its_file_is_elsewhere(monkeypatch):
    read = named.Digits()
    monkeypatch.setattr(named, "find_spec", lambda name: None)
    loaded = named.Digits()
    assert read.class_names == loaded.class_names
    assert np.array_equal(read.labels, loaded.labels)
    assert read.labels.dtype == loaded.labels.dtype
    assert all(read.payload(index) == loaded.payload(index) for index in range(len(loaded.labels)))
