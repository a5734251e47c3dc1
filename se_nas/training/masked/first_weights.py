"""First weights of candidates without building them: the backbone's once for each seed, the gates' drawn anew."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from se_nas.architecture import Architecture
from se_nas.backbones.insertion import gate_at
from se_nas.layers.native_gates import resized
from se_nas.layers.squeeze_excite import SqueezeExcite
from se_nas.model import gate_settings
from se_nas.sites import ABSENT, Site
from se_nas.training.masked.draws import Draws
from se_nas.training.randomness import initial_weights

_SEEDS = 4
"""Seeds whose backbones are kept; a search uses one at a time."""


@dataclass(frozen=True, kw_only=True)
class _Start:
    """The plain backbone of a seed, and what torch's generator draws after it was made."""

    model: nn.Module
    draws: Draws
    copies: dict[tuple[object, ...], dict[str, Tensor]]


class FirstWeights:
    """What ``build_model`` inside ``initial_weights(seed)`` gives a candidate, to the bit.

    Gates are inserted after the backbone has been initialised. So a backbone serves all candidates of its seed,
    and with the generator set back to where it was then, making the gates alone draws what a build would draw.

    Args:
        make_plain: makes the plain backbone (``build_plain`` with its keywords), pretrained or not.
        init: start of inserted blocks, as for ``build_model``.
    """

    def __init__(self, make_plain: Callable[[], nn.Module], *, init: str = "identity") -> None:
        self.make_plain, self.init = make_plain, init
        self._starts: OrderedDict[int, _Start] = OrderedDict()

    def plain(self, seed: int, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state dict of the seed's plain backbone; do not change it.

        ``like``: state of the network that it is for, whose device, precision and memory format the tensors
        get, so that copying needs neither a conversion nor the CPU.
        """
        start = self._start(seed)
        kind = {(t.device, t.dtype, t.is_contiguous()) for t in like.values() if t.is_floating_point()}
        key = tuple(sorted(map(str, kind)))
        if key not in start.copies:
            start.copies[key] = {
                name: _as(tensor, like.get(name)) for name, tensor in start.model.state_dict().items()
            }
        return start.copies[key]

    def gates(self, arch: Architecture, seed: int) -> dict[Site, nn.Module]:
        """The gates that differ from the plain backbone's, with their first weights, on the CPU."""
        start = self._start(seed)

        def make() -> dict[Site, nn.Module]:
            made: dict[Site, nn.Module] = {}
            for site, width in arch.changed():
                if width == ABSENT:
                    continue
                if site.native:
                    made[site] = resized(gate_at(start.model, site), width)
                else:
                    made[site] = SqueezeExcite(site.channels, width, **gate_settings(arch, site, self.init))
            return made

        return start.draws.make(make)

    def _start(self, seed: int) -> _Start:
        if seed not in self._starts:
            with initial_weights(seed):
                model = self.make_plain()
                self._starts[seed] = _Start(model=model, draws=Draws(torch.get_rng_state()), copies={})
            while len(self._starts) > _SEEDS:
                self._starts.popitem(last=False)
        self._starts.move_to_end(seed)
        return self._starts[seed]


def _as(tensor: Tensor, like: Tensor | None) -> Tensor:
    if like is None or like.shape != tensor.shape:
        # A gate that the network holds in a larger size: it is copied in part, and there is little of it.
        return tensor
    same = (like.device, like.dtype, like.stride()) == (tensor.device, tensor.dtype, tensor.stride())
    return tensor if same else torch.empty_like(like).copy_(tensor)
