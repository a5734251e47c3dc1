"""se-nas finds where channel attention pays. Names are imported on first use, so the package stays light."""

from __future__ import annotations

import importlib
from typing import Any

from se_nas.exporting.registration import register_with_timm

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
    "export": "se_nas.exporting",
    "load_exported": "se_nas.exporting",
    "ParetoSampler": "se_nas.samplers",
    "SearchConfig": "se_nas.study",
    "search": "se_nas.study",
    "retrain": "se_nas.retraining",
    "open_run": "se_nas.report",
    "SeNasError": "se_nas.errors",
}

__all__ = ["__version__", *sorted(_EXPORTS)]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'se_nas' has no attribute {name!r}")
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


register_with_timm()
