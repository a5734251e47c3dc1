"""Tars: splits and wrappers inside, members that point out, links, damage."""

from __future__ import annotations

import io
import shutil
import tarfile

import pytest
import torch
from image_files import write_images

from se_nas.data import load_data
from se_nas.errors import DataError


@pytest.fixture
def pets(tmp_path):
    return write_images(tmp_path / "pets")


def packed(path, folder, arcname="."):
    with tarfile.open(path, "w") as tar:
        tar.add(folder, arcname=arcname)
    return str(path)


def with_member(path, folder, name, *, link=None, kind=tarfile.REGTYPE, content=b""):
    packed(path, folder)
    with tarfile.open(path, "a") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.size = kind, len(content)
        member.linkname = link or ""
        tar.addfile(member, io.BytesIO(content))
    return str(path)


@pytest.mark.parametrize("arcname", [".", "pets", "data/pets", "./data/pets"])
def test_folders_around_all_others_fall_away(pets, tmp_path, arcname):
    folder, tar = load_data(pets), load_data(packed(tmp_path / "a.tar", pets, arcname))
    assert tar.class_names == ("cat", "dog")
    assert torch.equal(folder.train.pixels, tar.train.pixels)
    if arcname == ".":
        assert folder.fingerprint == tar.fingerprint


@pytest.mark.parametrize("arcname", [".", "pets"])
def test_splits_in_a_tar_are_splits(tmp_path, arcname):
    for name, count, seed in (("Train", 8, 0), ("Val", 3, 1), ("testing", 2, 2), (".hidden", 5, 3)):
        write_images(tmp_path / "root" / name, count=count, seed=seed)
    data = load_data(packed(tmp_path / "a.tar", tmp_path / "root", arcname))
    assert (len(data.train), len(data.val), len(data.test)) == (16, 6, 4)


def test_tars_of_splits(tmp_path):
    for name, count, seed in (("Train", 8, 0), ("val", 3, 1)):
        folder = write_images(tmp_path / "unpacked" / name, count=count, seed=seed)
        (tmp_path / "root").mkdir(exist_ok=True)
        packed(tmp_path / "root" / f"{name}.tar", folder)
    data = load_data(str(tmp_path / "root"))
    assert (len(data.train), len(data.val)) == (16, 6)
    shutil.copytree(tmp_path / "unpacked" / "val", tmp_path / "root" / "val")
    both = load_data(str(tmp_path / "root"))
    assert (len(both.train), len(both.val)) == (16, 6)
    assert both.skipped == ("val.tar",)


@pytest.mark.parametrize("outer", ["folder", "tar"])
def test_a_tar_per_class(pets, tmp_path, outer):
    (tmp_path / "root").mkdir()
    for name in ("cat", "dog"):
        packed(tmp_path / "root" / f"{name}.tar", pets / name)
    root = str(tmp_path / "root") if outer == "folder" else packed(tmp_path / "a.tar", tmp_path / "root")
    data = load_data(root)
    assert data.class_names == ("cat", "dog")
    assert torch.equal(data.train.pixels, load_data(pets).train.pixels)


def test_large_images_are_read_from_where_they_lie(pets, tmp_path):
    folder, tar = load_data(pets, input_size=128), load_data(packed(tmp_path / "a.tar", pets), input_size=128)
    assert folder.fingerprint == tar.fingerprint
    for index in tar.train.indices:
        assert tar.train.samples.read(index).tobytes() == folder.train.samples.read(index).tobytes()


@pytest.mark.parametrize(
    "name", ["/etc/cat/x.png", "../x.png", "cat/../../x.png", "cat/..", "C:\\x.png", "..\\x.png"]
)
def test_members_that_point_out_are_refused_by_name(pets, tmp_path, name):
    with pytest.raises(DataError) as caught:
        load_data(with_member(tmp_path / "a.tar", pets, name))
    assert repr(name) in str(caught.value)
    assert "out of the archive" in str(caught.value)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("link", ["/etc/passwd", "../../passwd"])
def test_links_that_lead_out_are_refused_by_name(pets, tmp_path, kind, link):
    path = with_member(tmp_path / "a.tar", pets, "cat/x.png", link=link, kind=kind)
    with pytest.raises(DataError, match=f"link 'cat/x.png' to '{link}', which leads out"):
        load_data(path)


@pytest.mark.parametrize(
    ("kind", "link"),
    [(tarfile.SYMTYPE, "0.png"), (tarfile.SYMTYPE, "../dog/0.png"), (tarfile.LNKTYPE, "./cat/0.png")],
)
def test_links_inside_have_the_content_of_their_target(pets, tmp_path, kind, link):
    data = load_data(with_member(tmp_path / "a.tar", pets, "cat/x.png", link=link, kind=kind))
    assert len(data.train) + len(data.val) == 21
    assert data.skipped == ()


@pytest.mark.parametrize("link", ["nothing.png", "x.png"])
def test_dead_links_and_circles_are_left_out(pets, tmp_path, link):
    data = load_data(with_member(tmp_path / "a.tar", pets, "cat/x.png", link=link, kind=tarfile.SYMTYPE))
    assert data.left_out() == ["1 file (a dead link): cat/x.png"]


def test_a_device_is_left_out(pets, tmp_path):
    data = load_data(with_member(tmp_path / "a.tar", pets, "cat/x.png", kind=tarfile.FIFOTYPE))
    assert data.left_out() == ["1 file (not a regular file): cat/x.png"]


def test_the_last_member_of_a_name_counts(pets, tmp_path):
    content = (pets / "dog" / "1.png").read_bytes()
    data = load_data(with_member(tmp_path / "a.tar", pets, "./cat/0.png", content=content))
    shutil.copy(pets / "dog" / "1.png", pets / "cat" / "0.png")
    assert data.fingerprint == load_data(pets).fingerprint


@pytest.mark.parametrize("input_size", [20, 128])
def test_macos_companions_are_silent(pets, tmp_path, input_size):
    for path in list(pets.glob("*/*.png")):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\26\7")
        write_images(pets, ("__MACOSX/cat",), count=1)
    data = load_data(packed(tmp_path / "a.tar", pets), input_size=input_size)
    assert data.class_names == ("cat", "dog")
    assert data.skipped == ()


@pytest.mark.parametrize("size", [700, 10_000])
def test_a_truncated_tar(pets, tmp_path, size):
    path = tmp_path / "a.tar"
    packed(path, pets)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match=r"a\.tar' cannot be read as a tar"):
        load_data(str(path))


def test_a_compressed_tar(pets, tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w:gz") as tar:
        tar.add(pets, arcname=".")
    with pytest.raises(DataError, match=r"a\.tar' cannot be read as a tar"):
        load_data(str(tmp_path / "a.tar"))
