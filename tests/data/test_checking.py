"""One way of checking, whether images are kept in memory or stay on disk."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from image_files import write_images
from PIL import Image

from se_nas.data import checking, load_data
from se_nas.errors import DataError

SIZES = pytest.mark.parametrize("input_size", [20, 128])


@pytest.fixture
def pets(tmp_path):
    return write_images(tmp_path / "pets", count=20, suffix=".jpg")


def bomb(side):
    """A PNG of one bit per pixel whose header promises side x side pixels; a few kilobytes."""

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + checksum

    header = np.array([side, side], ">u4").tobytes() + bytes([1, 0, 0, 0, 0])
    rows = zlib.compress(bytes((1 + (side + 7) // 8) * side))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def text_bomb():
    """A PNG with a compressed text of 64 MiB."""
    content = b"x\0\0" + zlib.compress(bytes(1 << 26))
    chunk = len(content).to_bytes(4, "big") + b"zTXt" + content
    whole = bomb(20)
    return whole[:33] + chunk + zlib.crc32(b"zTXt" + content).to_bytes(4, "big") + whole[33:]


def damaged(kind, whole):
    return {
        "truncated": whole[: len(whole) // 2],
        "header only": whole[:30],
        "zero bytes": b"",
        "zeros": bytes(500),
        "html": b"<!DOCTYPE html><html>404</html>",
        "error bomb": bomb(14_000),
        "warning bomb": bomb(9_800),
        "text bomb": text_bomb(),
    }[kind]


KINDS = ("truncated", "header only", "zero bytes", "zeros", "html", "error bomb", "warning bomb", "text bomb")


@SIZES
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_image_is_left_out_and_named_or_an_error(pets, kind, input_size):
    path = pets / "dog" / "4.jpg"
    path.write_bytes(damaged(kind, path.read_bytes()))
    data = load_data(pets, input_size=input_size)
    assert data.in_memory == (input_size == 20)
    assert data.skipped == ("dog/4.jpg",)
    assert data.left_out() == ["1 file (cannot be decoded): dog/4.jpg"]
    assert len(data.train) + len(data.val) == 39
    if not data.in_memory:
        indices = [*data.train.indices, *data.val.indices]
        assert "dog/4.jpg" not in [data.train.samples.name(index) for index in indices]
        labels = data.train.samples.labels[indices].tolist()
        assert labels == [*data.train.labels.tolist(), *data.val.labels.tolist()]
    with pytest.raises(DataError, match=r"^image 'dog/4\.jpg' cannot be decoded: .*\.$"):
        load_data(pets, input_size=input_size, strict=True)


@SIZES
def test_a_png_with_one_wrong_byte(tmp_path, input_size):
    write_images(tmp_path)
    path = tmp_path / "cat" / "2.png"
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    path.write_bytes(whole)
    assert load_data(tmp_path, input_size=input_size).skipped == ("cat/2.png",)


def test_a_bomb_does_not_hide_the_size_of_the_images(pets):
    (pets / "cat" / "0.jpg").write_bytes(bomb(14_000))
    assert load_data(pets).input_size == (3, 20, 20)


def test_the_size_of_the_images_is_that_of_all_classes(pets):
    write_images(pets, ("zebra",), count=3, side=400)
    assert load_data(pets).input_size == (3, 224, 224)


@SIZES
@pytest.mark.parametrize("split", ["train", "val"])
def test_all_images_of_a_class_damaged(tmp_path, split, input_size):
    for name in ("train", "val"):
        write_images(tmp_path / name, count=4, seed=len(name))
    for path in (tmp_path / split / "dog").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(
        DataError, match=f"class 'dog' could be decoded; the first, '{split}/dog/0.png', cannot"
    ):
        load_data(tmp_path, input_size=input_size)


@SIZES
def test_progress_is_of_all_splits(tmp_path, input_size):
    for name, count in (("train", 40), ("val", 5)):
        write_images(tmp_path / name, count=count, seed=count)
    calls = []
    load_data(tmp_path, input_size=input_size, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (90, 90)
    assert calls == sorted(calls)
    assert len(calls) > 2


def test_threads_keep_the_order(tmp_path, monkeypatch):
    write_images(tmp_path, ("cat", "dog"), count=200, side=4)
    many = load_data(tmp_path)
    monkeypatch.setattr(checking, "THREADS", 1)
    assert load_data(tmp_path).fingerprint == many.fingerprint
    pixels = {np.asarray(Image.open(path)).tobytes() for path in (tmp_path / "cat").iterdir()}
    cats = many.train.pixels[many.train.labels == 0].permute(0, 2, 3, 1).numpy()
    assert {image.tobytes() for image in cats} <= pixels


def test_filters_of_warnings_are_as_before(pets):
    import warnings

    before = list(warnings.filters)
    load_data(pets)
    assert warnings.filters == before
