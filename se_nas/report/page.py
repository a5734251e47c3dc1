"""The report as one HTML file: no server, no network, no script but its own, whose hash it names."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from se_nas import __version__
from se_nas.arguments import checked
from se_nas.documents import without_collections
from se_nas.objectives import COSTS, volume_unit
from se_nas.report.chart_data import pick_cards, selection_bias
from se_nas.report.differences import accuracy_gain, cost_gain
from se_nas.report.effects import modelled
from se_nas.report.methods import methods_paragraph
from se_nas.report.page_tables import candidate_rows, effect_rows, finalist_rows, front_rows, importance_rows
from se_nas.report.pareto_report import ParetoReport
from se_nas.report.tables import plus_minus
from se_nas.run import SEARCH, Earlier, Manifest, write_text
from se_nas.wording import counted, printable_data

_LONG = ("class_names", "definition", "sites")
_HEADS = {
    "data": "Data",
    "space": "Search space",
    "recipe": "Training",
    "runtime": "Running",
    "budget": "Budget",
    "device": "Device",
    "versions": "Versions",
}
_CONTENTS = (
    ("front", "Front"),
    ("sites", "Where SE ends up"),
    ("effects", "What mattered"),
    ("selection", "Selection bias"),
    ("search", "Search"),
    ("predicted", "Prediction"),
    ("candidates", "All candidates"),
    ("setup", "Configuration"),
    ("methods", "Methods"),
)


@checked
def write_html(report: ParetoReport, path: str | Path) -> Path:
    """Write the report as a self-contained page: pictures, tables, configuration and methods paragraph.

    All text that comes from users is escaped, its control characters are shown as escapes, and the page's content
    security policy allows no script except the page's own, by its hash.

    Raises:
        RunError: the file cannot be written; an older one stays as it was.
    """
    path = Path(path)
    with without_collections():
        write_text(path, render(report))
    return path


def render(report: ParetoReport) -> str:
    """The page as text."""
    drawn = report.drawn
    manifest = report.manifest
    bias = selection_bias(report)
    chosen = finalist_rows(report)
    shown = {"sites": bool(report.front), "effects": bool(report.front)}
    shown["selection"] = bool(bias or chosen)
    shown["predicted"] = bool(drawn["predicted"])
    return render_template(
        "page.html",
        scripts=("charts.js", "page.js"),
        data=drawn,
        has_effects=any(effect["accuracy"] or any(effect["costs"].values()) for effect in drawn["effects"]),
        has_blocks=bool(drawn["blocks"]),
        has_history=bool(drawn["history"]),
        has_curves=any(
            reading["phase"] == SEARCH and len(reading["curve"]) > 1
            for candidate in drawn["candidates"]
            for reading in candidate["readings"]
        ),
        bias=bias,
        report=report,
        title=f"SE in {manifest.backbone} on {manifest.data.name}",
        subtitle=_subtitle(report),
        decision=report.decision,
        warnings=manifest.warnings,
        tiles=_tiles(report),
        contents=[(name, text) for name, text in _CONTENTS if shown.get(name, True)],
        axes=drawn["axes"],
        surface=len(report.costs) > 1,
        has_repeats=report.noise is not None,
        front_caption=_front_caption(report),
        picks=pick_cards(report) if report.front else [],
        front=front_rows(report) if report.front else None,
        all=candidate_rows(report),
        finalists=chosen,
        importance=importance_rows(manifest.importance or {}),
        importance_best=(manifest.importance or {}).get("best", 0.1),
        modelled=bool(modelled(report)),
        evidence=_evidence(manifest.evidence or {}),
        earlier=[_earlier(one) for one in manifest.earlier if one.differs],
        all_effects=effect_rows(manifest.effects),
        num_searched=sum(bool(candidate.searched) for candidate in report.candidates),
        history_caption=_history_caption(report),
        curves_caption=_curves_caption(report),
        predicted=[(cost, _predicted_caption(cost)) for cost in drawn["predicted"]],
        effect_charts=[
            cost
            for cost in drawn["costs"]
            if any(effect["costs"].get(cost["name"]) for effect in drawn["effects"])
        ],
        csv="data:text/csv;charset=utf-8;base64," + base64.b64encode(report.csv.encode()).decode(),
        csv_name=f"{report.name}.csv",
        setup=_setup(manifest),
        command=manifest.command,
        methods=methods_paragraph(report),
    )


def render_template(name: str, *, scripts: Sequence[str], data: Mapping[str, Any], **values: Any) -> str:
    """A template with the shared style, the named scripts, and ``data`` as JSON that no text ends early.

    Texts of ``values`` are made printable here, those of ``data`` by whoever makes it.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    from se_nas.report.table_markup import rows_markup

    folder = files("se_nas.report") / "templates"
    css = (folder / "page.css").read_text(encoding="utf-8")
    script = "\n".join((folder / part).read_text(encoding="utf-8") for part in scripts)
    policy = f"default-src 'none'; style-src '{_hash(css)}'; script-src '{_hash(script)}'; img-src data:"
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    environment = Environment(
        loader=PackageLoader("se_nas.report"),
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else printable_data(value),
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["rows_markup"] = rows_markup
    return environment.get_template(name).render(
        css=Markup(css),
        script=Markup(script),
        policy=policy,
        data=Markup(text),
        version=__version__,
        **values,
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _subtitle(report: ParetoReport) -> str:
    manifest = report.manifest
    parts = [(manifest.created or "")[:10], manifest.device.name or manifest.device.type]
    return " · ".join(part for part in parts if part)


def _tiles(report: ParetoReport) -> list[tuple[str, str, str]]:
    """Name, value and a detail beneath."""
    tiles = []
    if report.front:
        best = max(report.front, key=lambda member: member.accuracy or 0.0)
        name = "the plain backbone" if report.plain is not None and best.key == report.plain.key else ""
        tiles.append(("best accuracy", f"{plus_minus(best)} %", name))
        if report.plain is not None and report.plain.accuracy is not None and best.key != report.plain.key:
            tiles.append(("plain backbone", f"{plus_minus(report.plain)} %", ""))
            gain = accuracy_gain(report, best, report.plain)
            if gain is not None:
                tiles.append(("best over plain", f"{gain.signed(2)} points", ""))
            added = cost_gain(report, best, report.costs[0])
            if added is not None:
                tiles.append((f"its added {report.costs[0].title}", f"{added.signed(1)} %", ""))
    states = [row.state for row in report.rows]
    tiles.append(("on the front", f"{len(report.front)}", f"of {len(report.candidates)} architectures"))
    tiles.append(("trials", f"{len(states)}", f"{states.count('stopped')} stopped early"))
    seconds = sum(row.seconds or 0 for row in report.rows)
    tiles.append(("time in training", _duration(seconds), ""))
    return tiles


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _front_caption(report: ParetoReport) -> str:
    parts = []
    if len(report.costs) > 1:
        parts.append(
            "Accuracy is traded against two costs, so a candidate that looks dominated in one picture may be on"
            " the front because of its other cost, which the fill of its mark shows (fuller is more). The dashed"
            " line is the best accuracy at each cost. The candidate under the pointer is marked in both pictures."
        )
    if report.noise is not None:
        parts.append(
            f"Vertical bars: 95 % intervals {report.basis}"
            f" (seed deviation {report.seed_deviation:.2f} points, pooled,"
            f" {report.noise.dof:g} degrees of freedom)."
        )
    elif report.manifest.data.num_val:
        parts.append(
            "Each accuracy is a single reading. Vertical bars: 95 % intervals over the choice of validation images"
            " alone (Wilson's); what another seed would change is unknown and comes on top."
        )
    else:
        parts.append("Each accuracy is a single reading, so there are no intervals.")
    spread = [cost.title for cost in report.costs if any(member.interval(cost) for member in report.counted)]
    if spread:
        parts.append(f"Horizontal bars: 95 % intervals of the measured {' and '.join(spread)}.")
    if report.hypervolume_interval is not None:
        found = [report.hypervolume(), *report.hypervolume_interval]
        volume, low, high = (f"{value / volume_unit(report.objectives):.3g}" for value in found)
        parts.append(f"Hypervolume {volume} (95 % interval {low} to {high}).")
    return " ".join(parts)


def _history_caption(report: ParetoReport) -> str:
    names = " × ".join([f"{objective.name} ({objective.unit})" for objective in report.objectives])
    return (
        f"Hypervolume of the search's readings as they came in ({names}; the reference point is a tenth of the"
        " range beyond the worst reading). Retraining of finalists is not part of it."
    )


def _curves_caption(report: ParetoReport) -> str:
    readings = [
        item for candidate in report.candidates for item in candidate.readings if item.phase == "search"
    ]
    stopped = [item for item in readings if item.state == "stopped"]
    spared = sum(item.epochs_planned - item.epochs for item in stopped)
    planned = sum(item.epochs_planned for item in readings if item.state in ("complete", "stopped"))
    control = _control(report.manifest.early_stopping or {})
    if not stopped:
        return f"No trial was stopped early. {control}"
    share = f", {100 * spared / planned:.0f} % of those planned" if planned else ""
    count = f"{len(stopped)} of {len(readings)} trials {'was' if len(stopped) == 1 else 'were'} stopped early"
    return f"{count}, which saved {spared} epoch{'' if spared == 1 else 's'}{share}. {control}"


def _control(stopping: Mapping[str, Any]) -> str:
    """What the candidates that always run to the end tell about wrong stops."""
    if not stopping.get("controls"):
        return ""
    words = (
        f"As a control, {_candidates(stopping['controls'])} ran to the end regardless of the rule; it would have"
        f" stopped {stopping.get('would_stop')} of them"
    )
    if not stopping.get("would_stop"):
        return f"{words}."
    low, high = stopping.get("wrong_interval") or (0.0, 1.0)
    wrong = stopping.get("wrong")
    which = f"for {wrong}, which ended on the front" if wrong else "for none: none ended on the front"
    return (
        f"{words}. That would have been wrong {which}"
        f" (95 % interval of the wrong share: {100 * low:.0f} to {100 * high:.0f} %)."
    )


def _candidates(count: int) -> str:
    return "1 candidate" if count == 1 else f"{count} candidates"


def _evidence(evidence: Mapping[str, Any]) -> str:
    """What the validation loss told the sampler's model; empty if it told nothing."""
    moved, own = evidence.get("correlation"), evidence.get("noise_correlation")
    if moved is None or own is None:
        return ""
    return (
        f"The model also used the validation loss of {counted(evidence['readings'], 'training')}. It correlates with"
        f" accuracy at {_signed(moved)} (their noise at {_signed(own)}), so each member of the front rests on the"
        f" equivalent of {evidence['equivalent_readings']:.1f} readings of accuracy."
    )


def _earlier(run: Earlier) -> str:
    """What the sampler knew from another run, and how far that held."""
    text = (
        f"The sampler began with what {counted(run.trainings, 'training')} of {Path(run.run).name} say of SE by depth"
        f" and width (that run differs in: {'; '.join(run.differs)})."
    )
    if run.trust is None:
        return text
    return (
        f"{text} In the end this explained {100 * run.trust:.0f} % of how its predictions of accuracy differ over the"
        " search space; the rest is from this run's own readings."
    )


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _predicted_caption(cost: Mapping[str, Any]) -> str:
    errors = sorted(abs(pair["predicted"] - pair["measured"]) for pair in cost["pairs"])
    median = 100 * (errors[(len(errors) - 1) // 2] + errors[len(errors) // 2]) / 2
    return (
        f"{_candidates(len(errors))} {'was' if len(errors) == 1 else 'were'} predicted before training and measured"
        f" later; median error {median:.2f} % of the plain backbone's {cost['word']}. On the dashed line, the two"
        " agree."
    )


def _setup(manifest: Manifest) -> list[tuple[str, list[tuple[str, str]]]]:
    """The manifest in blocks of names and values; long lists are left to the file."""
    values = manifest.to_json()
    other = {
        name: value
        for name, value in values.items()
        if name not in (*_HEADS, "sites", "effects", "command", "warnings", "schema", "name")
        and value is not None
        and not isinstance(value, dict)
    }
    blocks = [("Run", other), *((title, values[head]) for head, title in _HEADS.items())]
    return [
        (
            title,
            [
                (_words(name), text)
                for name, value in block.items()
                if name not in _LONG and (text := _value(value))
            ],
        )
        for title, block in (*blocks, *_conditions(manifest))
        if block
    ]


def _conditions(manifest: Manifest) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, cost in COSTS.items():
        measured = manifest.measured.get(name)
        if measured is None:
            continue
        baseline = f"{measured.baseline / cost.scale:.{cost.digits}f} {cost.unit}"
        title = f"{cost.title[:1].upper()}{cost.title[1:]} conditions"
        yield title, {**measured.conditions, "plain backbone": baseline}


def _words(name: str) -> str:
    return str(name).replace("_", " ").replace("se nas", "se-nas")


def _value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple) and len(value) > 8:
        return f"{len(value)} entries"
    if isinstance(value, list | tuple):
        return ", ".join(_value(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{_words(name)} {_value(item)}" for name, item in value.items()) or "–"
    return str(value)
