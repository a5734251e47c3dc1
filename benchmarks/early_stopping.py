"""Early stopping on real learning curves: what each rule spends, finds and loses on the very same trainings.

    python benchmarks/early_stopping.py collect --out runs/digits.jsonl
    python benchmarks/early_stopping.py collect --out runs/mixed.jsonl --networks mixed
    python benchmarks/early_stopping.py table --out runs/mixed.jsonl [--orders 100]

`collect` trains random networks to the end on digits, each with two seeds; it continues where an earlier run stopped.
`placements`: SE on or off in each block of test_resnet. These networks differ by little more than a retraining does.
`mixed`: much narrower test_resnets whose widths vary as well. These differ by far more.
`table` replays the first seed's curves in random orders under each rule: the rule sees a network's accuracies epoch
by epoch until it stops the network. What was found is judged by the means over seeds, which no rule has seen, and by
the readings that the rules have seen. Nothing is retrained, so only the rules differ.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import se_nas
from se_nas.early_stopping import RULES, Candidate, EarlyStopping
from se_nas.pareto import hypervolume, non_dominated
from se_nas.space import SearchSpace

DIRECTIONS = ("maximize", "minimize")
SEEDS = 2
WIDTHS = (2, 3, 4, 6, 8, 12, 16)
"""What each stage of test_resnet may have in the mixed networks."""


def networks(kind: str) -> Iterator[se_nas.Architecture]:
    """An endless series of random networks, the same every time."""
    rng = np.random.default_rng(5)
    while True:
        if kind == "placements":
            yield SearchSpace.load("per_block", backbone="test_resnet").sample(rng)
            continue
        channels = tuple(int(width) for width in rng.choice(WIDTHS, size=4))
        reduction = {stage: 2 if rng.random() < 0.5 else None for stage in range(4)}
        kwargs: dict[str, Any] = {"channels": channels, "stem_width": 4, "stem_type": ""}
        yield se_nas.Architecture.uniform("test_resnet", reduction=reduction, **kwargs)


def collect(
    out: Path, kind: str, candidates: int, epochs: int, images: str = "digits", val_images: Path | None = None
) -> None:
    """Trains what `out` lacks and appends it, one line per training."""
    import torch

    from se_nas.data import load_data
    from se_nas.training import Context, Recipe, Runtime, initial_weights, train

    torch.set_num_threads(1)
    done = {(row["key"], row["seed"]) for row in rows(out)}
    data = load_data(images, val_data=val_images, input_size=32)
    out.parent.mkdir(parents=True, exist_ok=True)
    chosen: dict[str, se_nas.Architecture] = {}
    for architecture in networks(kind):
        chosen.setdefault(architecture.key, architecture)
        if len(chosen) == candidates:
            break
    for seed in range(SEEDS):
        for number, (key, architecture) in enumerate(chosen.items(), 1):
            if (key, seed) in done:
                continue
            cost = se_nas.measure_cost(architecture, input_size=data.input_size, num_classes=data.num_classes)
            with initial_weights(seed):
                model = se_nas.build_model(architecture, num_classes=data.num_classes, init="identity")
            context = Context(
                data=data, recipe=Recipe(epochs=epochs, batch_size=64, lr=3e-3), seed=seed,
                runtime=Runtime(precision="fp32", channels_last=True),
            )  # fmt: skip
            result = train(model, context)
            row = {
                "key": key,
                "seed": seed,
                "macs": cost.macs,
                "num_params": cost.num_params,
                "share": architecture.num_gated / len(architecture.sites),
                "curve": [entry["accuracy"] for entry in result.curve],
                "losses": [entry["loss"] for entry in result.curve],
            }
            with open(out, "a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{number} of {candidates}, seed {seed}: {result.accuracy:.2f} %", flush=True)


def rows(out: Path) -> list[dict[str, Any]]:
    """The finished trainings; an incomplete last line (the process was killed while writing it) is dropped."""
    found = []
    for line in out.read_text().splitlines() if out.exists() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            print(f"{out}: dropped an unfinished line", file=sys.stderr)
    return found


@dataclass(frozen=True, kw_only=True)
class Training:
    """A finished training: accuracy in percent after every epoch, costs, and the share of sites with SE.

    Attributes:
        mean: final accuracy, averaged over all seeds of this network.
    """

    curve: tuple[float, ...]
    mean: float
    cost: float
    share: float


def trainings(out: Path) -> list[Training]:
    """The first seed's training of every network."""
    by_key: dict[str, list[dict[str, Any]]] = {}
    for row in rows(out):
        by_key.setdefault(row["key"], []).append(row)
    most = max((len(seeds) for seeds in by_key.values()), default=0)
    return [
        Training(
            curve=tuple(seeds[0]["curve"]),
            mean=float(np.mean([row["curve"][-1] for row in seeds])),
            cost=float(seeds[0]["macs"]),
            share=float(seeds[0]["share"]),
        )
        for seeds in by_key.values()
        if len(seeds) == most
    ]


def replay(rule: Any, order: Sequence[Training], seed: int) -> dict[str, Any]:
    """Runs a rule over the trainings in this order, one after the other.

    Returns:
        ``epochs`` spent, the trainings that ``finished``, and the rule's ``report``.
    """
    planned = len(order[0].curve)
    stopping = EarlyStopping(rule, epochs=planned, seed=seed)
    epochs, finished = 0, []
    for number, training in enumerate(order):
        me = Candidate(number=number, costs=(training.cost,), features=(training.share,))
        for epoch in range(1, planned + 1):
            epochs += 1
            if epoch < planned and stopping.decide(me, epoch, training.curve[:epoch]).stop:
                break
        else:
            stopping.finish(me, training.curve)
            finished.append(training)
    return {"epochs": epochs, "finished": finished, "report": stopping.report()}


def share_found(found: Sequence[Training], everything: Sequence[Training], *, means: bool) -> float:
    """Share of the hypervolume of all networks, in percent, by means over seeds or by the first readings."""

    def values(some: Sequence[Training]) -> np.ndarray:
        return np.array([[one.mean if means else one.curve[-1], one.cost] for one in some])

    whole, part = values(everything), values(found)
    reference = np.array([whole[:, 0].min(), whole[:, 1].max()])
    volumes = [
        hypervolume(some[non_dominated(some, DIRECTIONS)], reference, DIRECTIONS) for some in (part, whole)
    ]
    return float(100 * volumes[0] / volumes[1])


def table(found: list[Training], orders: int) -> str:
    """Markdown: means over random orders with their standard error."""
    lines = [
        f"{len(found)} networks, {len(found[0].curve)} epochs each; {orders} orders.",
        "",
        "| rule | epochs spent % | hypervolume of means % | of readings % | controls"
        " | controls it would have stopped | of those, on the front |",
        "|---|---|---|---|---|---|---|",
    ]
    for rule in (None, *RULES):
        spent, by_mean, by_reading, controls = [], [], [], np.zeros(3)
        for seed in range(orders):
            order = [found[i] for i in np.random.default_rng(seed).permutation(len(found))]
            result = replay(rule, order, seed)
            spent.append(100 * result["epochs"] / (len(found) * len(found[0].curve)))
            by_mean.append(share_found(result["finished"], found, means=True))
            by_reading.append(share_found(result["finished"], found, means=False))
            report = result["report"]
            controls += [report["controls"], report["would_stop"], report["wrong"]]
        cells = [_mean(spent, 1), _mean(by_mean, 2), _mean(by_reading, 2), *(f"{n:.0f}" for n in controls)]
        lines.append(f"| {rule or 'none'} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _mean(numbers: Sequence[float], digits: int) -> str:
    error = np.std(numbers, ddof=1) / np.sqrt(len(numbers)) if len(numbers) > 1 else 0.0
    return f"{np.mean(numbers):.{digits}f} ± {error:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("collect", "table"))
    parser.add_argument("--out", type=Path, default=Path("runs/curves.jsonl"))
    parser.add_argument("--networks", choices=("placements", "mixed"), default="placements")
    parser.add_argument("--data", default="digits", help="images, as of `se-nas search --data`; at 32 pixels")
    parser.add_argument("--val-data", type=Path)
    parser.add_argument("--candidates", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--orders", type=int, default=100)
    options = parser.parse_args()
    if options.action == "collect":
        collect(
            options.out, options.networks, options.candidates, options.epochs, options.data, options.val_data
        )
    else:
        print(table(trainings(options.out), options.orders))


if __name__ == "__main__":
    main()
