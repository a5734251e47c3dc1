"""What a run was asked, and where what it names by a path lies, so that it goes on from any working directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from se_nas.data import known_data
from se_nas.errors import ConfigError, RunError
from se_nas.run import CONFIG, RunFolder
from se_nas.space import shipped_spaces
from se_nas.study.config import SearchConfig

FIELDS = ("data", "val_data", "test_data", "checkpoint", "space")


def asked(folder: RunFolder) -> SearchConfig:
    """The configuration of a run; RunError if its file is missing or damaged."""
    try:
        return SearchConfig(**folder.config)
    except ConfigError as error:
        raise RunError(f"{folder.path / CONFIG} is damaged: {error}") from error


def absolute_paths(config: Mapping[str, Any]) -> dict[str, str]:
    """The absolute path of every field that names something on this disk."""
    names = {*known_data(), *shipped_spaces()}
    given = {name: config.get(name) for name in FIELDS}
    paths = {name: Path(text).expanduser() for name, text in given.items() if text and text not in names}
    return {name: str(path.absolute()) for name, path in paths.items() if path.exists()}


def located(config: Mapping[str, Any], paths: Mapping[str, str]) -> dict[str, Any]:
    """The configuration of a run with those of its absolute paths that are still there."""
    return {**config, **{name: path for name, path in paths.items() if Path(path).exists()}}
