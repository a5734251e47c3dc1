"""Training speed and accuracy of se-nas beside a bare loop and timm's own pieces, in one run.

    python benchmarks/training.py                     images per second, and the time around training
    python benchmarks/training.py --around 60         only the time around training, in a one-minute trial
    python benchmarks/training.py --around 60 --places 4   the same in searches of a pack, suggestions ahead or not
    python benchmarks/training.py --parity FOLDER     accuracy on Fashion-MNIST (IDX files), 3 seeds each

Speed: "bare" is model, loss and optimiser on one batch that is already in memory; "se-nas" is ``train`` as it is;
"timm" is timm's data set, loader (one worker process per core), transforms, loss and optimiser, combined as in its
train.py and reading the same images as PNG files. It runs once with the precision and memory format that se-nas
picks (train.py's --amp, --channels-last), and once with train.py's defaults ("plain": fp32, NCHW). They take turns,
round by round.
"""

from __future__ import annotations

import argparse
import gzip
import platform
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import timm
import torch
from rivals import (
    SETTLE,
    bare_step,
    endless,
    seconds_of,
    timm_loader,
    timm_step,
    wait,
    write_folder,
)
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import nn

from se_nas.data import ImageData, load_data
from se_nas.device import device_name
from se_nas.study import SearchConfig
from se_nas.study.ahead import Ahead
from se_nas.study.candidate import build_candidate
from se_nas.study.executors import task as tasks
from se_nas.study.packing import Packing
from se_nas.study.phases.search import Search
from se_nas.study.phases.trainings import Trainings
from se_nas.study.plan import Plan, resolve
from se_nas.study.progress import Progress
from se_nas.study.session import start
from se_nas.study.storage import StudyStore
from se_nas.training import (
    Context,
    Recipe,
    Runtime,
    initial_weights,
    measure_step_time,
    score,
    session,
    train,
)
from se_nas.training.checkpoint import StateWriter
from se_nas.training.evaluation import Evaluation
from se_nas.training.loop import make_batches
from se_nas.training.masked import Place

CASES = (
    ("resnet50", 32, 64),
    ("resnet18", 32, 64),
    ("mobilenetv2_100", 32, 64),
    ("mobilenetv3_small_100", 32, 64),
    ("regnety_004", 32, 64),
    ("test_resnet", 32, 64),
    ("resnet18", 64, 64),
)
COMPARED = (("se-nas", "bare"), ("se-nas", "timm"), ("se-nas", "plain"), ("bare", "timm"), ("bare", "plain"))
"""The last two are bounds: a loop that does nothing but the network's arithmetic is no faster."""
PARITY = Recipe(
    epochs=5,
    batch_size=64,
    lr=2e-3,
    warmup_epochs=1,
    crop="random_resized",
    crop_scale=(0.6, 1.0),
    precision="fp32",
)
COPIES = 20
"""Repetitions of the images, so that an epoch is longer than a turn."""


def seconds_of_train(model: nn.Module, context: Context, steps: int) -> float:
    """The same for ``se_nas.training.train``, timed by the poll that it makes before every step."""
    polls: list[float] = []

    def stop() -> bool:
        if len(polls) in (SETTLE, SETTLE + steps):
            wait(context.device)
        polls.append(time.perf_counter())
        return len(polls) > SETTLE + steps

    train(model, replace(context, stop=stop, curve=[]))
    return polls[SETTLE + steps] - polls[SETTLE]


def speed(backbone: str, side: int, batch: int, rounds: int, seconds: float) -> None:
    data = load_data("digits", input_size=side)
    recipe = Recipe.preset("tiny", batch_size=batch, crop="pad")
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def fresh() -> nn.Module:
        with initial_weights(0):
            return timm.create_model(backbone, num_classes=data.num_classes)

    runtime = Runtime.decide(fresh(), recipe, device)
    plain = replace(runtime, precision="fp32", channels_last=False)
    # No validation falls into a turn; ``around`` measures it.
    many = replace(
        data.train, labels=data.train.labels.repeat(COPIES), pixels=data.train.pixels.repeat(COPIES, 1, 1, 1)
    )
    context = Context(data=replace(data, train=many), recipe=recipe, runtime=runtime)
    fixed = next(make_batches(context).epoch(0))
    with tempfile.TemporaryDirectory() as folder:
        write_folder(data, Path(folder))
        bare = bare_step(runtime.place(fresh()).train(), recipe, runtime)
        ours = runtime.place(fresh())

        def timms(settings: Runtime) -> Callable[[int], float]:
            """Each has a separate loader, so none reads ahead during another's turn."""
            layout = torch.channels_last if settings.channels_last else torch.contiguous_format
            loader = timm_loader(Path(folder), data, recipe, device)
            batches = endless(lambda epoch: ((x.contiguous(memory_format=layout), y) for x, y in loader))
            step = timm_step(settings.place(fresh()).train(), recipe, settings.autocast)
            return lambda steps: seconds_of(step, batches, steps, device)

        rivals: dict[str, Callable[[int], float]] = {
            "bare": lambda steps: seconds_of(bare, endless(lambda epoch: iter([fixed])), steps, device),
            "se-nas": lambda steps: seconds_of_train(ours, context, steps),
            "timm": timms(runtime),
            "plain": timms(plain),
        }
        longest = len(many.labels) // batch - SETTLE - 1
        steps = min(longest, max(4, round(seconds / (rivals["bare"](8) / 8))))
        rates: dict[str, list[float]] = {name: [] for name in rivals}
        for index in range(rounds + 1):
            for name, spent in rivals.items():
                taken = spent(steps if index else SETTLE)
                if index:
                    rates[name].append(steps * batch / taken)
    print(
        f"{backbone:<22}{side:>4}  {runtime.precision:<5}"
        + "".join(f"{statistics.median(rates[name]):>7.0f}" for name in rivals)
        + "".join(f"{quartiles(rates[a], rates[b]):>20}" for a, b in COMPARED),
        flush=True,
    )


def quartiles(rates: list[float], others: list[float]) -> str:
    """Median and quartiles of the ratios within rounds."""
    low, middle, high = statistics.quantiles([a / b for a, b in zip(rates, others, strict=True)])
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def reading(side: int, batch: int, steps: int = 100) -> None:
    """Batches alone, without a network: how fast a device can be fed."""
    data = load_data("digits", input_size=side)
    recipe = Recipe.preset("tiny", batch_size=batch, crop="pad")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    runtime = Runtime(device=device, channels_last=True)
    batches = make_batches(Context(data=data, recipe=recipe, runtime=runtime))

    def nothing(images: torch.Tensor, targets: torch.Tensor) -> None:
        pass

    with tempfile.TemporaryDirectory() as folder:
        write_folder(data, Path(folder))
        loader = timm_loader(Path(folder), data, recipe, device)
        ours = seconds_of(nothing, endless(batches.epoch), steps, device)
        theirs = seconds_of(nothing, endless(lambda epoch: iter(loader)), steps, device)
    print(
        f"batches alone, {side} pixels: se-nas {steps * batch / ours:.0f}, timm {steps * batch / theirs:.0f}"
        f" images per second, {theirs / ours:.1f} times",
        flush=True,
    )


class Stopwatch:
    """Adds up where the main thread spends its time; what is called from within counts for the inner label alone.

    Args:
        watched: owner of a function, its name, and a label.
    """

    def __init__(self, *watched: tuple[object, str, str]) -> None:
        self.totals: Counter[str] = Counter()
        self._inner = [0.0]
        self._patches = ExitStack()
        for owner, name, label in watched:
            timed = self._timed(getattr(owner, name), label)
            self._patches.enter_context(mock.patch.object(owner, name, timed))

    def __enter__(self) -> Stopwatch:
        return self

    def __exit__(self, *exception: object) -> None:
        self._patches.close()

    def _timed(self, original: Callable[..., Any], label: str) -> Callable[..., Any]:
        def timed(*arguments: Any, **keywords: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                return original(*arguments, **keywords)
            before = time.perf_counter()
            self._inner.append(0.0)
            try:
                return original(*arguments, **keywords)
            finally:
                spent = time.perf_counter() - before
                self.totals[label] += spent - self._inner.pop()
                self._inner[-1] += spent

        return timed


WATCHED = (
    (session.Training, "advance", "training"),
    (Evaluation, "begin", "evaluation"),
    (Evaluation, "end", "evaluation"),
    (session.Training, "_save", "checkpoints, copied"),
    (StateWriter, "finish", "weights"),
    (session.Training, "result", "weights"),
    (session.Training, "_prepare", "optimiser"),
    (tasks, "build_candidate", "building"),
    (Place, "begin", "first weights"),
    (Trainings, "_costs_of", "costs"),
    (StudyStore, "record", "study"),
    (StudyStore, "write_table", "study"),
    (StudyStore, "tell", "study"),
    (StudyStore, "spend", "study"),
    (StudyStore, "close", "study"),
    (Ahead, "next", "suggestion"),
    (Search, "run", "all else"),
)


def breakdown(totals: Counter[str]) -> None:
    whole = sum(totals.values())
    for label, spent in totals.most_common():
        print(f"  {label:<20}{spent:>8.2f} s{100 * spent / whole:>8.2f} %")
    outside = whole - totals["training"]
    print(
        f"  around training     {outside:>8.2f} s{100 * outside / whole:>8.2f} %, without evaluation"
        f" {100 * (outside - totals['evaluation']) / whole:.2f} %",
        flush=True,
    )


def around(backbone: str, seconds: float, name: str) -> None:
    """Where the time of a trial goes, measured in a real trial of about ``seconds`` at 32 pixels."""
    config = {"backbone": backbone, "objectives": "accuracy,macs", "final_seeds": 0, "compile": "off"}
    config |= {"data": name, "input_size": 32}
    with tempfile.TemporaryDirectory() as folder:
        plan = resolve(SearchConfig(**config, epochs=1, trials=1, runs=folder))
        arch = plan.baselines["all_se_16"]
        model = build_candidate(arch, plan.config, plan.recipe, num_classes=plan.data.num_classes, seed=0)
        context = Context(data=plan.data, recipe=plan.recipe, runtime=plan.runtime)
        epochs = max(1, round(seconds / measure_step_time(model, context).epoch))
        plan = replace(plan, recipe=plan.recipe.with_(epochs=epochs), baselines={"all_se_16": arch})
        with Stopwatch(*WATCHED) as watch:
            start(plan, Progress())
    print(
        f"\none trial of {backbone} with SE everywhere, {epochs} epoch(s) on {Path(name).name},"
        f" {len(plan.data.train)} training and {len(plan.data.val)} other images:"
        f" {sum(watch.totals.values()):.1f} s"
    )
    breakdown(watch.totals)


def around_pack(backbone: str, seconds: float, name: str, places: int, rounds: int) -> None:
    """Where the time of a pack's thread goes in searches of about ``seconds`` at 16 pixels, suggestions ahead or not.

    On a CPU the thread that suggests takes a core from the network or from nobody; on a GPU, from nobody.
    """
    config = {"backbone": backbone, "objectives": "accuracy,params", "final_seeds": 0, "compile": "off"}
    config |= {"data": name, "input_size": 16, "epochs": 1}
    totals: dict[bool, Counter[str]] = {False: Counter(), True: Counter()}
    for index in range(2 * rounds):
        ahead = index % 2 == 1
        with tempfile.TemporaryDirectory() as folder:
            plan = resolve(SearchConfig(**config, trials=100_000, runs=folder))
            packing = Packing(places=places, devices=("cpu",), packed=True, masked=True, reason="as asked")
            settled = plan.config.model_copy(update={"budget": f"{seconds}s"})
            with (
                mock.patch.object(Plan, "suggests_ahead", ahead),
                Stopwatch(*WATCHED) as watch,
            ):
                run = start(replace(plan, packing=packing, config=settled), Progress())
            totals[ahead] += watch.totals
            words = "made ahead" if ahead else "made in between"
            print(
                f"\n{places} places, suggestions {words}: {len(run.report.candidates)} candidates of {backbone}"
            )
            breakdown(watch.totals)
    for ahead, words in ((False, "in between"), (True, "ahead")):
        found, whole = totals[ahead], sum(totals[ahead].values())
        outside = whole - found["training"] - found["evaluation"]
        print(
            f"suggestions {words}: {100 * found['suggestion'] / whole:.2f} % of the time waits for them,"
            f" {100 * outside / whole:.2f} % is outside training and evaluation"
        )


def fashion(folder: Path, count: int) -> ImageData:
    """Fashion-MNIST: the first ``count`` training images, and as many test images for validation."""
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
    """Accuracy in percent of one training as timm's train.py does it."""
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
    parser.add_argument("--rounds", type=int, default=9, help="measured rounds, at least 2 (speed)")
    parser.add_argument(
        "--seconds", type=float, default=1.5, help="seconds of each contender per round (speed)"
    )
    parser.add_argument(
        "--case", action="append", help="only this network, or NAME@PIXELS; repeatable (speed)"
    )
    parser.add_argument(
        "--around", type=float, metavar="SECONDS", help="only the breakdown of a trial of about this length"
    )
    parser.add_argument("--places", type=int, metavar="K", help="a pack of K candidates (the breakdown)")
    parser.add_argument("--backbone", default="resnet50", help="network (the breakdown)")
    parser.add_argument("--data", default="digits", help="data set, as in se-nas search (the breakdown)")
    parser.add_argument(
        "--parity", type=Path, metavar="FOLDER", help="compare accuracies on Fashion-MNIST instead"
    )
    parser.add_argument("--images", type=int, default=4000, help="training images (parity)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds per side (parity)")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(
        f"{device_name(device)}, {torch.get_num_threads()} threads; Python {platform.python_version()},"
        f" torch {torch.__version__}, timm {timm.__version__}"
    )
    if options.around is not None:
        if options.places is None:
            around(options.backbone, options.around, options.data)
        else:
            around_pack(options.backbone, options.around, options.data, options.places, options.rounds)
        return
    if options.parity:
        parity(options.parity, options.images, options.seeds)
        return
    print("images per second (median), and ratios within rounds (median and quartiles)")
    print(
        f"{'backbone':<22}{'side':>4}  {'':<5}{'bare':>7}{'se-nas':>7}{'timm':>7}{'plain':>7}"
        + "".join(f"{f'{one} / {other}':>20}" for one, other in COMPARED)
    )
    for backbone, side, batch in CASES:
        if not options.case or {backbone, f"{backbone}@{side}"} & set(options.case):
            speed(backbone, side, batch, rounds=options.rounds, seconds=options.seconds)
    if not options.case:
        for side in (32, 64):
            reading(side, 64)
        around("resnet50", 60.0, options.data)


if __name__ == "__main__":
    main()
