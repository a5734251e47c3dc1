"""What ``se-nas inspect`` shows: every site of a backbone, and what SE with each γ would add there."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from se_nas.backbones import find_sites, positions, usual_position
from se_nas.cost import CostModel
from se_nas.errors import ConfigError
from se_nas.sites import Site, check_reductions


@dataclass(frozen=True, kw_only=True)
class SiteTable:
    """Sites with the parameters and MACs that SE with each γ adds.

    Attributes:
        backbone: a timm model name.
        position: where SE would go.
        positions: all that the backbone has.
        input_size: (channels, height, width) at which costs are counted.
        sites: in order of execution.
        reductions: the γ that are priced.
        added: for every site and γ (width, parameters, MACs); None at a site with a native gate.
    """

    backbone: str
    position: str
    positions: tuple[str, ...]
    input_size: tuple[int, int, int]
    sites: tuple[Site, ...]
    reductions: tuple[float, ...]
    added: tuple[tuple[tuple[int, int, int] | None, ...], ...]

    @property
    def summary(self) -> str:
        stages = sorted({site.stage for site in self.sites})
        counts = ", ".join(
            f"{sum(site.stage == stage for site in self.sites)} in stage {stage}" for stage in stages
        )
        others = ", ".join(name for name in self.positions if name != self.position)
        return f"{self.backbone}: {len(self.sites)} sites at position {self.position!r} ({counts})." + (
            f" Other positions: {others}." if others else ""
        )

    @property
    def note(self) -> str:
        size = "x".join(map(str, self.input_size))
        return (
            f"γ columns: hidden width, then added parameters and MACs (a multiply-add counts once) at {size}."
        )

    def rows(self) -> list[dict[str, str]]:
        """Text by column name, one row per site."""
        rows = []
        for site, added in zip(self.sites, self.added, strict=True):
            row = {
                "stage": str(site.stage),
                "block": str(site.block),
                "path": site.path,
                "channels": str(site.channels),
                "map": f"{site.resolution[0]}x{site.resolution[1]}",
                "SE": _native(site),
            }
            for reduction, cost in zip(self.reductions, added, strict=True):
                row[f"γ={reduction:g}"] = "–" if cost is None else f"{cost[0]}: +{cost[1]:,} +{cost[2]:,}"
            rows.append(row)
        return rows

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "backbone": self.backbone,
            "position": self.position,
            "positions": list(self.positions),
            "input_size": list(self.input_size),
            "sites": [
                {
                    **asdict(site),
                    "added": {
                        f"{reduction:g}": None
                        if cost is None
                        else {"rd_channels": cost[0], "num_params": cost[1], "macs": cost[2]}
                        for reduction, cost in zip(self.reductions, added, strict=True)
                    },
                }
                for site, added in zip(self.sites, self.added, strict=True)
            ],
        }


def inspect_backbone(backbone: str, position: str | None, side: int | None, reductions: str) -> SiteTable:
    """Find the sites of a backbone and price SE at each."""
    chosen = position or usual_position(backbone)
    size = (3, side or 224, side or 224)
    sites = tuple(find_sites(backbone, position=chosen, input_size=size))
    ratios = _parse(reductions)
    for ratio in ratios:
        check_reductions(sites, {site.stage: ratio for site in sites})
    model = CostModel.for_backbone(backbone, position=chosen, input_size=size)
    added = tuple(
        tuple(None if site.native else _added(model, index, site.rd_channels(ratio)) for ratio in ratios)
        for index, site in enumerate(sites)
    )
    return SiteTable(
        backbone=backbone,
        position=chosen,
        positions=tuple(positions(backbone)),
        input_size=size,
        sites=sites,
        reductions=ratios,
        added=added,
    )


def _added(model: CostModel, index: int, width: int) -> tuple[int, int, int]:
    params, macs = (model.fixed[index][column] + model.slope[index][column] * width for column in (0, 1))
    return width, params, macs


def _parse(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--reduction is {text!r}; give numbers above 0, separated by commas.") from None


def _native(site: Site) -> str:
    if site.native is None:
        return ""
    return site.native if site.native_rd_channels is None else f"{site.native} {site.native_rd_channels}"
