"""Weights of a plain backbone from what trainers write: found in the file, matched by name, loaded strictly.

Nothing but tensors, containers, numbers, strings and ``argparse.Namespace`` is unpickled, as in timm.
"""

from __future__ import annotations

import argparse
import os
import re
import zipfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from se_nas.errors import CheckpointError

EMA = ("state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict", "params_ema", "ema")
"""Keys under which trainers keep the exponential moving average of the weights."""
PLAIN = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params")

_WRAPPERS = re.compile(r"(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""Names that torch.compile, FSDP and activation checkpointing put around a module, at any depth."""
_BLOCKED = re.compile(r"(?:GLOBAL|class:?) ([\w.]+)")
_SHOWN_PATH = 60


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """Weights in a file that belong to a model.

    Attributes:
        path: of the file, shortened for messages.
        weights: by the model's names.
        taken: keys of the containers in which they were ("state_dict_ema"), joined by dots; "" for none.
        prefix: what stood before the model's names, and was cut off.
        left: names in the file that are not the model's; their weights are not used.
        fresh: names of the model's classifier if its weights are not used, as they are missing or of another
            size.
    """

    path: str
    weights: Mapping[str, Tensor]
    taken: str
    prefix: str
    left: tuple[str, ...]
    fresh: tuple[str, ...]

    def notes(self) -> list[str]:
        """Sentences on what was taken and left, for whoever gave the file; none if everything fits as it is."""
        notes = []
        averaged = self.taken if self.taken.rpartition(".")[2] in EMA else self.prefix
        if averaged and (averaged == self.taken or _is_average(averaged)):
            notes.append(f"{self.path}: the moving average of the weights ({averaged!r}) is used.")
        elif self.prefix and self.left:
            notes.append(f"{self.path}: the weights whose names begin with {self.prefix!r} are used.")
        if self.left:
            notes.append(f"{self.path}: not used are {_listed(self.left)}.")
        if self.fresh:
            notes.append(f"{self.path}: the classifier ({_listed(self.fresh)}) does not fit and starts anew.")
        return notes


def load_checkpoint(model: nn.Module, path: str | Path) -> Checkpoint:
    """Load a plain backbone's weights; see ``fitting``.

    Raises:
        CheckpointError: the file cannot be read, or keys are missing, left over or of another shape.
    """
    found = read_checkpoint(model, path)
    model.load_state_dict({**model.state_dict(), **found.weights})
    return found


def read_checkpoint(model: nn.Module, path: str | Path) -> Checkpoint:
    """What ``load_checkpoint`` would load; the model, which may be on the meta device, stays as it is.

    Raises:
        CheckpointError: as ``load_checkpoint``.
    """
    file = checkpoint_file(path)
    loaded = _read(file)
    taken, weights = _state_dict(loaded, file)
    return fitting(model, weights, shortened(file), taken=taken)


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load weights that are in memory, as ``load_checkpoint`` does those of a file.

    Raises:
        CheckpointError: keys are missing, left over or of another shape; ``source`` names the weights.
    """
    found = fitting(model, weights, source)
    model.load_state_dict({**model.state_dict(), **found.weights})


def fitting(model: nn.Module, weights: Mapping[str, Tensor], source: str, taken: str = "") -> Checkpoint:
    """The weights of a model, strictly but for a classifier of another size, which keeps its fresh ones.

    A prefix that all of the model's names share is cut off. Names beside the model (a loss, another head) are
    left; those of a module that the model has must be the model's.

    Raises:
        CheckpointError: keys are missing, left over or of another shape; ``source`` names the weights.
    """
    expected = model.state_dict()
    head = _classifier_keys(model)
    body = expected.keys() - head
    prefix = _prefix(weights, body)
    named = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    beside = [name for name in weights if not name.startswith(prefix)]
    modules = {name.partition(".")[0] for name in expected}
    unknown = [name for name in named if name not in expected]
    foreign = [name for name in unknown if name.partition(".")[0] in modules and name not in head]
    odd = [
        f"{key} has shape {tuple(named[key].shape)}, the model {tuple(expected[key].shape)}"
        for key in expected
        if key in body and key in named and named[key].shape != expected[key].shape
    ]
    missing = [key for key in expected if key in body and key not in named and not _is_counter(key)]
    odd += [f"{key} is missing" for key in missing]
    if odd or foreign:
        odd += [f"{key} is unknown to the model" for key in unknown]
        seen = f" (after the prefix {prefix!r})" if prefix else ""
        if len(missing) == sum(not _is_counter(key) for key in body):
            seen = f" (its names are {_listed(list(weights))})"
        more = f", and {len(odd) - 5} more" if len(odd) > 5 else ""
        raise CheckpointError(
            f"{source} does not fit {type(model).__name__}{seen}: {'; '.join(odd[:5])}{more}."
        )
    fits = {k: v for k, v in named.items() if k in expected and v.shape == expected[k].shape}
    # A head that fits in part (the weight, not the bias) would be neither old nor new.
    fresh = () if head <= fits.keys() else tuple(key for key in expected if key in head)
    return Checkpoint(
        path=source,
        weights={key: value for key, value in fits.items() if key not in fresh},
        taken=taken,
        prefix=prefix,
        left=(*(prefix + name for name in unknown), *beside),
        fresh=fresh,
    )


def shortened(path: Path) -> str:
    """A path for a message; only its end if it is long."""
    text = str(path)
    return text if len(text) <= _SHOWN_PATH else f".../{path.name[-_SHOWN_PATH:]}"


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
        # A stream, since torch goes by the suffix of a path.
        with path.open("rb") as stream, torch.serialization.safe_globals([argparse.Namespace]):
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
    weights = {
        _WRAPPERS.sub("", name): value
        for name, value in loaded.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    return ".".join(taken), weights


def _holds_tensors(value: Any) -> bool:
    """Whether a mapping has tensors, or wraps one that has."""
    if not isinstance(value, Mapping):
        return False
    return any(isinstance(each, Tensor) for each in value.values()) or any(
        _holds_tensors(value.get(key)) for key in (*EMA, *PLAIN)
    )


def _prefix(weights: Collection[str], expected: Collection[str]) -> str:
    """What stands before the most of the expected names; a moving average goes before its equals."""
    found: Counter[str] = Counter()
    for name in weights:
        found.update(prefix for prefix, rest in _cuts(name) if rest in expected)
    return max(found, key=lambda each: (found[each], _is_average(each), -len(each)), default="")


def _is_average(prefix: str) -> bool:
    return "ema" in re.split(r"[._]", prefix)


def _cuts(name: str) -> Iterator[tuple[str, str]]:
    yield "", name
    for match in re.finditer(r"\.", name):
        yield name[: match.end()], name[match.end() :]


def _classifier_keys(model: nn.Module) -> set[str]:
    config = getattr(model, "pretrained_cfg", None) or {}
    names = config.get("classifier") or ()
    names = (names,) if isinstance(names, str) else tuple(names)
    return {key for key in model.state_dict() if key.startswith(tuple(f"{name}." for name in names))}


def _is_counter(key: str) -> bool:
    """Batches that a norm has seen: not in files of PyTorch before 1.0, and without effect."""
    return key.endswith("num_batches_tracked")


def _listed(names: Collection[str], limit: int = 3) -> str:
    shown = list(names)[:limit]
    return ", ".join(shown) + (f" and {len(names) - limit} more" if len(names) > limit else "")
