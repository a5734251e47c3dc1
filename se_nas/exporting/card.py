"""``README.md`` of an exported folder: the model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from se_nas.architecture import Architecture
from se_nas.exporting.citation import references
from se_nas.inference import Folded
from se_nas.sites import ABSENT

_UNKNOWN = "not recorded"


def model_card(
    architecture: Architecture,
    network: Any,
    facts: Mapping[str, Any],
    files: Sequence[str],
    timm_line: str | None,
    folded: Folded,
) -> str:
    """Markdown; what is not known is said to be unknown."""
    manifest: Mapping[str, Any] = facts.get("manifest") or {}
    row: Mapping[str, Any] = facts.get("row") or {}
    name = _text(facts.get("name") or f"{architecture.backbone} with SE, {architecture.key}")
    parts = [
        _front_matter(),
        f"# {name}",
        f"{architecture.backbone} with squeeze-and-excitation: {architecture.describe()}."
        + (f"\n\nPicked because: {_text(facts['reason'])}" if facts.get("reason") else ""),
        "## Use\n\n" + _usage(files),
        "## Results\n\n" + _results(facts, row, manifest),
        "## Architecture\n\n" + _stages(architecture) + _start(folded),
        "## Data and training\n\n"
        + _training(facts, row, manifest)
        + (f"\n\n{_text(facts['retrained'])}" if facts.get("retrained") else ""),
        "## How it was found\n\n" + _search(manifest, facts),
    ]
    if timm_line:
        lines = "The same network, its weights included, from timm alone (verified at export):"
        parts.insert(4, f"## In timm\n\n{lines}\n\n```python\n{timm_line}\n```")
    parts += [
        "## License\n\nTo be filled in: the license of the weights, which depends on the data and on the"
        " weights that training started from.",
        "## Citation\n\nIn `CITATION.cff`:\n\n" + _citation(architecture),
    ]
    return "\n\n".join(parts) + "\n"


def _citation(architecture: Architecture) -> str:
    return "\n".join(f"- {reference.to_markdown()}" for reference in references(architecture))


def _front_matter() -> str:
    tags = "\n".join(
        f"- {tag}" for tag in ("image-classification", "timm", "squeeze-and-excitation", "se-nas")
    )
    return f"---\ntags:\n{tags}\nlibrary_name: timm\nlicense: other # to be filled in\n---"


def _usage(files: Sequence[str]) -> str:
    snippets = [
        "```python\nimport se_nas, timm\n\n"
        'model = timm.create_model("local-dir:PATH", pretrained=True).eval()\n'
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


def _results(facts: Mapping[str, Any], row: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    interval = facts.get("accuracy_interval")
    basis = f" {facts['interval_basis']}" if facts.get("interval_basis") else ""
    spread = f" (95 % interval{basis} {interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
    objectives = [
        ("top-1 on validation data", _number(row.get("accuracy"), "{:.2f} %") + spread),
        ("top-1 on test data", _number(row.get("test_accuracy"), "{:.2f} %")),
        ("expected calibration error", _number(row.get("ece"), "{:.2f} %")),
        ("parameters", _number(row.get("num_params"), "{:,}")),
        ("multiply-adds (fvcore)", _number(row.get("macs"), "{:,}")),
        ("latency", _latency(row, manifest)),
    ]
    seeds = facts.get("seeds")
    note = f"\n\nThese weights are seed {row.get('seed')} of {', '.join(map(str, seeds))}." if seeds else ""
    return "| measure | value |\n|---|---|\n" + "\n".join(f"| {k} | {v} |" for k, v in objectives) + note


def _latency(row: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    if row.get("latency_ms") is None:
        return _UNKNOWN
    ratio = row.get("latency_ratio")
    against = f", {ratio:.3f} times the plain backbone" if ratio else ""
    interval = row.get("latency_interval")
    against += f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    device = (manifest.get("device") or {}).get("name") or "unknown device"
    return f"{row['latency_ms']:.3f} ms{against}, {row.get('latency_source') or ''} on {_text(device)}"


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
        f"\n\n{len(folded.folded)} blocks started as 2·sigmoid and are plain sigmoids here: the factor"
        f" went into the layer before each, exactly{kept}."
    )


def _training(facts: Mapping[str, Any], row: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    data = manifest.get("data") or {}
    recipe = manifest.get("recipe") or {}
    size = facts.get("input_size")
    rows = {
        "data": f"{_text(data.get('name') or _UNKNOWN)} (fingerprint {data.get('fingerprint') or _UNKNOWN})",
        "images": f"{data.get('num_train')} training, {data.get('num_val')} validation" if data else _UNKNOWN,
        "classes": data.get("num_classes") or facts.get("num_classes") or _UNKNOWN,
        "input": "x".join(map(str, size)) if size else _UNKNOWN,
        "mean, std": f"{facts['mean']}, {facts['std']}"
        if facts.get("mean") and facts.get("std")
        else _UNKNOWN,
        "epochs": row.get("epochs") or _UNKNOWN,
        "recipe": ", ".join(f"{key}={_text(value)}" for key, value in recipe.items()) or _UNKNOWN,
    }
    return "| | |\n|---|---|\n" + "\n".join(f"| {key} | {value} |" for key, value in rows.items())


def _search(manifest: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    if not manifest:
        return f"{_UNKNOWN.capitalize()}."
    space = manifest.get("space") or {}
    return (
        f"se-nas {manifest.get('se_nas_version')}, `{_text(manifest.get('command') or '')}`, space"
        f" {_text(space.get('name') or '')} ({space.get('size')} architectures), run"
        f" {_text(manifest.get('name') or facts.get('run') or '')}, {manifest.get('created')}."
    )


def _number(value: Any, form: str) -> str:
    return _UNKNOWN if value is None else form.format(value)


def _text(value: Any) -> str:
    """Names that people give, without what Markdown would take for markup."""
    return str(value).replace("|", "\\|").replace("<", "&lt;").replace("`", "'").replace("\n", " ")
