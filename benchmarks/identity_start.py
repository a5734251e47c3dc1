"""Compares ways to insert SE into a pretrained network without changing what it computes, on real weights.

SE goes into every block of EfficientNet-Lite0 with its ImageNet weights. For each way it prints how much the
network's output differs, which gradient the two SE layers get at the first and second step, and, after a short
fine-tuning on digits with equal batches, how far the gates have moved and which accuracy was reached.

    python benchmarks/identity_start.py --steps 200 --seeds 3
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from pretrained import LITE0, accuracy, digits, fine_tune, lite0_weights, machine
from torch import Tensor, nn

from se_nas.architecture import Architecture
from se_nas.layers.squeeze_excite import SqueezeExcite
from se_nas.model import build_model

# name -> (gate, gate scale, bias of the last layer); None keeps torch's initialisation
WAYS: dict[str, tuple[str, float, float | None]] = {
    "sigmoid, ordinary start": ("sigmoid", 1.0, None),
    "2·sigmoid, last layer 0": ("sigmoid", 2.0, 0.0),
    "2·hard_sigmoid, last layer 0": ("hard_sigmoid", 2.0, 0.0),
    "2·tanh, last bias artanh(1/2)": ("tanh", 2.0, 0.5493061542510986),
    "relu, last bias 1": ("relu", 1.0, 1.0),
    "sigmoid, last bias 3": ("sigmoid", 1.0, 3.0),
    "sigmoid, last bias 5": ("sigmoid", 1.0, 5.0),
    "sigmoid, last bias 10": ("sigmoid", 1.0, 10.0),
    "sigmoid, last bias 20": ("sigmoid", 1.0, 20.0),
    "hard_sigmoid, last bias 3": ("hard_sigmoid", 1.0, 3.0),
}


def network(way: tuple[str, float, float | None], seed: int) -> nn.Module:
    """EfficientNet-Lite0 with SE at every site and a fresh classifier for ten classes."""
    gate, scale, bias = way
    arch = Architecture.uniform(LITE0, reduction=4, gate=gate)
    torch.manual_seed(seed)
    model = build_model(arch, num_classes=10)
    model.load_state_dict({**model.state_dict(), **lite0_weights(10)})
    for block in blocks(model):
        block.gate_scale = scale
        if bias is not None:
            nn.init.zeros_(block.fc2.weight)
            nn.init.constant_(block.fc2.bias, bias)
    return model


def blocks(model: nn.Module) -> Iterator[SqueezeExcite]:
    return (module for module in model.modules() if isinstance(module, SqueezeExcite))


@torch.no_grad()
def output_difference(model: nn.Module, images: Tensor) -> float:
    """RMS of the difference of the last feature map from the plain network's, relative to its RMS."""
    plain = build_model(Architecture.plain(LITE0), num_classes=10)
    plain.load_state_dict({**plain.state_dict(), **lite0_weights(10)})
    expected = plain.eval().forward_features(images)
    return float((model.eval().forward_features(images) - expected).norm() / expected.norm())


def gradients(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float, float]:
    """RMS gradient of the last layer at the first step, and of the last and first layer at the second (AdamW)."""
    model.train()
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    found = []
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        found.append([rms([getattr(b, name).weight.grad for b in blocks(model)]) for name in ("fc1", "fc2")])
        optimizer.step()
    return found[0][1], found[1][1], found[1][0]


def rms(tensors: list[Tensor]) -> float:
    return float(torch.cat([tensor.flatten() for tensor in tensors]).square().mean().sqrt())


@torch.no_grad()
def gates(model: nn.Module, images: Tensor) -> Tensor:
    """Gates times their scale, shape (images, channels of all blocks)."""
    seen: list[Tensor] = []
    hooks = [
        block.gate.register_forward_hook(
            lambda _, __, out, scale=block.gate_scale: seen.append(scale * out.flatten(1))
        )
        for block in blocks(model)
    ]
    model.eval()(images)
    for hook in hooks:
        hook.remove()
    return torch.cat(seen, 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS))
    args = parser.parse_args()
    (train_x, train_y), (val_x, val_y) = digits(args.side)
    print(machine())
    print(f"{LITE0}, SE at every site, γ=4; {len(train_y)} digits at {args.side}x{args.side}")
    print(f"{args.steps} steps of 32 images, {args.seeds} seeds")
    columns = ["start", "output differs by", "gradient of last layer, step 1", "last layer, step 2"]
    columns += ["first layer, step 2", "gates moved by", "gates vary over images by", "accuracy %"]
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|", flush=True)
    for name in args.ways:
        way = WAYS[name]
        difference = output_difference(network(way, 0), train_x[:64])
        step = gradients(network(way, 0), train_x[:64], train_y[:64])
        moved, spread, reached = [], [], []
        for seed in range(args.seeds):
            model = network(way, seed)
            before = gates(model, val_x[:128])
            fine_tune(model, train_x, train_y, steps=args.steps, lr=1e-3, seed=seed)
            after = gates(model, val_x[:128])
            moved.append(float((after - before).square().mean().sqrt()))
            spread.append(float(after.std(0).square().mean().sqrt()))
            reached.append(accuracy(model, val_x, val_y))
        row = [f"{difference:.1e}", *(f"{value:.1e}" for value in step)]
        row += [f"{sum(values) / len(values):.1e}" for values in (moved, spread)]
        mean = sum(reached) / len(reached)
        row.append(f"{mean:.2f} ({min(reached):.2f} to {max(reached):.2f})")
        print(f"| {name} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
