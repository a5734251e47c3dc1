"""Architecture and weights as files that other programs load; one module per format, imported on use."""

from __future__ import annotations

import importlib
from typing import Any

_EXPORTS = {
    "Exported": "se_nas.exporting.package",
    "export": "se_nas.exporting.selection",
    "export_model": "se_nas.exporting.package",
    "load_exported": "se_nas.exporting.loading",
}

__all__ = ["Exported", "export", "export_model", "load_exported"]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'se_nas.exporting' has no attribute {name!r}")
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value
