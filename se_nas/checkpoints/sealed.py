"""Weights in a safetensors file with their digest, so that a file in which a bit has changed is not taken for whole."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from se_nas.errors import CheckpointError

DIGEST = "sha256"
"""Key of the digest in the file's metadata."""


def save_sealed(tensors: Mapping[str, Tensor], path: str | Path, metadata: Mapping[str, str]) -> None:
    """Write contiguous tensors on the CPU; errors are those of ``safetensors.torch.save_file``."""
    save_file(dict(tensors), path, {**metadata, DIGEST: digest(tensors)})


def load_sealed(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file, by name. A file without a digest, as se-nas 0.1.0 wrote it, is taken as it is.

    Raises:
        CheckpointError: the tensors are not those that were written.
        OSError, SafetensorError: the file cannot be read.
    """
    with safe_open(path, framework="pt") as file:
        expected = (file.metadata() or {}).get(DIGEST)
    tensors = load_file(path)
    if expected is not None and digest(tensors) != expected:
        raise CheckpointError(f"the weights in {path} are damaged: they are not those that were written.")
    return tensors


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values, in hexadecimal."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}:".encode())
        found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
