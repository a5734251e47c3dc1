"""The methods paragraph of a paper, from what the run's manifest and table say, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from se_nas.objectives import Objective
from se_nas.report.pareto_report import ParetoReport
from se_nas.run import Data, Manifest

_CONDITIONS = ("batch_size", "threads", "precision", "mode", "backend")


def methods_paragraph(report: ParetoReport) -> str:
    """What was searched, on which data, and how it was trained, measured and repeated; unknown parts are left out."""
    manifest = report.manifest
    sentences = [
        _searched(report),
        _data(manifest.data, manifest.input_size),
        _trained(report),
        *(_measured(manifest, cost) for cost in report.costs),
        _repeated(report),
        _programs(manifest),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _searched(report: ParetoReport) -> str:
    manifest = report.manifest
    positions = " or ".join(sorted(report.sites)) or "usual"
    sites = max((len(sites) for sites in report.sites.values()), default=0)
    costs = " and ".join(cost.title for cost in report.costs)
    ended: dict[str, int] = {}
    for candidate in report.candidates:
        ended[candidate.state] = ended.get(candidate.state, 0) + 1
    stopped = f", {ended['stopped']} of them stopped early" if ended.get("stopped") else ""
    return (
        f"Squeeze-and-excitation blocks (Hu et al., 2018) were placed in {manifest.backbone} by se-nas"
        f" {manifest.se_nas_version}: {sites} sites in the {positions} position, search space"
        f" '{manifest.space.name}' of {manifest.space.size:,} architectures. The objectives were top-1 accuracy"
        f" on validation data and {costs}. {len(report.candidates)} architectures were evaluated{stopped},"
        " baselines included."
    )


def _data(data: Data, input_size: Sequence[int]) -> str:
    test = f" and {data.num_test:,} kept for testing" if data.num_test else ""
    return (
        f"Data: {data.name} ({data.num_classes} classes; {data.num_train:,} images"
        f" for training, {data.num_val:,} for validation{test};"
        f" split seed {data.split_seed}, at {input_size[1]}x{input_size[2]} pixels)."
    )


def _trained(report: ParetoReport) -> str:
    recipe = report.manifest.recipe
    epochs = sorted(
        {reading.epochs_planned for candidate in report.candidates for reading in candidate.searched}
    )
    settings = ", ".join(
        f"{name.replace('_', ' ')} {value}" for name, value in recipe.items() if _telling(name, value)
    )
    length = f" for {_counted(epochs, 'epoch')}" if epochs else ""
    start = report.manifest.start
    trained = start if start.startswith("fine-tuned") else f"trained {start}".rstrip()
    return (
        f"Each candidate was {trained}{length}{f' ({settings})' if settings else ''}."
        if length or settings
        else ""
    )


def _measured(manifest: Manifest, cost: Objective) -> str:
    """How a cost was taken; empty if its name says that."""
    measured = manifest.measured.get(cost.name)
    if measured is None:
        return cost.definition
    conditions = ", ".join(
        f"{name.replace('_', ' ')} {measured.conditions[name]}"
        for name in _CONDITIONS
        if _short(measured.conditions.get(name))
    )
    device = manifest.device.name or manifest.device.type
    baseline = f"{measured.baseline / cost.scale:.{cost.digits}f} {cost.unit}"
    # A ratio is taken from measurements in turn.
    against = (
        f", interleaved with the plain backbone, whose median was {baseline}"
        if f"{cost.name}_ratio" in cost.columns
        else f"; that of the plain backbone was {baseline}"
    )
    title = cost.title[:1].upper() + cost.title[1:]
    sentence = f"{title} was measured on {device}{f' ({conditions})' if conditions else ''}{against}."
    return f"{sentence} {cost.definition}".rstrip()


def _repeated(report: ParetoReport) -> str:
    if not report.front:
        return ""
    if not report.final:
        return _provisional(report)
    counts = sorted({len(candidate.counted) for candidate in report.counted})
    epochs = sorted({reading.epochs_planned for candidate in report.counted for reading in candidate.final})
    phase = report.manifest.finals
    adaptive = ""
    if phase is not None and counts[-1] > phase.base_seeds:
        seeds = "1 seed" if phase.base_seeds == 1 else f"{phase.base_seeds} seeds"
        adaptive = (
            f" The plan was {seeds} each; additional ones, up to {phase.most_seeds}, went to those whose readings"
            " were expected to resolve most of the uncertainty about which candidates are on the front."
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
        f"{len(report.counted)} finalists, baselines among them, were retrained with {_counted(counts, 'new seed')}"
        f" for {_counted(epochs, 'epoch')}, and the front was taken over their mean accuracies.{adaptive}{noise}"
    )


def _provisional(report: ParetoReport) -> str:
    retrained = sum(bool(candidate.final) for candidate in report.counted)
    readings = f"{_counted(sorted({len(item.counted) for item in report.counted}), 'reading')} per candidate"
    if not retrained:
        return (
            f"The front is provisional: accuracies are those of the search ({readings}), without retraining, so"
            " selection biases those of its members upwards."
        )
    return (
        f"The front is provisional: accuracies are means of all readings ({readings}; {retrained} of"
        f" {len(report.counted)} candidates were retrained), and selection biases those of the others upwards."
    )


def _programs(manifest: Manifest) -> str:
    listed = ", ".join(f"{name} {version}" for name, version in manifest.versions.items() if version)
    return f"Software: {listed}." if listed else ""


def _counted(values: Sequence[int], noun: str) -> str:
    """``1 epoch``, ``2 epochs``, ``2 to 4 epochs``."""
    number = str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"
    return f"{number} {noun}{'' if number == '1' else 's'}"


def _telling(name: str, value: Any) -> bool:
    """Whether a setting of the recipe is worth telling: zeros, factors of one and "auto" or "off" are not."""
    idle = value == 0 or value in ("auto", "off") or (name.endswith(("_factor", "_prob")) and value == 1)
    return _short(value) and name != "epochs" and not idle


def _short(value: Any) -> bool:
    """Whether a setting has a form that fits into a sentence."""
    return isinstance(value, str | int | float) and not isinstance(value, bool) and value != ""
