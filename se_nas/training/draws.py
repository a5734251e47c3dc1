"""What is drawn at random for one training batch, apart from what is computed with it.

Draws are made on the CPU and depend on the key (seed, epoch, step) alone. They come as small tensors, the inputs
of ``se_nas.training.augment``, so that a step of the training can be recorded once and replayed with other
draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from timm.data import Mixup
from timm.data.auto_augment import auto_augment_transform, rand_augment_transform
from timm.data.mixup import cutmix_bbox_and_lam
from timm.data.random_erasing import RandomErasing

from se_nas.data import ImageData
from se_nas.errors import ConfigError
from se_nas.training.randomness import AUGMENT, generator, seeded
from se_nas.training.recipe import Recipe

Inputs = dict[str, torch.Tensor]
"""Tensors by name. For one recipe, batch size and source of images, names, shapes and types never change."""

CROP_RATIO = (3 / 4, 4 / 3)
TABLE = 2**20
"""Normal numbers of which a GPU takes the noise of random erasing."""


class Draws:
    """The draws of a recipe for images (3, H, W), batch by batch.

    Args:
        recipe: the recipe.
        data: the images.
        noise_table: draw for random erasing where in a table of ``TABLE`` numbers the noise begins, instead of the
            noise. Drawing and copying that for 128 images of 64 pixels takes longer than a step on a GPU may.
    """

    def __init__(self, recipe: Recipe, data: ImageData, *, noise_table: bool = False) -> None:
        self.recipe, self._noise_table = recipe, noise_table
        self.size = data.input_size
        self.hflip = (0.5 if data.mirror else 0.0) if recipe.hflip is None else recipe.hflip
        self.crop = recipe.crop
        if recipe.crop == "auto":
            self.crop = "pad" if data.mirror else "none"
        self.policy = image_policy(recipe, data)
        self.mixup: Mixup | None = None
        if recipe.mixup or recipe.cutmix:
            self.mixup = Mixup(
                mixup_alpha=recipe.mixup,
                cutmix_alpha=recipe.cutmix,
                prob=recipe.mixup_prob,
                label_smoothing=recipe.label_smoothing,
                num_classes=data.num_classes,
            )

    def geometric(self, count: int, *key: int) -> Inputs:
        """For a batch of ``count`` images: how each is moved, cropped and mirrored.

        Returns:
            ``theta`` (B, 2, 3), the affine maps of random resized crops; or ``flip`` (B,), ``down`` (B, 1) and
            ``right`` (B, 1), in pixels; or nothing, if no image is ever changed.
        """
        draws = generator(AUGMENT, *key)
        flip = draws.random(count) < self.hflip
        if self.crop == "random_resized":
            return {"theta": self._resized_crops(draws, flip)}
        if self.crop == "none" and not self.hflip:
            return {}
        height, width = self.size[1:]
        reach = (height // 8, width // 8) if self.crop == "pad" else (0, 0)
        return {
            "flip": torch.from_numpy(flip),
            "down": torch.from_numpy(draws.integers(-reach[0], reach[0] + 1, (count, 1))),
            "right": torch.from_numpy(draws.integers(-reach[1], reach[1] + 1, (count, 1))),
        }

    def finish(self, count: int, *key: int) -> Inputs:
        """For a batch of ``count`` images: what is erased and how images are mixed.

        Returns:
            ``boxes`` (B, 4), the first row, first column, height and width of what is erased in each image, in
            pixels, if the recipe erases; with ``noise`` (N,), what is put there, box after box, where N has room for
            the largest boxes, or ``first`` (B,), places in the table. ``keep`` and ``take`` (H, W), each pixel's
            shares of the image and of its partner, and ``shares`` (2,), those of the labels, if the recipe mixes.
        """
        inputs: Inputs = {}
        if self.recipe.random_erasing or self.mixup is not None:
            with seeded(AUGMENT, *key):
                if self.recipe.random_erasing:
                    inputs |= self._erasing(count)
                if self.mixup is not None:
                    inputs |= self._mixing(self.mixup, epoch=key[1])
        return inputs

    def with_policy(self, pixels: torch.Tensor, *key: int) -> torch.Tensor:
        """The recipe's policy applied to uint8 images (B, 3, H, W) on the CPU."""
        assert self.policy is not None
        arrays = pixels.permute(0, 2, 3, 1).numpy()
        with seeded(AUGMENT, *key):
            changed = [np.asarray(self.policy(Image.fromarray(array))) for array in arrays]
        return torch.from_numpy(np.stack(changed)).permute(0, 3, 1, 2)

    def _erasing(self, count: int) -> Inputs:
        """timm's boxes, and its noise unless there is a table."""
        mode = "const" if self._noise_table else "pixel"
        erase = RandomErasing(self.recipe.random_erasing, mode=mode, device="cpu")
        erased = [_Erased() for _ in range(count)]
        for image in erased:
            erase._erase(image, *self.size, torch.float32)
        boxes = torch.tensor([image.box for image in erased])
        if self._noise_table:
            return {"boxes": boxes, "first": torch.randint(TABLE, (count,))}
        channels, height, width = self.size
        pieces = [image.noise for image in erased if image.noise is not None]
        # Sides are rounded, so a box may be a little larger than timm's largest share of the image.
        largest = math.ceil(erase.max_area * height * width) + height + width
        noise = torch.zeros(count * channels * largest)
        if pieces:
            drawn = torch.cat(pieces)
            noise[: len(drawn)] = drawn
        return {"boxes": boxes, "noise": noise}

    def table(self) -> torch.Tensor:
        """The table of noise (TABLE,), the same for every training."""
        return torch.randn(TABLE, generator=torch.Generator().manual_seed(0))

    def _mixing(self, mixup: Mixup, epoch: int) -> Inputs:
        off = self.recipe.mixup_off_epoch
        mixup.mixup_enabled = not off or epoch < off
        share, is_cutmix = mixup._params_per_batch()
        height, width = self.size[1:]
        if is_cutmix and share != 1:
            (top, bottom, left, right), share = cutmix_bbox_and_lam((height, width), share)
            take = torch.zeros(height, width)
            take[top:bottom, left:right] = 1
            keep = 1 - take
        else:
            keep, take = (torch.full((height, width), value) for value in (share, 1.0 - share))
        return {"keep": keep, "take": take, "shares": torch.tensor([share, 1.0 - share], dtype=torch.float32)}

    def _resized_crops(self, draws: np.random.Generator, flip: np.ndarray) -> torch.Tensor:
        """Random crops by area and aspect ratio (Szegedy et al. 2015), as affine maps."""
        count, (height, width) = len(flip), self.size[1:]
        low, high = self.recipe.crop_scale
        area = draws.uniform(low, high, count)
        ratio = np.exp(draws.uniform(math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1]), count))
        # Shares of the sides; the ratio is that of pixels.
        wide = np.minimum(np.sqrt(area * ratio * height / width), 1.0)
        tall = np.minimum(np.sqrt(area / ratio * width / height), 1.0)
        centre_x = draws.uniform(-1, 1, count) * (1 - wide)
        centre_y = draws.uniform(-1, 1, count) * (1 - tall)
        theta = np.zeros((count, 2, 3), dtype=np.float32)
        theta[:, 0, 0] = np.where(flip, -wide, wide)
        theta[:, 1, 1] = tall
        theta[:, 0, 2] = centre_x
        theta[:, 1, 2] = centre_y
        return torch.from_numpy(theta)


class _Erased:
    """Stands for an image (C, H, W) of which timm erases a box at most."""

    box = (0, 0, 0, 0)
    noise: torch.Tensor | None = None

    def __setitem__(self, place: tuple[slice, slice, slice], noise: torch.Tensor) -> None:
        _, rows, columns = place
        self.box = (rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start)
        self.noise = noise.flatten()


def image_policy(recipe: Recipe, data: ImageData) -> Callable[[Image.Image], Image.Image] | None:
    """timm's RandAugment or AutoAugment of the recipe, on PIL images; None if it has none.

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
