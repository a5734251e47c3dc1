"""What timm calls for an exported folder: its own builder, with our network in the place of its class."""

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

    timm's builder does the rest as for its own models: ``num_classes``, ``in_chans``, ``features_only``, and
    the folder's weights with ``pretrained=True``.

    Raises:
        ConfigError: the architecture is missing or no architecture.
    """
    if architecture is None:
        raise ConfigError(
            f"timm's model {NAME!r} is for exported folders:"
            " timm.create_model('local-dir:PATH', pretrained=True)."
        )
    arch = Architecture.from_dict(architecture)
    own = dict(arch.timm_kwargs)

    def build(**model_kwargs: Any) -> nn.Module:
        # The configuration repeats what the architecture fixes, in JSON's own types.
        extra = {k: v for k, v in model_kwargs.items() if k not in own or not _same(v, own[k])}
        return build_model(arch, **extra)

    if kwargs.get("features_only"):
        # timm's other wrappers take the network apart by its children, of which some are ours.
        kwargs.setdefault("feature_cls", "getter")
    return build_model_with_cfg(build, NAME, pretrained, **kwargs)


def _same(first: Any, second: Any) -> bool:
    return bool(json.dumps(first, default=str) == json.dumps(second, default=str))
