"""The run folder: its files, atomic writes, and the lock of the process that works on it.

The table of trials is derived from the study's database (``study.db``); the manifest says what was run on what.
Every other file is written to a temporary name and renamed, so a reader never sees half of one.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import shutil
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from se_nas.documents import read_bytes, without_collections
from se_nas.errors import RunError
from se_nas.run.disk import disk_error, writing
from se_nas.run.files import read_json, write_bytes, write_json
from se_nas.run.manifest import RUNNING, Manifest
from se_nas.run.study_file import STUDY, read_rows
from se_nas.run.table_file import read_numbers, read_table, write_table
from se_nas.run.trials import TrialRow, row_fields, rows_from_json
from se_nas.wording import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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
_TEMPORARY = re.compile(r"\..+\.\w{8}")
"""Names of files that are being written (`files.whole_file`)."""
_MAX_CORRECT = 1 << 26
"""Bytes of a file in ``correct/``: half a billion images."""
_OF_AN_ARCHIVE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, MemoryError)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]*")

ROW_FIELDS = row_fields()
"""Columns of ``trials.json``; every row has all of them, null if unknown."""


class RunFolder:
    """A run's files on disk. ``create`` makes a new folder, ``open`` checks and opens an existing one."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def create(cls, path: str | Path, config: Mapping[str, Any], manifest: Manifest) -> RunFolder:
        """A new run folder; nothing is left behind if it cannot be written whole.

        Raises:
            RunError: the folder exists and is not empty, or its name is unusable.
            DiskError: the disk refuses it.
        """
        folder = cls(path)
        folder.check_free()
        existed = folder.path.exists()
        try:
            with writing(folder.path):
                folder.path.mkdir(parents=True, exist_ok=True)
            write_json(folder.path / CONFIG, config)
            folder.write_manifest(manifest)
        except RunError:
            if not existed:
                shutil.rmtree(folder.path, ignore_errors=True)
            raise
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
            raise RunError(f"{folder.path} is not a run folder: it has no {MANIFEST}.")
        folder._refuse_links()
        _ = folder.manifest
        return folder

    def check_free(self) -> None:
        """Raise RunError if a new run cannot take this folder's name."""
        if not _NAME.fullmatch(self.path.name):
            raise RunError(
                f"{self.path.name!r} cannot name a run: use letters, digits, '.', '_', '-', '+' and '=',"
                " and begin with a letter or digit."
            )
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise RunError(
                f"{self.path} already exists. Choose another --name, or continue it: se-nas resume {self.path}"
            )

    def _refuse_links(self) -> None:
        """What a link leads to belongs to someone else, and would be written and deleted as if it were the run's."""
        for place in (self.path, *(self.path / name for name in (CHECKPOINTS, CORRECT, FIGURES))):
            for path in place.iterdir() if place.is_dir() else ():
                if path.is_symlink():
                    raise RunError(f"{path} is a link; a run folder must not contain any.")
                if not path.is_file() and not path.is_dir():
                    raise RunError(f"{path} is neither a file nor a folder.")

    def remove_leftovers(self) -> None:
        """Delete what processes that were killed had begun to write; only for the one that holds the lock."""
        for place in (self.path, *(self.path / name for name in (CHECKPOINTS, CORRECT, FIGURES))):
            for path in place.iterdir() if place.is_dir() else ():
                if _TEMPORARY.fullmatch(path.name):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    @property
    def manifest(self) -> Manifest:
        """What was run on what.

        Raises:
            RunError: the file is missing or damaged, or its schema is newer than this program's.
        """
        path = self.path / MANIFEST
        return Manifest.from_json(read_json(path), str(path))

    def write_manifest(self, manifest: Manifest) -> None:
        write_json(self.path / MANIFEST, manifest.to_json())

    def update_manifest(self, **changes: Any) -> None:
        """Replace fields of the manifest, by values of their types or the JSON form of those."""
        self.write_manifest(self.manifest.updated(str(self.path / MANIFEST), **changes))

    @property
    def config(self) -> dict[str, Any]:
        """What the user asked.

        Raises:
            RunError: the file is missing or damaged.
        """
        found = read_json(self.path / CONFIG)
        if not isinstance(found, dict):
            raise RunError(f"{self.path / CONFIG} is damaged: it must be a JSON object.")
        return found

    @property
    def journal(self) -> Path:
        return self.path / JOURNAL

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    def rows(self) -> tuple[TrialRow, ...]:
        """The table of trials, in order of number; empty before the first.

        It is read from the study itself: ``trials.json`` is for other programs, and for runs of version 0.1.0.

        Raises:
            RunError: the file is damaged, or lacks trials that ``trials.json`` has.
        """
        study = self.path / STUDY
        if not study.exists():
            return rows_from_json(read_table(self.path / TRIALS), str(self.path / TRIALS))
        # Read before the study, to which a search may be adding trials.
        copied = read_numbers(self.path / TRIALS) if self.manifest.status == RUNNING else set()
        with without_collections():
            rows = rows_from_json(read_rows(study), str(study))
        self._refuse_lost(copied, [row.number for row in rows])
        return rows

    def check_study(self, numbers: Collection[int]) -> None:
        """Raise RunError if the study, with trials of these numbers, lacks some that ``trials.json`` has.

        Only a search that was killed can have lost them: it leaves a log of the database, which may be damaged.
        """
        if self.manifest.status == RUNNING or not numbers:
            self._refuse_lost(read_numbers(self.path / TRIALS), numbers)

    def _refuse_lost(self, copied: set[int], numbers: Collection[int]) -> None:
        lost = copied.difference(numbers)
        if lost:
            raise RunError(
                f"{self.path / STUDY} lacks {counted(len(lost), 'trial')} that {TRIALS} has, from trial"
                f" {min(lost)} on:"
                f" it or its log {STUDY}-wal is missing or damaged. Restore it, or delete {self.path / TRIALS} to"
                " continue without what is lost."
            )

    def write_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the table of trials: of each row the columns ``ROW_FIELDS``, and their digest."""
        write_table(self.path / TRIALS, ({name: row.get(name) for name in ROW_FIELDS} for row in rows))

    def write_correct(self, number: int, correct: NDArray[np.bool_]) -> str:
        """Store which validation images a trial classified correctly, one bit each, shape (images,).

        Returns:
            The digest of the file, for the trial's row.
        """
        content = packed_correct(correct)
        self.put_correct(number, content)
        return hashlib.sha256(content).hexdigest()

    def put_correct(self, number: int, content: bytes) -> None:
        """Store what ``packed_correct`` has made."""
        with writing(self.path / CORRECT):
            (self.path / CORRECT).mkdir(exist_ok=True)
        write_bytes(self._correct(number), content)

    def has_correct(self, number: int) -> bool:
        """Whether there is such a file of a trial."""
        return self._correct(number).exists()

    def read_correct(self, number: int, digest: str | None = None) -> NDArray[np.bool_] | None:
        """Which validation images a trial classified correctly, shape (images,); None if that was not kept.

        Whoever does not want them any more deletes the folder ``correct/``.

        Args:
            number: of the trial.
            digest: of the file, as the trial's row has it.

        Raises:
            RunError: the file is damaged, or it alone is missing.
        """
        import numpy as np

        path = self._correct(number)
        if not path.exists():
            if digest is None or not path.parent.exists():
                return None
            raise RunError(
                f"{path} is missing: restore it, or delete {path.parent} to continue without intervals over images."
            )
        try:
            content = read_bytes(path, _MAX_CORRECT)
            if digest is not None and hashlib.sha256(content).hexdigest() != digest:
                raise ValueError("it is not what was written")
            with np.load(io.BytesIO(content), allow_pickle=False) as stored:
                if any(part.file_size > _MAX_CORRECT for part in stored.zip.infolist()):
                    raise ValueError("it becomes too large when it is unpacked")
                bits, count = stored["bits"], int(stored["num_images"])
            if bits.dtype != np.uint8 or bits.shape != (-(-count // 8),):
                raise ValueError(f"it does not hold one bit for each of {count} images")
            return np.unpackbits(bits, count=count).astype(np.bool_)
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error.strerror or error}.") from error
        except (*_OF_AN_ARCHIVE, ValueError, LookupError, TypeError) as error:
            raise RunError(f"{path} is damaged: {error}.") from error

    def _correct(self, number: int) -> Path:
        return self.path / CORRECT / f"{number}.npz"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; the operating system frees it however the process ends.

        Raises:
            RunError: another process holds it.
            DiskError: the disk refuses the file of the lock.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunError(
                f"another se-nas process is working on {self.path}; wait for it or stop it."
            ) from None
        except OSError as error:
            raise disk_error(self.path / LOCK, error) from error
        try:
            yield
        finally:
            lock.release()


def packed_correct(correct: NDArray[np.bool_]) -> bytes:
    """Which validation images were classified correctly, shape (images,), as the content of a file."""
    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(buffer, bits=np.packbits(correct), num_images=len(correct))
    return buffer.getvalue()


def _others(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    names = sorted(entry.parent.name for entry in path.parent.glob(f"*/{MANIFEST}"))
    return f" Runs in {path.parent}: {', '.join(names[-8:])}." if names else ""
