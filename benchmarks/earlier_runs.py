"""What an earlier run is worth to the sampler as prior knowledge, if it is right, half right, and wrong.

    python benchmarks/earlier_runs.py run --out runs/earlier.jsonl [--tables 12] [--agreement 0.9 0.5 0]
    python benchmarks/earlier_runs.py summary --out runs/earlier.jsonl

An earlier task is searched for 50 evaluations. A later one is drawn whose true accuracies agree with the earlier one's
as asked for (the correlation of what SE adds), and searched twice: with the earlier run as prior knowledge and without,
with the same noise. Three families:

`stages`: the same parameters, as with other data or another schedule. The estimate is what the sampler of the earlier
study predicts (`ParetoSampler.predict`).
`places`: SE at 8 places of a ResNet, and `backbones`: at 8 places of the earlier backbone and at 10 of the later one.
The estimate is that of `se-nas search --warm-start`: effects by relative depth and γ (`se_nas.study.site_effects`).
`accel`: the earlier run was for another device (an A100, then a ZCU102), with the same accuracies (agreement 1 only).

`summary` prints evaluations to 98 % of the true hypervolume, paired differences of the share with 95 % intervals, and
how far the sampler trusted the earlier run in the end.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sampler_families import FIRST, load
from sampler_tasks import Array, Task
from sampler_tasks import load as measured
from samplers import LEVELS, Recorder, first_at, progress, read

from se_nas.sites import Site
from se_nas.study.site_effects import Reading, site_effects

FAMILIES = ("stages", "places", "backbones", "accel")
AGREEMENTS = (0.9, 0.5, 0.0)
BUDGETS = (5, 10, 15, 20, 30, 40)
EARLIER, EVALUATIONS = 50, 40
RATIOS = (0, 16, 4)


class Network:
    """Places for SE in a backbone, with costs as in `sampler_families.places`, and what SE adds at each."""

    def __init__(self, depths: Sequence[int]) -> None:
        stage = np.repeat(np.arange(4), depths)
        self.channels = np.array([64, 128, 256, 512])[stage]
        pixels = np.array([56, 28, 14, 7])[stage] ** 2
        widths = self.channels[:, None] // np.array(RATIOS[1:])
        zero = np.zeros(len(stage))
        self.costs = np.column_stack([zero, 2 * self.channels[:, None] * (widths + pixels[:, None]) / 1e6])
        self.sites = [
            Site(
                stage=int(s), block=i, path=f"b{i}", channels=int(c), reduction_base=int(c), resolution=(7, 7)
            )
            for i, (s, c) in enumerate(zip(stage, self.channels, strict=True))
        ]
        self.depth = np.linspace(0, 1, len(stage))

    def gains(self, smooth: Callable[[Array], Array], rng: np.random.Generator) -> Array:
        """(n_places, n_choices) points of accuracy: a function of depth, with a fifth of its variance of its own."""
        own = smooth(self.depth) + 0.5 * rng.standard_normal(len(self.depth))
        gain = 0.2 + 0.25 * own
        return np.column_stack([np.zeros(len(gain)), gain * rng.uniform(0.6, 1.0, len(gain)), gain])

    def widths(self, index: Array) -> Array:
        return np.where(index > 0, self.channels // np.array([1, *RATIOS[1:]])[index], 0)

    def task(self, gains: Array, noise: float) -> Task:
        each = np.arange(len(gains))
        return Task(
            name="network",
            choices={f"place{i}": RATIOS for i in each},
            means=lambda index: 74.0 + gains[each, index].sum(axis=1),
            costs=lambda index: 1800.0 + self.costs[each, index].sum(axis=1),
            noise=noise,
        )


class Estimate:
    """A function of many points at once, as `ParetoSampler` likes it."""

    def __init__(self, task: Task, values: Callable[[Array], Array]) -> None:
        self._task, self._values = task, values

    def __call__(self, params: dict[str, Any]) -> float:
        return self.batch([params])[0]

    def batch(self, points: Sequence[dict[str, Any]]) -> list[float]:
        index = np.concatenate([self._task.index(point) for point in points])
        return [float(value) for value in self._values(index)]


def everything(task: Task) -> Array:
    sizes = [len(values) for values in task.choices.values()]
    return np.stack(np.unravel_index(np.arange(int(np.prod(sizes))), sizes), axis=1)


def smooth(rng: np.random.Generator) -> Callable[[Array], Array]:
    """A random function of depth with unit variance."""
    waves, phases = rng.normal(0, 4.0, 64), rng.uniform(0, 2 * np.pi, 64)
    return lambda depth: np.sqrt(2 / 64) * np.cos(np.outer(depth, waves) + phases).sum(axis=1)


def mixed(first: Array, second: Array, agreement: float) -> Array:
    """``first``, changed in its shape: what correlates with it as asked for, with its mean and deviation."""
    ours = (first - first.mean()) / first.std()
    theirs = (second - second.mean()) / second.std()
    theirs = theirs - (theirs @ ours) / len(ours) * ours
    both = agreement * ours + np.sqrt(1 - agreement**2) * theirs / theirs.std()
    return np.asarray(first.mean() + first.std() * both)


def tables(family: str, number: int) -> tuple[Task, Callable[[float], Task], Network | None, Network | None]:
    """The earlier task, the later one by its agreement, and their networks."""
    rng = np.random.default_rng([77, number, FAMILIES.index(family)])
    if family == "accel":
        on_zcu102 = measured("accel-zcu102")
        return measured("accel-a100"), lambda _: on_zcu102, None, None
    if family == "stages":
        first, other = load(f"stages-{FIRST + 500 + number}"), load(f"stages-{FIRST + 700 + number}")
        index = everything(first)
        sizes = [len(values) for values in first.choices.values()]

        def later(agreement: float) -> Task:
            values = mixed(first.means(index), other.means(index), agreement)
            return Task(
                name="later", choices=first.choices, costs=first.costs, noise=first.noise,
                means=lambda rows: values[np.ravel_multi_index(tuple(rows.T), sizes)],
            )  # fmt: skip

        return first, later, None, None
    before = Network((2, 2, 2, 2))
    after = Network((2, 3, 3, 2)) if family == "backbones" else before
    noise = float(rng.choice([0.1, 0.2, 0.3]))
    shared, fresh = smooth(rng), smooth(rng)
    seeds = rng.integers(2**31, size=2)
    gains = before.gains(shared, np.random.default_rng(seeds[0]))

    def of_agreement(agreement: float) -> Task:
        def changed(depth: Array) -> Array:
            return np.asarray(agreement * shared(depth) + np.sqrt(1 - agreement**2) * fresh(depth))

        # On one backbone what is a place's own is shared as far as the rest is.
        own = np.random.default_rng(seeds[0 if family == "places" and agreement > 0 else 1])
        return after.task(after.gains(changed, own), noise)

    return before.task(gains, noise), of_agreement, before, after


def searched(
    task: Task, seed: int, evaluations: int, prior: Any = None
) -> tuple[Any, Any, Recorder, list[float]]:
    """A search with our sampler: the study, its sampler, the readings, and the readings' accuracies."""
    import optuna

    from se_nas import ParetoSampler

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    sampler = ParetoSampler(
        known={1: Estimate(task, task.costs)}, seed=seed, space=task.choices, prior=prior, repeats=False
    )
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    record, accuracies = Recorder(task, seed, evaluations), []
    for _ in range(evaluations):
        trial = study.ask()
        params = {name: trial.suggest_categorical(name, values) for name, values in task.choices.items()}
        values = record(params)
        accuracies.append(values[0])
        study.tell(trial, values)
    return study, sampler, record, accuracies


def estimate(
    number: int, earlier: Task, before: Network | None, after: Network | None, later: Task
) -> Estimate:
    """What the earlier task's search says of the later one."""
    study, sampler, record, accuracies = searched(earlier, number, EARLIER)
    if before is None or after is None:
        index = everything(later)
        points = [
            {name: values[i] for (name, values), i in zip(later.choices.items(), row, strict=True)}
            for row in index
        ]
        means = sampler.predict(study, points)[0][:, 0]
        sizes = [len(values) for values in later.choices.values()]
        return Estimate(later, lambda rows: means[np.ravel_multi_index(tuple(rows.T), sizes)])
    effects = site_effects(
        [
            Reading(sites=before.sites, widths=widths.tolist(), accuracy=accuracy)
            for widths, accuracy in zip(before.widths(np.array(record.rows)), accuracies, strict=True)
        ]
    )
    assert effects is not None
    sites, network = after.sites, after
    return Estimate(later, lambda rows: effects.of(sites, network.widths(rows)))


def run(options: argparse.Namespace) -> None:
    options.out.parent.mkdir(parents=True, exist_ok=True)
    done = {(r["family"], r["agreement"], r["table"], r["prior"]) for r in read(options.out)}
    for number in range(options.tables):
        for family in options.family:
            earlier, later_of, before, after = tables(family, number)
            for agreement in options.agreement if family != "accel" else (1.0,):
                missing = [p for p in (False, True) if (family, agreement, number, p) not in done]
                if not missing:
                    continue
                later = later_of(agreement)
                for prior in missing:
                    known = estimate(number, earlier, before, after, later) if prior else None
                    study, sampler, record, _ = searched(later, 1000 + number, EVALUATIONS, known)
                    row = {
                        "family": family, "agreement": agreement, "table": number, "prior": prior,
                        "trust": sampler.trust(study),
                        "share": progress(later, record)[1],
                    }  # fmt: skip
                    with open(options.out, "a") as file:
                        file.write(json.dumps(row) + "\n")
                    print(f"{family} {agreement} {number} {prior}: {row['share'][-1]:.4f}", flush=True)


def summary(rows: list[dict[str, Any]]) -> str:
    """Markdown: evaluations to 98 %, paired differences with 95 % intervals, and the trust."""
    found = {(r["family"], r["agreement"], r["table"], r["prior"]): r for r in rows}
    level = LEVELS[1]
    lines = [
        f"| family | agreement | tables | to {level:.0%} without | with | ratio | "
        + " | ".join(f"at {budget}" for budget in BUDGETS)
        + " | trust |",
        "|---" * (7 + len(BUDGETS)) + "|",
    ]
    rng = np.random.default_rng(0)
    for family, agreement in sorted({key[:2] for key in found}, key=lambda k: (FAMILIES.index(k[0]), -k[1])):
        both = [
            t for f, a, t, p in found if (f, a, p) == (family, agreement, True) and (f, a, t, False) in found
        ]
        if len(both) < 2:
            continue
        shares = np.array([[found[family, agreement, t, p]["share"] for p in (False, True)] for t in both])
        needed = np.array([[min(first_at(one, level), len(one) + 1) for one in pair] for pair in shares])
        logs = np.log(needed[:, 1] / needed[:, 0])
        means = [rng.choice(logs, len(logs)).mean() for _ in range(2000)]
        low, high = np.exp(np.quantile(means, [0.025, 0.975]))
        gains = shares[:, 1] - shares[:, 0]
        cells = []
        for budget in BUDGETS:
            gain = gains[:, budget - 1]
            cells.append(f"{gain.mean():+.3f} ± {1.96 * gain.std(ddof=1) / np.sqrt(len(gain)):.3f}")
        trust = np.median([found[family, agreement, t, True]["trust"][0] for t in both])
        without, with_it = np.median(needed, axis=0)
        lines.append(
            f"| {family} | {agreement:g} | {len(both)} | {without:g} | {with_it:g} | {np.exp(logs.mean()):.2f}"
            f" ({low:.2f}–{high:.2f}) | {' | '.join(cells)} | {trust:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("run", "summary"))
    parser.add_argument("--out", type=Path, default=Path("runs/earlier.jsonl"))
    parser.add_argument("--family", nargs="+", choices=FAMILIES, default=FAMILIES[:3])
    parser.add_argument("--agreement", nargs="+", type=float, default=list(AGREEMENTS))
    parser.add_argument("--tables", type=int, default=12)
    options = parser.parse_args()
    if options.action == "run":
        run(options)
    else:
        print(summary(read(options.out)))


if __name__ == "__main__":
    main()
