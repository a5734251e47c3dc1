"""Augmentation of batches on their device, from the draws of ``se_nas.training.draws``.

On a GPU only tensor operations, the same for every batch of a recipe, so that a CUDA graph can hold them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.data.mixup import one_hot

from se_nas.data import ImageData
from se_nas.training.draws import Draws, Inputs
from se_nas.training.recipe import Recipe


class Augment:
    """Turns uint8 images (B, 3, H, W) into normalised floats.

    Attributes:
        draws: what the recipe draws at random for a batch, on the CPU.
    """

    def __init__(self, recipe: Recipe, data: ImageData, device: str = "cpu") -> None:
        # A graph cannot fill boxes one by one, and on a CPU that is several times faster.
        at_once = bool(recipe.random_erasing) and device != "cpu"
        self.draws = Draws(recipe, data, noise_table=at_once)
        self._table = self.draws.table().to(device) if at_once else None
        self.mean = torch.tensor(data.mean, device=device).view(1, 3, 1, 1) * 255
        self.std = torch.tensor(data.std, device=device).view(1, 3, 1, 1) * 255
        self._smoothing, self._num_classes = recipe.label_smoothing, data.num_classes

    @property
    def mixes(self) -> bool:
        """Whether targets are (B, K) probabilities instead of (B,) indices."""
        return self.draws.mixup is not None

    def geometric(self, pixels: torch.Tensor, inputs: Inputs) -> torch.Tensor:
        """Crop and flip a batch in memory, as workers do with large images. Float, 0 to 255."""
        if "theta" in inputs:
            images, theta = pixels.float(), inputs["theta"]
            grid = F.affine_grid(theta, list(images.shape), align_corners=False)
            return F.grid_sample(
                images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
            )
        if "flip" in inputs:
            return _moved(pixels, inputs["flip"], inputs["down"], inputs["right"])
        return pixels.float()

    def finish(
        self, images: torch.Tensor, labels: torch.Tensor, inputs: Inputs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalise, erase and mix a batch (0 to 255) on its device; (images, targets)."""
        images = self.normalise(images)
        if "boxes" in inputs:
            if self._table is None:
                images = erase_each(images, inputs["boxes"], inputs["noise"])
            else:
                images = erase_at_once(images, inputs["boxes"], inputs["first"], self._table)
        if "keep" in inputs:
            # Each image's partner is the one as far from the end as it is from the start, as in timm's Mixup.
            images = images * inputs["keep"] + images.flip(0) * inputs["take"]
            kept, taken = inputs["shares"]
            off = self._smoothing / self._num_classes
            targets = one_hot(labels, self._num_classes, on_value=1 - self._smoothing + off, off_value=off)
            return images, targets * kept + targets.flip(0) * taken
        return images, labels

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """Images as validation sees them."""
        return (pixels.float() - self.mean).div_(self.std)


def _moved(pixels: torch.Tensor, flip: torch.Tensor, down: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Each image moved by so many pixels (edges repeated), and mirrored where ``flip`` says so; float."""
    count, channels, height, width = pixels.shape
    rows = (torch.arange(height, device=pixels.device) + down).clamp_(0, height - 1) * width
    columns = (torch.arange(width, device=pixels.device) + right).clamp_(0, width - 1)
    columns = torch.where(flip[:, None], columns.flip(1), columns)
    # One gather over flat maps is several times faster on a CPU than indexing by image, row and column.
    places = (rows[:, :, None] + columns[:, None, :]).view(count, 1, -1)
    return pixels.flatten(2).gather(2, places.expand(-1, channels, -1)).view(pixels.shape).float()


def erase_each(images: torch.Tensor, boxes: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Fill the boxes of images (B, C, H, W) with ``noise``, one after the other and in place; see ``Draws.finish``."""
    start = 0
    for image, (top, left, height, width) in zip(images, boxes.tolist(), strict=True):
        box = image[:, top : top + height, left : left + width]
        box.copy_(noise[start : start + box.numel()].view(box.shape))
        start += box.numel()
    return images


def erase_at_once(
    images: torch.Tensor, boxes: torch.Tensor, first: torch.Tensor, table: torch.Tensor
) -> torch.Tensor:
    """Images with their boxes filled from ``table``, from number ``first`` (B,) on; it begins anew at its end."""
    _, channels, height, width = images.shape
    top, left, tall, wide = boxes.view(-1, 4, 1, 1).unbind(1)
    down = torch.arange(height, device=images.device).view(-1, 1) - top
    right = torch.arange(width, device=images.device) - left
    inside = (down >= 0) & (down < tall) & (right >= 0) & (right < wide)
    channel = torch.arange(channels, device=images.device).view(-1, 1, 1)
    places = (first.view(-1, 1, 1) + down * wide + right)[:, None] + (tall * wide)[:, None] * channel
    return torch.where(inside[:, None], table.take(places.remainder(len(table))), images)
