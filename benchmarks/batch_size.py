"""Accuracies of the recipe "tiny" with batches of 32, its own, and of 128, which se-nas takes on a GPU.

The plain network is trained with the same seeds each way, and the accuracy is read on images that no training saw. Each
training is appended to a file as soon as it has ended, and is not repeated; the table is printed at the end.

    python benchmarks/batch_size.py results.jsonl TINY_IMAGENET --epochs 10 20 --seeds 0 1 2
    python benchmarks/batch_size.py results.jsonl      # the table alone
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from finetuning import part
from gpu_training import paired
from pretrained import machine
from results import Results, of_run

from se_nas.architecture import Architecture
from se_nas.data import ImageData, load_data
from se_nas.model import build_plain
from se_nas.training import Context, Recipe, Runtime, initial_weights, train

BASE = "32"
VARIANTS: dict[str, Mapping[str, Any]] = {
    BASE: {},
    "128": {"batch_size": 128},
    "128, lr 0.004": {"batch_size": 128, "lr": 0.004},
    "128, lr 0.008": {"batch_size": 128, "lr": 0.008},
}
"""Settings of the recipe. The rates are its own, and this times the root of four and times four."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path)
    parser.add_argument("folder", type=Path, nargs="?", help="with train.tar and val.tar")
    parser.add_argument("--backbone", default="resnet10t")
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--images", type=int, default=9000, help="training images")
    parser.add_argument("--epochs", nargs="*", type=int, default=[20])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS), metavar="NAME"
    )
    args = parser.parse_args()
    run = machine()
    results = Results(args.results, {"run": run}, math.inf)
    if args.folder is not None:
        data = load_data(args.folder / "train.tar", val_data=args.folder / "val.tar", input_size=args.side)
        data = replace(data, train=part(data.train, args.images, data.num_classes))
        for epochs, seed, variant in itertools.product(args.epochs, args.seeds, args.variants):
            what = {
                "backbone": args.backbone,
                "side": args.side,
                "images": args.images,
                "epochs": epochs,
                "seed": seed,
                "variant": variant,
            }
            if not any(what.items() <= row.items() for row in of_run(args.results, run)):
                recipe = Recipe.preset("tiny", epochs=epochs, **VARIANTS[variant])
                results.attempt(partial(measure, args.backbone, data, recipe, seed), **what)
    print(table(of_run(args.results, run)))


def measure(backbone: str, data: ImageData, recipe: Recipe, seed: int) -> Mapping[str, Any]:
    """Accuracy and loss on the validation images, after a training."""
    with initial_weights(seed):
        model = build_plain(Architecture.plain(backbone), num_classes=data.num_classes)
    result = train(model, Context(data=data, recipe=recipe, runtime=Runtime.decide(model, recipe), seed=seed))
    return {"accuracy": result.accuracy, "loss": result.loss}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Mean accuracies over seeds, and the difference to the first variant, paired over seeds."""
    lines = [
        f"{'network':<12}{'side':>5}{'images':>7}{'epochs':>7}  {'variant':<14}{'seeds':>5}{'accuracy %':>12}"
        f"  points to {BASE}"
    ]
    found: dict[tuple[Any, ...], dict[str, dict[int, float]]] = {}
    for row in rows:
        if "accuracy" in row:
            case = found.setdefault((row["backbone"], row["side"], row["images"], row["epochs"]), {})
            case.setdefault(row["variant"], {})[row["seed"]] = row["accuracy"]
    for (backbone, side, images, epochs), case in sorted(found.items()):
        for variant, readings in case.items():
            common = sorted(readings.keys() & case.get(BASE, {}).keys())
            mean = np.mean(list(readings.values()))
            line = (
                f"{backbone:<12}{side:>5}{images:>7}{epochs:>7}  {variant:<14}{len(readings):>5}{mean:>12.2f}"
            )
            if variant != BASE and common:
                pair = paired([readings[seed] for seed in common], [case[BASE][seed] for seed in common])
                low, high = pair.get("interval", (math.nan, math.nan))
                line += f"  {pair['difference']:+.2f} ({low:+.2f} to {high:+.2f})"
            lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    main()
