"""``README.md`` of an exported folder: the model card."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from se_nas.architecture import Architecture
from se_nas.exporting.citation import references
from se_nas.inference import Folded
from se_nas.objectives import COSTS, Objective
from se_nas.run import Device, Manifest, TrialRow
from se_nas.sites import ABSENT
from se_nas.wording import printable

_UNKNOWN = "not recorded"
TASK = "image-classification"
_HUB_DATA = "hfds/"


def model_card(
    architecture: Architecture,
    network: Any,
    facts: Mapping[str, Any],
    files: Sequence[str],
    timm_line: str | None,
    folded: Folded,
) -> str:
    """Markdown; what is not known is listed as such."""
    manifest: Manifest | None = facts.get("manifest")
    row: TrialRow | None = facts.get("row")
    name = _text(facts.get("name") or f"{architecture.backbone} with SE, {architecture.key}")
    parts = [
        f"# {name}",
        f"{architecture.backbone} with squeeze-and-excitation: {architecture.describe()}."
        + (f"\n\nPicked because: {_text(facts['reason'])}" if facts.get("reason") else ""),
        "## Use\n\n" + _usage(files, facts.get("repo")),
        "## Results\n\n" + _results(facts, row, manifest),
        "## Architecture\n\n" + _stages(architecture) + _start(folded),
        "## Data and training\n\n"
        + _training(facts, row, manifest)
        + (f"\n\n{_text(facts['retrained'])}" if facts.get("retrained") else ""),
        "## How it was found\n\n" + _search(manifest),
    ]
    if timm_line:
        lines = "The same network from timm alone, with these weights, in this folder (verified at export):"
        loading = f'{timm_line.removesuffix(")")}, checkpoint_path="model.safetensors")'
        parts.insert(3, f"## In timm\n\n{lines}\n\n```python\n{loading}\n```")
    parts += [
        "## License\n\nTo be filled in: the license of the weights, which depends on the data and on the initial"
        " weights.",
        "## Citation\n\nIn `CITATION.cff`:\n\n" + _citation(architecture),
    ]
    header = _metadata(architecture, name, row, manifest).to_yaml()
    return str(ModelCard(f"---\n{header}\n---\n\n" + "\n\n".join(parts) + "\n", ignore_metadata_errors=True))


def _metadata(
    architecture: Architecture, name: str, row: TrialRow | None, manifest: Manifest | None
) -> ModelCardData:
    """What the hub reads: the task, and accuracy as a share of 1, as its metric "accuracy" is."""
    readings = [] if row is None else [("validation", row.accuracy), ("test", row.test_accuracy)]
    # Some viewers show the header as it is.
    data = _UNKNOWN if manifest is None else re.sub("[<>]", "", printable(manifest.data.name))
    found = [
        EvalResult(
            task_type=TASK,
            task_name="Image Classification",
            dataset_type=data,
            dataset_name=data,
            dataset_split=split,
            metric_type="accuracy",
            metric_name=f"top-1 accuracy ({split})",
            metric_value=round(accuracy / 100, 6),
        )
        for split, accuracy in readings
        if accuracy is not None
    ]
    return ModelCardData(
        pipeline_tag=TASK,
        library_name="timm",
        license="other",
        tags=[TASK, "timm", "squeeze-and-excitation", "se-nas", architecture.backbone],
        metrics=["accuracy"],
        datasets=[data.removeprefix(_HUB_DATA)] if data.startswith(_HUB_DATA) else None,
        model_name=name if found else None,
        eval_results=found or None,
    )


def _citation(architecture: Architecture) -> str:
    return "\n".join(f"- {reference.to_markdown()}" for reference in references(architecture))


def _usage(files: Sequence[str], repo: str | None) -> str:
    snippets = [
        "```python\nimport se_nas, timm\n\n"
        + (f'model = timm.create_model("hf-hub:{repo}", pretrained=True).eval()\n```\n\n' if repo else "")
        + ("Or from this folder:\n\n```python\nimport se_nas, timm\n\n" if repo else "")
        + 'model = timm.create_model("local-dir:PATH", pretrained=True).eval()\n'
        'model = se_nas.load_exported("PATH")  # the same\n```'
    ]
    if "model.py" in files:
        snippets.append(
            "Without se-nas, in this folder:\n\n```python\nfrom model import create_model\n\n"
            "model = create_model()  # weights from model.safetensors\n```"
        )
    if "model.onnx" in files:
        snippets.append("`model.onnx`: input `images` (N, C, H, W), output `logits`, any N.")
    if "model.pt2" in files:
        snippets.append('`torch.export.load("model.pt2").module()`: PyTorch alone, any N.')
    return "\n\n".join(snippets)


def _results(facts: Mapping[str, Any], row: TrialRow | None, manifest: Manifest | None) -> str:
    interval = facts.get("accuracy_interval")
    basis = f" {facts['interval_basis']}" if facts.get("interval_basis") else ""
    spread = f" (95 % interval{basis} {interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
    measures = [
        ("top-1 on validation data", _number(row and row.accuracy, "{:.2f} %") + spread),
        ("top-1 on test data", _number(row and row.test_accuracy, "{:.2f} %")),
        ("expected calibration error", _number(row and row.ece, "{:.2%}").replace("%", " %")),
    ]
    notes = []
    for name, cost in COSTS.items():
        if row is not None and name in row.costs:
            measures.append((cost.title, _cost(cost, row, manifest.device if manifest else None)))
            notes.append(cost.definition)
        elif manifest is not None and name in manifest.objectives:
            measures.append((cost.title, _UNKNOWN))
    if row is not None and facts.get("seeds"):
        notes.append(f"These weights are seed {row.seed} of {', '.join(map(str, facts['seeds']))}.")
    table = "| measure | value |\n|---|---|\n" + "\n".join(f"| {k} | {v} |" for k, v in measures)
    return "\n\n".join([table, *filter(None, notes)])


def _cost(cost: Objective, row: TrialRow, device: Device | None) -> str:
    reading = row.costs[cost.name]
    if cost.exact:
        return f"{reading.value:,}"
    against = f", {reading.ratio:.3f} times the plain backbone" if reading.ratio else ""
    interval = reading.interval
    against += f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    where = _text(device.name) if device is not None and device.name else "an unknown device"
    value = f"{reading.value / cost.scale:.{cost.digits}f} {cost.unit}"
    return f"{value}{against}, {reading.source or 'measured'} on {where}"


def _stages(architecture: Architecture) -> str:
    lines = [
        f"Position {architecture.position}, gate {architecture.gate}.",
        "",
        "| site | channels | hidden width |",
    ]
    lines.append("|---|---|---|")
    for site, width in zip(architecture.sites, architecture.widths, strict=True):
        gate = "none" if width == ABSENT else f"kept ({site.native})" if width < 0 else str(width)
        lines.append(f"| `{site.path}` | {site.channels} | {gate} |")
    return "\n".join(lines)


def _start(folded: Folded) -> str:
    if not folded.folded and not folded.left:
        return ""
    kept = f"; {len(folded.left)} keep the factor 2 in `gate_scale`" if folded.left else ""
    return (
        f"\n\n{len(folded.folded)} block{'' if len(folded.folded) == 1 else 's'} trained with 2·sigmoid as gate"
        f" use a plain sigmoid here: the factor was folded exactly into the layer before each{kept}."
    )


def _training(facts: Mapping[str, Any], row: TrialRow | None, manifest: Manifest | None) -> str:
    data = manifest.data if manifest is not None else None
    recipe = manifest.recipe if manifest is not None else {}
    size = facts.get("input_size")
    rows = {
        "data": f"{_text(data.name)} (fingerprint {data.fingerprint})" if data else _UNKNOWN,
        "images": f"{data.num_train} training, {data.num_val} validation" if data else _UNKNOWN,
        "classes": (data.num_classes if data else facts.get("num_classes")) or _UNKNOWN,
        "input": "x".join(map(str, size)) if size else _UNKNOWN,
        "pixels": "upright (EXIF orientation applied), transparency on white, RGB; timm's own reader applies neither",
        "mean, std": f"{facts['mean']}, {facts['std']}"
        if facts.get("mean") and facts.get("std")
        else _UNKNOWN,
        "start": _text(manifest.start) if manifest is not None and manifest.start else _UNKNOWN,
        "epochs": (row and row.epochs) or _UNKNOWN,
        "recipe": ", ".join(f"{key}={_text(value)}" for key, value in recipe.items()) or _UNKNOWN,
    }
    return "| | |\n|---|---|\n" + "\n".join(f"| {key} | {value} |" for key, value in rows.items())


def _search(manifest: Manifest | None) -> str:
    if manifest is None:
        return f"{_UNKNOWN.capitalize()}."
    return (
        f"se-nas {manifest.se_nas_version}, `{_text(manifest.command)}`, space {_text(manifest.space.name)}"
        f" ({manifest.space.size} architectures), run {_text(manifest.name)}, {manifest.created}."
    )


def _number(value: Any, form: str) -> str:
    return _UNKNOWN if value is None else form.format(value)


def _text(value: Any) -> str:
    """Text that people wrote, without what Markdown would take for markup."""
    text = printable(str(value).replace("\n", " "))
    return text.replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
