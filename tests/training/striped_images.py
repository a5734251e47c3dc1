"""Images that a small network tells apart after a few steps."""

from __future__ import annotations

import numpy as np
import torch

from se_nas.data import ImageData, Images


def make_images(count: int, num_classes: int, side: int, seed: int) -> Images:
    """Noise with a bright stripe whose place and colour tell the class."""
    draws = np.random.default_rng(seed)
    labels = np.arange(count) % num_classes
    pixels = draws.integers(0, 90, (count, 3, side, side), dtype=np.uint8)
    width = side // num_classes
    for index, label in enumerate(labels):
        pixels[index, label % 3, :, label * width : (label + 1) * width] = 230
    return Images(labels=torch.from_numpy(labels), pixels=torch.from_numpy(pixels))


def make_data(num_classes: int = 3, side: int = 16, train: int = 48, val: int = 24) -> ImageData:
    return ImageData(
        name="stripes",
        class_names=tuple("abcdefghij"[:num_classes]),
        input_size=(3, side, side),
        fingerprint="stripes",
        skipped=(),
        train=make_images(train, num_classes, side, 1),
        val=make_images(val, num_classes, side, 2),
        test=None,
        mean=(0.3, 0.3, 0.3),
        std=(0.25, 0.25, 0.25),
        split_seed=0,
        mirror=False,
    )
