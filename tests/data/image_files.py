"""Folders of small random images."""

from __future__ import annotations

import numpy as np
from PIL import Image


def write_images(folder, classes=("cat", "dog"), count=10, side=20, seed=0, suffix=".png"):
    """``count`` images in each of the folders, which may lie deeper (``cat/day1``)."""
    draws = np.random.default_rng(seed)
    for label in classes:
        (folder / label).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            pixels = draws.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{index}{suffix}")
    return folder
