"""A search: its configuration and plan, its loop, and where its trials are kept. Names are imported on first use."""

from __future__ import annotations

import importlib
from typing import Any

_EXPORTS = {
    "SearchConfig": "se_nas.study.config",
    "search": "se_nas.study.session",
    "resume": "se_nas.study.session",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value
