"""Which candidates one masked network can be: those that differ in widths alone, up to the largest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from se_nas.architecture import Architecture
from se_nas.errors import ConfigError
from se_nas.sites import ABSENT, Site, native_width
from se_nas.space import SearchSpace


class MaskGroup(NamedTuple):
    """What candidates of one masked network have in common.

    The last four fields are None in a network without inserted blocks, which fits any network of its backbone.
    """

    backbone: str
    timm_kwargs: tuple[tuple[str, Any], ...]
    position: str | None = None
    gate: str | None = None
    acts: tuple[str, ...] | None = None
    bias: bool | None = None


def mask_group(arch: Architecture) -> MaskGroup:
    """The group of an architecture: equal groups can share a masked network that is wide enough."""
    if all(site.native for site, _ in arch.changed()):
        return MaskGroup(arch.backbone, arch.timm_kwargs)
    acts = tuple(arch.act or site.act for site in arch.sites if site.native is None)
    return MaskGroup(arch.backbone, arch.timm_kwargs, arch.position, arch.gate, acts, arch.bias)


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """Room for candidates of one group.

    Attributes:
        widest: an architecture with the largest width at every site. A native gate without a bottleneck is kept.
        choices: for every site of ``widest`` the widths that candidates have there.
    """

    widest: Architecture
    choices: tuple[frozenset[int], ...]

    @classmethod
    def of(cls, architectures: Iterable[Architecture]) -> Capacity:
        """Room for all of these.

        Raises:
            ConfigError: there is none, or two belong to different groups.
        """
        archs = list(architectures)
        if not archs:
            raise ConfigError("a masked network needs at least one architecture.")
        # The first with inserted blocks decides about position, gate, activation and bias.
        base = next((arch for arch in archs if mask_group(arch).position), archs[0])
        choices: dict[str, set[int]] = {site.path: set() for site in base.sites}
        for arch in archs:
            reason = _mismatch(arch, base)
            if reason:
                raise ConfigError(reason)
            for path, width in _widths(arch, base.sites).items():
                choices[path].add(width)
        return cls._make(base, [choices[site.path] for site in base.sites])

    @classmethod
    def of_space(
        cls, space: SearchSpace, position: str | None = None, also: Iterable[Architecture] = ()
    ) -> Capacity:
        """Room for every architecture that a space has at a position, and for further ones (baselines).

        Raises:
            ConfigError: one of the further ones belongs to another group.
        """
        position = position or next(iter(space.sites_by_position))
        rows = space.site_widths(position)
        some = space.build(position, [max(row) for row in rows])
        others = cls.of([some, *also])
        choices = [{*row, *more} for row, more in zip(rows, others.choices, strict=True)]
        return cls._make(others.widest, choices)

    @classmethod
    def _make(cls, base: Architecture, choices: list[set[int]]) -> Capacity:
        # KEEP is below ABSENT, and there is no other width where it is one.
        largest = tuple(max(row, key=abs) for row in choices)
        widest = Architecture(
            backbone=base.backbone,
            timm_kwargs=base.timm_kwargs,
            position=base.position,
            sites=base.sites,
            widths=largest,
            gate=base.gate,
            act=base.act,
            bias=base.bias,
        )
        return cls(widest=widest, choices=tuple(map(frozenset, choices)))

    @cached_property
    def masked(self) -> tuple[tuple[Site, int], ...]:
        """The sites that need a masked gate, with its largest width: where candidates differ in their gate.

        A site without a gate in any candidate needs none, and a native gate that all keep stays untouched.
        """
        rows = zip(self.widest.sites, self.widest.widths, self.choices, strict=True)
        return tuple(
            (site, width)
            for site, width, choices in rows
            if width != ABSENT and choices != {native_width(site)}
        )

    @cached_property
    def removed(self) -> tuple[Site, ...]:
        """The sites of native gates that no candidate has."""
        rows = zip(self.widest.sites, self.widest.widths, strict=True)
        return tuple(site for site, width in rows if site.native and width == ABSENT)

    def why_not(self, arch: Architecture) -> str | None:
        """Why an architecture has no room here, in one sentence; None if it has."""
        reason = _mismatch(arch, self.widest)
        if reason:
            return reason
        widths = _widths(arch, self.widest.sites)
        largest = dict(self.masked)
        for site in self.widest.sites:
            width = widths[site.path]
            native_stays = site.native is not None and site not in largest and site not in self.removed
            wanted = [native_width(site)] if native_stays else None
            most = largest.get(site, ABSENT)
            if width != wanted[0] if wanted else abs(width) > abs(most):
                allowed = f"the only width there is {wanted[0]}" if wanted else f"there is room for {most}"
                return f"width at {site.path!r} is {width}, but in the masked network {allowed}."
        return None

    def holds(self, arch: Architecture) -> bool:
        """Whether the masked network can be this architecture."""
        return self.why_not(arch) is None

    def widths(self, arch: Architecture) -> Mapping[Site, int]:
        """The width of every masked gate in an architecture; 0 where it has none.

        Raises:
            ConfigError: the architecture has no room here.
        """
        reason = self.why_not(arch)
        if reason:
            raise ConfigError(reason)
        widths = _widths(arch, self.widest.sites)
        return {site: widths[site.path] for site, _ in self.masked}


def _widths(arch: Architecture, sites: tuple[Site, ...]) -> dict[str, int]:
    changed = {site.path: width for site, width in arch.changed()}
    return {site.path: changed.get(site.path, native_width(site)) for site in sites}


def _mismatch(arch: Architecture, base: Architecture) -> str | None:
    """Why two architectures cannot share a masked network, whatever its widths."""
    if (arch.backbone, arch.timm_kwargs) != (base.backbone, base.timm_kwargs):
        return f"a masked network of {base.backbone} cannot be {arch}: another backbone or other keywords."
    mine, other = mask_group(arch), mask_group(base)
    if mine.position and other.position:
        for name, value, wanted in zip(MaskGroup._fields[2:], mine[2:], other[2:], strict=True):
            if value != wanted:
                return f"{name} is {value!r}, but in the masked network {wanted!r}."
    known = {site.path for site in base.sites}
    odd = next((site.path for site, _ in arch.changed() if site.path not in known), None)
    return None if odd is None else f"the masked network has no site {odd!r}."
