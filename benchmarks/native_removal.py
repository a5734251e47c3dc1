"""What it costs to remove SE from a trained network, or to make it narrower.

A MobileNetV3-small with timm's SE is trained from scratch on digits, on Fashion-MNIST, or on a folder with
train.tar and val.tar of photographs (Tiny-ImageNet-20), and then changed in several ways. Each of these networks, and
the unchanged one, is measured before and after the same short fine-tuning. Latency is that of one image, interleaved
with the unchanged network.

    python benchmarks/native_removal.py --epochs 40 --tune-epochs 4
    python benchmarks/native_removal.py --data /usr/share/datasets/fashion-mnist --side 32 --epochs 10
    python benchmarks/native_removal.py --data ../shared/data/tiny-imagenet-20 --side 32 --epochs 15
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch
from pretrained import accuracy, digits, fashion, fine_tune, machine
from timm.data import create_dataset
from torch import Tensor, nn

from se_nas.layers.gate_resizing import removed, resized
from se_nas.layers.native_gates import bottleneck_layers, describe_native, is_channel_gate

BACKBONE = "mobilenetv3_small_075"


class Mean(nn.Module):
    """A gate that ignores its input: its mean over training images, one constant per channel."""

    def __init__(self, gate: Tensor) -> None:
        super().__init__()
        self.gate = nn.Parameter(gate)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate


def images(path: Path, side: int) -> tuple[Tensor, Tensor]:
    """All images of a tar of class folders, in [-1, 1]."""
    data = create_dataset("", str(path))
    pairs = [(np.asarray(image.convert("RGB").resize((side, side))), label) for image, label in data]
    x = torch.from_numpy(np.stack([image for image, _ in pairs])).permute(0, 3, 1, 2)
    return x.float().div_(127.5).sub_(1), torch.tensor([label for _, label in pairs])


def native_gates(model: nn.Module) -> list[str]:
    return [
        path
        for path, module in model.named_modules()
        if bottleneck_layers(module) is not None and is_channel_gate(module)
    ]


@torch.no_grad()
def mean_gates(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Mean gate of every channel over images: the module's output divided by its input."""
    found: dict[str, Tensor] = {}

    def record(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
            ratio = output.sum((2, 3)) / args[0].sum((2, 3))
            found[path] = ratio.nanmean(0)[:, None, None]

        return hook

    hooks = [model.get_submodule(path).register_forward_hook(record(path)) for path in native_gates(model)]
    model.eval()(x)
    for hook in hooks:
        hook.remove()
    return found


def variants(model: nn.Module, x: Tensor) -> dict[str, nn.Module]:
    """The trained network and its variants."""
    paths = native_gates(model)
    means = mean_gates(model, x)
    late = paths[len(paths) // 2 :]

    def changed(change: Callable[[str, nn.Module], nn.Module], where: list[str] = paths) -> nn.Module:
        other = copy.deepcopy(model)
        for path in where:
            other.set_submodule(path, change(path, other.get_submodule(path)))
        return other

    def narrower(factor: int) -> Callable[[str, nn.Module], nn.Module]:
        def change(_: str, module: nn.Module) -> nn.Module:
            width = describe_native(module)[1]
            assert width is not None
            return resized(module, max(1, width // factor))

        return change

    def at_random(_: str, module: nn.Module) -> nn.Module:
        width = describe_native(module)[1]
        assert width is not None
        order = torch.randperm(width, generator=torch.Generator().manual_seed(width))
        other = copy.deepcopy(module)
        _reduce, expand, _norms = bottleneck_layers(other)  # type: ignore[misc]
        with torch.no_grad():
            # A random order of importance: units that are dropped first get the smallest outgoing weights.
            expand.weight[:, order[width // 2 :]] = 0.0
        return resized(other, max(1, width // 2))

    return {
        "unchanged": copy.deepcopy(model),
        "width / 2, by importance": changed(narrower(2)),
        "width / 2, at random": changed(at_random),
        "width / 4, by importance": changed(narrower(4)),
        "removed in the later half": changed(lambda _, module: removed(module), late),
        "removed everywhere": changed(lambda _, module: removed(module)),
        "constant mean gate everywhere": changed(lambda path, _: Mean(means[path])),
    }


@torch.inference_mode()
def latency_ratio(model: nn.Module, base: nn.Module, side: int, pairs: int = 40) -> float:
    """Median time of one image relative to the unchanged network, A B B A."""
    x = torch.randn(1, 3, side, side)

    def seconds(net: nn.Module) -> float:
        start = time.perf_counter()
        for _ in range(5):
            net(x)
        return time.perf_counter() - start

    for net in (model, base):
        net.eval()
        seconds(net)
    ratios = []
    for _ in range(pairs):
        a, b, c, d = seconds(base), seconds(model), seconds(model), seconds(base)
        ratios.append((b + c) / (a + d))
    return statistics.median(ratios)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        default="digits",
        help="digits, or a folder: Fashion-MNIST's IDX files, or train.tar and val.tar",
    )
    parser.add_argument(
        "--images", type=int, default=60_000, help="number of Fashion-MNIST images to train on"
    )
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--epochs", type=float, default=20)
    parser.add_argument("--tune-epochs", type=float, default=2)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    if args.data == "digits":
        (train_x, train_y), (val_x, val_y) = digits(args.side)
    elif (Path(args.data) / "train-images-idx3-ubyte.gz").exists():
        (train_x, train_y), (val_x, val_y) = fashion(Path(args.data), args.side, args.images)
    else:
        train_x, train_y = images(Path(args.data) / "train.tar", args.side)
        val_x, val_y = images(Path(args.data) / "val.tar", args.side)
    print(machine())
    torch.manual_seed(0)
    model = timm.create_model(BACKBONE, num_classes=int(train_y.max()) + 1)
    steps = len(train_y) / args.batch
    fine_tune(model, train_x, train_y, steps=int(args.epochs * steps), lr=2e-3, batch=args.batch)
    print(
        f"{BACKBONE}, {len(native_gates(model))} native SE modules, {len(train_y)} training and {len(val_y)}"
        f" validation images at {args.side}x{args.side}, {args.epochs:g} epochs from scratch, then"
        f" {args.tune_epochs:g} epochs of fine-tuning over {args.seeds} seeds",
        flush=True,
    )
    print("| network | parameters | latency | accuracy % before | after fine-tuning (mean, range) |")
    print("|---|---|---|---|---|", flush=True)
    base = copy.deepcopy(model)
    for name, net in variants(model, train_x[:512]).items():
        before = accuracy(net, val_x, val_y)
        ratio = latency_ratio(net, base, args.side)
        after = []
        for seed in range(args.seeds):
            tuned = copy.deepcopy(net)
            count = int(args.tune_epochs * steps)
            fine_tune(tuned, train_x, train_y, steps=count, lr=5e-4, batch=args.batch, seed=1 + seed)
            after.append(accuracy(tuned, val_x, val_y))
        size = sum(parameter.numel() for parameter in net.parameters())
        mean = sum(after) / len(after)
        span = f"{mean:.1f} ({min(after):.1f} to {max(after):.1f})"
        print(f"| {name} | {size:,} | {ratio:.3f} | {before:.1f} | {span} |", flush=True)


if __name__ == "__main__":
    main()
