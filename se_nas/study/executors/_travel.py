"""What goes from the process that drives a search to the actors that train for it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from se_nas.data import ImageData, Images
from se_nas.errors import RunError
from se_nas.study.executors.task import Setup
from se_nas.study.executors.worker import received, sendable
from se_nas.training import DEFAULT_TRAINER
from se_nas.training.masked import Capacity

_SPLITS = ("train", "val", "test")
_ALIKE = ("torch", "timm", "numpy")


@dataclass(frozen=True, kw_only=True)
class Work:
    """What an actor is made with, besides the images.

    Attributes:
        setup: `worker.sendable`, without images.
        fingerprint: of the images.
        versions: of the driver's libraries (``versions``).
        probe: a file in the run's folder, by which an actor knows whether it sees this folder.
        places: candidates that train at a time in a pack; None for one, outside of a pack.
        rooms: what masked networks of the pack can be.
        threads: of torch.
    """

    setup: Mapping[str, Any]
    fingerprint: str
    versions: Mapping[str, str]
    probe: Path
    places: int | None
    rooms: Sequence[Capacity]
    threads: int


def elsewhere(setup: Setup) -> dict[str, Any]:
    """``sendable`` for another machine: whole paths, the one GPU that Ray gives an actor, no images in memory."""
    config, folder = setup.config, setup.folder.resolve()
    paths = {name: getattr(config, name) for name in ("data", "val_data", "test_data", "checkpoint")}
    whole = {name: str(Path(path).resolve()) for name, path in paths.items() if path and Path(path).exists()}
    values = sendable(replace(setup, config=config.model_copy(update=whole)))
    values |= {
        name: folder / getattr(setup, name).relative_to(setup.folder) for name in ("checkpoints", "logs")
    }
    if setup.data.in_memory:
        del values["data"]
    if setup.runtime.device.startswith("cuda"):
        values["runtime"]["device"] = "cuda:0"
    return {**values, "folder": folder}


def versions() -> dict[str, str]:
    """The libraries that a result depends on; builds for different devices count as one version."""
    return {name: version(name).partition("+")[0] for name in ("se-nas", *_ALIKE)}


def to_arrays(data: ImageData) -> dict[str, Any]:
    """Images in memory as NumPy arrays, which all processes of a node read from one place in Ray's object store."""
    values = {item.name: getattr(data, item.name) for item in fields(data)}
    for name in _SPLITS:
        if (split := values[name]) is not None:
            values[name] = (split.labels.numpy(), split.pixels.numpy())
    return values


def from_arrays(values: Mapping[str, Any], *, copy: bool) -> ImageData:
    """Inverse of ``to_arrays``.

    Args:
        values: its arrays cannot be written to, nor can tensors on their memory: that would end the process.
        copy: whether the images are copied, for code that may write to them.
    """

    def images(split: tuple[np.ndarray, np.ndarray]) -> Images:
        labels, pixels = split
        return Images(
            labels=torch.from_numpy(labels.copy()), pixels=_tensor(pixels.copy() if copy else pixels)
        )

    splits = {name: images(values[name]) for name in _SPLITS if values[name] is not None}
    return ImageData(**{**values, **splits})


def _tensor(array: np.ndarray) -> torch.Tensor:
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        return torch.from_numpy(array)


def setup_of(work: Work, images: Mapping[str, Any] | None) -> Setup:
    """The setup of an actor.

    Args:
        work: what it was made with.
        images: ``to_arrays``, or None if they are read from their path.

    Raises:
        RunError: the images there are others.
    """
    if images is not None:
        # se-nas' own loop only reads images.
        data = from_arrays(images, copy=work.setup["config"].trainer != DEFAULT_TRAINER)
        return received({**work.setup, "data": data})
    setup = received(work.setup)
    if setup.data.fingerprint != work.fingerprint:
        raise RunError(f"the data {setup.config.data!r} is not what the search was started with")
    return setup


def check_versions(wanted: Mapping[str, str]) -> None:
    """Compare with ``versions`` of the driver.

    Raises:
        RunError: they differ.
    """
    for name, here in versions().items():
        if here != wanted[name]:
            raise RunError(f"{name} is {here}, where the search runs it is {wanted[name]}; install the same")
