"""Pareto fronts and what can be said about them: dominance, indicators, uncertainty. NumPy only.

Everywhere ``values`` has shape (n, m), one row per point and one column per objective, and ``directions`` holds
"maximize" or "minimize" for each column.
"""

from se_nas.pareto._box_decomposition import free_boxes, front_of, improvement, volume
from se_nas.pareto._finalists import Finalist, choose_finalists, next_training, selection_bias
from se_nas.pareto._front import attained, knee, non_dominated, ranks
from se_nas.pareto._indicators import coverage, hypervolume, igd_plus, reference_point
from se_nas.pareto._membership import (
    attained_draws,
    drawn_fronts,
    hypervolume_interval,
    probability_non_dominated,
)
from se_nas.pareto._seeds import SeedModel, t_quantile_975, wilson

__all__ = [
    "Finalist",
    "SeedModel",
    "attained",
    "attained_draws",
    "choose_finalists",
    "coverage",
    "drawn_fronts",
    "free_boxes",
    "front_of",
    "hypervolume",
    "hypervolume_interval",
    "igd_plus",
    "improvement",
    "knee",
    "next_training",
    "non_dominated",
    "probability_non_dominated",
    "ranks",
    "reference_point",
    "selection_bias",
    "t_quantile_975",
    "volume",
    "wilson",
]
