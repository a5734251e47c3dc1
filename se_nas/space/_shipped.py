"""Where the shipped search spaces lie: inside an installed package, beside it in a source tree."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def shipped_folder() -> Path:
    """The folder of the shipped spaces, for a wheel, an editable install and a source tree alike."""
    package = Path(str(resources.files("se_nas")))
    inside = package / "search_spaces"
    return inside if inside.is_dir() else package.parent / "search_spaces"


def shipped_names() -> list[str]:
    """Names that ``SearchSpace.load`` knows without a path."""
    return sorted(path.stem for path in shipped_folder().glob("*.yaml"))


def shipped_spaces() -> dict[str, str]:
    """Name of every shipped space and its description in one line."""
    from se_nas.space._file import read_spec

    return {name: read_spec(shipped_folder() / f"{name}.yaml").description for name in shipped_names()}
