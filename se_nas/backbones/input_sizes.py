"""Input sizes that a backbone can take."""

from __future__ import annotations

from typing import Any

import timm
import torch

from se_nas.backbones.creation import on_meta
from se_nas.errors import BackboneError

_SIDES = (32, 48, 64, 96, 128, 160, 192, 224, 240, 256, 288, 299, 320, 384, 448, 512)


def smallest_input(backbone: str, side: int, **timm_kwargs: Any) -> int:
    """The smallest side in pixels, ``side`` or above, of square images that the backbone accepts.

    Found by forward passes on the meta device, which compute nothing.

    Raises:
        BackboneError: it accepts none up to 512 pixels.
    """
    with on_meta():
        model = timm.create_model(backbone, pretrained=False, **timm_kwargs).eval()
    own = timm.data.resolve_model_data_config(model)["input_size"][-1]
    reason = ""
    for tried in sorted({side, own, *_SIDES}):
        if tried < side:
            continue
        try:
            with torch.no_grad():
                model(torch.empty(2, 3, tried, tried, device="meta"))
        except (RuntimeError, AssertionError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            continue
        return tried
    raise BackboneError(f"{backbone} accepts no square input of {side} to 512 pixels: {reason}")
