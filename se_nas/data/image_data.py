"""What a data set is, once it has been read: three splits and what a model must know about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from se_nas.errors import DataError
from se_nas.wording import counted, first_of


class Payload(NamedTuple):
    """What stands for an image that is not decoded.

    Attributes:
        identity: goes into the fingerprint (the size in bytes of a file).
        content: equal for equal images, and for no others in practice.
    """

    identity: bytes
    content: bytes

    @classmethod
    def of(cls, pixels: bytes) -> Payload:
        return cls(pixels, pixels)

    @classmethod
    def of_file(cls, size: int, tail: bytes) -> Payload:
        identity = str(size).encode()
        return cls(identity, identity + tail)


class Samples(Protocol):
    """Labelled images that can be read by index, before they are split.

    ``read`` returns an RGB PIL image and raises ``OSError`` (or a child of it) if the file is damaged.
    """

    class_names: tuple[str, ...]
    labels: np.ndarray

    def read(self, index: int) -> Any: ...

    def name(self, index: int) -> str: ...

    def payload(self, index: int) -> Payload:
        """Check an image that stays on disk, without decoding it if that can be avoided.

        Raises:
            OSError: the image is damaged.
        """
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """One split.

    Attributes:
        labels: class indices, int64, shape (N,).
        pixels: uint8, shape (N, 3, H, W), if the split is kept in memory; else None.
        samples: what images are decoded from on each use if the split stays on disk; else None.
        indices: for each image of the split its index in ``samples``; None with pixels.
    """

    labels: torch.Tensor
    pixels: torch.Tensor | None = None
    samples: Samples | None = None
    indices: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def class_counts(self, num_classes: int) -> list[int]:
        """Images of each class."""
        return torch.bincount(self.labels, minlength=num_classes).tolist()


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageData:
    """A classification data set, ready to train on.

    Attributes:
        name: as the user wrote it.
        class_names: by class index.
        input_size: (3, H, W) of the images that a model gets.
        fingerprint: SHA-256 (hex) of names, labels and content; neither the split nor the input size is in
            it.
        skipped: names of the files that were left out: damaged images, files that are not images, images beside
            the class folders.
        train, val: splits; ``test`` is None if the data has none.
        mean, std: of each channel over the training images, in [0, 1]; ImageNet's if they are not in memory.
        split_seed: seed of the split, independent of the training seed.
        mirror: whether a mirrored image keeps its class (not so for digits).
        reasons: for each name in ``skipped`` why it was left out; empty if that is not known.
        remarks: sentences about the data that its user should read.
    """

    name: str
    class_names: tuple[str, ...]
    input_size: tuple[int, int, int]
    fingerprint: str
    skipped: tuple[str, ...]
    train: Images
    val: Images
    test: Images | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    split_seed: int
    mirror: bool = True
    reasons: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("train", "val", "test"):
            split = getattr(self, name)
            outside = (
                [] if split is None else split.labels[(split.labels < 0) | (split.labels >= self.num_classes)]
            )
            if len(outside):
                raise DataError(
                    f"data {self.name!r} has label {int(outside[0])} in its {name} images, beyond the"
                    f" {self.num_classes} classes of the head; labels go from 0 to {self.num_classes - 1}."
                )

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def with_statistics(self, mean: Sequence[float], std: Sequence[float]) -> ImageData:
        """The same images normalised otherwise: pretrained weights need the mean and std of their own data."""
        return replace(self, mean=tuple(mean), std=tuple(std))

    def left_out(self) -> list[str]:
        """For each reason one line: how many files were left out for it, and the first of them."""
        reasons = self.reasons or ("cannot be decoded",) * len(self.skipped)
        names: dict[str, list[str]] = {}
        for name, reason in zip(self.skipped, reasons, strict=True):
            names.setdefault(reason.partition(":")[0], []).append(name)
        return [
            f"{counted(len(found), 'file')} ({reason}): {first_of(found)}" for reason, found in names.items()
        ]

    @property
    def in_memory(self) -> bool:
        """Whether all splits are decoded and kept as uint8."""
        return self.train.pixels is not None


DataFactory = Callable[..., ImageData]
"""An entry point of ``se_nas.data``: takes the keywords of ``load_data`` other than the name."""
