"""A masked network: every candidate of a backbone and position in one network of constant shape.

It has a gate wherever a candidate may have one, with the largest hidden width, and masks over the hidden units.
Another candidate is a copy of first weights and a few masks, written in place: no build, no compilation, no
capture. What it computes, its gradients and its buffers are those of the built network.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from se_nas.architecture import Architecture
from se_nas.backbones.insertion import gate_at, insert, state_name, state_prefix, take_gain
from se_nas.errors import CheckpointError, ConfigError
from se_nas.layers.masked_gates import (
    MaskedSqueezeExcite,
    mask_native,
    set_mask,
    unit_axes,
    write_padded,
)
from se_nas.layers.squeeze_excite import SCALE
from se_nas.model import gate_settings
from se_nas.sites import ABSENT, KEEP, Site
from se_nas.training.masked.capacity import Capacity
from se_nas.training.masked.first_weights import FirstWeights


@dataclass(frozen=True, kw_only=True)
class _MaskedSite:
    """A masked gate: the names of its tensors in state dicts without ``prefix``, and the axes that count units."""

    site: Site
    prefix: str
    names: tuple[str, ...]
    axes: Mapping[str, int]


class MaskedNetwork:
    """One network that can be any candidate of its capacity.

    ``model`` is timm's module with gates of constant shape. Its state dict has the names of the built network's,
    and those of absent gates, in padded shapes; masks are not in it. Place it on a device, compile it, capture
    it: all that ``load``, ``load_state`` and ``set_masks`` do is write into its tensors.

    Args:
        capacity: what it must be able to be.
        first: first weights; networks of one backbone should share them.

    Attributes:
        model: the network to train; after construction the plain backbone, where that has no gate.
        arch: what it is at present, None before the first ``load``.

    Raises:
        BackboneError: a native gate cannot be masked.
    """

    def __init__(self, capacity: Capacity, first: FirstWeights) -> None:
        self.capacity, self.first = capacity, first
        self.arch: Architecture | None = None
        # What is drawn here is overwritten by every load.
        with torch.random.fork_rng(devices=[]):
            self.model = first.make_plain()
            self._sites = tuple(self._insert())
        self._holders = _holders(self.model)
        inside = {each.prefix + name for each in self._sites for name in each.names}
        self._plain_names = [name for name in self._holders if name not in inside]
        for each in self._sites:
            self._fill(each, {})
        self._mask(dict.fromkeys(dict(capacity.masked), ABSENT))

    def _insert(self) -> Iterator[_MaskedSite]:
        arch, largest, removed = self.capacity.widest, dict(self.capacity.masked), set(self.capacity.removed)

        def make_block(site: Site, width: int) -> nn.Module:
            settings = gate_settings(arch, site, self.first.init)
            # Only with a slot of its own does the block know of a gate, and multiply what it returns.
            gain = take_gain(self.model, site) if site.slot else 1.0
            return MaskedSqueezeExcite(site.channels, width, gain=gain, **settings)

        changes = [
            (site, largest.get(site, ABSENT))
            for site in arch.sites
            if site in removed or largest.get(site, KEEP) != KEEP
        ]
        insert(self.model, changes, make_block)
        for site in largest:
            gate = gate_at(self.model, site)
            axes = unit_axes(gate)
            if site.native:
                mask_native(gate, take_gain(self.model, site))
            prefix = state_prefix(self.model, gate)
            yield _MaskedSite(site=site, prefix=prefix, names=tuple(_holders(gate)), axes=axes)

    def load(self, arch: Architecture, seed: int) -> None:
        """Become a candidate with its first weights: those of ``build_model`` inside ``initial_weights(seed)``.

        Raises:
            ConfigError: the architecture has no room here.
        """
        widths = self.capacity.widths(arch)
        plain = self.first.plain(seed, self._tensors())
        drawn = self.first.gates(arch, seed)
        gates = {site: gate.state_dict() for site, gate in drawn.items()}
        self._become(arch, widths, plain, gates)

    def load_state(self, arch: Architecture, state: Mapping[str, Tensor]) -> None:
        """Become a candidate with the weights of the built network: a state dict such as ``cut`` gives.

        Raises:
            ConfigError: the architecture has no room here.
            CheckpointError: the state is not one of this architecture.
        """
        widths = self.capacity.widths(arch)
        expected = {name: tuple(tensor.shape) for name, tensor in self._views(widths).items()}
        scales = {each.prefix + SCALE for each in self._sites}
        given = {name: tuple(tensor.shape) for name, tensor in state.items() if name not in scales}
        for name in {**expected, **given}:
            if expected.get(name) != given.get(name):
                raise CheckpointError(
                    f"{name} has shape {given.get(name)} in the weights, but {expected.get(name)} in {arch}."
                )
        self._become(arch, widths, state, {})

    def set_masks(self, arch: Architecture) -> None:
        """Become a candidate with the weights that the network has: a supernet's step.

        Raises:
            ConfigError: the architecture has no room here.
        """
        self._mask(self.capacity.widths(arch))
        self.arch = arch

    def cut(self) -> dict[str, Tensor]:
        """The state dict of the built network: ``build_model(net.arch)`` loads it strictly. Copies.

        Raises:
            ConfigError: nothing has been loaded.
        """
        if self.arch is None:
            raise ConfigError(
                "the masked network is not any architecture yet: load one before cutting it out."
            )
        widths = self.capacity.widths(self.arch)
        state = {name: tensor.clone() for name, tensor in self._views(widths).items()}
        for each, gate in zip(self._sites, self._gates(), strict=True):
            if widths[each.site] != ABSENT and SCALE in (entries := gate.state_dict()):
                state[each.prefix + SCALE] = entries[SCALE]
        return state

    def around(self, model: nn.Module) -> MaskedNetwork:
        """The same for a deep copy of ``model`` (an average of weights), which has masks of its own."""
        other = copy.copy(self)
        other.model, other._holders = model, _holders(model)
        return other

    def _become(
        self,
        arch: Architecture,
        widths: Mapping[Site, int],
        state: Mapping[str, Tensor],
        gates: Mapping[Site, Mapping[str, Tensor]],
    ) -> None:
        """Take the weights of ``state``, and of ``gates`` where it has them."""
        own = self._tensors()
        _copy([own[name] for name in self._plain_names], [state[name] for name in self._plain_names])
        for each in self._sites:
            source = gates.get(each.site)
            if source is None:
                names = (*each.names, SCALE) if widths[each.site] != ABSENT else ()
                source = {n: state[each.prefix + n] for n in names if each.prefix + n in state}
            self._fill(each, source)
        self._mask(widths)
        self.arch = arch

    def _fill(self, each: _MaskedSite, source: Mapping[str, Tensor]) -> None:
        """Write the weights of a gate of any width; without any it becomes zero."""
        for name in each.names:
            holder, key = self._holders[each.prefix + name]
            target = holder[key].detach()
            write_padded(target, source[name]) if source else target.zero_()
        gate = gate_at(self.model, each.site)
        if source and isinstance(gate, MaskedSqueezeExcite):
            gate.set_scale(float(source.get(SCALE, 1.0)))

    def _mask(self, widths: Mapping[Site, int]) -> None:
        for each, gate in zip(self._sites, self._gates(), strict=True):
            set_mask(gate, widths[each.site])

    def _gates(self) -> list[nn.Module]:
        return [gate_at(self.model, each.site) for each in self._sites]

    def _tensors(self) -> dict[str, Tensor]:
        """What the model's state dict holds, but for scales of gates."""
        return {name: holder[key].detach() for name, (holder, key) in self._holders.items()}

    def _views(self, widths: Mapping[Site, int]) -> dict[str, Tensor]:
        """What the built network's state dict holds, but for scales of gates, as views."""
        views = self._tensors()
        for each in self._sites:
            for name in each.names:
                whole, axis = views.pop(each.prefix + name), each.axes.get(name)
                if widths[each.site] != ABSENT:
                    part = whole if axis is None else whole.narrow(axis, 0, widths[each.site])
                    views[each.prefix + name] = part
        return views


def _holders(model: nn.Module) -> dict[str, tuple[dict[str, Any], str]]:
    """For every name in the state dict the dictionary that holds the tensor, and its key there.

    Moving a model to a device puts other tensors into these dictionaries, and walking over a model takes longer
    than copying one.
    """
    found: dict[str, tuple[dict[str, Any], str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        prefix = state_name(f"{path}." if path else "")
        buffers = module._buffers.keys() - module._non_persistent_buffers_set
        for holder, keys in ((module._parameters, module._parameters), (module._buffers, buffers)):
            found |= {prefix + key: (holder, key) for key in keys if holder[key] is not None}
    return found


def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    """One launch for each dtype, where layouts agree."""
    for dtype in {tensor.dtype for tensor in targets}:
        pairs = [(t, s) for t, s in zip(targets, sources, strict=True) if t.dtype == dtype]
        torch._foreach_copy_([t for t, _ in pairs], [s for _, s in pairs], non_blocking=True)
