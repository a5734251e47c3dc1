"""Augmentation in batches: shifts, crops and mirroring for images in memory, and timm's batch
augmentations.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from timm.data import Mixup
from timm.data.auto_augment import auto_augment_transform, rand_augment_transform
from timm.data.random_erasing import RandomErasing

from se_nas.data import ImageData
from se_nas.errors import ConfigError
from se_nas.training.randomness import AUGMENT, generator, seeded
from se_nas.training.recipe import Recipe

CROP_RATIO = (3 / 4, 4 / 3)


class Augment:
    """Turns uint8 images (B, 3, H, W) into normalised floats, with draws that depend on the key alone."""

    def __init__(self, recipe: Recipe, data: ImageData) -> None:
        self.recipe = recipe
        self.hflip = (0.5 if data.mirror else 0.0) if recipe.hflip is None else recipe.hflip
        self.crop = recipe.crop
        if recipe.crop == "auto":
            self.crop = "pad" if data.mirror else "none"
        self.mean = torch.tensor(data.mean).view(1, 3, 1, 1) * 255
        self.std = torch.tensor(data.std).view(1, 3, 1, 1) * 255
        self._policy = image_policy(recipe, data)
        self._mixup: Mixup | None = None
        if recipe.mixup or recipe.cutmix:
            self._mixup = Mixup(
                mixup_alpha=recipe.mixup,
                cutmix_alpha=recipe.cutmix,
                prob=recipe.mixup_prob,
                label_smoothing=recipe.label_smoothing,
                num_classes=data.num_classes,
            )

    @property
    def mixes(self) -> bool:
        """Whether targets are (B, K) probabilities instead of (B,) indices."""
        return self._mixup is not None

    def geometric(self, pixels: torch.Tensor, *key: int) -> torch.Tensor:
        """What workers do for large images, here on a batch in memory: policy, crop and flip. Float, 0 to
        255.
        """
        draws = generator(AUGMENT, *key)
        if self._policy is not None:
            pixels = self._apply_policy(pixels, *key)
        count, _, height, width = pixels.shape
        flip = draws.random(count) < self.hflip
        if self.crop == "random_resized":
            return _resized_crops(pixels.float(), draws, self.recipe.crop_scale, flip)
        if self.crop == "pad":
            return _shifts(pixels, draws, (height // 8, width // 8), flip)
        return _shifts(pixels, draws, (0, 0), flip) if flip.any() else pixels.float()

    def finish(
        self, images: torch.Tensor, labels: torch.Tensor, *key: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalise, erase and mix a float batch (0 to 255) on its device; (images, targets)."""
        images = self.normalise(images)
        if not self.recipe.random_erasing and self._mixup is None:
            return images, labels
        with seeded(AUGMENT, *key):
            if self.recipe.random_erasing:
                # On the CPU its draws do not depend on the device.
                erase = RandomErasing(self.recipe.random_erasing, mode="pixel", device="cpu")
                images = erase(images)
            if self._mixup is not None:
                epoch = key[1]
                off = self.recipe.mixup_off_epoch
                self._mixup.mixup_enabled = not off or epoch < off
                images, labels = self._mixup(images, labels)
        return images, labels

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """Images as validation sees them."""
        return (pixels.float() - self.mean.to(pixels.device)).div_(self.std.to(pixels.device))

    def _apply_policy(self, pixels: torch.Tensor, *key: int) -> torch.Tensor:
        assert self._policy is not None
        arrays = pixels.permute(0, 2, 3, 1).cpu().numpy()
        with seeded(AUGMENT, *key):
            changed = [np.asarray(self._policy(Image.fromarray(array))) for array in arrays]
        return torch.from_numpy(np.stack(changed)).permute(0, 3, 1, 2).to(pixels.device)


def image_policy(recipe: Recipe, data: ImageData) -> Callable[[Image.Image], Image.Image] | None:
    """timm's RandAugment or AutoAugment of the recipe, on PIL images; None without.

    Raises:
        ConfigError: timm cannot read the configuration string.
    """
    config = recipe.auto_augment
    if not config:
        return None
    side = min(data.input_size[1:])
    params = {
        "translate_const": int(side * 0.45),
        "img_mean": tuple(min(255, round(255 * value)) for value in data.mean),
    }
    try:
        if config.startswith("rand"):
            return rand_augment_transform(config, params)
        return auto_augment_transform(config, params)
    except (AssertionError, ValueError, KeyError) as error:
        raise ConfigError(
            f"auto_augment is {config!r}, which timm cannot read ({error});"
            " for example 'rand-m6-mstd0.5-inc1'."
        ) from error


def _shifts(
    pixels: torch.Tensor, draws: np.random.Generator, reach: tuple[int, int], flip: np.ndarray
) -> torch.Tensor:
    """Each image moved by up to ``reach`` pixels (edges repeated), and mirrored where ``flip`` says so; float."""
    count, channels, height, width = pixels.shape
    down = draws.integers(-reach[0], reach[0] + 1, (count, 1))
    right = draws.integers(-reach[1], reach[1] + 1, (count, 1))
    rows = (np.arange(height) + down).clip(0, height - 1) * width
    columns = (np.arange(width) + right).clip(0, width - 1)
    columns[flip] = columns[flip, ::-1]
    # One gather over flat maps is several times faster on a CPU than indexing by image, row and column.
    places = torch.from_numpy(rows)[:, :, None] + torch.from_numpy(columns)[:, None, :]
    flat = places.to(pixels.device).view(count, 1, -1).expand(-1, channels, -1)
    return pixels.flatten(2).gather(2, flat).view(pixels.shape).float()


def _resized_crops(
    images: torch.Tensor, draws: np.random.Generator, scale: tuple[float, float], flip: np.ndarray
) -> torch.Tensor:
    """Random crops by area and aspect ratio, resized back (Szegedy et al. 2015), bilinear."""
    count, _, height, width = images.shape
    area = draws.uniform(scale[0], scale[1], count)
    ratio = np.exp(draws.uniform(math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1]), count))
    # Shares of the sides; the ratio is that of pixels.
    wide = np.minimum(np.sqrt(area * ratio * height / width), 1.0)
    high = np.minimum(np.sqrt(area / ratio * width / height), 1.0)
    centre_x = draws.uniform(-1, 1, count) * (1 - wide)
    centre_y = draws.uniform(-1, 1, count) * (1 - high)
    theta = np.zeros((count, 2, 3), dtype=np.float32)
    theta[:, 0, 0] = np.where(flip, -wide, wide)
    theta[:, 1, 1] = high
    theta[:, 0, 2] = centre_x
    theta[:, 1, 2] = centre_y
    grid = F.affine_grid(torch.from_numpy(theta).to(images.device), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
