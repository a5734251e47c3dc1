"""Where SE sits, in words and in shares by stage, from the realised hidden widths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from se_nas.sites import ABSENT, Site


@dataclass(frozen=True, kw_only=True)
class StagePlacement:
    """SE in one stage: how many of its sites are gated, and the realised γ (``reduction_base / width``)."""

    stage: int
    gated: int
    total: int
    reductions: tuple[float, ...]

    @property
    def share(self) -> float:
        return self.gated / self.total

    @property
    def ratio(self) -> str:
        """``γ=8``, or ``γ=8–16`` if sites differ; empty for gates without a bottleneck."""
        if not self.reductions:
            return ""
        low, high = self.reductions[0], self.reductions[-1]
        return f"γ={low:g}" if low == high else f"γ={low:g}–{high:g}"


def by_stage(sites: Sequence[Site], widths: Sequence[int]) -> list[StagePlacement]:
    """One entry per stage, in order; ``widths`` has one entry per site."""
    totals: dict[int, int] = {}
    gated: dict[int, int] = {}
    reductions: dict[int, set[float]] = {}
    for site, width in zip(sites, widths, strict=True):
        stage = site.stage
        totals[stage] = totals.get(stage, 0) + 1
        if width != ABSENT:
            gated[stage] = gated.get(stage, 0) + 1
        if width > 0:
            reductions.setdefault(stage, set()).add(_rounded(site.reduction_base, width))
    return [
        StagePlacement(
            stage=stage,
            gated=gated.get(stage, 0),
            total=total,
            reductions=tuple(sorted(reductions.get(stage, ()))),
        )
        for stage, total in sorted(totals.items())
    ]


def reduction(site: Site, width: int) -> float:
    """Realised γ at a gated site, to one decimal."""
    return _rounded(site.reduction_base, width)


@cache
def _rounded(base: int, width: int) -> float:
    return round(base / width, 1)


def placement(sites: Sequence[Site], widths: Sequence[int]) -> str:
    """``SE in stages 3 and 4 at γ=8``; stages with equal settings are named together."""
    return in_words(by_stage(sites, widths))


def in_words(stages: Sequence[StagePlacement]) -> str:
    """``placement`` of what ``by_stage`` gives."""
    gated = [stage for stage in stages if stage.gated]
    if not gated:
        return "no SE"
    ratios = {stage.ratio for stage in stages}
    if len(ratios) == 1 and all(stage.share == 1 for stage in stages):
        ratio = ratios.pop()
        return f"SE everywhere at {ratio}" if ratio else "SE everywhere"
    groups: dict[tuple[str, str], list[int]] = {}
    for stage in gated:
        part = "" if stage.share == 1 else f" ({stage.gated} of {stage.total} sites)"
        groups.setdefault((part, stage.ratio), []).append(stage.stage)
    clauses = []
    for (part, ratio), members in groups.items():
        noun = "stage" if len(members) == 1 else "stages"
        each = " each" if part and len(members) > 1 else ""
        place = f"{noun} {_listed([str(member) for member in members])}"
        clauses.append(f"{place}{part[:-1] + each + ')' if part else ''}{f' at {ratio}' if ratio else ''}")
    return f"SE in {_listed(clauses) if len(clauses) < 3 else '; '.join(clauses)}"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
