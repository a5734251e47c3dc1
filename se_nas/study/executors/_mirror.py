"""Files of a run where its folder is not seen: they travel with the messages about its trainings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from se_nas.run import whole_file
from se_nas.study.executors.task import Setup, Task


class Mirror:
    """A folder whose files are those of the run elsewhere, as far as trainings here write them.

    Args:
        folder: empty.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, tuple[int, int]] = {}

    def within(self, setup: Setup) -> Setup:
        """The setup with this folder in place of the run's."""
        places = {
            name: self._folder / getattr(setup, name).relative_to(setup.folder)
            for name in ("checkpoints", "logs")
        }
        return replace(setup, folder=self._folder, **places)

    def take(self, files: Mapping[str, bytes | None]) -> None:
        """Write files of the run."""
        write_files(self._folder, files)
        self._known = self._state()

    def changed(self) -> dict[str, bytes | None]:
        """Files that were written since the last call, and None for each that was deleted."""
        now = self._state()
        found: dict[str, bytes | None] = {name: None for name in self._known if name not in now}
        for name, state in now.items():
            if self._known.get(name) != state:
                found[name] = (self._folder / name).read_bytes()
        self._known = now
        return found

    def _state(self) -> dict[str, tuple[int, int]]:
        # Hidden files are not whole yet.
        paths = [path for path in self._folder.rglob("*") if path.is_file() and path.name[0] != "."]
        states = [path.stat() for path in paths]
        return {
            path.relative_to(self._folder).as_posix(): (state.st_mtime_ns, state.st_size)
            for path, state in zip(paths, states, strict=True)
        }


def write_files(folder: Path, files: Mapping[str, bytes | None]) -> None:
    """Write files by their names within a folder, and delete those without content."""
    for name, content in files.items():
        path = folder / name
        if content is None:
            path.unlink(missing_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            temporary.write_bytes(content)


def files_of(setup: Setup, task: Task) -> dict[str, bytes | None]:
    """What a run's folder has of a candidate's training, to go on from it elsewhere."""
    found = setup.checkpoints.glob(f"{task.architecture.key}-s{task.seed}.*")
    return {path.relative_to(setup.folder).as_posix(): path.read_bytes() for path in found if path.is_file()}
