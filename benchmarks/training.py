"""Training speed and accuracy of se-nas beside a bare loop and timm's own pieces, in one run.

    python benchmarks/training.py                     images a second, and the time around training
    python benchmarks/training.py --around 60         only the time around training, in a trial of a minute
    python benchmarks/training.py --parity FOLDER     accuracy on Fashion-MNIST (IDX files), 3 seeds each

Speed: "bare" is model, loss and optimiser on one batch that is already there; "timm" is its data set, loader
(one worker process), transforms, loss and optimiser, as its train.py puts them together, reading the same
images as PNG files. All have the same precision and memory format and take turns, round by round.
"""

from __future__ import annotations

import argparse
import gzip
import platform
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import timm
import torch
from PIL import Image
from timm.data import create_dataset, create_loader
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import nn

from se_nas.data import ImageData, load_data
from se_nas.device import device_name
from se_nas.study import SearchConfig, jobs
from se_nas.study.evaluate import Evaluator
from se_nas.study.events import Progress
from se_nas.study.plan import candidate_model, resolve
from se_nas.study.proposals import Proposals
from se_nas.study.session import start
from se_nas.study.store import StudyStore
from se_nas.study.worker import Worker
from se_nas.training import (
    Context,
    Recipe,
    Runtime,
    initial_weights,
    loop,
    measure_step_time,
    score,
    train,
)
from se_nas.training.loop import make_batches
from se_nas.training.optim import make_loss, make_optimizer

CASES = (("resnet50", 32, 64), ("resnet18", 32, 64), ("mobilenetv2_100", 32, 64), ("resnet18", 64, 64))
PARITY = Recipe(
    epochs=5,
    batch_size=64,
    lr=2e-3,
    warmup_epochs=1,
    crop="random_resized",
    crop_scale=(0.6, 1.0),
    precision="fp32",
)


def write_folder(data: ImageData, folder: Path) -> None:
    """The training images as PNG files in class folders."""
    for index, (pixels, label) in enumerate(zip(data.train.pixels, data.train.labels.tolist(), strict=True)):
        # timm sorts classes by name; by number they keep their labels.
        path = folder / str(label) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)


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
        num_workers=1,
        device=torch.device(device),
    )


def step_of(model: nn.Module, recipe: Recipe, runtime: Runtime, loss_fn: nn.Module) -> Callable:
    optimizer = make_optimizer(model, recipe)

    def step(images: torch.Tensor, targets: torch.Tensor) -> float:
        with runtime.autocast():
            loss = loss_fn(model(images).float(), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def endless(make: Callable[[int], Iterator]) -> Iterator:
    epoch = 0
    while True:
        yield from make(epoch)
        epoch += 1


def speed(backbone: str, side: int, batch: int, rounds: int, steps: int) -> None:
    data = load_data("digits", input_size=side)
    recipe = Recipe.preset("tiny", batch_size=batch, crop="pad")
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def fresh() -> nn.Module:
        with initial_weights(0):
            return timm.create_model(backbone, num_classes=data.num_classes)

    runtime = Runtime.decide(fresh(), recipe, device)
    context = Context(data=data, recipe=recipe, runtime=runtime)
    batches = make_batches(context)
    fixed = next(batches.epoch(0))
    with tempfile.TemporaryDirectory() as folder:
        write_folder(data, Path(folder))
        loader = timm_loader(Path(folder), data, recipe, device)
        layout = torch.channels_last if runtime.channels_last else torch.contiguous_format
        sources = {
            "bare": endless(lambda epoch: iter([fixed])),
            "se-nas": endless(batches.epoch),
            "timm": endless(lambda epoch: ((x.contiguous(memory_format=layout), y) for x, y in loader)),
        }
        loss = make_loss(recipe, mixes=False)
        losses = {"bare": loss, "se-nas": loss, "timm": LabelSmoothingCrossEntropy(recipe.label_smoothing)}
        step = {
            name: step_of(runtime.place(fresh()).train(), recipe, runtime, losses[name]) for name in sources
        }
        rates: dict[str, list[float]] = {name: [] for name in sources}
        for index in range(rounds + 1):
            for name, source in sources.items():
                before = time.perf_counter()
                for _ in range(steps):
                    step[name](*next(source))
                if index:
                    rates[name].append(steps * batch / (time.perf_counter() - before))
    ratios = {
        name: statistics.median(a / b for a, b in zip(rates["se-nas"], rates[name], strict=True))
        for name in ("bare", "timm")
    }
    print(
        f"{backbone:<16}{side:>4}{batch:>6}  {runtime.precision:<5}"
        + "".join(f"{statistics.median(rates[name]):>9.0f}" for name in sources)
        + f"{ratios['bare']:>13.3f}{ratios['timm']:>13.2f}",
        flush=True,
    )


def around(backbone: str, seconds: float) -> None:
    """Where the time of a search's trial goes, measured in a real one of about so many seconds on digits."""
    totals: Counter[str] = Counter()

    def watch(owner: object, name: str, label: str) -> None:
        original = getattr(owner, name)

        def watched(*arguments, **keywords):
            before = time.perf_counter()
            try:
                return original(*arguments, **keywords)
            finally:
                totals[label] += time.perf_counter() - before

        setattr(owner, name, watched)

    config = {"backbone": backbone, "objectives": "accuracy,macs", "final_seeds": 0, "compile": "off"}
    with tempfile.TemporaryDirectory() as folder:
        plan = resolve(SearchConfig(**config, epochs=1, trials=1, runs=folder))
        arch = plan.baselines["all_se_16"]
        model = candidate_model(plan.config, arch, plan.data, 0)
        context = Context(data=plan.data, recipe=plan.recipe, runtime=plan.runtime)
        epochs = max(1, round(seconds / measure_step_time(model, context).epoch))
        plan = replace(plan, recipe=plan.recipe.with_(epochs=epochs), baselines={"all_se_16": arch})
        watch(loop._Training, "_epoch", "training")
        watch(loop, "_evaluate", "evaluation")
        watch(loop._Training, "_save", "checkpoints, copied")
        watch(loop, "save_weights", "weights")
        watch(loop._Training, "_prepare", "optimiser")
        watch(jobs, "candidate_model", "building")
        watch(Evaluator, "costs", "costs")
        watch(StudyStore, "record", "study")
        watch(StudyStore, "write_table", "study")
        watch(StudyStore, "tell", "study")
        watch(StudyStore, "spend", "study")
        watch(Proposals, "next", "proposal")
        watch(Worker, "_search", "whole")
        start(plan, Progress())
    whole = totals.pop("whole")
    rest = whole - sum(totals.values())
    print(f"\none trial of {backbone} with SE everywhere, {epochs} epochs on digits: {whole:.1f} s")
    for label, spent in [*totals.most_common(), ("all else", rest)]:
        print(f"  {label:<20}{spent:>8.2f} s{100 * spent / whole:>8.2f} %")
    outside = whole - totals["training"]
    print(
        f"  around training     {outside:>8.2f} s{100 * outside / whole:>8.2f} %, without evaluation"
        f" {100 * (outside - totals['evaluation']) / whole:.2f} %"
    )


def fashion(folder: Path, count: int) -> ImageData:
    """Fashion-MNIST: the first ``count`` training images, and as many of the test images to validate on."""
    with tempfile.TemporaryDirectory() as root:
        raw = Path(root) / "FashionMNIST" / "raw"
        raw.mkdir(parents=True)
        for path in folder.glob("*-ubyte.gz"):
            (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
        data = load_data("torch/fashion_mnist", val_data="torch/fashion_mnist:test", root=root)
    train_part, val = (
        replace(part, labels=part.labels[:count], pixels=part.pixels[:count])
        for part in (data.train, data.val)
    )
    return replace(data, train=train_part, val=val, test=None)


def timm_accuracy(data: ImageData, folder: Path, seed: int) -> float:
    """One training as timm's train.py does it."""
    recipe = PARITY
    torch.manual_seed(seed)
    model = timm.create_model("resnet10t", num_classes=data.num_classes)
    loader = timm_loader(folder, data, recipe, "cpu")
    optimizer = create_optimizer_v2(model, opt="adamw", lr=recipe.lr, weight_decay=recipe.weight_decay)
    schedule, _ = create_scheduler_v2(
        optimizer,
        sched="cosine",
        num_epochs=recipe.epochs,
        warmup_epochs=int(recipe.warmup_epochs),
        warmup_lr=recipe.warmup_lr * recipe.lr,
        step_on_epochs=False,
        updates_per_epoch=len(loader),
    )
    loss_fn, updates = LabelSmoothingCrossEntropy(recipe.label_smoothing), 0
    for _ in range(recipe.epochs):
        model.train()
        for images, targets in loader:
            optimizer.zero_grad()
            loss_fn(model(images), targets).backward()
            optimizer.step()
            updates += 1
            schedule.step_update(updates)
    model.eval()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (data.mean, data.std))
    with torch.inference_mode():
        logits = torch.cat([model((part / 255 - mean) / std) for part in data.val.pixels.split(256)])
    return score(logits, data.val.labels, data.num_classes).accuracy


def parity(source: Path, count: int, seeds: int) -> None:
    data = fashion(source, count)
    print(
        f"Fashion-MNIST, {count} training and {len(data.val)} other images, resnet10t, {PARITY.epochs} epochs"
    )
    with tempfile.TemporaryDirectory() as folder:
        write_folder(data, Path(folder))
        ours, theirs = [], []
        for seed in range(seeds):
            with initial_weights(seed):
                model = timm.create_model("resnet10t", num_classes=data.num_classes)
            runtime = Runtime(precision="fp32", channels_last=False)
            result = train(model, Context(data=data, recipe=PARITY, runtime=runtime, seed=seed))
            ours.append(result.accuracy)
            theirs.append(timm_accuracy(data, Path(folder), seed))
            print(f"seed {seed}: se-nas {ours[-1]:.2f} %, timm {theirs[-1]:.2f} %", flush=True)
    for name, values in (("se-nas", ours), ("timm", theirs)):
        print(f"{name:<7} mean {statistics.mean(values):.2f} %, deviation {statistics.stdev(values):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="measured rounds (speed)")
    parser.add_argument("--steps", type=int, default=4, help="steps of each in a round (speed)")
    parser.add_argument(
        "--around", type=float, metavar="SECONDS", help="only the breakdown of a trial of about so long"
    )
    parser.add_argument("--parity", type=Path, metavar="FOLDER", help="compare accuracies instead")
    parser.add_argument("--images", type=int, default=4000, help="training images (parity)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each (parity)")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(
        f"{device_name(device)}, {torch.get_num_threads()} threads; Python {platform.python_version()},"
        f" torch {torch.__version__}, timm {timm.__version__}"
    )
    if options.around is not None:
        around("resnet50", options.around)
        return
    if options.parity:
        parity(options.parity, options.images, options.seeds)
        return
    print("images a second (median); ratios of the same rounds")
    print(
        f"{'backbone':<16}{'side':>4}{'batch':>6}  {'':<5}{'bare':>9}{'se-nas':>9}{'timm':>9}"
        f"{'se-nas/bare':>13}{'se-nas/timm':>13}"
    )
    for case in CASES:
        speed(*case, rounds=options.rounds, steps=options.steps)
    around("resnet50", options.around or 60.0)


if __name__ == "__main__":
    main()
