"""A disk that is full, read-only or over quota, at every write of a run: one sentence, nothing torn, and it goes on."""

import errno
import itertools
import os
import random
import re
import shutil
import sqlite3
from collections import Counter
from pathlib import Path

import mounts
import numpy as np
import pytest
from PIL import Image
from small_cases import SEARCH, table

import se_nas
from se_nas.errors import DiskError
from se_nas.exporting import export
from se_nas.report import figures
from se_nas.report.run import Run
from se_nas.run import RunFolder
from se_nas.study import resume, search, session

RESULT = ("number", "key", "seed", "phase", "state", "accuracy", "loss", "num_params", "epochs")
IN_SQLITE = {
    errno.ENOSPC: ("database or disk is full", sqlite3.SQLITE_FULL),
    errno.EDQUOT: ("disk I/O error", sqlite3.SQLITE_IOERR_WRITE),
    errno.EROFS: ("attempt to write a readonly database", sqlite3.SQLITE_READONLY),
}
TEMPORARY = re.compile(r"\.([^/]+)\.\w{8}(?=/|$)")
CONTENT = (
    "SELECT * FROM studies",
    "SELECT key FROM study_user_attributes",
    "SELECT number, state, json_extract(value_json, '$.epochs', '$.state')"
    " FROM trials LEFT JOIN trial_user_attributes USING (trial_id)",
)
"""What tells the writes to a study apart, without what the clock says."""
SAID = {
    errno.ENOSPC: r"(No space left on device|database or disk is full)\. Make room on that disk\.",
    errno.EDQUOT: r"(Disk quota exceeded\. Your quota is used up|disk I/O error\. The disk may be full)",
    errno.EROFS: r"(Read-only file system|attempt to write a readonly database)\. Make it writable\.",
}


TRAINER = """
import errno, os

def train(model, context):
    try:
        if os.path.exists(os.environ["FULL"]):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "log.txt")
    except OSError as error:
        raise RuntimeError("no log") from error
    return {"accuracy": 50.0}
"""


def results(path):
    return [{name: row[name] for name in RESULT} for row in table(path)]


class Disk:
    """Refuses each write the first time it is tried, and then everything until there is ``room`` again."""

    def __init__(self):
        self.full, self.number = False, errno.ENOSPC
        self.written, self.refused = Counter(), []

    def room(self):
        self.full = False
        self.number = random.choice(list(SAID))

    def passes(self, name, content=None):
        """Whether a write may pass; without its content, it is known by how often that file has been written."""
        write = (name, self.written[name] if content is None else content)
        if not self.full and write not in self.refused and not self._often(name):
            self.refused.append(write)
            self.full = True
        self.written[name] += not self.full
        return not self.full

    def _often(self, name):
        """These files are written again after every resume."""
        return Path(name).name in ("manifest.json", "trials.json", "config.json") and self.written[name] > 3


@pytest.fixture
def disk(monkeypatch, tmp_path):
    disk = Disk()
    opened, connect = os.open, sqlite3.connect

    def open_(path, flags, *args, **kwargs):
        name = TEMPORARY.sub(r"\1", os.path.relpath(os.fsdecode(path), tmp_path))
        if flags & os.O_CREAT and not name.startswith("..") and not disk.passes(name):
            raise OSError(disk.number, os.strerror(disk.number), str(path))
        return opened(path, flags, *args, **kwargs)

    class Connection(sqlite3.Connection):
        def commit(self):
            if self.in_transaction and not disk.passes(
                "study.db", str([self.execute(part).fetchall() for part in CONTENT])
            ):
                words, code = IN_SQLITE[disk.number]
                error = sqlite3.OperationalError(words)
                error.sqlite_errorcode = code
                raise error
            super().commit()

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(
        sqlite3, "connect", lambda *args, **kwargs: connect(*args, **kwargs, factory=Connection)
    )
    return disk


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A search of two candidates on 40 images, so that going on after every write takes no longer than it must."""
    images = tmp_path_factory.mktemp("images")
    draws = np.random.default_rng(0)
    for label, index in itertools.product("ab", range(20)):
        (images / label).mkdir(exist_ok=True)
        Image.fromarray(draws.integers(0, 256, (32, 32, 3), np.uint8)).save(images / label / f"{index}.png")
    return {
        **SEARCH,
        "data": str(images),
        "objectives": "accuracy,params",
        "trials": 2,
        "epochs": 2,
        "final_seeds": 0,
        "name": "run",
    }


@pytest.fixture(scope="module")
def undisturbed(config, tmp_path_factory):
    """A run that nothing stopped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "write_report", lambda run: run.path)
        return search(se_nas.SearchConfig(**config, runs=str(tmp_path_factory.mktemp("runs"))))


def once(resolve):
    """Plans are made once for searches, and once for what goes on."""
    plans = {}

    def resolved(config, progress, *, frozen=None, **given):
        if frozen is None:
            return resolve(config, progress, **given)
        if "plan" not in plans:
            plans["plan"] = resolve(config, progress, frozen=frozen)
        return plans["plan"]

    return resolved


def until_it_passes(disk, action):
    """Try an action until it comes to its end; yields what it said each time before."""
    while True:
        try:
            action()
        except DiskError as error:
            said = str(error)
        else:
            break
        assert re.search(SAID[disk.number], said)
        yield said
        disk.room()
    print(len(disk.refused), "writes refused:", sorted({name for name, _ in disk.refused}))


def go_on(config, path):
    """Begin the run, or resume it once there is one."""
    if (path / "manifest.json").exists():
        resume(path)
    else:
        search(se_nas.SearchConfig(**config, runs=str(path.parent)))


def test_every_write_of_a_run_is_refused_once(config, undisturbed, disk, tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "write_report", lambda run: run.path)
    # It is the same for every resume, and takes longest.
    monkeypatch.setattr(session, "resolve", once(session.resolve))
    path = tmp_path / "run"

    for said in until_it_passes(disk, lambda: go_on(config, path)):
        assert ("se-nas resume" in said) == (path / "manifest.json").exists()
    assert len(disk.refused) > 30
    assert results(path) == results(undisturbed.path)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_trainer_that_meets_a_full_disk_costs_no_candidate(config, tmp_path, monkeypatch, workers):
    (tmp_path / "trainer_on_a_disk.py").write_text(TRAINER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(Run, "write_report", lambda run: run.path)
    full = tmp_path / "full"
    full.touch()
    monkeypatch.setenv("FULL", str(full))
    changes = {
        "trainer": "trainer_on_a_disk:train",
        "per_gpu": workers,
        "runs": str(tmp_path),
        "keep": "none",
    }
    with pytest.raises(DiskError, match=r"log\.txt cannot be written: No space left on device\. Make room"):
        search(se_nas.SearchConfig(**{**config, **changes}))
    assert {row["state"] for row in table(tmp_path / "run")} == {"running"}
    full.unlink()
    resume(tmp_path / "run")
    assert [row["state"] for row in table(tmp_path / "run")] == ["complete"] * 2


def test_every_write_of_a_report_is_refused_once(undisturbed, disk, tmp_path, monkeypatch):
    # All are drawn anew after every refusal.
    monkeypatch.setattr(figures, "_FIGURES", {"front": figures._FIGURES["front"]})
    run = Run(RunFolder(shutil.copytree(undisturbed.path, tmp_path / "run")))
    names = ("report.json", "figures", "report.html")
    for said in until_it_passes(disk, run.write_report):
        assert any(name in said for name in names)
        assert not any(path.name.startswith(".") for path in run.path.rglob("*"))
    assert all((run.path / name).exists() for name in names)


def test_every_write_of_an_export_is_refused_once(undisturbed, disk, tmp_path):
    run = Run(RunFolder(shutil.copytree(undisturbed.path, tmp_path / "run")))
    for said in until_it_passes(disk, lambda: export(run.path, out=tmp_path / "best")):
        assert f"{tmp_path / 'best'} cannot be written" in said
        assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert (tmp_path / "best" / "model.safetensors").exists()


GROWING = {
    errno.ENOSPC: (mounts.mounted, lambda path, size: mounts.remount(path, f"size={size}"), 8192),
    errno.EDQUOT: (mounts.with_quota, mounts.limit, 65536),
}
"""What is used up, and how there is more of it."""


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("number", GROWING)
def test_a_run_on_a_disk_or_quota_that_grows_ends_as_on_a_large_one(
    config, undisturbed, tmp_path, monkeypatch, number
):
    monkeypatch.setattr(Run, "write_report", lambda run: run.path)
    made, grow, size = GROWING[number]
    said = []
    with made(tmp_path / "disk", size) as disk:
        path = disk / "run"

        while True:
            try:
                go_on(config, path)
                break
            except DiskError as error:
                said.append(str(error))
            assert not any(TEMPORARY.search(file.name) for file in path.rglob("*"))
            size += random.choice([4096, 16384, 65536, 262144])
            assert grow(disk, size)
        assert results(path) == results(undisturbed.path)
    for message in said:
        assert re.search(SAID[number], message), message
    assert len(said) > 10
    print(
        f"{len(said)} times full, up to {size} bytes:",
        Counter(re.sub(r" cannot.*", "", text.replace(str(path), ""), flags=re.S) for text in said),
    )


@pytest.mark.slow
def test_a_run_on_a_read_only_disk_is_shown_and_goes_on_once_it_is_writable(
    config, undisturbed, tmp_path, monkeypatch
):
    with mounts.mounted(tmp_path / "disk", "64m") as disk:
        path = disk / "run"
        shutil.copytree(undisturbed.path, path)
        study = sqlite3.connect(path / "study.db")
        study.execute("PRAGMA journal_mode = WAL")
        study.execute(
            "UPDATE trial_user_attributes SET value_json = json_set(value_json, '$.description', 'in the log')"
        )
        study.commit()
        # As a process that was killed leaves it, on another machine: what it wrote last is only in its log.
        log = (path / "study.db-wal").read_bytes()
        study.close()
        shutil.copy(undisturbed.path / "study.db", path / "study.db")
        (path / "study.db-wal").write_bytes(log)
        assert mounts.remount(disk, "ro")
        assert {row["description"] for row in table(path)} == {"in the log"}
        for action in (lambda: resume(path), Run(RunFolder(path)).write_report):
            with pytest.raises(
                DiskError, match=r"cannot be written: Read-only file system\. Make it writable\."
            ):
                action()
        assert mounts.remount(disk, "rw")
        resume(path)
