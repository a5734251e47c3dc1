"""Pareto fronts and what can be said about them: dominance, indicators, uncertainty. NumPy only.

Everywhere ``values`` has shape (n, m), one row a point and one column an objective, and ``directions`` holds
"maximize" or "minimize" for each column.
"""

from se_nas.pareto._front import attained, knee, non_dominated, ranks
from se_nas.pareto._indicators import coverage, hypervolume, igd_plus, reference_point

__all__ = [
    "attained",
    "coverage",
    "hypervolume",
    "igd_plus",
    "knee",
    "non_dominated",
    "ranks",
    "reference_point",
]
