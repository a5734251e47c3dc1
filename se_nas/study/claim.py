"""A search takes its folder's name before it prepares, so that no other one chooses the same meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from se_nas.study.config import SearchConfig


@contextmanager
def claimed(config: SearchConfig) -> Iterator[SearchConfig]:
    """The configuration with a name whose folder is there and empty; a name that was given stays as it is.

    A folder that is still empty at the end is removed.
    """
    if config.name is not None:
        yield config
        return
    runs = Path(config.runs)
    made = [folder for folder in (runs, *runs.parents) if not folder.exists()]
    try:
        runs.mkdir(parents=True, exist_ok=True)
        path = _claim(config)
    except (OSError, ValueError):
        # What is wrong with it is found, and explained, where everything else is checked.
        yield config
        return
    try:
        yield config.model_copy(update={"name": path.name})
    finally:
        for folder in (path, *made):
            with suppress(OSError):
                folder.rmdir()


def default_name(config: SearchConfig) -> str:
    """backbone-data-N with the first N that is free."""
    data = (
        "".join(letter if letter.isalnum() else "-" for letter in Path(config.data).name).strip("-") or "data"
    )
    backbone = config.backbone.replace("/", "-").replace(":", "-")
    taken = {entry.name for entry in Path(config.runs).glob(f"{backbone}-{data}-*")}
    return next(name for number in count(1) if (name := f"{backbone}-{data}-{number}") not in taken)


def _claim(config: SearchConfig) -> Path:
    while True:
        path = Path(config.runs) / default_name(config)
        with suppress(FileExistsError):
            path.mkdir()
            return path
