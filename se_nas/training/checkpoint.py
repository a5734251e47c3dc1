"""Files of a training: a state to go on from after every epoch, and the final weights. Never a pickle.

``{name}-s{seed}.state`` is a ``torch.save`` file that ``torch.load(weights_only=True)`` reads;
``{name}-s{seed}.safetensors`` holds the final weights. Both are written under a temporary name and renamed.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from se_nas.checkpoints.sealed import save_sealed
from se_nas.documents import parse_json
from se_nas.errors import CheckpointError, ConfigError, not_allowed
from se_nas.run import disk_error, whole_file
from se_nas.training.sealed_archive import check_seal, seal
from se_nas.training.side_by_side import copies_on_cpu

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
        CheckpointError: the file is damaged (not a bit may differ), holds something else, or is of a newer schema.
    """
    if not path.exists():
        return None
    try:
        check_seal(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (
        OSError,
        RuntimeError,
        ValueError,
        EOFError,
        LookupError,
        TypeError,
        zipfile.BadZipFile,
        pickle.UnpicklingError,
    ) as error:
        raise CheckpointError(f"{str(path)!r} is not a training state, or is damaged: {error}.") from error
    if not isinstance(state, dict) or state.get("schema", 0) > SCHEMA or "schema" not in state:
        raise CheckpointError(f"{str(path)!r} is not a training state of schema {SCHEMA} or earlier.")
    return state


class StateWriter:
    """Writes a training's states, and its weights at the end, on a thread, so that others train meanwhile.

    What is written is copied before a method returns. A failed write is raised by the next call. Without a path no
    state is written.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._pending: list[Future[None]] = []
        if path is not None and path.parent.is_dir():
            # Of a process that was killed in the middle of a write; a candidate is trained by one at a time.
            for leftover in path.parent.glob(f".{path.name}.*"):
                leftover.unlink(missing_ok=True)

    @property
    def idle(self) -> bool:
        """Whether everything is on disk, or has failed to get there."""
        return all(future.done() for future in self._pending)

    def write(self, state: Mapping[str, Any]) -> None:
        """Write a state, once what was written before is on disk."""
        self.wait()
        if self.path is not None:
            snapshot = Snapshot(state)
            self._pending.append(self._pool.submit(_save_snapshot, self.path, snapshot))

    def finish(self, path: Path, weights: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> None:
        """Write the final weights; then the state is not needed any more, and is deleted."""
        self._pending.append(self._pool.submit(self._finish, path, Snapshot(weights), about))

    def wait(self, seconds: float | None = None) -> None:
        """Return once everything that was written is on disk, or when the time is up."""
        wait(self._pending, timeout=seconds)
        if self.idle:
            pending, self._pending = self._pending, []
            for future in pending:
                future.result()

    def discard(self) -> None:
        """Delete the state."""
        self.wait()
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def close(self) -> None:
        self._pool.shutdown(wait=False)
        self.wait()

    def _finish(self, path: Path, weights: Snapshot, about: Mapping[str, Any]) -> None:
        save_weights(path, weights.get(), about)
        if self.path is not None:
            self.path.unlink(missing_ok=True)


class Snapshot:
    """A copy of a state on the CPU. The copy of what lies on a GPU is under way when this is made.

    Args:
        state: tensors, numbers and strings, in lists and dictionaries.
    """

    def __init__(self, state: Any) -> None:
        tensors: list[torch.Tensor] = []

        def seen(tensor: torch.Tensor) -> torch.Tensor:
            tensors.append(tensor)
            return tensor

        _changed(state, seen)
        copies = iter(_copies(tensors))
        self._state = _changed(state, lambda tensor: next(copies))
        self._ready: torch.cuda.Event | None = None
        if device := next((tensor.device for tensor in tensors if tensor.is_cuda), None):
            self._ready = torch.cuda.Event(blocking=True)
            self._ready.record(torch.cuda.current_stream(device))

    def get(self) -> Any:
        """The copy, once it is complete; for any thread."""
        if self._ready is not None:
            self._ready.synchronize()
        return self._state


def _copies(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Each on its own on a CPU, where nothing is gained by putting them together."""
    elsewhere = [index for index, tensor in enumerate(tensors) if tensor.device.type != "cpu"]
    together = dict(zip(elsewhere, copies_on_cpu([tensors[index] for index in elsewhere]), strict=True))
    return [
        together[index] if index in together else tensor.detach().clone()
        for index, tensor in enumerate(tensors)
    ]


def _save_snapshot(path: Path, snapshot: Snapshot) -> None:
    save_state(path, snapshot.get())


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


def _changed(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """A state with each of its tensors changed, in order."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _changed(item, change) for key, item in value.items()}
    return [_changed(item, change) for item in value] if isinstance(value, list) else value


def _save(values: Mapping[str, Any], path: Path) -> None:
    # Given a path, PyTorch does not say what the operating system said.
    with path.open("wb") as stream:
        torch.save(values, stream)
    seal(path)


def _atomically(path: Path, write: Callable[[Path], None]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            write(temporary)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise disk_error(path, error) from error
