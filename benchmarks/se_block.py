"""Forms of the SE block side by side: time relative to timm's SEModule, by shape and memory format.

Timings are paired: in every round each form runs once, in an order that rotates from round to round, and its time is
divided by timm's of the same round. The table shows the median of these ratios with its 95 % interval (sign test), and
the largest difference of any form's output from timm's, with the same weights.

    python benchmarks/se_block.py [--device cuda] [--compiled] [--training] [--shapes 1x64x56 16x256x14]
    python benchmarks/se_block.py --passes  # the passes over the map alone, which no form of the block can avoid
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from pretrained import machine
from timm.layers import SEModule
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

from se_nas.inference import LinearSqueezeExcite
from se_nas.layers.squeeze_excite import SqueezeExcite

# batch, channels, side; from resnet and MBConv nets at 224 pixels, and small maps
SHAPES = ["1x96x112", "1x256x56", "1x512x28", "1x1024x14", "1x2048x7", "16x64x56", "16x256x14", "64x64x8"]
FORMATS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}


def linear_form(block: SqueezeExcite, *, in_place: bool) -> LinearSqueezeExcite:
    """What ``optimize_for_inference`` makes of the block."""
    layers = []
    for conv in (block.fc1, block.fc2):
        layer = nn.Linear(conv.in_channels, conv.out_channels)
        layer.load_state_dict({"weight": conv.weight.flatten(1), "bias": conv.bias})
        layers.append(layer)
    return LinearSqueezeExcite(layers[0], nn.ReLU(inplace=True), layers[1], nn.Sigmoid(), in_place=in_place)


def forms(channels: int, *, triton: bool = False) -> dict[str, nn.Module]:
    """Every form with the same weights, timm's first. ``triton`` adds the kernels that need CUDA."""
    width = max(8, channels // 16)
    ours = SqueezeExcite(channels, width)
    doubled = SqueezeExcite(channels, width)
    timm_form, torchvision_form = SEModule(channels, rd_channels=width), SqueezeExcitation(channels, width)
    for other in (doubled, timm_form, torchvision_form):
        other.load_state_dict(ours.state_dict())
    doubled.gate_scale = 2.0
    found: dict[str, nn.Module] = {
        "timm SEModule": timm_form,
        "torchvision": torchvision_form,
        "SqueezeExcite": ours,
        "with gate scale 2": doubled,
        "linear": linear_form(ours, in_place=False),
        "linear, in place": linear_form(ours, in_place=True),
    }
    if triton:
        from se_nas.layers.triton_gate import TritonSqueezeExcite

        found["Triton"] = TritonSqueezeExcite(linear_form(ours, in_place=False))
        found["Triton, in place"] = TritonSqueezeExcite(linear_form(ours, in_place=True))
    return found


def measure(
    runs: dict[str, Callable[[], object]], synchronize: Callable[[], object], seconds: float
) -> dict[str, tuple[float, float, float]]:
    """The median ratio to the first form, and its interval, by form."""
    found = readings(runs, synchronize, seconds)
    first = next(iter(found.values()))
    return {
        name: _median_with_interval([own / timms for own, timms in zip(values, first, strict=True)])
        for name, values in found.items()
    }


def readings(
    runs: dict[str, Callable[[], object]], synchronize: Callable[[], object], seconds: float
) -> dict[str, list[float]]:
    """Seconds of one run by form, in rounds in which each form has its turn; equally many rounds for all."""
    names = list(runs)

    def timed(name: str, count: int) -> float:
        synchronize()
        start = time.perf_counter()
        for _ in range(count):
            runs[name]()
        synchronize()
        return (time.perf_counter() - start) / count

    for name in names:
        timed(name, 3)
    # One reading takes about two milliseconds: long compared with the clock, short compared with drifts.
    count = max(1, round(2e-3 / timed(names[0], 3)))
    found: dict[str, list[float]] = {name: [] for name in names}
    end, rounds = time.monotonic() + seconds, 0
    while rounds < 15 or (time.monotonic() < end and rounds < 200):
        turned = names[rounds % len(names) :] + names[: rounds % len(names)]
        for name in turned:
            found[name].append(timed(name, count))
        rounds += 1
    return found


def _median_with_interval(values: list[float]) -> tuple[float, float, float]:
    values = sorted(values)
    reach = round(0.98 * len(values) ** 0.5)
    middle = len(values) // 2
    return (
        statistics.median(values),
        values[max(0, middle - reach)],
        values[min(len(values) - 1, middle + reach)],
    )


def rows(
    shapes: list[str], *, device: str, compiled: bool, training: bool, seconds: float
) -> Iterator[dict[str, Any]]:
    """One row for each shape and format: ``shape``, ``format``, the ``ratios`` to timm's form (median and interval) by
    form, and the ``largest_difference``.
    """
    for shape in shapes:
        batch, channels, side = map(int, shape.split("x"))
        for name, memory_format in FORMATS.items():
            x = torch.randn(batch, channels, side, side, device=device).to(memory_format=memory_format)
            made = forms(channels, triton=device == "cuda" and not (training or compiled))
            nets = {key: net.to(device).train(training) for key, net in made.items()}
            if training:
                nets.pop("linear, in place")
            if compiled:
                torch._dynamo.reset()
                nets = {key: torch.compile(net) for key, net in nets.items()}  # type: ignore[misc]
            with torch.inference_mode(not training):
                expected = nets["timm SEModule"](x.clone())
                errors = {
                    key: float(
                        (net(x.clone()) - expected).detach().abs().max() / expected.detach().abs().max()
                    )
                    for key, net in nets.items()
                    if key != "with gate scale 2"  # another function
                }
                for net in nets.values():
                    _open(net)
                runs = {key: _step(net, x, training) for key, net in nets.items()}
                found = measure(runs, torch.cuda.synchronize if device == "cuda" else _nothing, seconds)
            yield {
                "shape": shape,
                "format": name,
                "ratios": dict(list(found.items())[1:]),
                "largest_difference": max(errors.values()),
            }


def table(shapes: list[str], *, device: str, compiled: bool, training: bool, seconds: float) -> None:
    """Prints one table: a row per shape, a column per form."""
    mode = ("compiled" if compiled else "eager") + (", forward and backward" if training else ", inference")
    print(f"\n### {mode}\n")
    settings = {"device": device, "compiled": compiled, "training": training, "seconds": seconds}
    for number, row in enumerate(rows(shapes, **settings)):
        if number == 0:
            print(f"| shape | format | {' | '.join(row['ratios'])} | largest difference |")
            print("|---" * (len(row["ratios"]) + 3) + "|")
        cells = [f"{m:.2f} ({low:.2f} to {high:.2f})" for m, low, high in row["ratios"].values()]
        print(
            f"| {row['shape']} | {row['format']} | {' | '.join(cells)} | {row['largest_difference']:.0e} |",
            flush=True,
        )


def passes(shapes: list[str], *, device: str, seconds: float) -> None:
    """Prints the time of the mean over the map, and of the product into a new map and in place.

    The block reads the map once for the mean and once for the product. So the two passes in place, as a share of
    the two passes with a new map, are about the share of time that a form in place can reach.
    """
    synchronize = torch.cuda.synchronize if device == "cuda" else _nothing
    print("\n### passes alone, µs\n")
    print("| shape | format | mean | product, new map | product, in place | share of both in place |")
    print("|---|---|---|---|---|---|")
    for shape in shapes:
        batch, channels, side = map(int, shape.split("x"))
        gate = torch.ones(batch, channels, 1, 1, device=device)
        for name, memory_format in FORMATS.items():
            x = torch.randn(batch, channels, side, side, device=device).to(memory_format=memory_format)
            runs: dict[str, Callable[[], object]] = {
                "mean": lambda x=x: x.mean((2, 3)),
                "new": lambda x=x, gate=gate: x * gate,
                "in place": lambda x=x, gate=gate: x.mul_(gate),
            }
            with torch.inference_mode():
                mean, new, in_place = (
                    1e6 * statistics.median(values)
                    for values in readings(runs, synchronize, seconds).values()
                )
            share = (mean + in_place) / (mean + new)
            print(f"| {shape} | {name} | {mean:.0f} | {new:.0f} | {in_place:.0f} | {share:.2f} |", flush=True)


@torch.no_grad()
def _open(net: nn.Module) -> None:
    """Sets all gates to 1: a map scaled in place in every reading must not fade to slow subnormal numbers."""
    for name, parameter in net.named_parameters():
        if name.endswith("fc2.weight"):
            parameter.zero_()
        elif name.endswith("fc2.bias"):
            parameter.fill_(30.0)


def _step(net: nn.Module, x: Tensor, training: bool) -> Callable[[], object]:
    if not training:
        return lambda: net(x)
    leaf = x.detach().requires_grad_()

    def step() -> object:
        leaf.grad = None
        net(leaf).sum().backward()
        return leaf.grad

    return step


def _nothing() -> None:
    return None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="batch x channels x side")
    parser.add_argument("--compiled", action="store_true", help="also under torch.compile")
    parser.add_argument("--training", action="store_true", help="also forward and backward")
    parser.add_argument("--passes", action="store_true", help="the passes over the map alone")
    parser.add_argument("--seconds", type=float, default=1.0, help="time per row of a table")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    print(machine() + (f", {torch.cuda.get_device_name()}" if args.device == "cuda" else ""))
    if args.passes:
        passes(args.shapes, device=args.device, seconds=args.seconds)
        return
    print("Time as a share of timm's SEModule: below 1 is faster.")
    for training in [False, True] if args.training else [False]:
        for compiled in [False, True] if args.compiled else [False]:
            table(args.shapes, device=args.device, compiled=compiled, training=training, seconds=args.seconds)


if __name__ == "__main__":
    main()
