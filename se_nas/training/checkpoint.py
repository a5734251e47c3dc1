"""Files of a training: a state to go on from after every epoch, and the final weights. Never a pickle.

``{name}-s{seed}.state`` is a ``torch.save`` file that ``torch.load(weights_only=True)`` reads;
``{name}-s{seed}.safetensors`` holds the final weights. Both are written under a temporary name and renamed.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from se_nas.checkpoints.sealed import save_sealed
from se_nas.documents import parse_json
from se_nas.errors import CheckpointError, ConfigError, not_allowed
from se_nas.run import disk_error, whole_file

SCHEMA = 1
KEEP = ("front", "all", "none")
STATE, WEIGHTS = ".state", ".safetensors"


def checkpoint_path(folder: Path, name: str, seed: int, suffix: str = WEIGHTS) -> Path:
    """The path of a candidate's file."""
    return folder / f"{name}-s{seed}{suffix}"


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a training state: tensors, numbers, strings, lists and dictionaries."""
    _atomically(path, lambda target: _save({"schema": SCHEMA, **state}, target))


def load_state(path: Path) -> dict[str, Any] | None:
    """The state, or None if there is none.

    Raises:
        CheckpointError: the file is damaged, holds something else, or is of a newer schema.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (
        OSError,
        RuntimeError,
        ValueError,
        EOFError,
        LookupError,
        TypeError,
        pickle.UnpicklingError,
    ) as error:
        raise CheckpointError(f"{str(path)!r} is not a training state, or is damaged: {error}.") from error
    if not isinstance(state, dict) or state.get("schema", 0) > SCHEMA or "schema" not in state:
        raise CheckpointError(f"{str(path)!r} is not a training state of schema {SCHEMA} or earlier.")
    return state


class StateWriter:
    """Writes states on a thread, so that training goes on meanwhile; without a path it does nothing.

    What a state holds is copied before ``write`` returns. A failed write is raised by the next call.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._pool = ThreadPoolExecutor(max_workers=1) if path is not None else None
        self._pending: Future[None] | None = None
        if path is not None and path.parent.is_dir():
            # Of a process that was killed in the middle of a write; a candidate is trained by one at a time.
            for leftover in path.parent.glob(f".{path.name}.*"):
                leftover.unlink(missing_ok=True)

    def write(self, state: Mapping[str, Any]) -> None:
        self.wait()
        if self._pool is not None and self.path is not None:
            self._pending = self._pool.submit(save_state, self.path, _copied(state))

    def wait(self) -> None:
        """Return once everything that was written is on disk."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def discard(self) -> None:
        """Delete the state."""
        self.wait()
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def close(self) -> None:
        self.wait()
        if self._pool is not None:
            self._pool.shutdown()


def save_weights(path: Path, weights: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> None:
    """Write a state dict; ``about`` goes into the header as JSON."""
    tensors = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in weights.items()}
    _atomically(
        path, lambda target: save_sealed(tensors, target, {"format": "pt", "se_nas": json.dumps(dict(about))})
    )


def read_about(path: Path) -> dict[str, Any]:
    """What ``save_weights`` wrote about the weights.

    Raises:
        CheckpointError: the file is missing or is not a safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return dict(parse_json((file.metadata() or {}).get("se_nas", "{}")))
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise CheckpointError(f"{str(path)!r} holds no weights: {error}.") from error


def prune(folder: Path, keep: str, front: Collection[str] = ()) -> int:
    """Delete files by policy and return the bytes freed.

    Args:
        keep: "all" keeps everything; "front" the files whose candidate is in ``front``; "none" nothing.
        front: names of candidates, as in ``Context.name``.
    """
    if keep not in KEEP:
        raise ConfigError(not_allowed("keep", keep, KEEP))
    freed = 0
    for path in checkpoint_files(folder):
        name = path.stem.rpartition("-s")[0]
        if keep == "all" or (keep == "front" and name in front):
            continue
        freed += path.stat().st_size
        path.unlink()
    return freed


def disk_used(folder: Path) -> int:
    """Bytes that the checkpoints of a folder take."""
    return sum(path.stat().st_size for path in checkpoint_files(folder))


def checkpoint_files(folder: Path) -> list[Path]:
    """Checkpoints in a folder, sorted; other files are left alone."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix in (STATE, WEIGHTS) and "-s" in path.stem)


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _save(values: Mapping[str, Any], path: Path) -> None:
    # Given a path, PyTorch does not say what the operating system said.
    with path.open("wb") as stream:
        torch.save(values, stream)


def _atomically(path: Path, write: Callable[[Path], None]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            write(temporary)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise disk_error(path, error) from error
