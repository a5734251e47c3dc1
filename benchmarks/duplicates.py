"""How many of 100 evaluations a sampler spends on networks that it has already evaluated.

    python benchmarks/duplicates.py --space per_stage --backbone resnet18 --repetitions 4

The study is a user's own: two objectives, a noisy accuracy that is drawn at random for each choice, and parameters.
A network counts as evaluated again if an earlier trial built the same one, with the same or with other params.
"""

from __future__ import annotations

import argparse
import platform
import warnings
from collections.abc import Callable
from functools import cache

import numpy as np
import optuna

import se_nas

SAMPLERS: dict[str, Callable[[se_nas.SearchSpace, int], optuna.samplers.BaseSampler]] = {
    "random": lambda space, seed: optuna.samplers.RandomSampler(seed=seed),
    "tpe": lambda space, seed: optuna.samplers.TPESampler(seed=seed),
    "tpe-multivariate": lambda space, seed: optuna.samplers.TPESampler(seed=seed, multivariate=True),
    "nsga2": lambda space, seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=20),
    "gp": lambda space, seed: optuna.samplers.GPSampler(seed=seed),
    "pareto": lambda space, seed: se_nas.ParetoSampler(
        known={1: lambda params: float(se_nas.measure_cost(space.architecture(params)).num_params)},
        key=lambda params: space.architecture(params).key,
        seed=seed,
    ),
}


def repeated(space: se_nas.SearchSpace, name: str, seed: int, evaluations: int) -> int:
    """Evaluations of a network that an earlier trial had built."""
    rng = np.random.default_rng(seed)
    effect = cache(lambda parameter, choice: float(rng.normal()))
    built: list[str] = []

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        architecture = space.suggest(trial)
        built.append(architecture.key)
        accuracy = 70 + sum(effect(key, str(value)) for key, value in sorted(trial.params.items()))
        return accuracy + float(rng.normal(0, 0.5)), float(se_nas.measure_cost(architecture).num_params)

    study = optuna.create_study(directions=["maximize", "minimize"], sampler=SAMPLERS[name](space, seed))
    study.optimize(objective, n_trials=evaluations)
    return len(built) - len(set(built))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--space", default="per_stage")
    parser.add_argument("--evaluations", type=int, default=100)
    parser.add_argument("--repetitions", type=int, default=4)
    parser.add_argument("--sampler", nargs="+", choices=SAMPLERS, default=list(SAMPLERS))
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    space = se_nas.SearchSpace.load(given.space, backbone=given.backbone)
    print(f"{given.backbone}, {given.space}: {space.size:,} architectures; {given.evaluations} evaluations")
    print(f"Python {platform.python_version()}, optuna {optuna.__version__}, se-nas {se_nas.__version__}")
    print("| sampler | evaluated again, of each repetition | mean |\n|---|---|---|")
    for name in given.sampler:
        counts = [repeated(space, name, seed, given.evaluations) for seed in range(given.repetitions)]
        print(f"| {name} | {', '.join(map(str, counts))} | {np.mean(counts):.1f} |", flush=True)


if __name__ == "__main__":
    main()
