"""Compares ways to fine-tune pretrained weights into which SE has been inserted, on real weights and images.

EfficientNet-Lite0 with its ImageNet weights and identity-start SE at γ=8 in its last two stages is trained on a part of
Tiny-ImageNet-20 (folder with train.tar and val.tar) or Fashion-MNIST (folder with IDX files). Each training is appended
to a file as soon as it has ended, and is not repeated; the table of all of them is printed at the end.

    python benchmarks/finetuning.py results.jsonl --data tiny-imagenet-20=FOLDER --sides 64 --epochs 2 10
    python benchmarks/finetuning.py results.jsonl      # the table alone
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from identity_start import gates
from pretrained import LITE0, fashion, lite0_weights, machine
from results import Results, of_run
from timm.models import group_parameters
from torch import Tensor, nn

from se_nas.architecture import Architecture
from se_nas.checkpoints import load_weights
from se_nas.data import ImageData, Images, load_data
from se_nas.model import add_gates, build_plain
from se_nas.training import Context, Recipe, Runtime, evaluate, initial_weights, optim, train
from se_nas.training.optim import classifier
from se_nas.wording import counted

FASHION_SIDE = 28
WARMUP = 1 / 6
"""Share of the training that the recipe "tiny" warms up, at its own length."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A way to fine-tune; ``settings`` are of a recipe, and what is an epoch's in it is a share of the training here.

    Attributes:
        warmup, freeze: share of the training with linear warm-up; with a frozen backbone.
        first_layer: share of the backbone's rate that its first layer has, with equal ratios from layer to layer up
            to the last (layer-wise decay).
        start, weights: see ``network``.
    """

    preset: str = "tiny"
    settings: Mapping[str, Any] = field(default_factory=dict)
    warmup: float = WARMUP
    freeze: float = 0.0
    first_layer: float = 1.0
    start: str = "zero"
    weights: bool = True

    def recipe(self, epochs: int) -> Recipe:
        return Recipe.preset(
            self.preset,
            **{
                **self.settings,
                "epochs": epochs,
                "warmup_epochs": self.warmup * epochs,
                "freeze_epochs": self.freeze * epochs,
            },
        )


VARIANTS: dict[str, Variant] = {
    "finetune": Variant(preset="finetune"),
    "tiny": Variant(),
    "tiny, classifier at random": Variant(start="random"),
    "tiny without weights": Variant(weights=False),
    "se 1": Variant(preset="finetune", settings={"se_lr_factor": 1.0}),
    "se 1, backbone 1e-3": Variant(
        preset="finetune", settings={"se_lr_factor": 1.0, "backbone_lr_factor": 0.5}
    ),
    "se 1, backbone 1e-4": Variant(
        preset="finetune", settings={"se_lr_factor": 1.0, "backbone_lr_factor": 0.05}
    ),
    "lr 1e-3": Variant(preset="finetune", settings={"lr": 1e-3}),
    "backbone falling to 0.17": Variant(preset="finetune", first_layer=0.17),
    "norms train": Variant(preset="finetune", settings={"norm_eval": False}),
    "tiny, backbone 5e-4": Variant(settings={"backbone_lr_factor": 0.25}),
    "no warm-up": Variant(preset="finetune", warmup=0.0),
    "freeze 0.1": Variant(preset="finetune", freeze=0.1),
}
"""Each differs from "finetune", or from what its name begins with, by what it is called."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path)
    parser.add_argument("--data", nargs="*", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--sides", nargs="*", type=int, default=[64])
    parser.add_argument("--epochs", nargs="*", type=int, default=[2])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--images", type=int, default=1000, help="training images")
    parser.add_argument("--held-out", type=int, default=1000, help="images that the accuracy is read on")
    parser.add_argument(
        "--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS), metavar="NAME"
    )
    args = parser.parse_args()
    run = machine()
    results = Results(args.results, {"run": run}, math.inf)
    for source, side in itertools.product(args.data, args.sides):
        name, _, folder = source.partition("=")
        data = images(name, Path(folder), side, args.images, args.held_out)
        for epochs, seed, variant in itertools.product(args.epochs, args.seeds, args.variants):
            what = {
                "data": name,
                "side": side,
                "images": args.images,
                "epochs": epochs,
                "seed": seed,
                "variant": variant,
            }
            if not any(what.items() <= row.items() for row in of_run(args.results, run)):
                results.attempt(partial(measure, data, VARIANTS[variant], epochs, seed), **what)
    print(table(args.results))


def images(name: str, folder: Path, side: int, count: int, held_out: int) -> ImageData:
    """So many training images, equally many of each class, and as ``test`` those that the accuracy is read on.

    ``val`` is a few of them, because every epoch ends with a validation.
    """
    if name == "fashion-mnist":
        (train_x, train_y), (test_x, test_y) = fashion(folder, FASHION_SIDE, 60_000)
        train, test = (
            Images(labels=train_y, pixels=as_bytes(train_x)),
            Images(labels=test_y, pixels=as_bytes(test_x)),
        )
        classes = tuple("0123456789")
    else:
        data = load_data(folder / "train.tar", val_data=folder / "val.tar")
        train, test, classes = data.train, data.val, data.class_names
    train, test = (
        resized(part(split, size, len(classes)), side) for split, size in ((train, count), (test, held_out))
    )
    return ImageData(
        name=name,
        class_names=classes,
        input_size=(3, side, side),
        fingerprint=name,
        skipped=(),
        split_seed=0,
        train=train,
        val=part(test, 2 * len(classes), len(classes)),
        test=test,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )


def as_bytes(images: Tensor) -> Tensor:
    """From [-1, 1]."""
    return ((images + 1) * 127.5).round().to(torch.uint8).contiguous()


def resized(split: Images, side: int) -> Images:
    """In memory at any size, unlike larger images that are loaded."""
    assert split.pixels is not None
    if split.pixels.shape[-1] == side:
        return split
    pixels = F.interpolate(split.pixels, size=(side, side), mode="bilinear", antialias=True)
    return Images(labels=split.labels, pixels=pixels)


def part(split: Images, count: int, num_classes: int) -> Images:
    """The first ``count / num_classes`` images of each class."""
    assert split.pixels is not None
    chosen = [torch.nonzero(split.labels == label)[: count // num_classes, 0] for label in range(num_classes)]
    index = torch.cat(chosen)
    return Images(labels=split.labels[index], pixels=split.pixels[index])


def network(num_classes: int, seed: int, *, start: str = "zero", weights: bool = True) -> nn.Module:
    """As a search builds it: SE at γ=8 in the last two stages, which starts as the identity; a new classifier.

    Args:
        start: "zero" as ``build_model(checkpoint=...)`` starts a classifier; "random": as timm does.
        weights: whether the backbone gets its ImageNet weights.
    """
    arch = Architecture.uniform(LITE0, reduction={3: 8, 4: 8})
    with initial_weights(seed):
        model = build_plain(arch, num_classes=num_classes)
        random = {name: value.clone() for name, value in classifier(model).named_parameters()}
        if weights:
            load_weights(model, lite0_weights(), LITE0)
        if start == "random":
            classifier(model).load_state_dict(random)
        return add_gates(model, arch, init="identity")


def measure(data: ImageData, variant: Variant, epochs: int, seed: int) -> dict[str, float]:
    """Accuracy on the held-out images, and how far the gates are from 1, after a training."""
    recipe = variant.recipe(epochs)
    model = network(data.num_classes, seed, start=variant.start, weights=variant.weights)
    context = Context(data=data, recipe=recipe, runtime=Runtime.decide(model, recipe), seed=seed)
    with mock.patch.object(optim, "parameter_groups", partial(layerwise, variant.first_layer)):
        result = train(model, context)
    metrics = evaluate(model, context, "test")
    assert data.test is not None
    assert data.test.pixels is not None
    seen = gates(model, data.test.pixels[::8].float() / 127.5 - 1)
    return {
        "accuracy": metrics.accuracy,
        "loss": metrics.loss,
        "gates_moved": float((seen - 1).square().mean().sqrt()),
        "restarts": result.restarts,
    }


def layerwise(
    first: float,
    model: nn.Module,
    recipe: Recipe,
    groups: Callable[[nn.Module, Recipe], list[dict[str, Any]]] = optim.parameter_groups,
) -> list[dict[str, Any]]:
    """The groups of a recipe, with rates of the backbone that rise from ``first`` of it in the first layer.

    Layers are the groups that timm's models name.
    """
    layers = group_parameters(model, model.group_matcher(coarse=False), reverse=True)
    names = {id(value): name for name, value in model.named_parameters()}
    found = []
    for group in groups(model, recipe):
        if first == 1 or group["part"] != "backbone":
            found.append(group)
            continue
        for value in group["params"]:
            depth = layers[names[id(value)]] / max(layers.values())
            found.append({**group, "params": [value], "lr_scale": group["lr_scale"] * first ** (1 - depth)})
    return found


def table(path: Path) -> str:
    """For each machine, data set, size and length one table of the variants: means over seeds (lowest to highest)."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if "accuracy" in row]
    lines = []
    for run in dict.fromkeys(row["run"] for row in rows):
        lines.append(run)
        groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for row in rows:
            if row["run"] == run:
                groups.setdefault(
                    tuple(row[name] for name in ("data", "side", "images", "epochs")), []
                ).append(row)
        for (data, side, count, epochs), found in sorted(groups.items()):
            lines += ["", f"{data}, {side} pixels, {count:,} training images, {counted(epochs, 'epoch')}", ""]
            lines += ["| recipe | seeds | accuracy % | loss | gates moved |", "|---|---|---|---|---|"]
            for variant in dict.fromkeys(row["variant"] for row in found):
                mine = [row for row in found if row["variant"] == variant]
                cells = [spread([row[name] for row in mine], digits) for name, digits in COLUMNS.items()]
                lines.append(f"| {variant} | {len(mine)} | {' | '.join(cells)} |")
    return "\n".join(lines)


COLUMNS = {"accuracy": 1, "loss": 3, "gates_moved": 2}
"""With their decimals."""


def spread(values: list[float], digits: int) -> str:
    mean = f"{sum(values) / len(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    main()
