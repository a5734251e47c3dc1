"""First weights of candidates without building them: the backbone is made once per seed, only the gates anew."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from se_nas.architecture import Architecture
from se_nas.backbones.insertion import gate_at
from se_nas.layers.gate_resizing import resized
from se_nas.layers.squeeze_excite import SqueezeExcite
from se_nas.model import gate_settings
from se_nas.sites import ABSENT, Site
from se_nas.training.masked.replay import Replay
from se_nas.training.randomness import initial_weights

_SEEDS = 4
"""Number of seeds whose backbones are cached; a search uses one at a time."""


@dataclass(frozen=True, kw_only=True)
class _Start:
    """The plain backbone of a seed, and the random numbers that follow its creation."""

    model: nn.Module
    replay: Replay
    copies: dict[tuple[object, ...], dict[str, Tensor]]


class FirstWeights:
    """The weights that ``build_model`` inside ``initial_weights(seed)`` gives a candidate, bit for bit.

    Gates are inserted after the backbone has been initialised. So all candidates of a seed share one backbone, and
    if the generator is reset to its state after the backbone, making only the gates gives the same draws as a build.

    Args:
        make_plain: makes the plain backbone (``build_plain`` with its keywords), pretrained or not.
        init: start of inserted blocks, as for ``build_model``.
    """

    def __init__(self, make_plain: Callable[[], nn.Module], *, init: str = "identity") -> None:
        self.make_plain, self.init = make_plain, init
        self._starts: OrderedDict[int, _Start] = OrderedDict()

    def plain(self, seed: int, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state dict of the seed's plain backbone, which must not be changed.

        ``like``: tensors of the network that it is copied to. The result has their device, precision and memory
        format, and is cached, so that copying involves neither conversion nor the CPU.
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
        """The inserted and resized gates of an architecture, with their first weights, on the CPU."""
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

        return start.replay.make(make)

    def _start(self, seed: int) -> _Start:
        if seed not in self._starts:
            with initial_weights(seed):
                model = self.make_plain()
                self._starts[seed] = _Start(model=model, replay=Replay(torch.get_rng_state()), copies={})
            while len(self._starts) > _SEEDS:
                self._starts.popitem(last=False)
        self._starts.move_to_end(seed)
        return self._starts[seed]


def _as(tensor: Tensor, like: Tensor | None) -> Tensor:
    if like is None or like.shape != tensor.shape:
        # A gate that is larger in the network and is copied into a part of it. Gates are small.
        return tensor
    same = (like.device, like.dtype, like.stride()) == (tensor.device, tensor.dtype, tensor.stride())
    return tensor if same else torch.empty_like(like).copy_(tensor)
