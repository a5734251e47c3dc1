"""Folders as people have them: splits under their usual names, strays, hierarchies, links, odd files."""

from __future__ import annotations

import hashlib
import os
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_files import write_images
from PIL import Image

from se_nas.data import load_data
from se_nas.data.listing import natural_key
from se_nas.data.splits import split_word
from se_nas.errors import ConfigError, DataError


@pytest.fixture
def pets(tmp_path):
    return write_images(tmp_path / "pets")


def write_splits(root, names=("train", "val"), counts=(8, 3)):
    for seed, (name, count) in enumerate(zip(names, counts, strict=True)):
        write_images(root / name, count=count, seed=seed)
    return root


def sizes(data):
    return len(data.train), len(data.val), None if data.test is None else len(data.test)


# Splits


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("Train", "Val"),
        ("TRAINING", "VALIDATION"),
        ("training_set", "val_set"),
        ("train-set", "valid-set"),
        ("trainset", "devset"),
        ("Training Set", "Dev"),
        ("train", "valid"),
    ],
)
def test_splits_under_their_usual_names(tmp_path, train, val):
    assert sizes(load_data(str(write_splits(tmp_path, (train, val))))) == (16, 6, None)


@pytest.mark.parametrize("test", ["Test", "testing", "test_set", "Testing-Set"])
def test_test_images_are_never_trained_on(tmp_path, test):
    write_splits(tmp_path, ("Training", test), (10, 3))
    assert sizes(load_data(str(tmp_path))) == (16, 4, 6)


@pytest.mark.parametrize("word", ["set", "dataset", "trains", "a train", "tests", "retest", "", "train2017"])
def test_other_words_are_not_splits(word):
    assert split_word(word) is None


@pytest.mark.parametrize("stray", [".ipynb_checkpoints", "annotations", "__MACOSX", ".git", "labels"])
@pytest.mark.parametrize("content", ["nothing", "text", "hidden images"])
def test_a_stray_folder_changes_no_split(tmp_path, stray, content):
    root = write_splits(tmp_path / "root")
    before = load_data(str(root))
    (root / stray).mkdir()
    if content == "text":
        (root / stray / "boxes.xml").write_text("<xml/>")
    if content == "hidden images":
        if not stray.startswith((".", "__")):
            (root / stray / ".cache").mkdir()
        place = root / stray if stray.startswith((".", "__")) else root / stray / ".cache"
        write_images(place, ("cat", "dog"), seed=9)
    after = load_data(str(root))
    assert sizes(after) == sizes(before) == (16, 6, None)
    assert after.fingerprint == before.fingerprint


def test_a_folder_of_images_beside_splits_is_refused(tmp_path):
    write_splits(tmp_path)
    write_images(tmp_path, ("figures",))
    with pytest.raises(DataError, match="'train', 'val' and beside them 'figures'"):
        load_data(str(tmp_path))


def test_a_folder_of_images_beside_the_only_split_is_refused(tmp_path):
    write_images(tmp_path / "train")
    write_images(tmp_path, ("figures",))
    with pytest.raises(DataError, match="'train' and beside it 'figures'"):
        load_data(str(tmp_path))


@pytest.mark.parametrize(
    "names", [("train2017", "val2017"), ("my_train", "my-test"), ("images_train", "dev images")]
)
def test_splits_under_odd_names_are_refused(tmp_path, names):
    write_splits(tmp_path, names)
    with pytest.raises(DataError, match=f"{names[0]}.*look like splits"):
        load_data(str(tmp_path))


@pytest.mark.parametrize("names", [("fold_a", "fold_b"), ("2023", "2024"), ("left", "right")])
def test_class_names_below_several_parents_are_refused(tmp_path, names):
    write_splits(tmp_path, names)
    with pytest.raises(DataError, match=f"'cat', 'dog', below '{names[0]}', '{names[1]}'"):
        load_data(str(tmp_path))


def test_one_class_name_below_two_parents_is_refused(tmp_path):
    write_images(tmp_path / "a", ("cat", "dog"))
    write_images(tmp_path / "b", ("cat", "horse"))
    with pytest.raises(DataError, match="same name, 'cat', below 'a', 'b'"):
        load_data(str(tmp_path))


def test_two_folders_for_one_split_are_refused(tmp_path):
    write_splits(tmp_path, ("train", "val", "Validation"), (8, 3, 3))
    with pytest.raises(DataError, match="2 folders of val images"):
        load_data(str(tmp_path))


def test_held_out_images_alone(tmp_path):
    write_splits(tmp_path, ("Val", "Testing"))
    with pytest.raises(DataError, match="no training images"):
        load_data(str(tmp_path))


def test_names_say_which_split_they_are_of(tmp_path):
    root = write_splits(tmp_path / "root")
    (root / "val" / "cat" / "1.png").write_bytes(b"no")
    (root / "train" / "cat" / "1.png").write_bytes(b"no")
    assert load_data(str(root)).skipped == ("train/cat/1.png", "val/cat/1.png")


@pytest.mark.parametrize("same", ["{}", "{}/", "{}/../pets", "{}/link"])
def test_validation_data_that_is_the_training_data(pets, same):
    (pets / "link").symlink_to(pets)
    with pytest.raises(DataError, match=r"val_data is .* which is the training data"):
        load_data(str(pets), val_data=same.format(pets))


@pytest.mark.parametrize("input_size", [20, 128])
def test_validation_images_that_are_training_images_are_said(pets, tmp_path, input_size):
    val = write_images(tmp_path / "val", count=4, seed=7)
    shutil.copy(pets / "dog" / "3.png", val / "dog" / "copy.png")
    data = load_data(str(pets), val_data=str(val), input_size=input_size)
    assert len(data.remarks) == 1
    assert data.remarks[0].startswith("1 of the 9 validation images have the same content as training images")
    assert "'val/dog/copy.png' is 'dog/3.png'" in data.remarks[0]
    assert load_data(str(pets), input_size=input_size).remarks == ()


def test_validation_data_with_splits_of_its_own(pets, tmp_path):
    with pytest.raises(DataError, match="splits of its own"):
        load_data(str(pets), val_data=str(write_splits(tmp_path / "other")))


# Classes


def test_classes_are_the_first_level(tmp_path):
    write_images(tmp_path, ("cat/day1", "cat/day2", "dog/day1", "dog/day2/late"), count=5)
    data = load_data(str(tmp_path))
    assert data.class_names == ("cat", "dog")
    assert np.add(data.train.class_counts(2), data.val.class_counts(2)).tolist() == [10, 10]


def test_tiny_imagenet_as_it_is_unpacked(tmp_path):
    write_images(tmp_path / "train", ("n01/images", "n02/images"))
    (tmp_path / "train" / "n01" / "n01_boxes.txt").write_text("0 0 1 1")
    data = load_data(str(tmp_path))
    assert data.class_names == ("n01", "n02")
    assert data.skipped == ("train/n01/n01_boxes.txt",)


@pytest.mark.parametrize("hidden", [".ipynb_checkpoints", "__MACOSX", ".thumbnails", "@eaDir"])
def test_hidden_folders_are_not_classes(pets, hidden):
    write_images(pets, (hidden, f"cat/{hidden}"), count=4)
    data = load_data(str(pets))
    assert data.class_names == ("cat", "dog")
    assert len(data.train) + len(data.val) == 20
    assert data.skipped == ()


@pytest.mark.parametrize("count", [1, 4])
def test_images_beside_the_class_folders_are_left_out_and_named(pets, count):
    for index in range(count):
        shutil.copy(pets / "cat" / "0.png", pets / f"{index}.png")
    data = load_data(str(pets))
    assert data.class_names == ("cat", "dog")
    assert data.skipped == tuple(f"{index}.png" for index in range(count))
    files = "1 file" if count == 1 else f"{count} files"
    assert data.left_out()[0].startswith(f"{files} (beside the class folders): 0.png")


def test_class_names_that_differ_in_case_keep_their_order(tmp_path):
    assert load_data(str(write_images(tmp_path, ("b", "A", "a", "10", "9")))).class_names == (
        "9",
        "10",
        "A",
        "a",
        "b",
    )


def test_a_class_name_with_a_raised_digit(tmp_path):
    assert load_data(str(write_images(tmp_path, ("²", "m²", "m3")))).num_classes == 3


@given(st.lists(st.text(alphabet="aB19é²-", max_size=6), max_size=8))
def test_natural_order_is_total(names):
    ordered = sorted(dict.fromkeys(names), key=lambda name: (natural_key(name), name))
    assert sorted(set(names), key=lambda name: (natural_key(name), name)) == ordered


def test_names_that_are_not_utf8_are_written_out(tmp_path):
    write_images(tmp_path / "pets", ("cat", "dog"))
    os.rename(os.fsencode(tmp_path / "pets" / "cat"), os.fsencode(tmp_path / "pets") + b"/k\xe4tze")
    (tmp_path / "pets" / "dog" / os.fsdecode(b"\xff.png")).write_bytes(b"")
    data = load_data(tmp_path / "pets")
    assert data.class_names == ("dog", "k\\udce4tze")
    assert data.skipped == ("dog/\\udcff.png",)
    packed = shutil.make_archive(str(tmp_path / "a"), "tar", tmp_path / "pets")
    assert load_data(packed).fingerprint == data.fingerprint


# One level too high or too deep


def test_one_level_too_high(tmp_path):
    write_images(tmp_path / "root" / "pets")
    with pytest.raises(DataError, match=r"one class, 'pets'.*'cat', 'dog', give '.*/root/pets'"):
        load_data(str(tmp_path / "root"))


def test_two_levels_too_high(tmp_path):
    write_images(tmp_path / "root" / "a" / "pets")
    with pytest.raises(DataError, match=r"one class, 'a'.*the folders 'cat', 'dog', give '.*/root/a/pets'"):
        load_data(str(tmp_path / "root"))


def test_a_split_without_class_folders(tmp_path):
    write_images(tmp_path / "pets" / "train")
    write_images(tmp_path / "pets" / "val", (".",), count=3)
    with pytest.raises(DataError, match=r"/val' has 3 images .* one folder of images per class\.$"):
        load_data(str(tmp_path / "pets"))


def test_one_level_too_deep(pets):
    with pytest.raises(
        DataError, match=r"10 images and no class folders.*did you mean '.*/pets'.*'cat', 'dog'"
    ):
        load_data(str(pets / "cat"))


def test_one_level_too_deep_above_grouping_folders(tmp_path):
    write_images(tmp_path / "train", ("n01/images", "n02/images"))
    with pytest.raises(DataError, match=r"one class, 'images'.*did you mean '.*/train'.*'n01', 'n02'"):
        load_data(str(tmp_path / "train" / "n01"))


def test_a_flat_folder(tmp_path):
    write_images(tmp_path / "alone", (".",), count=3)
    with pytest.raises(
        DataError, match="3 images and no class folders; expected one folder of images per class"
    ):
        load_data(str(tmp_path / "alone"))


# Files


@pytest.mark.parametrize("suffix", [".webp", ".bmp", ".tif", ".TIFF", ".gif", ".JPG", ".ppm", ".jfif"])
def test_what_pillow_reads_is_read(tmp_path, suffix):
    write_images(tmp_path, ("cat", "dog"), count=4)
    write_images(tmp_path, ("owl",), count=4, suffix=suffix)
    data = load_data(str(tmp_path))
    assert data.class_names == ("cat", "dog", "owl")
    assert len(data.train) + len(data.val) == 12
    assert data.skipped == ()


def test_an_animation_gives_its_first_frame(tmp_path):
    write_images(tmp_path, ("cat",), count=2)
    (tmp_path / "dog").mkdir()
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    for name in ("0.gif", "1.gif"):
        frames[0].save(tmp_path / "dog" / name, save_all=True, append_images=frames[1:])
    data = load_data(str(tmp_path))
    assert data.val.pixels[data.val.labels == 1].flatten(2).float().mean(2).tolist() == [[255, 0, 0]]


def test_other_files_are_counted_and_named(pets):
    (pets / "cat" / "0.xml").write_text("<box/>")
    (pets / "dog" / "notes.txt").write_text("good dog")
    (pets / "README.md").write_text("pets")
    data = load_data(str(pets))
    assert data.skipped == ("README.md", "cat/0.xml", "dog/notes.txt")
    assert data.left_out() == ["3 files (not an image by its suffix): README.md, cat/0.xml, dog/notes.txt"]


def test_files_that_systems_leave_behind_are_silent(pets):
    before = load_data(str(pets))
    for name in ("._0.png", ".DS_Store", "Thumbs.db", "desktop.ini", ".gitkeep"):
        (pets / "cat" / name).write_bytes(b"\0\5\26\7")
        (pets / name).write_bytes(b"\0\5\26\7")
    for size in (20, 128):
        after = load_data(str(pets), input_size=size)
        assert after.skipped == ()
        assert sizes(after) == sizes(before)


@pytest.mark.parametrize("held", [None, "0.heic", "notes.txt"])
def test_a_class_folder_without_an_image_is_refused(pets, held):
    (pets / "owl").mkdir()
    if held:
        (pets / "owl" / held).write_bytes(b"something")
    with pytest.raises(
        DataError, match="class folder 'owl'.*" + ("holds 1 file, such as" if held else "is empty")
    ):
        load_data(str(pets))


def test_a_folder_of_other_files(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "0.heic").write_bytes(b"something")
    with pytest.raises(DataError, match=r"no images were found.*1 with \.heic"):
        load_data(str(tmp_path))


def test_a_pipe_is_not_opened(pets):
    os.mkfifo(pets / "cat" / "pipe.png")
    assert load_data(str(pets)).left_out() == ["1 file (not a regular file): cat/pipe.png"]


def test_an_archive_beside_its_folders_is_not_a_class(pets):
    shutil.make_archive(str(pets / "pets"), "tar", pets, "cat")
    data = load_data(str(pets))
    assert data.class_names == ("cat", "dog")
    assert data.skipped == ("pets.tar",)


# Links


@pytest.mark.parametrize("target", ["..", ".", "../..", "../dog"])
def test_no_folder_is_read_twice(pets, target):
    (pets / "cat" / "link").symlink_to(pets / "cat" / target, target_is_directory=True)
    data = load_data(str(pets))
    assert data.class_names == ("cat", "dog")
    assert len(data.train) + len(data.val) == 20
    assert data.skipped == ("cat/link",)


def test_a_linked_class_folder_is_read(pets, tmp_path):
    write_images(tmp_path / "store", ("owl",))
    (pets / "owl").symlink_to(tmp_path / "store" / "owl")
    (pets / "again").symlink_to(tmp_path / "store" / "owl")
    data = load_data(str(pets))
    assert data.class_names == ("again", "cat", "dog")
    assert data.skipped == ("owl",)


def test_a_dead_link_to_an_image_is_left_out(pets):
    (pets / "cat" / "gone.png").symlink_to(pets / "nowhere.png")
    assert load_data(str(pets)).left_out() == ["1 file (cannot be decoded): cat/gone.png"]
    with pytest.raises(DataError, match=r"gone\.png' cannot be decoded: .*No such file"):
        load_data(str(pets), strict=True)


def test_a_dead_link_to_a_class_is_refused(pets):
    (pets / "owl").symlink_to(pets / "nowhere")
    with pytest.raises(DataError, match=r"class folder 'owl'.*is a dead link"):
        load_data(str(pets))


# Paths


@pytest.mark.parametrize("field", ["name", "val_data", "test_data", "root"])
@pytest.mark.parametrize("empty", ["", "  ", 3])
def test_an_empty_path_is_refused(field, empty):
    with pytest.raises(ConfigError, match=f"{'(data|name)' if field == 'name' else field} is "):
        load_data(**{field: empty})


def test_no_data_is_refused():
    with pytest.raises(ConfigError, match="name is None"):
        load_data(None)


def test_paths_may_be_path_objects(pets, tmp_path):
    val = write_images(tmp_path / "val", seed=3)
    assert load_data(pets, val_data=val).fingerprint == load_data(str(pets), val_data=str(val)).fingerprint


def test_the_fingerprint_is_the_documented_one(pets):
    digest = hashlib.sha256(repr(("cat", "dog")).encode())
    for label, name in enumerate(("cat", "dog")):
        for index in range(10):
            pixels = np.asarray(Image.open(pets / name / f"{index}.png")).tobytes()
            digest.update(f"{name}/{index}.png\0{label}\0{len(pixels)}\0".encode() + pixels)
    assert load_data(pets).fingerprint == digest.hexdigest()
