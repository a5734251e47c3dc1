"""What se-nas' training is compared with: timm's own pieces, and a bare loop."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from PIL import Image
from timm.data import create_dataset, create_loader
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from torch import nn

from se_nas.data import ImageData
from se_nas.training import Recipe, Runtime
from se_nas.training.optim import make_loss, make_optimizer

SETTLE = 3
"""Steps at the beginning of a turn that are not counted: batches read in advance, and caches."""


def write_folder(data: ImageData, folder: Path, copies: int = 1) -> None:
    """The training images as PNG files in class folders, each under so many names."""
    for index, (pixels, label) in enumerate(zip(data.train.pixels, data.train.labels.tolist(), strict=True)):
        # timm sorts classes by name; by number they keep their labels.
        path = folder / str(label) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)
        for copy in range(1, copies):
            path.with_name(f"{index}-{copy}.png").hardlink_to(path)


def timm_loader(folder: Path, data: ImageData, recipe: Recipe, device: str, training: bool = True):
    """timm's loader with the settings that its train.py would pass on."""
    return create_loader(
        create_dataset("", str(folder), is_training=training),
        input_size=data.input_size,
        batch_size=recipe.batch_size if training else 256,
        is_training=training,
        train_crop_mode="rrc" if recipe.crop == "random_resized" else "rkrc",
        scale=recipe.crop_scale if recipe.crop == "random_resized" else None,
        hflip=0.5 if data.mirror else 0.0,
        color_jitter=0.0,
        interpolation="bicubic",
        mean=data.mean,
        std=data.std,
        crop_pct=1.0,
        num_workers=len(os.sched_getaffinity(0)),
        device=torch.device(device),
    )


def timm_step(model: nn.Module, recipe: Recipe, autocast: Callable) -> Callable:
    """The training step of timm's train.py, without its logging."""
    optimizer = create_optimizer_v2(
        model, opt=recipe.optimizer, lr=recipe.lr, weight_decay=recipe.weight_decay
    )
    loss_fn = LabelSmoothingCrossEntropy(recipe.label_smoothing)

    def step(images: torch.Tensor, targets: torch.Tensor) -> None:
        with autocast():
            loss = loss_fn(model(images), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def bare_step(model: nn.Module, recipe: Recipe, runtime: Runtime) -> Callable:
    """Model, loss and optimiser, and nothing else."""
    optimizer, loss_fn = make_optimizer(model, recipe), make_loss(recipe, mixes=False)

    def step(images: torch.Tensor, targets: torch.Tensor) -> None:
        with runtime.autocast():
            loss = loss_fn(model(images).float(), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def wait(device: str) -> None:
    """Return when the device has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def seconds_of(step: Callable, batches: Iterator, steps: int, device: str) -> float:
    """Seconds that ``steps`` steps take, after ``SETTLE`` others."""
    for _ in range(SETTLE):
        step(*next(batches))
    wait(device)
    before = time.perf_counter()
    for _ in range(steps):
        step(*next(batches))
    wait(device)
    return time.perf_counter() - before


def endless(make: Callable[[int], Iterator]) -> Iterator:
    """One epoch after the other."""
    epoch = 0
    while True:
        yield from make(epoch)
        epoch += 1
