"""Everything about a GPU in one run: tests, throughput, a search, accuracy, latency and the SE block.

    python benchmarks/gpu.py                             all parts on cuda, in less than eight minutes
    python benchmarks/gpu.py --data TINY_IMAGENET        the search and the accuracy on real images of 64 pixels
    python benchmarks/gpu.py --parts throughput,search --limit 120
    python benchmarks/gpu.py --device cpu --quick --parts throughput,search --limit 20

Every part runs in a process and under a time limit of its own, so that none can break or starve another. What is
measured is appended at once to a file of JSON lines, with machine and versions, and printed as tables at the end.
Whatever fails, or is not begun for want of time, is a row with its reason.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gpu_tables
import se_block
import timm
import torch
from gpu_search import search
from gpu_training import Case, accuracy, digits, throughput
from results import Results, of_run

import se_nas
from se_nas import SearchSpace
from se_nas.cost import measure_latency
from se_nas.data import ImageData, load_data
from se_nas.device import device_name
from se_nas.study.baselines import baselines

ROOT = Path(__file__).parents[1]
LIMITS = {"tests": 75, "throughput": 180, "search": 70, "accuracy": 45, "latency": 35, "se_block": 15}
"""Seconds of each part."""
GRACE = 50.0
"""Seconds beyond them that all parts share, for starts and ends of processes; the whole stays below eight minutes."""
IMAGE_BYTES = 2**31
"""Bytes of training images in the throughput part, and at most so many images."""
MOST_IMAGES = 200_000


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much is measured."""

    cases: tuple[Case, ...]
    sizes: tuple[int, ...]
    seconds: float
    images: int
    search: Case
    search_epochs: int
    trials: int
    accuracy: Case
    accuracy_epochs: int
    seeds: int
    latency: tuple[str, ...]
    latency_side: int
    latency_batches: tuple[int, ...]
    shapes: tuple[str, ...]


FULL = Extent(
    cases=(
        Case("resnet18", 64, 128),
        Case("resnet18", 64, 32),
        Case("resnet10t", 32, 32),
        Case("resnet50", 224, 128),
        Case("mobilenetv2_100", 224, 128),
    ),
    sizes=(1, 2, 4, 8, 16),
    seconds=1.0,
    images=MOST_IMAGES,
    search=Case("resnet18", 64, 128),
    search_epochs=20,
    trials=32,
    accuracy=Case("resnet18", 64, 128),
    accuracy_epochs=6,
    seeds=8,
    latency=("resnet18", "resnet50"),
    latency_side=224,
    latency_batches=(1, 128),
    shapes=("1x256x56", "1x512x28", "1x2048x7", "16x256x14", "128x256x56"),
)
QUICK = Extent(
    cases=(Case("test_resnet", 32, 16),),
    sizes=(1, 2),
    seconds=0.3,
    images=600,
    search=Case("test_resnet", 32, 32),
    search_epochs=1,
    trials=3,
    accuracy=Case("test_resnet", 32, 32),
    accuracy_epochs=1,
    seeds=2,
    latency=("test_resnet",),
    latency_side=64,
    latency_batches=(1,),
    shapes=("1x64x8",),
)


def tests(results: Results, options: argparse.Namespace, extent: Extent) -> None:
    """``pytest -m gpu``: the outcome of each test that was reached."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:benchmark", "-v", "-rfE", "--color=no"]
    with tempfile.TemporaryFile("w+") as output:
        try:
            subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, timeout=results.left())
            ended = True
        except subprocess.TimeoutExpired:
            ended = False
        output.seek(0)
        text = output.read()
    outcomes = re.findall(r"^(tests/\S+) (PASSED|FAILED|ERROR|SKIPPED)", text, re.MULTILINE)
    reasons = dict(re.findall(r"^(?:FAILED|ERROR) (\S+) - (.*)$", text, re.MULTILINE))
    for test, outcome in outcomes:
        if outcome in ("FAILED", "ERROR"):
            results.add(test=test, error=reasons.get(test, outcome))
    counts = Counter(outcome for _, outcome in outcomes)
    names = {"passed": "PASSED", "failed": "FAILED", "broken": "ERROR"}
    numbers = {name: counts[outcome] for name, outcome in names.items()}
    results.add(**numbers, ended=ended, last_line=text.strip().rpartition("\n")[2])


def run_throughput(results: Results, options: argparse.Namespace, extent: Extent) -> None:
    def images(side: int) -> int:
        return min(extent.images, IMAGE_BYTES // (3 * side**2))

    throughput(results, options.device, extent.cases, extent.sizes, extent.seconds, images)


def run_search(results: Results, options: argparse.Namespace, extent: Extent) -> None:
    case = extent.search
    data: ImageData | str = options.data or "digits"
    if not options.data and not options.quick:
        # As many as in 20 classes of Tiny-ImageNet.
        data = digits(case.side, 9000, 1000)
    search(results, options.device, data, case, extent.search_epochs, extent.trials)


def run_accuracy(results: Results, options: argparse.Namespace, extent: Extent) -> None:
    data = load_data(options.data or "digits", input_size=extent.accuracy.side)
    accuracy(results, options.device, data, extent.accuracy, extent.accuracy_epochs, extent.seeds)


def latency(results: Results, options: argparse.Namespace, extent: Extent) -> None:
    """SE everywhere (γ = 16) against the plain backbone, by mode and batch size, in fp32."""
    cuda = options.device.startswith("cuda")
    for mode in ("graph", "eager", "compile") if cuda else ("eager",):
        for backbone in extent.latency:
            architecture = baselines(SearchSpace.load("per_block", backbone=backbone))["all_se_16"]
            for batch in extent.latency_batches:

                def measure(
                    mode: str = mode, batch: int = batch, architecture: Any = architecture
                ) -> dict[str, Any]:
                    side = extent.latency_side
                    found = measure_latency(
                        architecture,
                        input_size=(3, side, side),
                        batch_size=batch,
                        device=options.device,
                        mode=mode,
                        max_seconds=2.0,
                    )
                    return {
                        "plain_ms": found.baseline_ms,
                        "se_ms": found.median_ms,
                        "added": found.ratio - 1,
                        "interval": [bound - 1 for bound in found.interval],
                        "took_mode": found.conditions["mode"],
                        "note": found.note,
                    }

                what = {"backbone": backbone, "side": extent.latency_side, "batch": batch, "mode": mode}
                results.attempt(measure, needs=15.0 if mode == "compile" else 3.0, **what)


def run_se_block(results: Results, options: argparse.Namespace, extent: Extent) -> None:
    """Forms of the SE block against timm's, inference and training, eager."""
    for training in (False, True):
        for shape in extent.shapes:
            settings = {"device": options.device, "compiled": False, "training": training}

            def measure(shape: str = shape, settings: dict[str, Any] = settings) -> dict[str, Any]:
                return {"rows": list(se_block.rows([shape], seconds=0.3, **settings))}

            results.attempt(measure, needs=2.0, shape=shape, training=training)


PARTS: dict[str, Callable[[Results, argparse.Namespace, Extent], None]] = {
    "tests": tests,
    "throughput": run_throughput,
    "search": run_search,
    "accuracy": run_accuracy,
    "latency": latency,
    "se_block": run_se_block,
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--parts", default=",".join(PARTS), help=f"which of {', '.join(PARTS)}, in this order"
    )
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu to try the script out")
    parser.add_argument(
        "--data", help="images of 64 pixels, as in se-nas search; without, digits of that size"
    )
    parser.add_argument("--limit", type=float, help=f"seconds of each part (default {LIMITS})")
    parser.add_argument(
        "--out", type=Path, default=Path("gpu.jsonl"), help="file of JSON lines (appended to)"
    )
    parser.add_argument("--quick", action="store_true", help="tiny networks, to try the script out")
    parser.add_argument("--only", metavar="PART", help=argparse.SUPPRESS)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = set(options.parts.split(",")) - set(PARTS)
    if unknown:
        parser.error(f"unknown parts {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return options


def inside(options: argparse.Namespace) -> None:
    """One part, in a process of its own."""
    common = {
        "run": options.run,
        "part": options.only,
        "device": device_name(options.device),
        "host": platform.node(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "timm": timm.__version__,
        "se_nas": se_nas.__version__,
    }
    results = Results(options.out, common, options.limit or LIMITS[options.only])
    results.attempt(lambda: PARTS[options.only](results, options, QUICK if options.quick else FULL) or {})


def outside(options: argparse.Namespace) -> None:
    """All parts, each in a process; then the tables."""
    run = time.strftime("%Y-%m-%dT%H:%M:%S")
    end = time.monotonic() + GRACE
    for part in options.parts.split(","):
        limit = options.limit or LIMITS[part]
        print(f"\n{part}, {limit:.0f} s at most", flush=True)
        began = time.monotonic()
        end += limit
        command = [sys.executable, *sys.argv, "--only", part, "--run", run]
        child = subprocess.Popen(command, start_new_session=True)
        try:
            status = child.wait(timeout=max(0.0, end - began))
            if status:
                print(f"  {part} ended with status {status}")
        except subprocess.TimeoutExpired:
            print(f"  {part} did not end in {end - began:.0f} s and was killed")
        finally:
            # Workers that decode images, and pytest, are in its group.
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        print(f"  {part} took {time.monotonic() - began:.0f} s", flush=True)
    gpu_tables.show(of_run(options.out, run))


if __name__ == "__main__":
    options = parse()
    inside(options) if options.only else outside(options)
