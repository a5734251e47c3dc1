"""Costs on this machine: rates of the closed form, equality with fvcore, coverage of intervals, the table's error.

    python benchmarks/costs.py [rates] [equality] [coverage] [table] [--backbone resnet18] [--side 160] [--seconds 60]

The parts that measure time (coverage, table) need the machine to themselves.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import timm
import torch

from se_nas import Architecture, SearchSpace, build_model, measure_cost
from se_nas.cost import CostModel, LatencyMeter, LatencySettings, LatencyTable, latency_table
from se_nas.cost.counting import count
from se_nas.cost.settings import conditions

PARTS = ("rates", "equality", "coverage", "table")
SIZE = (3, 224, 224)


def rates(options: argparse.Namespace) -> None:
    """Architectures per second, compared with fvcore on the built model."""
    generator = np.random.default_rng(0)
    print(
        f"{'backbone':22} {'sites':>5} {'fvcore':>12} {'measure_cost':>14} {'vectorised':>14}  architectures per second"
    )
    for backbone in ("resnet18", "resnet50", "efficientnet_b0", "densenet121"):
        arch = Architecture.uniform(backbone, reduction=16, native="resize")
        model = CostModel.for_architecture(arch, SIZE)
        built = build_model(arch)
        fvcore = _rate(lambda built=built: count(built, SIZE), 1)
        single = _rate(lambda arch=arch: measure_cost(arch), 20_000)
        widths = generator.integers(0, 128, (200_000, len(arch.sites)))
        many = _rate(lambda model=model, widths=widths: model.evaluate(widths), 1) * len(widths)
        print(f"{backbone:22} {len(arch.sites):5} {fvcore:12.2f} {single:14,.0f} {many:14,.0f}")


def equality(options: argparse.Namespace) -> None:
    """Compares the closed form with fvcore, as integers, on random architectures of each family's smallest network."""
    generator = np.random.default_rng(0)
    equal, total, families = 0, 0, {}
    for name in timm.list_models():
        model = timm.models.model_entrypoint(name).__module__
        families.setdefault(model.rsplit(".", 1)[-1], []).append(name)
    for family, names in families.items():
        for name in names[:1] if not options.all else names:
            result = _compare(name, generator)
            if result is None:
                continue
            total += 1
            equal += result == ""
            print(f"{family:24} {name:32} {result or 'equal'}", flush=True)
    print(f"{equal} of {total} networks equal to fvcore in parameters, multiply-adds and activations")


def _compare(name: str, generator: np.random.Generator) -> str | None:
    """An empty string if equal, what differs if not, None if the network has no sites or is too large."""
    from se_nas.errors import SeNasError

    try:
        size = (3, *timm.get_pretrained_cfg(name).input_size[1:]) if timm.is_model(name) else SIZE
        plain = Architecture.plain(name)
        if not plain.sites:
            return None
        arch = replace(plain, widths=tuple(_random_width(site, generator) for site in plain.sites))
        cost = measure_cost(arch, input_size=size)
        counts = count(build_model(arch), size)
    except (SeNasError, AttributeError):
        return None
    ours = (cost.num_params, cost.macs, cost.activations)
    theirs = (counts.num_params[""], counts.macs[""], counts.activations[""])
    return "" if ours == theirs else f"differs by {[a - b for a, b in zip(ours, theirs, strict=True)]}"


def _random_width(site, generator: np.random.Generator) -> int:
    if site.native and site.native_rd_channels is None:
        return int(generator.choice([-1, 0]))
    return int(generator.choice([0, 1, 5, 16, max(1, site.channels // 4)]))


def coverage(options: argparse.Namespace) -> None:
    """A/A runs: how often the interval of the ratio contains 1, and how wide it is."""
    meter = LatencyMeter(Architecture.plain(options.backbone), _settings(options))
    held, widths, pairs, ratios = [], [], [], []
    end = time.monotonic() + options.seconds
    while time.monotonic() < end:
        measured = meter.measure_against_itself(width=options.width, max_seconds=5.0)
        held.append(measured.interval[0] <= 1 <= measured.interval[1])
        widths.append(measured.interval[1] - measured.interval[0])
        pairs.append(measured.repetitions)
        ratios.append(measured.ratio)
    print(
        f"{options.backbone} at {options.side} pixels, {measured.baseline_ms:.2f} ms: {np.mean(held):.1%} of"
        f" {len(held)} A/A intervals contain 1; median width {np.median(widths):.2%}, {np.median(pairs):.0f} pairs;"
        f" ratios {np.mean(ratios):.4f} on average, scattering by {np.std(ratios):.2%}"
    )


def table(options: argparse.Namespace) -> None:
    """Held-out error of the latency table over a shipped space."""
    meter = LatencyMeter(Architecture.plain(options.backbone), _settings(options))
    space = SearchSpace.load("per_block", backbone=options.backbone)
    start = time.monotonic()
    position = next(iter(space.sites_by_position))
    fitted: LatencyTable = latency_table(meter, space, position, max_seconds=options.seconds, refresh=True)
    print(f"{options.backbone} at {options.side} pixels, {fitted.baseline_ms:.2f} ms, space per_block")
    for row in fitted.check.held_out:
        low, high = row.interval
        print(f"  measured {row.measured:.4f} ({low:.4f} to {high:.4f})  predicted {row.predicted:.4f}")
    print(fitted.check.describe())
    predicted = (
        _rate(lambda: fitted.predict(np.tile(fitted.plain, (100_000, 1)), even_if_failed=True), 1) * 100_000
    )
    print(f"measured in {time.monotonic() - start:.0f} s; predicts {predicted:,.0f} architectures per second")


def _settings(options: argparse.Namespace) -> LatencySettings:
    return LatencySettings(
        input_size=(3, options.side, options.side), threads=options.threads, device=options.device
    )


def _rate(call: Callable[[], object], repeats: int) -> float:
    call()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return repeats / (time.perf_counter() - start)


def main() -> None:
    """Runs the parts that are named, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS])
    parser.add_argument(
        "--all", action="store_true", help="equality: every network of timm, not one per family"
    )
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--side", type=int, default=160)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--width", type=float, default=0.02, help="coverage: desired width of the interval")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    found = conditions(LatencySettings(threads=options.threads), torch.device(options.device), {})
    print(
        {
            name: found[name]
            for name in ("device_name", "cpu_count", "threads", "versions", "platform", "load")
        }
    )
    for part in options.parts or PARTS:
        print(f"\n== {part}")
        {"rates": rates, "equality": equality, "coverage": coverage, "table": table}[part](options)


if __name__ == "__main__":
    main()
