"""The networks that any user would ask about; every search evaluates them first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from se_nas.architecture import Architecture, freeze_kwargs
from se_nas.errors import ConfigError
from se_nas.sites import ABSENT, width_at

if TYPE_CHECKING:
    from se_nas.space import SearchSpace

PLAIN, ALL_SE, NATIVE, LAST_STAGE = "plain", "all_se_16", "native", "last_stage"
REDUCTION = 16
"""γ of the baselines with SE: the paper's choice (Hu et al., arXiv 1709.01507, section 6.1)."""


def baselines(space: SearchSpace) -> dict[str, Architecture]:
    """Baselines by name: no SE, SE everywhere at γ=16, the backbone's own SE, SE in the last stage alone.

    Those that build the same network as an earlier one are left out, as is γ=16 if no site is that wide.
    """
    position, sites = next(iter(space.sites_by_position.items()))
    spec = space.spec

    def make(widths: list[int]) -> Architecture:
        return Architecture(
            backbone=space.backbone,
            timm_kwargs=freeze_kwargs(space.timm_kwargs),
            position=position,
            sites=sites,
            widths=tuple(widths),
            gate=spec.gate,
            act=spec.act,
            bias=spec.bias,
        )

    def candidates() -> Iterator[tuple[str, list[int]]]:
        native = [width_at(site, None) for site in sites]
        yield PLAIN, [ABSENT] * len(sites)
        yield NATIVE, native
        try:
            everywhere = [width_at(site, REDUCTION, spec.rounding, "resize") for site in sites]
        except ConfigError:
            return
        last = max(site.stage for site in sites)
        yield ALL_SE, everywhere
        yield (
            LAST_STAGE,
            [width if site.stage == last else ABSENT for site, width in zip(sites, everywhere, strict=True)],
        )

    found: dict[str, Architecture] = {}
    for name, widths in candidates():
        architecture = make(widths)
        if architecture not in found.values():
            found[name] = architecture
    return found
