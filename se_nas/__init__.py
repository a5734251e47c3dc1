"""se-nas finds where channel attention pays off. Names are imported on first use, so the package stays light."""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from se_nas.exporting.registration import register_with_timm

if TYPE_CHECKING:
    from se_nas.architecture import Architecture
    from se_nas.backbones import find_sites
    from se_nas.cost import measure_cost, measure_latency
    from se_nas.errors import SeNasError
    from se_nas.exporting.loading import load_exported
    from se_nas.exporting.selection import export
    from se_nas.inference import optimize_for_inference
    from se_nas.model import build_model
    from se_nas.report import ParetoReport, compare, open_run
    from se_nas.retraining import retrain
    from se_nas.samplers import ParetoSampler
    from se_nas.sites import Site
    from se_nas.space import SearchSpace
    from se_nas.study.config import SearchConfig
    from se_nas.study.session import search

__version__ = "0.1.0"

_EXPORTS = {
    "Architecture": "se_nas.architecture",
    "Site": "se_nas.sites",
    "SearchSpace": "se_nas.space",
    "find_sites": "se_nas.backbones",
    "build_model": "se_nas.model",
    "optimize_for_inference": "se_nas.inference",
    "measure_cost": "se_nas.cost",
    "measure_latency": "se_nas.cost",
    "ParetoReport": "se_nas.report",
    "compare": "se_nas.report",
    "export": "se_nas.exporting.selection",
    "load_exported": "se_nas.exporting.loading",
    "ParetoSampler": "se_nas.samplers",
    "SearchConfig": "se_nas.study.config",
    "search": "se_nas.study.session",
    "retrain": "se_nas.retraining",
    "open_run": "se_nas.report",
    "SeNasError": "se_nas.errors",
}

_PARTS = (
    "cost",
    "data",
    "early_stopping",
    "pareto",
    "report",
    "samplers",
    "space",
    "study",
    "testing",
    "training",
)
"""Parts that users reach as attributes, such as ``se_nas.data``, without importing them."""

# Written out, because type checkers cannot evaluate it.
__all__ = [
    "Architecture",
    "ParetoReport",
    "ParetoSampler",
    "SeNasError",
    "SearchConfig",
    "SearchSpace",
    "Site",
    "__version__",
    "build_model",
    "compare",
    "export",
    "find_sites",
    "load_exported",
    "measure_cost",
    "measure_latency",
    "open_run",
    "optimize_for_inference",
    "retrain",
    "search",
]


# Hidden from type checkers, which would take any name for one of the package's.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name in _PARTS:
            return importlib.import_module(f"se_nas.{name}")
        if name not in _EXPORTS:
            raise AttributeError(f"module 'se_nas' has no attribute {name!r}")
        value = getattr(importlib.import_module(_EXPORTS[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)


logging.getLogger("se_nas").addHandler(logging.NullHandler())
register_with_timm()
