"""What is in a file with weights: told apart by its first bytes, read without unpickling foreign classes.

Nothing but tensors, containers, numbers, strings and ``argparse.Namespace`` is unpickled, as in timm.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from se_nas.errors import CheckpointError

EMA = ("state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict", "params_ema", "ema")
"""Keys under which trainers keep the exponential moving average of the weights."""
PLAIN = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params")


_WRAPPERS = re.compile(r"(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""Names that torch.compile, FSDP and activation checkpointing put around a module, at any depth."""
_BLOCKED = re.compile(r"(?:GLOBAL|class:?) ([\w.]+)")
_SHOWN_PATH = 60


def checkpoint_file(path: str | Path) -> Path:
    """The path of a file that is there; nothing is read.

    Raises:
        CheckpointError: the path is empty, of a folder, or of nothing.
    """
    if not isinstance(path, (str, os.PathLike)) or not str(path).strip():
        raise CheckpointError(f"checkpoint is {path!r}; allowed: the path of a file with weights.")
    file = Path(path).expanduser()
    if file.is_dir():
        raise CheckpointError(
            f"checkpoint {shortened(file)!r} is a folder; give the file with the weights in it."
        )
    if not file.exists():
        raise CheckpointError(f"there is no checkpoint {shortened(file)}: the file does not exist.")
    return file


def fingerprint(path: str | Path) -> str:
    """SHA-256 of a file with weights, in hexadecimal digits.

    Raises:
        CheckpointError: there is no such file, or it cannot be read.
    """
    file = checkpoint_file(path)
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise _refused(file, f"cannot be read: {error.strerror or error}") from error


def read_file(path: Path) -> tuple[str, dict[str, Tensor]]:
    """The tensors by name, and the keys of the containers that they were in, joined by dots.

    Raises:
        CheckpointError: the file cannot be read, or holds something else.
    """
    return _state_dict(_read(path), path)


def shortened(path: Path) -> str:
    """A path for a message; only its end if it is long."""
    text = str(path)
    return text if len(text) <= _SHOWN_PATH else f".../{path.name[-_SHOWN_PATH:]}"


def _read(path: Path) -> Any:
    """What a file holds, by its first bytes: its suffix is what somebody called it."""
    try:
        with path.open("rb") as stream:
            start = stream.read(64)
    except OSError as error:
        raise _refused(path, f"cannot be read: {error.strerror or error}") from error
    if not start:
        raise _refused(path, "is empty")
    if start.startswith(b"version https://git-lfs"):
        raise _refused(path, "is a git-lfs pointer instead of weights; fetch them with `git lfs pull`")
    if start.lstrip().startswith(b"<"):
        raise _refused(path, "is a web page (HTML) instead of weights; download the file itself")
    if start[8:9] == b"{":
        return _read_safetensors(path)
    if zipfile.is_zipfile(path):
        _refuse_programs(path)
    try:
        # A stream, since torch goes by the suffix of a path; its warnings are of formats that are checked here.
        with path.open("rb") as stream, torch.serialization.safe_globals([argparse.Namespace]), _silence():
            return torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # Every unpickler has errors of its own.
        blocked = _blocked(path, str(error))
        if blocked is None:
            raise _refused(
                path, "holds no weights that can be read: neither torch.save nor safetensors wrote it whole"
            ) from error
        raise _refused(
            path,
            f"also holds a {blocked[:60]}, which is not unpickled; save its state_dict() alone and give that",
        ) from error


@contextmanager
def _silence() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _refused(path, "holds no weights that can be read: the safetensors file is damaged") from error


def _refuse_programs(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith(("constants.pkl", "archive_format")) for name in names):
        raise _refused(
            path, "is a program (TorchScript or torch.export) instead of weights; save its state_dict()"
        )
    if names and all(name.endswith(".npy") for name in names):
        raise _refused(path, "holds NumPy arrays, not weights that PyTorch saved")


def _blocked(path: Path, message: str) -> str | None:
    """The first class that the file wants unpickled, if that is why it was refused."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except Exception:  # Not for files of torch before 1.6; the message of the refusal has the name.
        found = []
    own = sorted(
        (name for name in found if name != "argparse.Namespace"), key=lambda name: name.startswith("torch.")
    )
    matched = _BLOCKED.search(message)
    return own[0] if own else matched[1] if matched else None


def _refused(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{shortened(path)} {reason}.")


def _state_dict(loaded: Any, path: Path) -> tuple[str, dict[str, Tensor]]:
    """The mapping of names to tensors in what was read, and the keys that led to it."""
    taken: list[str] = []
    while isinstance(loaded, Mapping):
        inner = next((key for key in (*EMA, *PLAIN) if _holds_tensors(loaded.get(key))), None)
        if inner is None:
            break
        taken.append(inner)
        loaded = loaded[inner]
    if not _holds_tensors(loaded):
        raise _refused(path, "holds no state dict (a mapping of names to tensors)")
    named = [(name, value) for name, value in loaded.items() if isinstance(name, str)]
    if any(
        "_packed_params" in name or (isinstance(value, Tensor) and value.is_quantized)
        for name, value in named
    ):
        raise _refused(path, "holds quantised weights; give those that they were made from")
    weights = {
        _WRAPPERS.sub("", name): value if value.layout == torch.strided else value.to_dense()
        for name, value in named
        if isinstance(value, Tensor)
    }
    if any(value.is_meta for value in weights.values()):
        raise _refused(path, "holds names and shapes only: it was saved from a model on the meta device")
    return ".".join(taken), weights


def _holds_tensors(value: Any) -> bool:
    """Whether a mapping has tensors, or wraps one that has."""
    if not isinstance(value, Mapping):
        return False
    return any(isinstance(each, Tensor) for each in value.values()) or any(
        _holds_tensors(value.get(key)) for key in (*EMA, *PLAIN)
    )
