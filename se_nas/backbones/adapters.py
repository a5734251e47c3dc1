"""Backbones from outside timm, through entry points of the group ``se_nas.backbones``.

An entry point named ``cifar`` adds the backbones ``cifar/<model>``. Only the requested plug-in is
imported, so a broken one fails only when it is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from se_nas.errors import BackboneError, blamed, nearest
from se_nas.plugins import Plugins
from se_nas.sites import Site

GROUP = "se_nas.backbones"
NAMES = Plugins(option="backbone plug-in", built_in={}, group=GROUP, error=BackboneError)


class BackboneAdapter:
    """What se-nas needs to know about backbones that do not come from timm. Subclass it."""

    def models(self) -> Sequence[str]:
        """Names of the models, without the entry point's name."""
        raise NotImplementedError

    def create(
        self, name: str, *, pretrained: bool = False, num_classes: int = 1000, **kwargs: Any
    ) -> nn.Module:
        """A new model. Called on the meta device for discovery, with ``pretrained=False``."""
        raise NotImplementedError

    def input_size(self, name: str) -> tuple[int, int, int]:
        """(channels, height, width) of the images that the model takes."""
        raise NotImplementedError

    def sites(self, model: nn.Module, position: str | None) -> list[Site] | None:
        """Sites in order of execution if discovery cannot find them; None leaves it to discovery."""
        return None


def adapter_of(name: str) -> tuple[BackboneAdapter, str] | None:
    """The adapter of a backbone named ``<entry point>/<model>`` and the model's name; None for timm's names.

    Raises:
        BackboneError: the plug-in cannot be imported, or does not know the model.
    """
    plugin, slash, model = name.partition("/")
    if not slash:
        return None
    if plugin not in NAMES.names():
        _refuse_repository(name)
    loaded = NAMES.load(plugin)
    with blamed(f"backbone plug-in {plugin!r}", BackboneError):
        adapter = loaded() if isinstance(loaded, type) else loaded
        known_models = list(adapter.models())
    if model not in known_models:
        raise BackboneError(
            f"backbone {name!r} is unknown to its plug-in; it has: {', '.join(sorted(known_models))}."
            f"{nearest(model, known_models)}"
        )
    return adapter, model


def _refuse_repository(name: str) -> None:
    """Refuse what timm takes for a place to load from: the name of the model inside is wanted."""
    place, colon, path = name.partition(":")
    kind = place.replace("_", "-").lower() if colon else ""
    owner, _, model = (path if colon else name).rpartition("/")
    if owner == "timm" and kind in ("", "hf-hub"):
        raise BackboneError(
            f"backbone {name!r} is a repository; give the name of its model, {model!r}, with --pretrained for its"
            " weights."
        )
    if kind in ("hf-hub", "local-dir"):
        raise BackboneError(
            f"backbone {name!r} says where weights are; give the name of the timm model that they belong to,"
            " and the file with --checkpoint."
        )
