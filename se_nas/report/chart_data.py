"""A report as plain data for pictures: the page and the picture files draw the same numbers."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from se_nas.report.candidates import BASELINE_NAMES, OBJECTIVES, Candidate, Objective
from se_nas.report.differences import Gain, accuracy_gain
from se_nas.report.effects import stage_effects
from se_nas.report.history import progress, retrained, retraining
from se_nas.report.pareto_report import ParetoReport
from se_nas.report.picks import describe, names_of, pick
from se_nas.report.placement import reduction

_AXIS_TITLES = {
    "accuracy": "validation top-1 accuracy, %",
    "latency": "latency, ms",
    "macs": "multiply-adds, G",
    "params": "parameters, M",
    "activations": "activations, M",
}


def view(report: ParetoReport) -> dict[str, Any]:
    """Everything that is drawn, JSON-ready; costs are in the objectives' units, not-a-number is None."""
    picks = names_of(report)
    return {
        "name": report.name,
        "label": report.label,
        "final": report.final,
        "axes": [axis(cost) | {"objective": cost in report.costs} for cost in _known_costs(report)],
        "cost": report.costs[0].name,
        "stages": _stages(report),
        "candidates": [_candidate(report, candidate, picks) for candidate in report.candidates],
        "front": [candidate.number for candidate in report.front],
        "effects": [
            {
                "stage": effect.stage,
                "sites": effect.num_sites,
                "accuracy": _gain(effect.accuracy),
                "latency": _gain(effect.latency),
                "note": effect.note,
            }
            for effect in stage_effects(report)
        ],
        "usage": usage(report),
        "history": [
            [point.evaluations, point.epochs, _rounded(point.seconds, 1), _rounded(point.hypervolume, 6)]
            for point in progress(report)
        ],
        "latency": _latency_pairs(report),
        "retrained": [
            {
                "number": candidate.number,
                "search": _rounded(candidate.selection_accuracy, 3),
                "final": _rounded(candidate.accuracy, 3),
                "interval": _pair(candidate.accuracy_interval, 3),
            }
            for candidate in retrained(report)
            if candidate.accuracy is not None
        ],
    }


def axis(objective: Objective) -> dict[str, Any]:
    return {
        "name": objective.name,
        "title": _AXIS_TITLES[objective.name],
        "unit": objective.unit,
        "direction": objective.direction,
    }


def pick_cards(report: ParetoReport) -> list[dict[str, Any]]:
    """The standing picks with their reasons; one card for each candidate."""
    return [
        {"names": names, "number": candidate.number, "reason": pick(report, names[0]).reason}
        for key, names in names_of(report).items()
        for candidate in report.front
        if candidate.key == key
    ]


def selection_bias(report: ParetoReport) -> str:
    """The winner's curse in one or two sentences; empty where nothing was retrained."""
    change = retraining(report)
    if change is None or (change.selected is None and change.baselines is None):
        return ""
    schedule = (
        "Both were trained on the same schedule"
        if change.same_schedule
        else "Search and retraining used different schedules, so a shift common to all is to be expected"
    )
    words = []
    if change.selected:
        words.append(
            "Retrained with new seeds, the candidates that the search chose moved by"
            f" {change.selected.signed(2)} points on average"
        )
    if change.baselines:
        joint = "the baselines, which were not chosen by their readings, moved by"
        words.append(f"{joint} {change.baselines.signed(2)}")
    return f"{'; '.join(words)}. {schedule}."


def usage(report: ParetoReport) -> list[dict[str, Any]]:
    """For each stage, how many sites of front members and of all candidates have which realised γ."""
    groups = {"front": report.front, "all": report.candidates}
    counts: dict[int, dict[str, dict[str, int]]] = {}
    for group, members in groups.items():
        for candidate in members:
            sites = report.sites.get(candidate.position or "", ())
            if len(sites) != len(candidate.widths):
                continue
            for site, width in zip(sites, candidate.widths, strict=True):
                label = (
                    "none" if width == 0 else "kept" if width < 0 else f"{nominal(reduction(site, width)):g}"
                )
                stage = counts.setdefault(site.stage, {"front": {}, "all": {}})
                stage[group][label] = stage[group].get(label, 0) + 1
    return [{"stage": stage, **groups} for stage, groups in sorted(counts.items())]


def nominal(ratio: float) -> float:
    """The power of two that a realised γ is nearest to on a log scale: 15.6 and 17.1 are both about 16."""
    return float(2 ** max(0, round(math.log2(ratio))))


def _known_costs(report: ParetoReport) -> list[Objective]:
    """The objectives' costs first, then every other cost that is known of all that counts."""
    others = [
        objective
        for name, objective in OBJECTIVES.items()
        if name not in ("accuracy", "activations") and objective not in report.costs
    ]
    return [
        *report.costs,
        *(cost for cost in others if report.counted and all(member.value(cost) for member in report.counted)),
    ]


def _stages(report: ParetoReport) -> dict[str, list[list[Any]]]:
    return {
        position: [
            [
                site.stage,
                site.block,
                site.channels,
                site.resolution[0],
                site.native,
                site.reduction_base,
                site.path,
            ]
            for site in sites
        ]
        for position, sites in report.sites.items()
    }


def _candidate(
    report: ParetoReport, candidate: Candidate, picks: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    notable = candidate.on_front or bool(candidate.baselines)
    gain = None
    if report.plain is not None and candidate.key != report.plain.key:
        gain = accuracy_gain(report, candidate, report.plain)
    ratio = candidate.latency_interval
    in_ms = (candidate.latency_ms or 0) / candidate.latency_ratio if candidate.latency_ratio else None
    return {
        "number": candidate.number,
        "key": candidate.key,
        "name": candidate.name,
        "placement": candidate.placement,
        "baselines": [BASELINE_NAMES.get(name, name) for name in candidate.baselines],
        "role": candidate.baseline,
        "position": candidate.position,
        "widths": list(candidate.widths),
        "state": candidate.state,
        "front": candidate.on_front,
        "counted": candidate in report.counted if notable else candidate.accuracy is not None,
        "probability": _rounded(candidate.probability, 3),
        "accuracy": _rounded(candidate.accuracy, 3),
        "interval": _pair(candidate.accuracy_interval, 3),
        "gain": _gain(gain),
        "seeds": [_rounded(reading.accuracy, 3) for reading in candidate.counted],
        "search": _rounded(candidate.selection_accuracy, 3),
        "test": _rounded(candidate.test_accuracy, 3),
        "costs": {
            cost.name: None if (value := candidate.value(cost)) is None else _significant(value / cost.scale)
            for cost in OBJECTIVES.values()
            if cost.name != "accuracy"
        },
        "ratio": _rounded(candidate.latency_ratio, 4),
        "ratio_interval": _pair(ratio, 4),
        "latency_interval": _pair((ratio[0] * in_ms, ratio[1] * in_ms), 4) if ratio and in_ms else None,
        "latency_source": candidate.latency_source,
        "picks": list(picks.get(candidate.key, ())),
        "reason": describe(report, candidate) if notable else "",
        "readings": [
            {
                "number": reading.number,
                "phase": reading.phase,
                "state": reading.state,
                "seed": reading.seed,
                "epochs": reading.epochs,
                "planned": reading.epochs_planned,
                "accuracy": _rounded(reading.accuracy, 3),
                "loss": _rounded(reading.loss, 4),
                "test": _rounded(reading.test_accuracy, 3),
                "error": reading.error,
                "curve": [
                    [point.get("epoch"), _rounded(point.get("accuracy"), 2)]
                    for point in reading.curve
                    if point.get("accuracy") is not None
                ],
            }
            for reading in candidate.readings
        ],
        "export": export_command(report, candidate) if candidate.state == "complete" else "",
    }


def export_command(report: ParetoReport, candidate: Candidate) -> str:
    """The shell command that exports a candidate."""
    run = shlex.quote(report.source or report.name)
    return f"se-nas export {run} --pick {candidate.key} --out exported-{candidate.number}"


def _latency_pairs(report: ParetoReport) -> list[dict[str, Any]]:
    """Candidates whose latency was predicted in one trial and measured in another."""
    pairs = []
    for candidate in report.candidates:
        predicted = [item for item in candidate.readings if item.latency_source == "predicted"]
        measured = [item for item in candidate.readings if item.latency_source == "measured"]
        if predicted and measured:
            pairs.append(
                {
                    "number": candidate.number,
                    "predicted": _rounded(predicted[-1].latency_ratio, 4),
                    "measured": _rounded(measured[-1].latency_ratio, 4),
                    "interval": _pair(measured[-1].latency_interval, 4),
                }
            )
    return pairs


def _gain(gain: Gain | None) -> list[float | None] | None:
    return None if gain is None else [_rounded(gain.value, 4), _rounded(gain.half_width, 4)]


def _pair(interval: tuple[float, float] | None, digits: int) -> list[float | None] | None:
    return None if interval is None else [_rounded(interval[0], digits), _rounded(interval[1], digits)]


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), digits)


def _significant(value: float) -> float:
    return float(f"{value:.6g}")
