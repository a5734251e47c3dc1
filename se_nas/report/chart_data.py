"""A report as plain data for pictures: the page and the picture files draw the same numbers."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from se_nas.objectives import COSTS, Objective, volume_unit
from se_nas.pareto import wilson
from se_nas.report.candidates import BASELINE_NAMES, Candidate, mean_accuracy
from se_nas.report.differences import Gain, accuracy_gain, describe
from se_nas.report.effects import block_effects, stage_effects
from se_nas.report.history import progress, retrained, retraining
from se_nas.report.pareto_report import ParetoReport
from se_nas.report.picks import names_of, pick
from se_nas.report.placement import reduction
from se_nas.sites import Site


def view(report: ParetoReport) -> dict[str, Any]:
    """Everything that is drawn, JSON-ready; costs are in the units of the objectives, not-a-number is None."""
    picks = names_of(report)
    return {
        "name": report.name,
        "label": report.label,
        "intervals": _what_intervals_are(report),
        "basis": report.label.split(";")[0],
        "final": report.final,
        "axes": [axis(cost) | {"objective": cost in report.costs} for cost in _known_costs(report)],
        "cost": report.costs[0].name,
        "costs": [axis(cost) for cost in COSTS.values()],
        "stages": _stages(report),
        "candidates": [_candidate(report, candidate, picks) for candidate in report.candidates],
        "front": [candidate.number for candidate in report.front],
        "effects": [
            {
                "stage": effect.stage,
                "placement": effect.placement,
                "accuracy": _gain(effect.accuracy),
                "costs": {name: _gain(gain) for name, gain in effect.costs.items()},
                "note": effect.note,
            }
            for effect in stage_effects(report)
        ],
        "blocks": [
            {
                "stage": effect.stage,
                "block": effect.block,
                "accuracy": _gain(effect.accuracy),
                "cost": _rounded(effect.cost_percent, 3),
            }
            for effect in block_effects(report)
        ],
        "usage": usage(report),
        "history": [
            [
                point.evaluations,
                point.epochs,
                _rounded(point.seconds, 1),
                _significant(point.hypervolume / volume_unit(report.objectives)),
            ]
            for point in progress(report)
        ],
        "predicted": [found for cost in COSTS.values() if (found := _predictions(report, cost))["pairs"]],
        "retrained": [
            {
                "number": candidate.number,
                "search": _rounded(candidate.selection_accuracy, 3),
                "final": _rounded(candidate.accuracy if report.final else mean_accuracy(candidate.final), 3),
                "interval": _pair(candidate.accuracy_interval if report.final else None, 3),
            }
            for candidate in retrained(report)
        ],
    }


def axis(cost: Objective) -> dict[str, Any]:
    """A cost as pictures need it: ``title`` for an axis, ``word`` in a sentence."""
    return {
        "name": cost.name,
        "title": cost.axis_title,
        "word": cost.title,
        "unit": cost.unit,
        "digits": cost.digits,
    }


def pick_cards(report: ParetoReport) -> list[dict[str, Any]]:
    """The standing picks with their reasons; one card per candidate."""
    return [
        {"names": names, "number": candidate.number, "reason": pick(report, names[0]).reason}
        for key, names in names_of(report).items()
        for candidate in report.front
        if candidate.key == key
    ]


def selection_bias(report: ParetoReport) -> str:
    """The winner's curse in one or two sentences; empty if nothing was retrained."""
    change = retraining(report)
    if change is None or (change.selected is None and change.baselines is None):
        return ""
    schedule = (
        "Both were trained on the same schedule"
        if change.same_schedule
        else "Search and retraining used different schedules, so a common shift is to be expected"
    )
    words = []
    if change.selected:
        words.append(
            "Retrained with new seeds, the candidates that the search chose moved by"
            f" {change.selected.signed(2)} points on average"
        )
    if change.baselines:
        joint = "the baselines, which are retrained in any case, moved by"
        words.append(f"{joint} {change.baselines.signed(2)}")
    text = "; ".join(words)
    return f"{text[0].upper()}{text[1:]}. {schedule}."


def usage(report: ParetoReport) -> list[dict[str, Any]]:
    """For each stage, the number of sites by realised γ, over the front and over all candidates."""
    groups = {"front": report.front, "all": report.candidates}
    counts: dict[int, dict[str, Counter[str]]] = {}
    for group, members in groups.items():
        for position, sites in report.sites.items():
            widths = [
                member.widths
                for member in members
                if member.position == position and len(member.widths) == len(sites)
            ]
            for site, column in zip(sites, zip(*widths, strict=True), strict=False):
                stage = counts.setdefault(site.stage, {"front": Counter(), "all": Counter()})
                for width, count in Counter(column).items():
                    stage[group][_label(site, width)] += count
    return [
        {"stage": stage, **{group: dict(found) for group, found in groups.items()}}
        for stage, groups in sorted(counts.items())
    ]


def _label(site: Site, width: int) -> str:
    return "none" if width == 0 else "kept" if width < 0 else f"{nominal(reduction(site, width)):g}"


def nominal(ratio: float) -> float:
    """The power of two nearest to a realised γ on a log scale: 15.6 and 17.1 are both about 16."""
    return float(2 ** max(0, round(math.log2(ratio))))


def _known_costs(report: ParetoReport) -> list[Objective]:
    """The objectives' costs first, then every other cost that is known of all that counts."""
    return [
        *report.costs,
        *(
            cost
            for cost in COSTS.values()
            if cost not in report.costs
            and report.counted
            and all(member.value(cost) is not None for member in report.counted)
        ),
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
        "counted": report.can_stand(candidate) if notable else candidate.accuracy is not None,
        "probability": _rounded(candidate.probability, 3),
        "accuracy": _rounded(candidate.accuracy, 3),
        "interval": _pair(candidate.accuracy_interval, 3),
        "images": _pair(_over_images(report, candidate), 3),
        "gain": _gain(gain),
        "seeds": [_rounded(reading.accuracy, 3) for reading in candidate.counted],
        "search": _rounded(candidate.selection_accuracy, 3),
        "test": _rounded(candidate.test_accuracy, 3),
        "costs": {name: _cost(candidate, cost) for name, cost in COSTS.items() if name in candidate.costs},
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


def _over_images(report: ParetoReport, candidate: Candidate) -> tuple[float, float] | None:
    """What the choice of validation images alone leaves open about a single reading, if nothing was repeated."""
    images = report.manifest.data.num_val
    if report.noise is not None or candidate.accuracy is None or not images:
        return None
    return wilson(candidate.accuracy, images)


def _what_intervals_are(report: ParetoReport) -> str:
    """For a legend; empty if nothing has an interval."""
    images = report.manifest.data.num_val
    if report.noise is not None:
        return f"95 % interval {report.basis}"
    return f"95 % interval over the choice of {images:,} images alone (one reading)" if images else ""


def export_command(report: ParetoReport, candidate: Candidate) -> str:
    """The shell command that exports a candidate."""
    storage, study = (report.config.get(name) for name in ("storage", "study"))
    if report.source is None and storage is not None and study is not None:
        run = f"--storage {shlex.quote(storage)} --study {shlex.quote(study)}"
    else:
        run = shlex.quote(report.source or report.name)
    return f"se-nas export {run} --pick {candidate.key} --out exported-{candidate.number}"


def _cost(candidate: Candidate, cost: Objective) -> dict[str, Any]:
    reading, interval = candidate.costs[cost.name], candidate.interval(cost)
    return {
        "value": _significant(reading.value / cost.scale),
        "ratio": _rounded(reading.ratio, 4),
        "interval": interval and [_significant(end / cost.scale) for end in interval],
        "predicted": not reading.measured,
    }


def _predictions(report: ParetoReport, cost: Objective) -> dict[str, Any]:
    """Candidates of which a cost was predicted in one trial and measured in another, as ratios."""
    pairs = []
    for candidate in report.candidates:
        if len(candidate.readings) < 2:
            continue
        costs = [item.costs[cost.name] for item in candidate.readings if cost.name in item.costs]
        known = [reading for reading in costs if reading.ratio is not None]
        predicted = [item for item in known if not item.measured]
        measured = [item for item in known if item.measured]
        if predicted and measured:
            pairs.append(
                {
                    "number": candidate.number,
                    "predicted": _rounded(predicted[-1].ratio, 4),
                    "measured": _rounded(measured[-1].ratio, 4),
                    "interval": _pair(measured[-1].interval, 4),
                }
            )
    return axis(cost) | {"pairs": pairs}


def _gain(gain: Gain | None) -> list[float | None] | None:
    return None if gain is None else [_rounded(gain.value, 4), _rounded(gain.half_width, 4)]


def _pair(interval: tuple[float, float] | None, digits: int) -> list[float | None] | None:
    return None if interval is None else [_rounded(interval[0], digits), _rounded(interval[1], digits)]


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), digits)


def _significant(value: float) -> float:
    return float(f"{value:.6g}")
