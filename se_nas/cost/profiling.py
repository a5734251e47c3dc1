"""``profile``: what SE costs on this device by site, how well the sum predicts, how far each cost reaches."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from se_nas.architecture import Architecture
from se_nas.arguments import checked
from se_nas.cost.closed_form import Cost, CostModel
from se_nas.cost.latency.meter import LatencyMeter
from se_nas.cost.latency.table import LatencyTable, Sampler
from se_nas.cost.latency.time_limit import TimeLimit, TimeUpError
from se_nas.cost.limits import format_cost
from se_nas.cost.ranges import Range, WidthCost, ranges_over
from se_nas.cost.settings import LatencySettings
from se_nas.objectives import COSTS
from se_nas.sites import ABSENT, Site, native_width
from se_nas.space import SearchSpace

REDUCTIONS = (4, 16)
LATENCY = "latency_ms"
_BY_COLUMN = {objective.column: objective for objective in COSTS.values()}
_RANGED = tuple(column for column, objective in _BY_COLUMN.items() if objective.exact)


@dataclass(frozen=True, kw_only=True)
class SiteCost:
    """What SE adds at one site.

    Attributes:
        site: the site.
        added_ms: γ → (hidden width, milliseconds that a gate of this width adds); at a native gate the one
            width that it has now (0 for a gate without a bottleneck), under the key 0.
    """

    site: Site
    added_ms: Mapping[int, tuple[int, float]]


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Costs of a backbone on a device and over a search space.

    Attributes:
        backbone: a timm model name.
        space: name of the space.
        size: how many different architectures it has.
        input_size: (channels, height, width) in pixels.
        plain: exact costs of the unmodified backbone.
        baseline_ms: its latency; the same for every position.
        ranges: cost → its range over the space; latency_ms only if every table passed its check, and if there was
            time to find it.
        tables_by_position: position → latency table.
        site_costs: position → what SE adds at each site.
        mode_note: why latency mode "auto" did not take the best mode for the device, or None.
        not_measured: positions that the time was too short for.
    """

    backbone: str
    space: str
    size: int
    input_size: tuple[int, int, int]
    plain: Cost
    baseline_ms: float
    ranges: Mapping[str, Range]
    tables_by_position: Mapping[str, LatencyTable]
    site_costs: Mapping[str, tuple[SiteCost, ...]]
    mode_note: str | None = None
    not_measured: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every position has a latency table that passed its check, and the range of latency is known."""
        return self._tables_passed and LATENCY in self.ranges

    @property
    def _tables_passed(self) -> bool:
        return not self.not_measured and all(table.passed for table in self.tables_by_position.values())

    def tables(self) -> list[tuple[str, list[dict[str, str]]]]:
        """Titles with rows of text by column name."""
        found = [
            (
                f"what SE adds by site, position {position!r}",
                [_site_row(cost, self.baseline_ms) for cost in costs],
            )
            for position, costs in self.site_costs.items()
        ]
        found += [
            (
                f"held-out networks, position {position!r}",
                [_held_out_row(row) for row in table.check.held_out],
            )
            for position, table in self.tables_by_position.items()
        ]
        plain = asdict(self.plain) | {LATENCY: self.baseline_ms}
        rows = [_range_row(cost, plain[cost], reach) for cost, reach in self.ranges.items()]
        return [*found, (f"costs over the space {self.space} ({self.size:,} architectures)", rows)]

    def summary(self) -> str:
        """The checks, the conditions, and what the numbers are."""
        first = next(iter(self.tables_by_position.values()))
        found = first.conditions
        lines = [table.check.describe() for table in self.tables_by_position.values()]
        lines += [
            f"Besides what each gate adds at {position!r}, having any gate at all adds"
            f" {100 * table.gates.any_gate:.2f} %."
            for position, table in self.tables_by_position.items()
            if table.gates.any_gate > 0
        ]
        if self.not_measured:
            lines.append(f"Not measured, because time ran out: position {', '.join(self.not_measured)}.")
        if self._tables_passed and LATENCY not in self.ranges:
            lines.append("The range of latency is missing, because time ran out.")
        if not all(table.passed for table in self.tables_by_position.values()):
            lines.append("A table that fails is not used: measure on an idle device, or allow more time.")
        threads = f"{found['threads']} CPU thread{'s' if found['threads'] != 1 else ''}"
        lines.append(
            f"{self.backbone} takes {self.baseline_ms:.3f} ms on {found['device_name']} ({found['device']},"
            f" {threads}, batch {found['batch_size']}, {found['precision']}, mode {found['mode']},"
            f" {found['backend']} backend, torch {found['versions']['torch']})."
        )
        if self.mode_note is not None:
            lines.append(f"The {self.mode_note}")
        if any(not reach.exact for reach in self.ranges.values()):
            lines.append(
                "The space is too large to enumerate: quartiles are those of a sample, and the"
                " extremes are the best that a local search starting from it found."
            )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "backbone": self.backbone,
            "space": {"name": self.space, "size": self.size},
            "input_size": list(self.input_size),
            "plain": asdict(self.plain),
            "baseline_ms": self.baseline_ms,
            "mode_note": self.mode_note,
            "not_measured": list(self.not_measured),
            "ranges": {cost: reach.to_dict() for cost, reach in self.ranges.items()},
            "tables": {
                position: table.to_dict()
                | {
                    "passed": table.passed,
                    "total_error": table.check.total_error,
                    "added_error": table.check.added_error,
                }
                for position, table in self.tables_by_position.items()
            },
            "sites": {
                position: [asdict(cost) for cost in costs] for position, costs in self.site_costs.items()
            },
        }


@checked
def profile(
    backbone: str,
    *,
    space: str | SearchSpace = "per_block",
    settings: LatencySettings | None = None,
    max_seconds: float = 300.0,
    refresh: bool = False,
    progress: Callable[[int, int], object] = lambda done, total: None,
    clock: Callable[[], float] = time.monotonic,
    **timm_kwargs: Any,
) -> Profile:
    """Measure a latency table for every position of a space, or take the saved one, and find the range of each cost.

    Args:
        backbone: a timm model name.
        space: a shipped name, a file, or a space of this backbone.
        settings: conditions of the latency.
        max_seconds: time limit of everything, building the networks included. What cannot be interrupted, such as
            building a network, is not begun if it would probably take longer.
        refresh: measure even if a table is saved for this device.
        progress: is called with the number of networks of a table measured so far and of all.
        clock: seconds that pass.
        timm_kwargs: keywords of ``timm.create_model`` that change the network.

    Raises:
        TimeUpError: the time was up before the first table was measured.
        SeNasError: as ``SearchSpace.load``, ``LatencyMeter`` and ``LatencyTable.measure``.
    """
    limit, settings = TimeLimit(max_seconds, clock), settings or LatencySettings()
    if isinstance(space, str):
        space = SearchSpace.load(space, backbone=backbone, **timm_kwargs)
    plains = {
        position: Architecture.plain(backbone, position=position, **timm_kwargs)
        for position in space.sites_by_position
    }
    models = {
        position: CostModel.for_architecture(arch, settings.input_size, settings.num_classes)
        for position, arch in plains.items()
    }
    costs: dict[str, dict[str, WidthCost]] = {
        name: {position: _column(model, name) for position, model in models.items()} for name in _RANGED
    }
    try:
        with limit.enforced():
            before = limit.left
            ranges = ranges_over(space, costs)
            for_latency = before - limit.left
            meter = LatencyMeter(next(iter(plains.values())), settings)
    except TimeUpError:
        raise TimeUpError(
            f"the time limit had passed before {backbone} was timed even once; allow more time, or measure on an idle"
            " machine."
        ) from None
    tables: dict[str, LatencyTable] = {}
    for position in plains:
        seconds = (limit.left - for_latency) / (len(plains) - len(tables))
        try:
            tables[position] = latency_table(
                meter, space, position, max_seconds=seconds, refresh=refresh, progress=progress, clock=clock
            )
        except TimeUpError:
            if not tables:
                raise
            break
    not_measured = tuple(position for position in plains if position not in tables)
    if not not_measured and all(table.passed for table in tables.values()):
        predicted = {name: table.predict for name, table in tables.items()}
        # Without the range of latency, the profile says so.
        with suppress(TimeUpError), limit.enforced():
            ranges |= ranges_over(space, {LATENCY: predicted})
    return Profile(
        backbone=backbone,
        space=space.name,
        size=space.size,
        input_size=settings.input_size,
        plain=next(iter(models.values())).plain,
        baseline_ms=float(np.median([table.baseline_ms for table in tables.values()])),
        ranges=ranges,
        tables_by_position=tables,
        site_costs={
            position: _site_costs(plains[position].sites, table) for position, table in tables.items()
        },
        mode_note=meter.mode_note,
        not_measured=not_measured,
    )


def latency_table(
    meter: LatencyMeter,
    space: SearchSpace,
    position: str,
    *,
    max_seconds: float = 300.0,
    refresh: bool = False,
    progress: Callable[[int, int], object] = lambda done, total: None,
    clock: Callable[[], float] = time.monotonic,
) -> LatencyTable:
    """The saved table for a position of a space under the meter's conditions; measured and saved if there is none.

    A table that failed its check is measured again. It is saved with its check in any case.
    """
    sample = _at_position(space, position)
    kept = None if refresh else LatencyTable.load(meter, sample(np.random.default_rng(0)))
    if kept is not None and kept.passed:
        return kept
    table = LatencyTable.measure(meter, sample, max_seconds=max_seconds, progress=progress, clock=clock)
    table.save()
    return table


def _at_position(space: SearchSpace, position: str) -> Sampler:
    def sample(generator: np.random.Generator) -> Architecture:
        while True:
            arch = space.sample(generator)
            if arch.position == position:
                return arch

    return sample


def _column(model: CostModel, name: str) -> WidthCost:
    return lambda widths: model.evaluate(widths)[name]


def _site_costs(sites: tuple[Site, ...], table: LatencyTable) -> tuple[SiteCost, ...]:
    found = []
    for site, fixed, slope in zip(sites, table.gates.fixed, table.gates.slope, strict=True):
        if site.native:
            widths = {0: max(native_width(site), ABSENT)}
        else:
            widths = {reduction: site.rd_channels(reduction) for reduction in REDUCTIONS}
        added_ms = {
            key: (width, table.baseline_ms * (fixed + slope * width)) for key, width in widths.items()
        }
        found.append(SiteCost(site=site, added_ms=added_ms))
    return tuple(found)


def _site_row(cost: SiteCost, baseline_ms: float) -> dict[str, str]:
    site = cost.site
    row = {
        "stage": str(site.stage),
        "block": str(site.block),
        "path": site.path,
        "channels": str(site.channels),
    }
    shown = {0: ""} if site.native else dict.fromkeys(REDUCTIONS, "")
    for key in shown:
        width, added = cost.added_ms[key]
        shown[key] = f"+{1000 * added:.1f} µs ({added / baseline_ms:+.2%}, width {width})"
    row |= {f"γ={key}": shown.get(key, "") for key in REDUCTIONS}
    return row | {"native": shown.get(0, "")}


def _held_out_row(row: Any) -> dict[str, str]:
    return {
        "gates": str(sum(width != ABSENT for width in row.widths)),
        "measured": f"{row.measured:.4f}x",
        "interval": f"{row.interval[0]:.4f}–{row.interval[1]:.4f}",
        "predicted": f"{row.predicted:.4f}x",
    }


def _range_row(cost: str, plain: float, reach: Range) -> dict[str, str]:
    values = {
        "backbone": plain,
        "min": reach.minimum,
        "25 %": reach.lower_quartile,
        "median": reach.median,
        "75 %": reach.upper_quartile,
        "max": reach.maximum,
    }
    objective = _BY_COLUMN[cost]
    return {"cost": objective.title} | {name: format_cost(objective, value) for name, value in values.items()}
