"""Sites of a backbone by name or of a live model; one survey serves all positions."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from typing import Any

import timm
import torch
from torch import nn

from se_nas.architecture import Site
from se_nas.backbones.survey import Survey
from se_nas.errors import BackboneError, nearest

_CACHE_SIZE = 64
_surveys: OrderedDict[str, Survey] = OrderedDict()
_lock = threading.Lock()


def find_sites(
    model_or_name: nn.Module | str,
    *,
    position: str | None = None,
    input_size: tuple[int, int, int] | None = None,
    **timm_kwargs: Any,
) -> list[Site]:
    """Every tensor of a backbone that an SE block can gate at a position, in order of execution.

    Gates that the backbone itself has are in the list at any position.

    Args:
        model_or_name: a timm model name, or any module that takes one image tensor. Names are looked at once.
        position: standard, pre, post, identity, conv3x3 or slot; None is the backbone's usual one.
        input_size: (channels, height, width) at which resolutions are given; None is the model's own.
        timm_kwargs: further keywords of ``timm.create_model`` that change the network.

    Raises:
        BackboneError: the name is unknown, the model has no site, lacks the position, cannot run at the input
            size, or does not say which input size it takes.
    """
    return list(survey(model_or_name, input_size=input_size, **timm_kwargs).sites(position))


def usual_position(model_or_name: nn.Module | str, **timm_kwargs: Any) -> str:
    """The position at which the SE literature and timm put SE in this family."""
    return survey(model_or_name, **timm_kwargs).usual_position


def positions(model_or_name: nn.Module | str, **timm_kwargs: Any) -> list[str]:
    """The positions that a backbone has."""
    return list(survey(model_or_name, **timm_kwargs).positions)


def survey(
    model_or_name: nn.Module | str, *, input_size: tuple[int, int, int] | None = None, **timm_kwargs: Any
) -> Survey:
    """All that discovery finds in a model; by name it is kept."""
    if isinstance(model_or_name, nn.Module):
        if timm_kwargs:
            raise BackboneError(f"{sorted(timm_kwargs)[0]!r} has no effect on a model that is built already.")
        return Survey(
            model_or_name, input_size or own_input_size(model_or_name), type(model_or_name).__name__
        )
    key = json.dumps([model_or_name, input_size, timm_kwargs], sort_keys=True, default=repr)
    with _lock:
        if key not in _surveys:
            model = create_on_meta(model_or_name, **timm_kwargs)
            _surveys[key] = Survey(model, input_size or own_input_size(model, timm_kwargs), model_or_name)
            if len(_surveys) > _CACHE_SIZE:
                _surveys.popitem(last=False)
        _surveys.move_to_end(key)
        return _surveys[key]


def create_on_meta(name: str, **timm_kwargs: Any) -> nn.Module:
    """The backbone without memory for its weights.

    Raises:
        BackboneError: timm does not know the name or refuses a keyword.
    """
    check_name(name)
    try:
        with torch.device("meta"):
            return timm.create_model(name, pretrained=False, **timm_kwargs)
    except Exception:
        try:
            return timm.create_model(name, pretrained=False, **timm_kwargs)
        except (TypeError, ValueError, AssertionError, KeyError, RuntimeError) as error:
            raise BackboneError(f"timm cannot build {name} with {timm_kwargs}: {error}") from error


def check_name(name: str) -> None:
    """Refuse a name that timm does not have."""
    if not timm.is_model(name):
        known = timm.list_models()
        raise BackboneError(
            f"backbone {name!r} is unknown to timm {timm.__version__}.{nearest(name, known)}"
            " timm.list_models() lists all."
        )


def own_input_size(model: nn.Module, timm_kwargs: dict[str, Any] | None = None) -> tuple[int, int, int]:
    """(channels, height, width) that the model says it takes."""
    config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    size = None if config is None else config.get("input_size")
    if size is None:
        raise BackboneError(
            f"{type(model).__name__} does not say which images it takes: give input_size=(channels, height, width)."
        )
    channels, height, width = size
    given = timm_kwargs or {}
    channels = given.get("in_chans", channels)
    if given.get("img_size"):
        image = given["img_size"]
        height, width = (image, image) if isinstance(image, int) else image
    return channels, height, width
