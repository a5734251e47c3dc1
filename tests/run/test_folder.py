import errno
import os

import pytest

from se_nas.errors import RunError
from se_nas.run import MANIFEST, ROW_FIELDS, RunFolder, write_json, write_text


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "a-run", {"backbone": "resnet18"}, {"name": "a-run"})


def test_round_trip(folder):
    opened = RunFolder.open(folder.path)
    assert opened.config == {"backbone": "resnet18"}
    assert opened.manifest == {"name": "a-run", "schema": 1}
    opened.update_manifest(status="finished")
    assert folder.manifest["status"] == "finished"
    assert opened.rows() == []


def test_rows_have_every_field(folder):
    folder.write_rows([{"number": 3, "accuracy": 91.5, "unknown": 1}])
    (row,) = folder.rows()
    assert tuple(row) == ROW_FIELDS
    assert row["number"] == 3
    assert row["loss"] is None


def test_existing_folder_is_refused_and_kept(folder):
    before = sorted(folder.path.iterdir())
    with pytest.raises(RunError, match=r"a-run exists already.*se-nas resume"):
        RunFolder.create(folder.path, {}, {})
    assert sorted(folder.path.iterdir()) == before
    assert folder.config == {"backbone": "resnet18"}


@pytest.mark.parametrize("name", ["..", ".hidden", "a b", "a\nb", "<script>"])
def test_unusable_name(tmp_path, name):
    with pytest.raises(RunError, match="cannot name a run"):
        RunFolder.create(tmp_path / name, {}, {})
    assert list(tmp_path.iterdir()) == []


def test_missing_folder_names_the_runs_beside_it(folder):
    with pytest.raises(RunError, match=r"no run folder .*other.*a-run"):
        RunFolder.open(folder.path.parent / "other")


def test_folder_that_is_no_run(tmp_path):
    with pytest.raises(RunError, match=r"no run folder.*manifest\.json"):
        RunFolder.open(tmp_path)


def test_newer_schema(folder):
    folder.write_manifest({"schema": 99})
    with pytest.raises(RunError, match=r"schema 99.*up to 1.*Upgrade"):
        RunFolder.open(folder.path)


@pytest.mark.parametrize("text", ["{", '{"schema": "x"}', "{}"])
def test_damaged_manifest(folder, text):
    (folder.path / MANIFEST).write_text(text)
    with pytest.raises(RunError, match="damaged"):
        RunFolder.open(folder.path)


def test_full_disk_leaves_the_old_file_and_no_other(folder, monkeypatch):
    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    names = sorted(path.name for path in folder.path.iterdir())
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        folder.update_manifest(status="finished")
    assert "status" not in folder.manifest
    assert sorted(path.name for path in folder.path.iterdir()) == names


def test_full_disk_at_creation_leaves_nothing(tmp_path, monkeypatch):
    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        RunFolder.create(tmp_path / "x", {}, {})
    assert list(tmp_path.iterdir()) == []


def test_second_process_cannot_take_the_lock(folder):
    with (
        folder.lock(),
        pytest.raises(RunError, match="another se-nas process"),
        RunFolder(folder.path).lock(),
    ):
        pass
    with folder.lock():
        pass


def test_nan_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "x.json", float("nan"))


def test_text_replaces_whole(tmp_path):
    write_text(tmp_path / "x", "one")
    write_text(tmp_path / "x", "two")
    assert (tmp_path / "x").read_text() == "two"
