"""Backbones that are not timm's, by entry points of the group ``se_nas.backbones``.

An entry point named ``cifar`` gives the backbones ``cifar/<model>``. Only the one that is asked for is
imported, so a broken plug-in fails when it is chosen and not before.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any

from torch import nn

from se_nas.errors import BackboneError, nearest
from se_nas.sites import Site

GROUP = "se_nas.backbones"


class BackboneAdapter:
    """What se-nas needs to know about backbones that timm does not make. Subclass it."""

    def models(self) -> Sequence[str]:
        """Names of the models, without the entry point's."""
        raise NotImplementedError

    def create(
        self, name: str, *, pretrained: bool = False, num_classes: int = 1000, **kwargs: Any
    ) -> nn.Module:
        """A new model. Called on the meta device for discovery, with ``pretrained=False``."""
        raise NotImplementedError

    def input_size(self, name: str) -> tuple[int, int, int]:
        """(channels, height, width) of the images it takes."""
        raise NotImplementedError

    def sites(self, model: nn.Module, position: str | None) -> list[Site] | None:
        """Sites in order of execution, where discovery cannot find them; None leaves it to discovery."""
        return None


def adapter_of(name: str) -> tuple[BackboneAdapter, str] | None:
    """The adapter of a backbone named ``<entry point>/<model>`` and the model's name; None for timm's names.

    Raises:
        BackboneError: the plug-in cannot be imported, or does not know the model.
    """
    plugin, slash, model = name.partition("/")
    if not slash:
        return None
    found = entry_points(group=GROUP)
    if plugin not in found.names:
        known = f"; plug-ins: {', '.join(sorted(found.names))}" if found.names else ""
        raise BackboneError(
            f"backbone {name!r}: no installed package offers the plug-in {plugin!r}{known}."
            f"{nearest(plugin, found.names)}"
        )
    try:
        loaded = found[plugin].load()
        adapter = loaded() if isinstance(loaded, type) else loaded
        known_models = list(adapter.models())
    except Exception as error:
        raise BackboneError(
            f"the plug-in {plugin!r} ({found[plugin].value}) does not work: {type(error).__name__}: {error}"
        ) from error
    if model not in known_models:
        raise BackboneError(
            f"backbone {name!r} is unknown to its plug-in; it has: {', '.join(sorted(known_models))}."
            f"{nearest(model, known_models)}"
        )
    return adapter, model
