"""A masked network: one network of constant shape that can become every candidate of a backbone and position.

It has a gate at every site at which a candidate may have one, with the largest hidden width, and masks over the
hidden units. To become another candidate it copies first weights and sets masks, in place: nothing is built,
compiled or captured anew. Its outputs, gradients and buffers are those of the built network.
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
    fill_mask,
    mask_native,
    masks_of,
    set_mask,
    unit_axes,
    write_padded,
)
from se_nas.layers.squeeze_excite import SCALE
from se_nas.model import gate_settings
from se_nas.sites import ABSENT, KEEP, Site
from se_nas.training.masked.capacity import Capacity
from se_nas.training.masked.first_weights import FirstWeights
from se_nas.training.side_by_side import Staging, copy_together


@dataclass(frozen=True, kw_only=True)
class _MaskedSite:
    """A masked gate: the names of its tensors in state dicts, after ``prefix``, and which axes run over units."""

    site: Site
    prefix: str
    names: tuple[str, ...]
    axes: Mapping[str, int]


class MaskedNetwork:
    """A network that can become any candidate that its capacity has room for.

    ``model`` is timm's module with gates of constant shape. Its state dict has the names of a built network with all
    gates, in padded shapes; masks are not part of it. It may be moved to a device, compiled and captured:
    ``load``, ``load_state`` and ``set_masks`` only write into its tensors.

    Args:
        capacity: what it has room for.
        first: first weights; all networks of a backbone should share one object.

    Attributes:
        model: the network to train. Until the first ``load`` it has no gates at masked sites.
        arch: the current architecture, None before the first ``load``.

    Raises:
        BackboneError: a native gate cannot be masked.
    """

    def __init__(self, capacity: Capacity, first: FirstWeights) -> None:
        self.capacity, self.first = capacity, first
        self.arch: Architecture | None = None
        # Every load overwrites what is drawn here.
        with torch.random.fork_rng(devices=[]):
            self.model = first.make_plain()
            self._sites = tuple(self._insert())
        self._holders = _holders(self.model)
        inside = {each.prefix + name for each in self._sites for name in each.names}
        self._plain_names = [name for name in self._holders if name not in inside]
        self._staging: Staging | None = None
        self._write_gates(dict.fromkeys(dict(capacity.masked), ABSENT), {})

    def _insert(self) -> Iterator[_MaskedSite]:
        arch, largest, removed = self.capacity.widest, dict(self.capacity.masked), set(self.capacity.removed)

        def make_block(site: Site, width: int) -> nn.Module:
            settings = gate_settings(arch, site, self.first.init)
            # A block applies its gain only to a gate in its slot.
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
        """Become an architecture with its first weights: those of ``build_model`` inside ``initial_weights(seed)``.

        Raises:
            ConfigError: the network has no room for the architecture.
        """
        widths = self.capacity.widths(arch)
        plain = self.first.plain(seed, self._tensors())
        drawn = self.first.gates(arch, seed)
        gates = {site: gate.state_dict() for site, gate in drawn.items()}
        self._become(arch, widths, plain, gates)

    def load_state(self, arch: Architecture, state: Mapping[str, Tensor]) -> None:
        """Become an architecture with the weights of a built network, a state dict like the one that ``cut`` returns.

        Raises:
            ConfigError: the network has no room for the architecture.
            CheckpointError: names or shapes do not fit the architecture.
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
        """Become an architecture and keep all weights, as in a supernet, whose candidates share them.

        Raises:
            ConfigError: the network has no room for the architecture.
        """
        self._mask(self.capacity.widths(arch))
        self.arch = arch

    @torch.no_grad()
    def cut(self) -> dict[str, Tensor]:
        """A copy of the weights as the state dict of the built network; ``build_model(net.arch)`` loads it strictly.

        Raises:
            ConfigError: nothing has been loaded.
        """
        return {name: tensor.clone() for name, tensor in self.uncut().items()}

    def uncut(self) -> dict[str, Tensor]:
        """``cut`` without copying: views, which change with the network.

        Raises:
            ConfigError: nothing has been loaded.
        """
        if self.arch is None:
            raise ConfigError("the masked network has no architecture yet: load one before cutting it out.")
        widths = self.capacity.widths(self.arch)
        state = {name: tensor.detach() for name, tensor in self._views(widths).items()}
        for each, gate in zip(self._sites, self._gates(), strict=True):
            if widths[each.site] != ABSENT and SCALE in (entries := gate.state_dict()):
                state[each.prefix + SCALE] = entries[SCALE]
        return state

    def around(self, model: nn.Module) -> MaskedNetwork:
        """The same interface to a deep copy of ``model`` (a weight average), whose masks are separate."""
        other = copy.copy(self)
        other.model, other._holders = model, _holders(model)
        return other

    @torch.no_grad()
    def _become(
        self,
        arch: Architecture,
        widths: Mapping[Site, int],
        state: Mapping[str, Tensor],
        gates: Mapping[Site, Mapping[str, Tensor]],
    ) -> None:
        """Copy the weights in ``state``, except for sites in ``gates``, whose weights are there."""
        own = [self._holders[name] for name in self._plain_names]
        copy_together([holder[key] for holder, key in own], [state[name] for name in self._plain_names])
        sources = dict(gates)
        for each in self._sites:
            if each.site not in sources:
                names = (*each.names, SCALE) if widths[each.site] != ABSENT else ()
                sources[each.site] = {n: state[each.prefix + n] for n in names if each.prefix + n in state}
        self._write_gates(widths, sources)
        self.arch = arch

    @torch.no_grad()
    def _write_gates(self, widths: Mapping[Site, int], sources: Mapping[Site, Mapping[str, Tensor]]) -> None:
        """Write weights and masks of all gates: of any width, or zeros if a site has no source.

        They are put together on the CPU, so that a GPU gets them at once.
        """
        gates = self._gates()
        targets = [self._gate_tensors(each, gate) for each, gate in zip(self._sites, gates, strict=True)]
        flat = [tensor for tensors in targets for tensor in tensors]
        if self._staging is None or not self._staging.fits(flat):
            self._staging = Staging(flat)
        values = iter(self._staging.values)
        for each, gate in zip(self._sites, gates, strict=True):
            source = sources.get(each.site)
            for name in each.names:
                value = next(values)
                write_padded(value, source[name]) if source else value.zero_()
            for name, _ in masks_of(gate):
                fill_mask(name, next(values), widths[each.site])
            if isinstance(gate, MaskedSqueezeExcite):
                if source:
                    gate.gate_scale = float(source.get(SCALE, 1.0))
                next(values).fill_(gate.gain * gate.gate_scale)
        self._staging.send()

    def _gate_tensors(self, each: _MaskedSite, gate: nn.Module) -> list[Tensor]:
        """What ``_write_gates`` writes at a site, in its order."""
        holders = (self._holders[each.prefix + name] for name in each.names)
        scale = [gate.scale] if isinstance(gate, MaskedSqueezeExcite) else []
        return [*(holder[key] for holder, key in holders), *(mask for _, mask in masks_of(gate)), *scale]

    def _mask(self, widths: Mapping[Site, int]) -> None:
        for each, gate in zip(self._sites, self._gates(), strict=True):
            set_mask(gate, widths[each.site])

    def _gates(self) -> list[nn.Module]:
        return [gate_at(self.model, each.site) for each in self._sites]

    def _tensors(self) -> dict[str, Tensor]:
        """The model's state dict without gate scales."""
        return {name: holder[key] for name, (holder, key) in self._holders.items()}

    def _views(self, widths: Mapping[Site, int]) -> dict[str, Tensor]:
        """The built network's state dict without gate scales, as views."""
        views = self._tensors()
        for each in self._sites:
            for name in each.names:
                whole, axis = views.pop(each.prefix + name), each.axes.get(name)
                if widths[each.site] != ABSENT:
                    part = whole if axis is None else whole.narrow(axis, 0, widths[each.site])
                    views[each.prefix + name] = part
        return views


def _holders(model: nn.Module) -> dict[str, tuple[dict[str, Any], str]]:
    """Name in the state dict → the dictionary that holds the tensor, and its key there.

    The dictionaries stay the same when a model is moved to a device. Finding them once is worth it, since walking
    through a model takes longer than copying one.
    """
    found: dict[str, tuple[dict[str, Any], str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        prefix = state_name(f"{path}." if path else "")
        buffers = module._buffers.keys() - module._non_persistent_buffers_set
        for holder, keys in ((module._parameters, module._parameters), (module._buffers, buffers)):
            found |= {prefix + key: (holder, key) for key in keys if holder[key] is not None}
    return found
