"""The methods paragraph of a paper, from what the run's manifest and table say and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from se_nas.report.pareto_report import ParetoReport

_CONDITIONS = ("batch_size", "threads", "precision", "mode", "backend")


def methods_paragraph(report: ParetoReport) -> str:
    """What was searched, on what, how it was trained, measured and repeated; unknown parts are left out."""
    manifest = report.manifest
    sentences = [
        _searched(report),
        _data(manifest.get("data") or {}, manifest.get("input_size")),
        _trained(report),
        _measured(manifest, [cost.name for cost in report.costs]),
        _repeated(report),
        _programs(manifest),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _searched(report: ParetoReport) -> str:
    manifest = report.manifest
    space = manifest.get("space") or {}
    positions = " or ".join(sorted(report.sites)) or "usual"
    sites = max((len(sites) for sites in report.sites.values()), default=0)
    size = f" of {space['size']:,} architectures" if isinstance(space.get("size"), int) else ""
    costs = " and ".join(_cost_name(cost.name) for cost in report.costs)
    ended: dict[str, int] = {}
    for candidate in report.candidates:
        ended[candidate.state] = ended.get(candidate.state, 0) + 1
    stopped = f", {ended['stopped']} of them stopped early" if ended.get("stopped") else ""
    return (
        f"Squeeze-and-excitation blocks (Hu et al., 2018) were placed in {manifest.get('backbone')} by se-nas"
        f" {manifest.get('se_nas_version')}: {sites} sites in the {positions} position, search space"
        f" '{space.get('name')}'{size}. The objectives were top-1 accuracy on validation data and {costs}."
        f" {len(report.candidates)} architectures were evaluated{stopped}, baselines included."
    )


def _data(data: Mapping[str, Any], input_size: Sequence[int] | None) -> str:
    if not data:
        return ""
    size = f", at {input_size[1]}x{input_size[2]} pixels" if input_size and len(input_size) == 3 else ""
    test = f" and {data['num_test']:,} kept for testing" if data.get("num_test") else ""
    return (
        f"Data: {data.get('name')} ({data.get('num_classes')} classes; {_count(data.get('num_train'))} images"
        f" for training, {_count(data.get('num_val'))} for validation{test};"
        f" split seed {data.get('split_seed')}{size})."
    )


def _trained(report: ParetoReport) -> str:
    recipe = dict(report.manifest.get("recipe") or {})
    epochs = sorted(
        {reading.epochs_planned for candidate in report.candidates for reading in candidate.searched}
    )
    settings = ", ".join(
        f"{name.replace('_', ' ')} {value}" for name, value in recipe.items() if _telling(name, value)
    )
    length = f" for {_range(epochs)} epochs" if epochs else ""
    return (
        f"Each candidate was trained{length}{f' ({settings})' if settings else ''}."
        if length or settings
        else ""
    )


def _measured(manifest: Mapping[str, Any], costs: Sequence[str]) -> str:
    parts = []
    if "latency" in costs:
        device = manifest.get("device") or {}
        latency = manifest.get("latency") or {}
        conditions = ", ".join(
            f"{name.replace('_', ' ')} {latency[name]}" for name in _CONDITIONS if _short(latency.get(name))
        )
        baseline = manifest.get("baseline_latency_ms")
        median = f", whose median was {baseline:.3f} ms" if baseline else ""
        parts.append(
            f"Latency was taken on {device.get('name') or device.get('type')}"
            f"{f' ({conditions})' if conditions else ''}, interleaved with the plain backbone{median}."
        )
    if "macs" in costs or "params" in costs:
        parts.append(
            "Multiply-adds are fvcore's count, in which an SE block's mean, gate and product are left out."
        )
    return " ".join(parts)


def _repeated(report: ParetoReport) -> str:
    if not report.front:
        return ""
    if not report.final:
        return (
            "The front is provisional: accuracies are the search's own readings, without retraining, so those"
            " of its members are biased upwards by the selection."
        )
    counts = sorted({len(candidate.counted) for candidate in report.counted})
    epochs = sorted({reading.epochs_planned for candidate in report.counted for reading in candidate.final})
    phase = report.manifest.get("finals") or {}
    adaptive = ""
    if phase and counts[-1] > phase["base_seeds"]:
        adaptive = (
            f" Each was to get {phase['base_seeds']} seeds; further ones, up to {phase['most_seeds']}, went to"
            " those whose readings were expected to explain most of the uncertainty about who is on the front."
        )
    noise = ""
    if report.noise is not None:
        noise = (
            f" Intervals are 95 % {report.basis}, with a seed deviation of"
            f" {report.seed_deviation:.2f} points pooled over candidates"
            f" ({report.noise.dof:g} degrees of freedom); differences are paired by seed"
            f"{' and image' if report.over_images else ''}."
        )
    return (
        f"{len(report.counted)} finalists, baselines among them, were retrained with {_range(counts)} new"
        f" seeds for {_range(epochs)} epochs, and the front was taken over their mean accuracies.{adaptive}{noise}"
    )


def _programs(manifest: Mapping[str, Any]) -> str:
    versions = manifest.get("versions") or {}
    listed = ", ".join(f"{name} {version}" for name, version in versions.items() if _short(version))
    return f"Software: {listed}." if listed else ""


def _cost_name(name: str) -> str:
    return {"latency": "latency", "macs": "multiply-adds", "params": "parameters"}.get(name, name)


def _range(values: Sequence[int]) -> str:
    return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "an unknown number of"


def _telling(name: str, value: Any) -> bool:
    """Whether a setting of the recipe says something: zeros, factors of one and defaults by name do not."""
    idle = value == 0 or value in ("auto", "off") or (name.endswith(("_factor", "_prob")) and value == 1)
    return _short(value) and name != "epochs" and not idle


def _short(value: Any) -> bool:
    """Whether a setting is worth a place in a sentence."""
    return isinstance(value, str | int | float) and not isinstance(value, bool) and value != ""
