"""Parts of ``benchmarks/gpu.py`` about training: images per second, and accuracy side by side and alone.

Every contender trains the same network, SE everywhere with γ = 16, in the precision and memory format that se-nas
picks:

- "bare": model, loss and optimiser on one batch that is on the device; "bare compiled" has its model compiled.
- "timm": timm's data set, loader, transforms, loss and optimiser, as in its train.py, from PNG files.
- "eager", "graph": se-nas, the built network alone, uncaptured and as one CUDA graph.
- "pack": masked networks that can be every candidate of the space, side by side; more are tried while they gain 5 %.
- "graph compiled", "pack compiled": the same with compiled blocks.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from results import Results
from rivals import SETTLE, bare_step, endless, timm_loader, timm_step, wait, write_folder
from scipy import stats
from torch import nn

from se_nas import Architecture, SearchSpace, build_model
from se_nas.data import ImageData, load_data
from se_nas.model import build_plain
from se_nas.study.baselines import baselines
from se_nas.training import Context, Recipe, Runtime, Training, initial_weights, train
from se_nas.training.batches import MemoryBatches
from se_nas.training.masked import Capacity, FirstWeights, Place
from se_nas.training.pack_size import measure_rates

PNG_FILES = 20_000
"""Names of images in the folder that timm reads: more than a turn takes."""


@dataclass(frozen=True)
class Case:
    """A network, the side of its images in pixels, and the batch size."""

    backbone: str
    side: int
    batch: int

    def to_dict(self) -> dict[str, Any]:
        return {"backbone": self.backbone, "side": self.side, "batch": self.batch}


class Contest:
    """One case: the network, its data, and how each contender's rate is measured."""

    def __init__(
        self, case: Case, data: ImageData, recipe: Recipe, device: str, seconds: float = 0.0
    ) -> None:
        self.case, self.data, self.recipe, self.seconds = case, data, recipe, seconds
        space = SearchSpace.load("per_block", backbone=case.backbone)
        self.architecture = baselines(space)["all_se_16"]
        self.runtime = Runtime.decide(self.model(), recipe, device)
        self.capacity = Capacity.of_space(space, also=[self.architecture])
        self.first = FirstWeights(lambda: build_plain(self.architecture, num_classes=data.num_classes))

    def model(self, seed: int = 0) -> nn.Module:
        with initial_weights(seed):
            return build_model(self.architecture, init="identity", num_classes=self.data.num_classes)

    def bare(self, *, compiled: bool = False) -> dict[str, float]:
        runtime = self.runtime
        model = runtime.place(self.model()).train()
        step = bare_step(torch.compile(model) if compiled else model, self.recipe, runtime)
        batches = MemoryBatches(self.data, self.recipe, runtime, 0)
        fixed = next(batches.epoch(0))
        return self._rate(step, endless(lambda epoch: iter([fixed])))

    def timm(self, folder: Path) -> dict[str, float]:
        runtime = self.runtime
        layout = torch.channels_last if runtime.channels_last else torch.contiguous_format
        loader = timm_loader(folder, self.data, self.recipe, runtime.device)
        step = timm_step(runtime.place(self.model()).train(), self.recipe, runtime.autocast)
        return self._rate(
            step, endless(lambda epoch: ((x.contiguous(memory_format=layout), y) for x, y in loader))
        )

    def ours(
        self, sizes: Sequence[int], *, masked: bool, graphs: bool, compiled: bool = False
    ) -> dict[str, Any]:
        """Rates by number of places; ``note`` says if the runtime did without what was asked."""
        runtime = replace(self.runtime, graphs=graphs, compile=compiled)
        context = Context(data=self.data, recipe=self.recipe, runtime=runtime)

        def place() -> Place | _Alone:
            if masked:
                return Place(self.capacity, self.first, runtime)
            return _Alone(self.model)

        rates = measure_rates(place, self.architecture, context, sizes=sizes, seconds=self.seconds)
        notes = (runtime.graphs_error, runtime.graphs_note, runtime.compile_error)
        found: dict[str, Any] = {"rates": rates, "images_per_second": max(rates.values())}
        return found | ({"note": "; ".join(filter(None, notes))} if any(notes) else {})

    def _rate(self, step: Callable, batches: Iterator) -> dict[str, float]:
        device, count = self.runtime.device, 0
        for _ in range(SETTLE):
            step(*next(batches))
        wait(device)
        began = time.perf_counter()
        while time.perf_counter() - began < self.seconds:
            step(*next(batches))
            count += 1
        wait(device)
        return {"images_per_second": count * self.case.batch / (time.perf_counter() - began)}


class _Alone:
    """Trains a built network."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        self._make = make

    def begin(self, architecture: Architecture, context: Context, **keywords: Any) -> Training:
        return Training(self._make(), context, **keywords)


def _recipe(case: Case) -> Recipe:
    return Recipe.preset("tiny", batch_size=case.batch, crop="pad")


def digits(side: int, count: int, validating: int = 64) -> ImageData:
    """The digits at this size in memory, repeated to so many images for training and validation."""
    data = load_data("digits", input_size=32)

    def some(images: Any, number: int) -> Any:
        chosen = torch.arange(number) % len(images)
        pixels = F.interpolate(images.pixels, size=(side, side))
        return replace(images, pixels=pixels[chosen], labels=images.labels[chosen])

    return replace(
        data, input_size=(3, side, side), train=some(data.train, count), val=some(data.val, validating)
    )


def throughput(
    results: Results,
    device: str,
    cases: Sequence[Case],
    sizes: Sequence[int],
    seconds: float,
    most_images: Callable[[int], int],
) -> None:
    """Images per second of every contender; those that compile come last, because they take longest to begin.

    Args:
        most_images: training images for a side, so many that no epoch ends within a turn.
    """
    graphs = device.startswith("cuda")
    images = lru_cache(maxsize=1)(lambda side: digits(side, most_images(side)))
    for case in cases:
        name = case.to_dict()
        contest = Contest(case, images(case.side), _recipe(case), device, seconds)
        with tempfile.TemporaryDirectory() as folder:
            few = digits(case.side, min(len(contest.data.train), 1000))
            write_folder(few, Path(folder), copies=max(1, PNG_FILES // len(few.train)) if graphs else 1)
            results.attempt(contest.bare, needs=2 * seconds, **name, contender="bare")
            results.attempt(partial(contest.timm, Path(folder)), needs=10.0, **name, contender="timm")
        alone = partial(contest.ours, (1,), masked=False)
        results.attempt(partial(alone, graphs=False), needs=3 * seconds, **name, contender="eager")
        if graphs:
            results.attempt(partial(alone, graphs=True), needs=3 * seconds, **name, contender="graph")
        pack = partial(contest.ours, sizes, masked=True, graphs=graphs)
        results.attempt(pack, needs=5 * seconds, **name, contender="pack")
    # The most expensive networks first: there, compiling matters.
    for case in sorted(cases, key=lambda case: -case.side) if graphs else ():
        contest = Contest(case, images(case.side), _recipe(case), device, seconds)
        contenders: dict[str, Callable[[], Mapping[str, Any]]] = {
            "bare compiled": partial(contest.bare, compiled=True),
            "graph compiled": partial(contest.ours, (1,), masked=False, graphs=True, compiled=True),
            "pack compiled": partial(contest.ours, sizes, masked=True, graphs=True, compiled=True),
        }
        for contender, work in contenders.items():
            results.attempt(work, needs=20.0, **case.to_dict(), contender=contender)


def accuracy(results: Results, device: str, data: ImageData, case: Case, epochs: int, seeds: int) -> None:
    """Validation accuracies of a candidate trained beside others as a masked network, and alone as it is built."""
    contest = Contest(case, data, Recipe.preset("tiny", batch_size=case.batch, epochs=epochs), device)
    runtime = replace(contest.runtime, graphs=device.startswith("cuda"))
    context = Context(data=data, recipe=contest.recipe, runtime=runtime)
    trainings = [
        Place(contest.capacity, contest.first, runtime).begin(
            contest.architecture, replace(context, seed=seed, curve=[]), alone=lambda: False
        )
        for seed in range(seeds)
    ]
    going = list(trainings)
    while going:
        going = [training for training in going if training.advance()]
    packed = [training.result().accuracy for training in trainings]
    trainings.clear()
    name = {**case.to_dict(), "data": data.name, "epochs": epochs, "note": runtime.graphs_error or ""}
    alone, last = [], 0.0
    for seed in range(seeds):
        if results.left() < 1.5 * last:
            break
        began = time.monotonic()
        alone.append(train(contest.model(seed), replace(context, seed=seed, curve=[])).accuracy)
        last = time.monotonic() - began
        results.add(**name, seed=seed, packed=packed[seed], alone=alone[-1], seconds_alone=last)
    results.add(**name, **paired(packed[: len(alone)], alone))


def paired(packed: Sequence[float], alone: Sequence[float]) -> Mapping[str, Any]:
    """The mean difference in points, and its 95 % interval by Student's t over pairs."""
    differences = np.subtract(packed, alone)
    mean, count = float(differences.mean()), len(differences)
    if count < 2:
        return {"pairs": count, "difference": mean}
    reach = float(stats.t.ppf(0.975, count - 1) * differences.std(ddof=1) / count**0.5)
    return {"pairs": count, "difference": mean, "interval": [mean - reach, mean + reach]}
