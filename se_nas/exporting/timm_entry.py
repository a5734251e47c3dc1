"""What timm calls for an exported folder: timm's builder, with our network in place of a model class."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from timm.models import build_model_with_cfg
from torch import nn

from se_nas.architecture import Architecture
from se_nas.errors import ConfigError
from se_nas.exporting.registration import NAME
from se_nas.model import build_model


def create(
    pretrained: bool = False, *, architecture: Mapping[str, Any] | None = None, **kwargs: Any
) -> nn.Module:
    """A network from the ``architecture`` in an exported ``config.json``.

    timm's builder does the rest as for any other model: ``num_classes``, ``in_chans``, ``features_only``, and
    the folder's weights with ``pretrained=True``.

    Raises:
        ConfigError: the architecture is missing, or is not an architecture.
    """
    if architecture is None:
        raise ConfigError(
            f"timm's model {NAME!r} is for exported folders:"
            " timm.create_model('local-dir:PATH', pretrained=True)."
        )
    arch = Architecture.from_dict(architecture)
    fixed = dict(arch.timm_kwargs)

    def build(**model_kwargs: Any) -> nn.Module:
        # The configuration repeats what the architecture fixes, in the types of JSON.
        extra = {k: v for k, v in model_kwargs.items() if k not in fixed or not _same(v, fixed[k])}
        return build_model(arch, **extra)

    if kwargs.get("features_only"):
        # timm's other wrappers take the network apart by its children, some of which are ours.
        kwargs.setdefault("feature_cls", "getter")
    return build_model_with_cfg(build, NAME, pretrained, **kwargs)


def _same(first: Any, second: Any) -> bool:
    return bool(json.dumps(first, default=str) == json.dumps(second, default=str))
