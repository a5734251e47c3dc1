"""Which runs may stand on one axis, which repeat each other, and in what their configurations differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from se_nas.report.pareto_report import ParetoReport

# What identifies a run, or describes how it went, and is not part of its configuration.
_NOT_CONFIGURATION = ("name", "runs", "seed")
_CONFIGURED = ("backbone", "timm_kwargs", "space", "data", "input_size", "objectives", "recipe", "device")
_UNNAMED = ("definition", "sites", "class_names", "skipped", "reasons", "remarks", "mean", "std")
_VOLATILE = ("clock_mhz", "load")
"""Conditions of measurements that are recorded but do not decide whether two of them are comparable."""


def objections(reports: Sequence[ParetoReport], names: Sequence[str]) -> list[str]:
    """What keeps each run off one axis with the first, one line each; empty if all may be compared.

    Data, split, input size and objectives must agree and, for each measured cost among the objectives, the
    device and the conditions. Seeds, backbones, spaces, samplers and recipes may differ: they are what a
    comparison is for.
    """
    return [
        f"{part} differs: {_text(own)} in {names[0]}, {_text(other)} in {name}"
        for report, name in zip(reports[1:], names[1:], strict=True)
        for part, (own, other) in _conditions(reports[0], report).items()
        if own != other
    ]


def _conditions(first: ParetoReport, second: ParetoReport) -> dict[str, tuple[Any, Any]]:
    """What must agree, by name."""
    a, b = first.manifest, second.manifest
    conditions: dict[str, tuple[Any, Any]] = {
        "data (fingerprint)": (a.data.fingerprint, b.data.fingerprint),
        "split seed": (a.data.split_seed, b.data.split_seed),
        "input size": (list(a.input_size), list(b.input_size)),
        "objectives": (list(a.objectives), list(b.objectives)),
    }
    measured = dict.fromkeys(cost.name for cost in (*first.costs, *second.costs) if not cost.exact)
    if measured:
        conditions["device type"] = a.device.type, b.device.type
        conditions["device name"] = a.device.name, b.device.name
    for name in measured:
        own, other = (
            dict(flat(manifest.measured[name].conditions)) if name in manifest.measured else {}
            for manifest in (a, b)
        )
        conditions |= {
            f"{name} condition {part}": (own.get(part), other.get(part))
            for part in dict.fromkeys((*own, *other))
            if part not in _VOLATILE
        }
    return conditions


def configuration(report: ParetoReport) -> dict[str, Any]:
    """What was asked for, flat: ``recipe.lr`` → 0.001. Names, seeds and measured values are left out."""
    manifest = report.manifest.to_json()
    chosen = {name: manifest[name] for name in _CONFIGURED}
    chosen |= {name: measured.conditions for name, measured in report.manifest.measured.items()}
    chosen |= {
        "config": {name: value for name, value in report.config.items() if name not in _NOT_CONFIGURATION}
    }
    return {
        name: value
        for name, value in flat(chosen)
        if not any(part in (*_UNNAMED, *_VOLATILE) for part in name.split("."))
    }


def differences(reports: Sequence[ParetoReport]) -> list[tuple[str, list[str]]]:
    """Parts in which the configurations differ, with the value of each run; seeds and versions come last."""
    parts = [configuration(report) for report in reports]
    for part, report in zip(parts, reports, strict=True):
        part["seed"] = report.manifest.seed
        part["se_nas_version"] = report.manifest.se_nas_version
        part |= dict(flat({"versions": report.manifest.versions}))
    names = dict.fromkeys(name for part in parts for name in part)
    table = [(name, [part.get(name) for part in parts]) for name in names]
    return [
        (name, [_text(value) for value in values])
        for name, values in table
        if any(value != values[0] for value in values)
    ]


def repeats(reports: Sequence[ParetoReport]) -> list[list[int]]:
    """Indices of the reports, repeats of one configuration together, in order of the first.

    If all would be one group, there is nothing to compare but the repeats themselves, and each stands alone.
    """
    groups: list[list[int]] = []
    for index, report in enumerate(reports):
        own = configuration(report)
        for group in groups:
            seeds = [reports[member].manifest.seed for member in group]
            if configuration(reports[group[0]]) == own and report.manifest.seed not in seeds:
                group.append(index)
                break
        else:
            groups.append([index])
    return groups if len(groups) > 1 else [[index] for index in range(len(reports))]


def flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings with their dotted names."""
    for name, item in value.items():
        if isinstance(item, Mapping):
            yield from flat(item, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", item


def _text(value: Any) -> str:
    return "nothing" if value is None else value if isinstance(value, str) else repr(value)
