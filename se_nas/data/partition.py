"""Shares of the training images that are held out, and statistics of those that are left."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from se_nas.data.image_data import Images
from se_nas.errors import DataError
from se_nas.wording import counted

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def hold_out(
    images: Images, class_names: Sequence[str], shares: tuple[float, float], seed: int
) -> tuple[Images, Images, Images]:
    """Training, validation and test images: every class gives each split its share, at least one image.

    A share of 0 leaves that split empty.

    Raises:
        DataError: a class has too few images.
    """
    labels = images.labels.numpy()
    generator = np.random.default_rng(seed)
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        counts = [max(1, round(share * len(members))) if share else 0 for share in shares]
        if sum(counts) >= len(members):
            raise DataError(
                f"class {class_names[label]!r} has {counted(len(members), 'image')}, too few to"
                f" split into training{', validation' if shares[0] else ''}{' and test' if shares[1] else ''} images."
            )
        first, second = counts
        parts[1].extend(members[:first])
        parts[2].extend(members[first : first + second])
        parts[0].extend(members[first + second :])
    train, val, test = (_subset(images, np.sort(np.asarray(part, dtype=np.int64))) for part in parts)
    return train, val, test


def statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, in [0, 1]; ImageNet's if the images are not in memory."""
    if images.pixels is None:
        return IMAGENET_MEAN, IMAGENET_STD
    # Exact and cheap for any size: the moments of 256 levels, from their counts.
    levels = np.arange(256) / 255
    mean, std = [], []
    for channel in range(3):
        counts = torch.bincount(images.pixels[:, channel].reshape(-1), minlength=256).numpy()
        share = counts / counts.sum()
        centre = float(share @ levels)
        mean.append(centre)
        std.append(max(float(np.sqrt(share @ (levels - centre) ** 2)), 1e-3))
    return tuple(mean), tuple(std)


def _subset(images: Images, indices: np.ndarray) -> Images:
    chosen = torch.from_numpy(indices)
    if images.pixels is not None:
        return Images(labels=images.labels[chosen], pixels=images.pixels[chosen])
    assert images.indices is not None
    return Images(labels=images.labels[chosen], samples=images.samples, indices=images.indices[indices])
