"""Sites of a backbone, by name or of a live model; one survey serves all positions."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from typing import Any

from torch import nn

from se_nas.arguments import checked
from se_nas.backbones._survey import Survey
from se_nas.backbones.adapters import adapter_of
from se_nas.backbones.creation import create_on_meta, input_size_of
from se_nas.errors import BackboneError
from se_nas.sites import Site, image_size

_CACHE_SIZE = 64
_surveys: OrderedDict[str, Survey] = OrderedDict()
_lock = threading.Lock()


@checked
def find_sites(
    model_or_name: nn.Module | str,
    *,
    position: str | None = None,
    input_size: int | tuple[int, int, int] | None = None,
    **timm_kwargs: Any,
) -> list[Site]:
    """Every tensor of a backbone that an SE block can gate at a position, in order of execution.

    Native gates are in the list at any position.

    Args:
        model_or_name: a timm model name, or any module that takes one image tensor. The survey of a name is cached.
        position: standard, pre, post, identity, conv3x3 or slot; None is the backbone's usual position.
        input_size: (channels, height, width) at which resolutions are given, or the side of square images; None is
            the model's default.
        timm_kwargs: further keywords of ``timm.create_model`` that change the network.

    Raises:
        BackboneError: the name is unknown, the model has no site, lacks the position, cannot run at the input
            size, or does not say which input size it takes.
    """
    if isinstance(input_size, int):
        input_size = image_size(input_size)
    if isinstance(model_or_name, str):
        own = _own_sites(model_or_name, position, timm_kwargs)
        if own is not None:
            return own
    return list(survey(model_or_name, input_size=input_size, **timm_kwargs).sites(position))


@checked
def usual_position(model_or_name: nn.Module | str, **timm_kwargs: Any) -> str:
    """The position at which the SE literature and timm put SE in this family."""
    if isinstance(model_or_name, str):
        own = _own_sites(model_or_name, None, timm_kwargs)
        if own:
            return own[0].position
    return survey(model_or_name, **timm_kwargs).usual_position


@checked
def positions(model_or_name: nn.Module | str, **timm_kwargs: Any) -> list[str]:
    """The positions that a backbone has; if its adapter gives the sites, the position of these."""
    if isinstance(model_or_name, str):
        own = _own_sites(model_or_name, None, timm_kwargs)
        if own:
            return [own[0].position]
    return list(survey(model_or_name, **timm_kwargs).positions)


def survey(
    model_or_name: nn.Module | str, *, input_size: tuple[int, int, int] | None = None, **timm_kwargs: Any
) -> Survey:
    """Everything that discovery finds in a model; cached if the model is given by name."""
    if isinstance(model_or_name, nn.Module):
        if timm_kwargs:
            raise BackboneError(f"{sorted(timm_kwargs)[0]!r} has no effect on a model that is already built.")
        size = input_size or input_size_of(model_or_name)
        return Survey(model_or_name, _checked(size), type(model_or_name).__name__)
    key = json.dumps([model_or_name, input_size, timm_kwargs], sort_keys=True, default=repr)
    with _lock:
        if key not in _surveys:
            model = create_on_meta(model_or_name, **timm_kwargs)
            size = input_size or input_size_of(model, model_or_name, **timm_kwargs)
            _surveys[key] = Survey(model, _checked(size), model_or_name)
            if len(_surveys) > _CACHE_SIZE:
                _surveys.popitem(last=False)
        _surveys.move_to_end(key)
        return _surveys[key]


def _checked(size: tuple[int, ...]) -> tuple[int, ...]:
    size = tuple(size)
    if len(size) != 3 or not all(isinstance(side, int) and side > 0 for side in size):
        raise BackboneError(
            f"input_size is {size!r}; it must be (channels, height, width), integers above 0."
        )
    return size


def _own_sites(name: str, position: str | None, timm_kwargs: dict[str, Any]) -> list[Site] | None:
    own = adapter_of(name)
    return None if own is None else own[0].sites(create_on_meta(name, **timm_kwargs), position)
