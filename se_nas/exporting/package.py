"""The exported folder: architecture, configuration, weights and card, and further formats beside them."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from se_nas.architecture import Architecture
from se_nas.arguments import checked
from se_nas.checkpoints.sealed import save_sealed
from se_nas.errors import CheckpointError, ConfigError, DiskError, not_allowed
from se_nas.exporting.card import model_card
from se_nas.exporting.citation import citation_file
from se_nas.exporting.equivalent import equivalent_in_timm
from se_nas.exporting.hub_config import hub_config
from se_nas.inference import Folded, fold_gate_scale
from se_nas.model import build_model
from se_nas.run import disk_error, whole_file, write_json, write_text

ARCHITECTURE, CONFIG, WEIGHTS, CARD = "architecture.json", "config.json", "model.safetensors", "README.md"
CITATION = "CITATION.cff"
FORMATS = ("timm", "safetensors", "onnx", "pt2", "standalone")
METADATA = (
    *("num_classes", "input_size", "mean", "std", "interpolation", "crop_pct", "class_names"),
    *("name", "reason", "run", "manifest", "row", "accuracy_interval", "interval_basis", "seeds"),
    *("retrained", "repo"),
)
"""Names that ``metadata`` may have."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export wrote.

    Attributes:
        path: the folder.
        files: names of the files in it.
        folded: blocks whose gate scale went into the layers before them, and those that kept it.
        timm_line: the ``timm.create_model`` line that builds the same network, verified; None without one.
        differences: for formats run by another program, the largest difference of its outputs from PyTorch's,
            as a share of the largest output.
        url: the repository of the Hugging Face hub that holds the same; None if it was not pushed.
    """

    path: Path
    files: tuple[str, ...]
    folded: Folded
    timm_line: str | None
    differences: Mapping[str, float] = field(default_factory=dict)
    url: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "path": str(self.path),
            "files": list(self.files),
            "gate_scale_folded": list(self.folded.folded),
            "gate_scale_left": dict(self.folded.left),
            "timm": self.timm_line,
            "differences": dict(self.differences),
            "url": self.url,
        }

    def __str__(self) -> str:
        """What a person wants to know after an export, one line each."""
        lines = [f"{self.path}: {', '.join(self.files)}"]
        if self.folded.folded or self.folded.left:
            kept = f", {len(self.folded.left)} keep the factor in the weights" if self.folded.left else ""
            lines.append(f"gate scale folded exactly in {len(self.folded.folded)} blocks{kept}")
        lines += [f"{name}: outputs differ from PyTorch's by {d:.1g}" for name, d in self.differences.items()]
        if self.timm_line:
            lines.append(f"the same network from timm alone: {self.timm_line.splitlines()[-1]}")
        if self.url:
            lines.append(f"pushed to {self.url}")
        return "\n".join(lines)


@checked
def export_model(
    architecture: Architecture,
    model: nn.Module | Mapping[str, Tensor],
    out: str | Path,
    *,
    metadata: Mapping[str, Any] | None = None,
    formats: Sequence[str] = ("timm",),
    force: bool = False,
) -> Exported:
    """Write a network to a new folder; nothing is left behind if that fails.

    Args:
        architecture: what the network is.
        model: the network, or its state dict. It is not changed.
        out: a folder that does not exist or is empty.
        metadata: facts for configuration and card; ``METADATA`` has the names: ``manifest`` is a `Manifest` and
            ``row`` a `TrialRow` of a run, ``repo`` where it will be on the hub, the rest are JSON values. Without
            ``num_classes`` it is the network's, or 1000 for a state dict; without ``input_size``, ``mean`` and
            ``std``, timm's.
        formats: the folder always holds architecture.json, config.json, model.safetensors, CITATION.cff and README.md,
            which is what "timm" and "safetensors" ask for; "onnx" adds model.onnx, "pt2" model.pt2
            (torch.export) and "standalone" model.py, a network that needs only torch and timm.
        force: replace an earlier export in that folder.

    Raises:
        ConfigError: a format or a name in ``metadata`` is unknown, or the folder is taken.
        CheckpointError: the weights do not fit the architecture.
        DiskError: the disk refuses the files.
    """
    facts = dict(metadata or {})
    out = Path(out)
    check_request(out, formats, force)
    _check_names("metadata", facts, METADATA)
    network = _network(architecture, model, facts)
    input_size = tuple(facts.get("input_size") or network.pretrained_cfg["input_size"])
    folded = _fold(network, input_size)
    line = equivalent_in_timm(architecture, network, input_size)
    differences: dict[str, float] = {}
    temporary = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        temporary.chmod(0o755)
        write_json(temporary / ARCHITECTURE, architecture.to_dict())
        write_json(temporary / CONFIG, hub_config(architecture, network, facts))
        with whole_file(temporary / WEIGHTS) as weights:
            save_sealed(_plain_tensors(network), weights, {"format": "pt"})
        title = facts.get("name") or f"{architecture.backbone} with SE, {architecture.key}"
        write_text(temporary / CITATION, citation_file(architecture, title))
        if "onnx" in formats:
            from se_nas.exporting.onnx_file import write_onnx

            differences["onnx"] = write_onnx(network, temporary / "model.onnx", input_size)
        if "pt2" in formats:
            from se_nas.exporting.program_file import write_program

            differences["pt2"] = write_program(network, temporary / "model.pt2", input_size)
        if "standalone" in formats:
            from se_nas.exporting.standalone import write_standalone

            write_standalone(architecture, network, temporary, input_size)
        files = tuple(sorted([CARD, *(path.name for path in temporary.iterdir())]))
        write_text(temporary / CARD, model_card(architecture, network, facts, files, line, folded))
        _move(temporary, out)
    except (DiskError, OSError, SafetensorError, RuntimeError) as error:
        raise disk_error(out, error) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return Exported(path=out, files=files, folded=folded, timm_line=line, differences=differences)


def check_request(out: Path, formats: Sequence[str], force: bool) -> None:
    """Raise ConfigError if an export to ``out`` in these formats would be refused."""
    if not formats:
        raise ConfigError(f"format is empty; allowed: {', '.join(FORMATS)}.")
    _check_names("format", formats, FORMATS)
    _check_free(out, force)


def _check_names(what: str, given: Any, allowed: Sequence[str]) -> None:
    for name in given:
        if name not in allowed:
            raise ConfigError(not_allowed(what, name, allowed))


def _check_free(out: Path, force: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise ConfigError(f"{out} is a file; give a folder that does not exist yet.")
    if not any(out.iterdir()):
        return
    if not (out / ARCHITECTURE).is_file():
        raise ConfigError(f"{out} is not empty and does not hold an exported network; choose another folder.")
    if not force:
        raise ConfigError(f"{out} already holds an exported network; choose another folder, or use force.")


def _network(
    architecture: Architecture, model: nn.Module | Mapping[str, Tensor], facts: Mapping[str, Any]
) -> Any:
    if isinstance(model, nn.Module):
        network = copy.deepcopy(model).cpu().eval()
        classes = facts.get("num_classes")
        if classes is not None and classes != network.num_classes:
            raise ConfigError(f"num_classes is {classes}, but the network has {network.num_classes}.")
        return network
    size = facts.get("input_size")
    in_chans = {"in_chans": size[0]} if size and size[0] != 3 else {}
    network = build_model(architecture, num_classes=facts.get("num_classes") or 1000, **in_chans)
    try:
        network.load_state_dict(dict(model), strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"the weights do not fit {architecture}: {error}") from error
    return network.eval()


@torch.no_grad()
def _fold(network: nn.Module, input_size: tuple[int, ...]) -> Folded:
    """Fold the gate scales of the network, and undo that if any bit of its output changes."""
    before = copy.deepcopy(network.state_dict())
    x = torch.randn(2, *input_size, generator=torch.Generator().manual_seed(0))
    x = x.to(next(network.parameters()).dtype)
    expected = network(x)
    folded = fold_gate_scale(network, input_size=input_size)  # type: ignore[arg-type]
    if folded.folded and not torch.equal(network(x), expected):
        network.load_state_dict(before)
        return Folded(left=dict.fromkeys(folded.folded, "the output would change") | folded.left)
    return folded


def _plain_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Contiguous copies that share no memory, as safetensors requires."""
    return {
        name: value.detach().to("cpu").clone(memory_format=torch.contiguous_format)
        for name, value in network.state_dict().items()
    }


def _move(source: Path, target: Path) -> None:
    """Rename a folder; an earlier export at the target is deleted only once the new one is in its place."""
    old = None
    if target.exists():
        old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.old."))
        target.replace(old / target.name)
    try:
        source.replace(target)
    except OSError:
        if old is not None:
            (old / target.name).replace(target)
        raise
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)
