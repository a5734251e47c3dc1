"""Early stopping on real learning curves: what each rule spends, finds and loses on the very same trainings.

    python benchmarks/early_stopping.py collect --out runs/digits.jsonl
    python benchmarks/early_stopping.py collect --out runs/mixed.jsonl --networks mixed
    python benchmarks/early_stopping.py table --out runs/mixed.jsonl [--orders 100]
    python benchmarks/early_stopping.py losses --out runs/mixed.jsonl [--orders 100]

`collect` trains random networks to the end on digits, each with two seeds; it continues where an earlier run stopped.
`placements`: SE on or off in each block of test_resnet. These networks differ by little more than a retraining does.
`mixed`: much narrower test_resnets whose widths vary as well. These differ by far more.
`table` replays the first seed's curves in random orders under each rule: the rule sees a network's accuracies epoch
by epoch until it stops the network. What was found is judged by the means over seeds, which no rule has seen, and by
the readings that the rules have seen. Nothing is retrained, so only the rules differ.
`losses` asks whether `curves` should read the validation losses too. It compares three ways to predict the final
accuracy: from the accuracies so far (today's), from the losses in their place, and from both. What a rule stops wrongly
are members of the front of means over the seeds that each network has. Both limits of the rule are scaled together,
and kinds are compared where they spend as many epochs. Intervals are over the front's members, and over orders for the
hypervolume.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import se_nas
from se_nas.early_stopping import RULES, Candidate, EarlyStopping, MemoryTable, Record
from se_nas.early_stopping._curve_model import stretched
from se_nas.early_stopping.learning_curves import LearningCurves
from se_nas.pareto import hypervolume, non_dominated
from se_nas.space import SearchSpace

DIRECTIONS = ("maximize", "minimize")
KINDS = ("accuracy", "loss", "both")
SCALES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
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
        losses: validation loss after every epoch; empty if it was not recorded.
        mean: final accuracy, averaged over all seeds of this network.
    """

    curve: tuple[float, ...]
    losses: tuple[float, ...]
    mean: float
    cost: float
    share: float


def trainings(out: Path, *, whole: bool = True) -> list[Training]:
    """The first seed's training of every network.

    Args:
        whole: leave out networks of which a seed is missing.
    """
    by_key: dict[str, list[dict[str, Any]]] = {}
    for row in rows(out):
        by_key.setdefault(row["key"], []).append(row)
    most = max((len(seeds) for seeds in by_key.values()), default=0)
    return [
        Training(
            curve=tuple(seeds[0]["curve"]),
            losses=tuple(seeds[0].get("losses", ())),
            mean=float(np.mean([row["curve"][-1] for row in seeds])),
            cost=float(seeds[0]["macs"]),
            share=float(seeds[0]["share"]),
        )
        for seeds in by_key.values()
        if len(seeds) == most or not whole
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


class WithLosses(MemoryTable):
    """Records as they look to a rule that reads losses, at one epoch of a candidate.

    A loss is told as ``100 * exp(-loss)``: the geometric mean of the probabilities of the right classes, in percent.

    Args:
        order: the trainings; a candidate's number is its place.
        kind: "loss" puts losses in the place of accuracies at rungs, "both" makes them two more features.
    """

    def __init__(self, order: Sequence[Training], kind: str) -> None:
        super().__init__()
        self._kind = kind
        self.told = [tuple(100 * np.exp(-np.array(training.losses))) for training in order]
        self.epoch = 0

    def features(self, number: int) -> tuple[float, ...]:
        """Those of a candidate at this epoch: the logit of what its loss is told as, and by how much that grew."""
        told, before = self.told[number], self.epoch // 2
        level = stretched(told[self.epoch - 1])
        return level, level - stretched(told[before - 1]) if before else 0.0

    def records(self) -> list[Record]:
        found = []
        for record in super().records():
            me = record.candidate
            if self._kind == "both":
                me = replace(me, features=(*me.features[:1], *self.features(me.number)))
                found.append(replace(record, candidate=me))
            else:
                rungs = {epoch: self.told[me.number][epoch - 1] for epoch in record.rungs}
                found.append(replace(record, rungs=rungs))
        return found


def stopped_at(order: Sequence[Training], kind: str, scale: float) -> tuple[int, list[int]]:
    """Epochs that `curves` spends with limits times ``scale``, and which trainings it stops; without controls."""
    planned, table = len(order[0].curve), None if kind == "accuracy" else WithLosses(order, kind)
    usual = LearningCurves()
    stopping = EarlyStopping(
        "curves", epochs=planned, table=table, control=0.0,
        threshold=usual.threshold * scale, negligible=usual.negligible * scale,
    )  # fmt: skip
    epochs, stopped = 0, []
    for number, training in enumerate(order):
        me = Candidate(number=number, costs=(training.cost,), features=(training.share,))
        curve = training.curve
        for epoch in range(1, planned + 1):
            epochs += 1
            if table is not None and epoch < planned:
                table.epoch = epoch
                if kind == "both":
                    me = replace(me, features=(training.share, *table.features(number)))
                else:
                    curve = table.told[number]
            if epoch < planned and stopping.decide(me, epoch, curve[:epoch]).stop:
                stopped.append(number)
                break
        else:
            stopping.finish(me, training.curve)
    return epochs, stopped


def losses(found: list[Training], orders: int) -> str:
    """Markdown: what each kind of curves stops wrongly at equal epochs, and paired differences from today's."""
    from scipy.stats import t

    count = len(found)
    front = np.flatnonzero(non_dominated(np.array([[one.mean, one.cost] for one in found]), DIRECTIONS))
    shape = orders, len(KINDS), len(SCALES)
    spent, lost, gone = np.empty(shape), np.empty(shape), np.zeros((*shape, count))
    for seed in range(orders):
        numbers = np.random.default_rng(seed).permutation(count)
        order = [found[i] for i in numbers]
        for k, kind in enumerate(KINDS):
            for s, scale in enumerate(SCALES):
                epochs, stopped = stopped_at(order, kind, scale)
                left = [one for number, one in enumerate(order) if number not in stopped]
                spent[seed, k, s] = 100 * epochs / (count * len(order[0].curve))
                lost[seed, k, s] = 100 - share_found(left, order, means=True)
                gone[seed, k, s, numbers[stopped]] = 100
    lines = [
        f"{count} networks, {len(front)} on the front; {len(found[0].curve)} epochs each; {orders} orders.",
        "",
        "| epochs spent % | what | " + " | ".join(KINDS) + " | "
        + " | ".join(f"{kind} minus accuracy" for kind in KINDS[1:]) + " |",
        "|---" * (2 * len(KINDS) + 1) + "|",
    ]  # fmt: skip
    for s in range(1, len(SCALES) - 1):
        at = float(spent[:, 0].mean(axis=0)[s])
        # Where each kind spends as much: between two scales, the same in all orders.
        here = np.array([_between(spent[:, k].mean(axis=0), at) for k in range(len(KINDS))])
        by_member = np.einsum("oksn,ks->nk", gone[..., front], here) / orders
        by_order = np.einsum("oks,ks->ok", lost, here)
        for what, values in (("front members stopped %", by_member), ("hypervolume lost %", by_order)):
            cells = [f"{value:.2f}" for value in values.mean(axis=0)]
            gaps = values[:, 1:] - values[:, :1]
            half = t.ppf(0.975, len(gaps) - 1) * gaps.std(axis=0, ddof=1) / np.sqrt(len(gaps))
            cells += [f"{gap:+.2f} ± {h:.2f}" for gap, h in zip(gaps.mean(axis=0), half, strict=True)]
            lines.append(f"| {at:.1f} | {what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _between(spent: np.ndarray, at: float) -> np.ndarray:
    """Weights of the scales (n_scales,) by which ``spent``, which falls as limits are scaled up, becomes ``at``."""
    return np.array([np.interp(-at, -spent, unit) for unit in np.eye(len(spent))])


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
    parser.add_argument("action", choices=("collect", "table", "losses"))
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
        show = table if options.action == "table" else losses
        print(show(trainings(options.out, whole=options.action == "table"), options.orders))


if __name__ == "__main__":
    main()
