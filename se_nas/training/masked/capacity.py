"""Which candidates a masked network can become: those that differ only in widths, up to its largest."""

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
    """What all candidates of a masked network have in common.

    The last four fields are None for an architecture without inserted blocks, which fits any masked network of its
    backbone.
    """

    backbone: str
    timm_kwargs: tuple[tuple[str, Any], ...]
    position: str | None = None
    gate: str | None = None
    acts: tuple[str, ...] | None = None
    bias: bool | None = None


def mask_group(arch: Architecture) -> MaskGroup:
    """The group of an architecture. Architectures of equal groups can share a masked network."""
    if all(site.native for site, _ in arch.changed()):
        return MaskGroup(arch.backbone, arch.timm_kwargs)
    acts = tuple(arch.act or site.act for site in arch.sites if site.native is None)
    return MaskGroup(arch.backbone, arch.timm_kwargs, arch.position, arch.gate, acts, arch.bias)


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What a masked network has room for: candidates of one group, with a largest width at every site.

    Attributes:
        widest: the architecture with the largest width at every site; native gates without a bottleneck are kept.
        choices: for every site of ``widest``, the widths that candidates may have there.
    """

    widest: Architecture
    choices: tuple[frozenset[int], ...]

    @classmethod
    def of(cls, architectures: Iterable[Architecture]) -> Capacity:
        """Room for these architectures.

        Raises:
            ConfigError: there are none, or they belong to different groups.
        """
        archs = list(architectures)
        if not archs:
            raise ConfigError("a masked network needs at least one architecture.")
        # The first with inserted blocks determines position, gate, activation and bias.
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
        """Room for every architecture of a space at a position, and for those in ``also`` (baselines).

        Raises:
            ConfigError: an architecture in ``also`` belongs to another group.
        """
        position = position or next(iter(space.sites_by_position))
        rows = space.site_widths(position)
        some = space.build(position, [max(row) for row in rows])
        others = cls.of([some, *also])
        choices = [{*row, *more} for row, more in zip(rows, others.choices, strict=True)]
        return cls._make(others.widest, choices)

    @classmethod
    def _make(cls, base: Architecture, choices: list[set[int]]) -> Capacity:
        # KEEP is -1; sites that have it have no other width but ABSENT.
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
        """The sites that need a masked gate, with its largest width.

        Sites at which no candidate has a gate need none, and native gates that every candidate keeps stay as they
        are.
        """
        rows = zip(self.widest.sites, self.widest.widths, self.choices, strict=True)
        return tuple(
            (site, width)
            for site, width, choices in rows
            if width != ABSENT and choices != {native_width(site)}
        )

    @cached_property
    def removed(self) -> tuple[Site, ...]:
        """The sites of native gates that every candidate removes."""
        rows = zip(self.widest.sites, self.widest.widths, strict=True)
        return tuple(site for site, width in rows if site.native and width == ABSENT)

    def why_not(self, arch: Architecture) -> str | None:
        """Why the masked network cannot become this architecture, in one sentence; None if it can."""
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
        """Whether the masked network can become this architecture."""
        return self.why_not(arch) is None

    def widths(self, arch: Architecture) -> Mapping[Site, int]:
        """Site → width, for every masked gate; 0 if the architecture has no gate there.

        Raises:
            ConfigError: the masked network cannot become this architecture.
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
    """Why two architectures cannot share a masked network of any size; None if they can."""
    if (arch.backbone, arch.timm_kwargs) != (base.backbone, base.timm_kwargs):
        return (
            f"a masked network of {base.backbone} cannot become {arch}: another backbone or other keywords."
        )
    mine, other = mask_group(arch), mask_group(base)
    if mine.position and other.position:
        for name, value, wanted in zip(MaskGroup._fields[2:], mine[2:], other[2:], strict=True):
            if value != wanted:
                return f"{name} is {value!r}, but in the masked network {wanted!r}."
    known = {site.path for site in base.sites}
    odd = next((site.path for site, _ in arch.changed() if site.path not in known), None)
    return None if odd is None else f"the masked network has no site {odd!r}."
