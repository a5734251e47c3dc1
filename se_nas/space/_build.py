"""From rules and sites to the factors of a space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from se_nas.errors import ConfigError
from se_nas.sites import ABSENT, Site, check_reductions, width_at
from se_nas.space._factor import WIDTH, Factor, Scalar
from se_nas.space._spec import SpaceSpec

NONE = "none"
NATIVE = "native"
ALL = "all"


def in_scope(spec: SpaceSpec, sites: Sequence[Site], stages: Sequence[int]) -> list[bool]:
    """Which sites the rules for stages and blocks let change; the others stay as timm makes them."""
    chosen = set(_stages(spec, stages))
    ends: dict[int, tuple[int, int]] = {}
    for site in sites:
        low, high = ends.get(site.stage, (site.block, site.block))
        ends[site.stage] = (min(low, site.block), max(high, site.block))
    edge = {"first": 0, "last": 1}.get(spec.blocks)
    return [site.stage in chosen and (edge is None or site.block == ends[site.stage][edge]) for site in sites]


def _stages(spec: SpaceSpec, stages: Sequence[int]) -> list[int]:
    if spec.stages == ALL:
        return list(stages)
    chosen = []
    for stage in spec.stages:
        assert isinstance(stage, int)
        number = stages[stage] if -len(stages) <= stage < 0 else stage
        if number not in stages:
            raise ConfigError(
                f"stages has {stage!r}, where the backbone has no site;"
                f" allowed: {', '.join(map(str, stages))}, or -1 to -{len(stages)} from the last."
            )
        chosen.append(number)
    return chosen


def fixed_widths(spec: SpaceSpec, sites: Sequence[Site], scope: Sequence[bool]) -> list[int]:
    """Widths that no parameter decides."""
    return [
        ABSENT if spec.native == "remove" and inside else width_at(site, None)
        for site, inside in zip(sites, scope, strict=True)
    ]


def build_factors(
    spec: SpaceSpec,
    sites: Sequence[Site],
    columns: Sequence[int],
    scope: Sequence[bool],
    stages: Sequence[int],
) -> list[Factor]:
    """The factors of one position.

    Args:
        spec: the rules.
        sites: the position's sites.
        columns: for each site its column in the space's width array.
        scope: for each site whether it may change.
        stages: every stage with a site, at whichever position, ascending.
    """
    movable = [
        (site, column)
        for site, column, inside in zip(sites, columns, scope, strict=True)
        if inside and (site.native is None or spec.native in ("resize", "free"))
    ]
    for ratio in spec.reduction:
        check_reductions(sites, {site.stage: ratio for site, _ in movable})
    by_stage: dict[int, list[tuple[Site, int]]] = {}
    for site, column in movable:
        by_stage.setdefault(site.stage, []).append((site, column))
    if spec.granularity == "one_stage":
        return [_one_stage(spec, movable, _stages(spec, stages))] if movable else []
    make = _per_block if spec.granularity == "block" else _per_stage
    return [make(spec, stage, by_stage[stage]) for stage in sorted(by_stage)]


def _ratios(spec: SpaceSpec, sites: Sequence[Site]) -> tuple[Scalar, ...]:
    native = (NATIVE,) if spec.native == "free" and any(site.native for site in sites) else ()
    return (*native, *spec.reduction)


def _width(spec: SpaceSpec, site: Site, ratio: Scalar) -> int:
    if ratio == NONE:
        return ABSENT
    if ratio == NATIVE:
        return width_at(site, None)
    assert not isinstance(ratio, str)
    return width_at(site, ratio, spec.rounding, "resize")


def _factor(
    modes: Mapping[str, tuple[Scalar, ...]],
    members: Sequence[tuple[Site, int]],
    on: Sequence[Sequence[int]],
    blocks: Mapping[str, int] | None = None,
) -> Factor:
    blocks = blocks or {}
    numbers = list(blocks.values())
    return Factor(
        # A parameter with a single choice decides nothing.
        modes={name: values for name, values in modes.items() if len(values) > 1},
        switches=tuple(blocks),
        columns=np.array([column for _, column in members], dtype=np.int64),
        on=np.array(on, dtype=WIDTH),
        off=np.full(len(members), ABSENT, dtype=WIDTH),
        owner=np.array([numbers.index(site.block) if blocks else -1 for site, _ in members], dtype=np.int64),
    )


def _per_stage(spec: SpaceSpec, stage: int, members: Sequence[tuple[Site, int]]) -> Factor:
    ratios = (NONE, *_ratios(spec, [site for site, _ in members]))
    on = [[_width(spec, site, ratio) for site, _ in members] for ratio in ratios]
    return _factor({f"stage{stage}.reduction": ratios}, members, on)


def _per_block(spec: SpaceSpec, stage: int, members: Sequence[tuple[Site, int]]) -> Factor:
    ratios = _ratios(spec, [site for site, _ in members])
    on = [[_width(spec, site, ratio) for site, _ in members] for ratio in ratios]
    blocks = {f"stage{stage}.block{block}": block for block in sorted({site.block for site, _ in members})}
    return _factor({f"stage{stage}.reduction": ratios}, members, on, blocks)


def _one_stage(spec: SpaceSpec, members: Sequence[tuple[Site, int]], stages: Sequence[int]) -> Factor:
    ratios = _ratios(spec, [site for site, _ in members])
    places = {NONE: set[int](), ALL: set(stages), **{f"stage{stage}": {stage} for stage in stages}}
    on = [
        [_width(spec, site, ratio) if site.stage in chosen else ABSENT for site, _ in members]
        for chosen in places.values()
        for ratio in ratios
    ]
    return _factor({"stages": tuple(places), "reduction": ratios}, members, on)
