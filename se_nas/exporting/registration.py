"""Makes timm know exported folders: ``import se_nas``, then ``timm.create_model("local-dir:PATH")``.

timm has no plugins, only a registry in memory. It is written to when timm has been imported, so that
``import se_nas`` alone imports neither timm nor torch.
"""

from __future__ import annotations

import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

NAME = "se_nas"
"""Name in timm's registry, and ``architecture`` in an exported ``config.json``."""
_TIMM = "timm.models"


def register_with_timm() -> None:
    """Register now if timm has been imported, otherwise as soon as it is."""
    if _TIMM in sys.modules:
        _register()
    elif not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())


class _AfterImport:
    """A finder for sys.meta_path; the base class in importlib.abc would add 20 ms to every start."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _TIMM:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            _register()

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def _register() -> None:
    from timm.models import _registry, is_model, register_model

    if is_model(NAME):
        return
    register_model(se_nas)
    # It cannot be created by name alone, so timm.list_models(), over which people loop, must not list it.
    hidden = getattr(_registry, "_deprecated_models", None)
    if isinstance(hidden, dict):
        hidden[NAME] = None


def se_nas(pretrained: bool = False, **kwargs: Any) -> Any:
    """timm's entry point for exported folders; see ``se_nas.exporting.timm_entry.create``."""
    # timm's model builder takes seconds to import, and registration happens in ``import se_nas``.
    from se_nas.exporting.timm_entry import create

    return create(pretrained=pretrained, **kwargs)
