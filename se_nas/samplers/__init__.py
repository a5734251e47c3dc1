"""Optuna samplers: ``ParetoSampler`` for noisy accuracy against known costs, and samplers by name.

They know Optuna, and of se_nas only ``errors``, ``arguments`` and ``pareto``, so they work for any study.
"""

from se_nas.samplers.pareto_sampler import ParetoSampler
from se_nas.samplers.registry import make_sampler

__all__ = ["ParetoSampler", "make_sampler"]
