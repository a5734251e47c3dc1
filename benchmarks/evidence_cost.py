"""What a second output of every training costs the sampler, in processor time.

    python benchmarks/evidence_cost.py fit           milliseconds of a fit of the hyperparameters
    python benchmarks/evidence_cost.py suggestion    milliseconds of a suggestion, with the fit

Readings are drawn at random. `fit` goes up to 128 readings, on which hyperparameters are fitted if there are more. A
trial that was stopped early has an extrapolated reading, and no second output. `suggestion` is of a study with one to
three objectives: an accuracy, a known cost, and one more that is modelled without evidence.
"""

from __future__ import annotations

import argparse
import time
import warnings
from typing import Any

import numpy as np

SPACES = ((4, 5), (8, 3), (16, 2))
"""Number of parameters and choices of each."""
READINGS = (10, 20, 40, 80, 128)
STOPPED = (0.0, 0.5)
TRIALS = (10, 30, 100, 300)
DIRECTIONS = ("maximize", "minimize", "minimize")
SEEDS = 9


def fit() -> str:
    """Markdown: medians over random tables."""
    from se_nas.samplers._gp import Surrogate
    from se_nas.samplers._likelihood import Points
    from se_nas.samplers._paired_gp import PairedSurrogate

    head = ["parameters", "choices", "readings"]
    for stopped in STOPPED:
        head += [f"{stopped:.0%} stopped: one output, ms", "two, ms", "ratio"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for width, size in SPACES:
        positions = [np.linspace(0, 1, size)] * width
        for readings in READINGS:
            cells = [str(width), str(size), str(readings)]
            for stopped in STOPPED:
                taken = np.empty((SEEDS, 2))
                for seed in range(SEEDS):
                    rng = np.random.default_rng(seed)
                    index = rng.integers(size, size=(readings, width))
                    truth = index @ rng.standard_normal(width)
                    points = Points(index=index, features=rng.standard_normal((readings, 2)))
                    values = np.stack([truth, -truth], axis=1) + rng.standard_normal((readings, 2))
                    extra, whole = np.zeros(readings), readings - int(stopped * readings)
                    values[whole:, 1], extra[whole:] = np.nan, 1.0
                    start = time.process_time()
                    Surrogate(positions, points, values[:, 0], extra=extra)
                    middle = time.process_time()
                    PairedSurrogate(positions, points, values, extra=extra)
                    taken[seed] = middle - start, time.process_time() - middle
                one, two = 1000 * np.median(taken, axis=0)
                cells += [f"{one:.1f}", f"{two:.1f}", f"{two / one:.2f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def suggestion() -> str:
    """Markdown: medians over random studies, each of which a new sampler continues."""
    lines = ["| objectives | trials | without evidence, ms | with, ms | ratio |", "|---" * 5 + "|"]
    for objectives in range(1, len(DIRECTIONS) + 1):
        for trials in TRIALS:
            taken = np.array(
                [
                    [_asked(objectives, trials, seed, with_it) for with_it in (False, True)]
                    for seed in range(SEEDS)
                ]
            )
            one, two = 1000 * np.median(taken, axis=0)
            lines.append(f"| {objectives} | {trials} | {one:.0f} | {two:.0f} | {two / one:.2f} |")
    return "\n".join(lines)


def _asked(objectives: int, trials: int, seed: int, with_it: bool) -> float:
    """Seconds of the first suggestion after so many trials, of 8 parameters with 3 choices each."""
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution

    from se_nas.samplers.pareto_sampler import ParetoSampler

    rng = np.random.default_rng(seed)
    space: dict[str, BaseDistribution] = {f"p{i}": CategoricalDistribution((0, 1, 2)) for i in range(8)}
    worth, price, other = rng.standard_normal((3, len(space)))

    def cost(params: dict[str, Any]) -> float:
        return float(np.abs(price) @ list(params.values()))

    sampler = ParetoSampler(
        known={1: cost} if objectives > 1 else None,
        seed=seed,
        space=dict.fromkeys(space, (0, 1, 2)),
        evidence={0: "loss"} if with_it else None,
    )
    study = optuna.create_study(directions=DIRECTIONS[:objectives], sampler=sampler)
    for row in rng.integers(3, size=(trials, len(space))).tolist():
        params = dict(zip(space, row, strict=True))
        noise = rng.standard_normal(3)
        values = [worth @ row + noise[0], cost(params), other @ row + noise[1]][:objectives]
        loss = {"loss": -float(worth @ row) + noise[2]}
        study.add_trial(
            optuna.trial.create_trial(params=params, distributions=space, values=values, user_attrs=loss)
        )
    start = time.process_time()
    study.ask(space)
    return time.process_time() - start


def main() -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("fit", "suggestion"))
    print({"fit": fit, "suggestion": suggestion}[parser.parse_args().action]())


if __name__ == "__main__":
    main()
