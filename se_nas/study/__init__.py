"""The study: sampler, early stopping, evaluation and results. The only part that knows Optuna.

Names are imported on first use, so that ``ParetoSampler`` alone costs neither torch nor pydantic.
"""

from __future__ import annotations

import importlib
from typing import Any

_EXPORTS = {
    "ParetoSampler": "se_nas.study.sampler",
    "SearchConfig": "se_nas.study.config",
    "search": "se_nas.study.session",
    "resume": "se_nas.study.session",
    "retrain": "se_nas.study.retraining",
    "open_run": "se_nas.study.result",
    "Run": "se_nas.study.result",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value
