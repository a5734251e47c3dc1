"""Early stopping on real learning curves: what each rule spends, finds and loses, on the very same trainings.

    python benchmarks/early_stopping.py collect --run runs/curves [--data digits] [--candidates 48] [--epochs 16]
    python benchmarks/early_stopping.py table --run runs/curves [--orders 100]

`collect` is an ordinary search with a random sampler that trains every candidate to the end; it goes on where it
was stopped. `table` replays the curves in random orders under each rule: a candidate is told its accuracies epoch
by epoch until the rule stops it. Nothing is trained twice, so the rules differ in nothing else.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

import se_nas
from se_nas.architecture import ABSENT
from se_nas.pareto import hypervolume, non_dominated
from se_nas.run import RunFolder
from se_nas.study.early_stopping import Candidate, EarlyStopping

RULES: tuple[Literal["curves", "moasha"] | None, ...] = (None, "curves", "moasha")
DIRECTIONS = ("maximize", "minimize")


def collect(run: Path, data: str, backbone: str, candidates: int, epochs: int) -> None:
    """Trains random candidates to the end, with the command line's own search."""
    if run.exists():
        se_nas.study.resume(run)
        return
    config = se_nas.SearchConfig(
        backbone=backbone,
        data=data,
        input_size=32,
        objectives="accuracy,macs",
        sampler="random",
        trials=candidates,
        epochs=epochs,
        final_seeds=0,
        keep="none",
        device="cpu",
        runs=str(run.parent),
        name=run.name,
    )
    se_nas.study.search(config)


@dataclass(frozen=True, kw_only=True)
class Training:
    """A finished training: accuracy in percent after every epoch, cost, and the share of sites with SE."""

    curve: tuple[float, ...]
    cost: float
    share: float


def trainings(run: Path) -> list[Training]:
    """The complete trainings of a run."""
    return [
        Training(
            curve=tuple(entry["accuracy"] for entry in row["curve"]),
            cost=float(row["macs"]),
            share=float(np.mean([width != ABSENT for width in row["widths"]])),
        )
        for row in RunFolder.open(run).rows()
        if row["state"] == "complete"
    ]


def replay(rule: Any, order: Sequence[Training], seed: int) -> dict[str, Any]:
    """Runs a rule over the trainings in this order, one after the other.

    Returns:
        ``epochs`` spent, which ``finished``, and the rule's own ``report``.
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


def values(found: Sequence[Training]) -> np.ndarray:
    """(n, 2) final accuracy and cost."""
    return np.array([[training.curve[-1], training.cost] for training in found])


def table(found: list[Training], orders: int) -> str:
    """Markdown: means over random orders with their standard error."""
    everything = values(found)
    front = everything[non_dominated(everything, DIRECTIONS)]
    reference = np.array([everything[:, 0].min(), everything[:, 1].max()])
    whole = hypervolume(front, reference, DIRECTIONS)
    members = {tuple(row) for row in front}
    lines = [
        f"{len(found)} trainings of {len(found[0].curve)} epochs, {len(front)} on the front; {orders} orders.",
        "",
        "| rule | epochs spent % | hypervolume % | front members lost of "
        f"{len(front)} | controls | of those it would have stopped | of those on the front |",
        "|---|---|---|---|---|---|---|",
    ]
    for rule in RULES:
        spent, volumes, lost, controls = [], [], [], np.zeros(3)
        for seed in range(orders):
            order = [found[i] for i in np.random.default_rng(seed).permutation(len(found))]
            result = replay(rule, order, seed)
            kept = values(result["finished"])
            spent.append(100 * result["epochs"] / (len(found) * len(found[0].curve)))
            volumes.append(
                100 * hypervolume(kept[non_dominated(kept, DIRECTIONS)], reference, DIRECTIONS) / whole
            )
            lost.append(len(members - {tuple(row) for row in kept}))
            report = result["report"]
            controls += [report["controls"], report["would_stop"], report["wrong"]]
        cells = [_mean(spent, 1), _mean(volumes, 2), _mean(lost, 2), *(f"{count:.0f}" for count in controls)]
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
    parser.add_argument("--run", type=Path, default=Path("runs/curves"))
    parser.add_argument("--data", default="digits")
    parser.add_argument("--backbone", default="test_resnet")
    parser.add_argument("--candidates", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--orders", type=int, default=100)
    options = parser.parse_args()
    if options.action == "collect":
        collect(options.run, options.data, options.backbone, options.candidates, options.epochs)
    else:
        print(table(trainings(options.run), options.orders))


if __name__ == "__main__":
    main()
