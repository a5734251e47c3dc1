"""The run folder: layout, manifest, tables, atomic writes and the lock of the process that owns it.

What is stored here is derived from the study's storage (``study.journal``), except the manifest, which says
what was run on what. Every file is written to a temporary name and renamed, so a reader never sees half.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from se_nas.errors import RunError
from se_nas.run.files import read_json, write_bytes, write_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SCHEMA = 1
MANIFEST = "manifest.json"
CONFIG = "config.json"
TRIALS = "trials.json"
JOURNAL = "study.journal"
REPORT = "report.json"
HTML = "report.html"
CHECKPOINTS = "checkpoints"
CORRECT = "correct"
FIGURES = "figures"
LOCK = "run.lock"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]*")

SEARCH, FINAL = "search", "final"
"""Phases of a run, in a row's field ``phase``."""

ROW_FIELDS = (
    *("number", "key", "description", "baseline", "position", "widths", "params", "gate", "act", "bias"),
    *("seed", "phase", "epochs", "epochs_planned", "state", "accuracy", "top5", "loss", "train_loss", "ece"),
    *("test_accuracy", "curve", "num_params", "macs", "activations", "latency_ms", "latency_ratio"),
    *("latency_interval", "latency_source", "seconds", "started", "finished", "error"),
)
"""Columns of ``trials.json``; every row has all of them, null where unknown."""


class RunFolder:
    """A run's files on disk. ``create`` makes a new folder, ``open`` checks and opens an existing one."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def create(cls, path: str | Path, config: Mapping[str, Any], manifest: Mapping[str, Any]) -> RunFolder:
        """A new run folder; nothing is left behind where it cannot be written whole.

        Raises:
            RunError: the folder exists and is not empty, its name is unusable, or the disk refuses it.
        """
        folder = cls(path)
        folder.check_free()
        existed = folder.path.exists()
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            write_json(folder.path / CONFIG, config)
            folder.write_manifest({**manifest, "schema": SCHEMA})
        except (OSError, RunError) as error:
            if not existed:
                shutil.rmtree(folder.path, ignore_errors=True)
            raise (
                error
                if isinstance(error, RunError)
                else RunError(f"the run folder {folder.path} cannot be written: {error.strerror or error}.")
            ) from error
        return folder

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """An existing run folder.

        Raises:
            RunError: there is none, it is damaged, or it has a newer schema.
        """
        folder = cls(path)
        if not folder.path.is_dir():
            raise RunError(f"there is no run folder {folder.path}.{_others(folder.path)}")
        if not (folder.path / MANIFEST).is_file():
            raise RunError(f"{folder.path} is no run folder: it has no {MANIFEST}.")
        schema = folder.manifest.get("schema")
        if not isinstance(schema, int):
            raise RunError(f"{folder.path / MANIFEST} is damaged: its schema is {schema!r}.")
        if schema > SCHEMA:
            raise RunError(
                f"{folder.path} has schema {schema}; this version of se-nas reads up to {SCHEMA}. Upgrade se-nas."
            )
        return folder

    def check_free(self) -> None:
        """Raise RunError where a new run cannot take this folder's name."""
        if not _NAME.fullmatch(self.path.name):
            raise RunError(
                f"{self.path.name!r} cannot name a run: use letters, digits, '.', '_', '-', '+' and '=',"
                " and begin with a letter or digit."
            )
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise RunError(
                f"{self.path} exists already. Choose another --name, or go on with it: se-nas resume {self.path}"
            )

    @property
    def manifest(self) -> dict[str, Any]:
        return read_json(self.path / MANIFEST)

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        write_json(self.path / MANIFEST, manifest)

    def update_manifest(self, **changes: Any) -> None:
        self.write_manifest({**self.manifest, **changes})

    @property
    def config(self) -> dict[str, Any]:
        return read_json(self.path / CONFIG)

    @property
    def journal(self) -> Path:
        return self.path / JOURNAL

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    def rows(self) -> list[dict[str, Any]]:
        """The table of trials, one dictionary with ``ROW_FIELDS`` a trial; empty before the first."""
        table = self.path / TRIALS
        return read_json(table) if table.exists() else []

    def write_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        write_json(self.path / TRIALS, [{name: row.get(name) for name in ROW_FIELDS} for row in rows])

    def write_correct(self, number: int, correct: NDArray[np.bool_]) -> None:
        """Store of a trial which validation images it classified right, a bit each, shape (images,)."""
        import numpy as np

        buffer = io.BytesIO()
        np.savez_compressed(buffer, bits=np.packbits(correct), num_images=len(correct))
        try:
            (self.path / CORRECT).mkdir(exist_ok=True)
        except OSError as error:
            raise RunError(f"{self.path / CORRECT} cannot be written: {error.strerror or error}.") from error
        write_bytes(self._correct(number), buffer.getvalue())

    def read_correct(self, number: int) -> NDArray[np.bool_] | None:
        """Which validation images a trial classified right, shape (images,); None where that was not kept.

        Raises:
            RunError: the file is damaged.
        """
        import numpy as np

        path = self._correct(number)
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as stored:
                bits, count = stored["bits"], int(stored["num_images"])
                return np.unpackbits(bits, count=count).astype(np.bool_)
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise RunError(f"{path} is damaged: {error}.") from error

    def _correct(self, number: int) -> Path:
        return self.path / CORRECT / f"{number}.npz"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; the operating system frees it however the process ends.

        Raises:
            RunError: another process holds it.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunError(
                f"another se-nas process is working on {self.path}; wait for it or stop it."
            ) from None
        try:
            yield
        finally:
            lock.release()


def _others(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    names = sorted(entry.parent.name for entry in path.parent.glob(f"*/{MANIFEST}"))
    return f" Runs in {path.parent}: {', '.join(names[-8:])}." if names else ""
