import errno
import os

import pytest

from se_nas.errors import RunError
from se_nas.run import (
    MANIFEST,
    ROW_FIELDS,
    SCHEMA,
    TRIALS,
    Manifest,
    RunFolder,
    read_json,
    write_json,
    write_text,
)


@pytest.fixture
def folder(tmp_path, facts):
    return RunFolder.create(tmp_path / "a-run", {"backbone": "resnet18"}, Manifest.from_json(facts))


def test_round_trip(folder):
    opened = RunFolder.open(folder.path)
    assert opened.config == {"backbone": "resnet18"}
    assert opened.manifest.name == "a-run"
    assert read_json(folder.path / MANIFEST)["schema"] == SCHEMA
    opened.update_manifest(status="finished", budget={"trials": 3, "spent": 1.5})
    assert folder.manifest.status == "finished"
    assert (folder.manifest.budget.trials, folder.manifest.budget.spent) == (3, 1.5)
    assert opened.rows() == ()


def test_rows_have_every_field(folder):
    known = {
        "number": 3,
        "key": "k",
        "widths": [0, 8],
        "phase": "search",
        "state": "complete",
        "accuracy": 91.5,
    }
    folder.write_rows([{**known, "unknown": 1}])
    (written,) = read_json(folder.path / TRIALS)
    assert tuple(written) == (*ROW_FIELDS, "sha256")
    written.pop("sha256")
    assert {name: value for name, value in written.items() if value is not None} == known
    (row,) = folder.rows()
    assert (row.number, row.widths, row.accuracy, row.loss, row.costs) == (3, (0, 8), 91.5, None, {})


def test_existing_folder_is_refused_and_kept(folder):
    before = sorted(folder.path.iterdir())
    with pytest.raises(RunError, match=r"a-run already exists.*se-nas resume"):
        RunFolder.create(folder.path, {}, folder.manifest)
    assert sorted(folder.path.iterdir()) == before
    assert folder.config == {"backbone": "resnet18"}


@pytest.mark.parametrize("name", ["..", ".hidden", "a b", "a\nb", "<script>"])
def test_unusable_name(tmp_path, facts, name):
    with pytest.raises(RunError, match="cannot name a run"):
        RunFolder.create(tmp_path / name, {}, Manifest.from_json(facts))
    assert list(tmp_path.iterdir()) == []


def test_missing_folder_names_the_runs_beside_it(folder):
    with pytest.raises(RunError, match=r"no run folder .*other.*a-run"):
        RunFolder.open(folder.path.parent / "other")


def test_folder_that_is_no_run(tmp_path):
    with pytest.raises(RunError, match=r"is not a run folder.*manifest\.json"):
        RunFolder.open(tmp_path)


def test_newer_schema(folder):
    write_json(folder.path / MANIFEST, {"schema": SCHEMA + 1})
    with pytest.raises(RunError, match=rf"manifest\.json has schema {SCHEMA + 1}.*up to {SCHEMA}\. Upgrade"):
        RunFolder.open(folder.path)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"schema": "x"}', '{"schema": true}', '{"schema": 0}', "{}", '{"schema": 2}']
)
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
    assert folder.manifest.status == "running"
    assert sorted(path.name for path in folder.path.iterdir()) == names


def test_full_disk_at_creation_leaves_nothing(tmp_path, facts, monkeypatch):
    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        RunFolder.create(tmp_path / "x", {}, Manifest.from_json(facts))
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
