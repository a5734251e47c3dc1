"""Export of a pick from a run folder: which weights are taken, and what is said where they are missing."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from se_nas.architecture import Architecture
from se_nas.errors import RunError
from se_nas.exporting import export, load_exported
from se_nas.exporting.selection import architecture_of
from se_nas.model import build_model
from se_nas.run import ROW_FIELDS, Manifest, RunFolder

SIZE = [3, 32, 32]


def _row(arch: Architecture, number: int, seed: int, accuracy: float, **more: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(ROW_FIELDS)
    row |= {
        "number": number,
        "key": arch.key,
        "description": arch.describe(),
        "position": arch.position,
        "widths": list(arch.widths),
        "params": {},
        "gate": arch.gate,
        "act": arch.act,
        "bias": arch.bias,
        "seed": seed,
        "phase": "final",
        "epochs": 3,
        "epochs_planned": 3,
        "state": "complete",
        "accuracy": accuracy,
        "curve": [],
        "num_params": 1000 + sum(arch.widths),
        "macs": 2000 + sum(arch.widths),
    }
    return row | more


@pytest.fixture(scope="module")
def archs() -> dict[str, Architecture]:
    return {
        "plain": Architecture.plain("resnet10t"),
        "late": Architecture.from_widths("resnet10t", widths=[0, 0, 0, 16]),
        "all": Architecture.uniform("resnet10t", reduction=4),
    }


@pytest.fixture
def run(archs: dict[str, Architecture], tmp_path: Path) -> RunFolder:
    plain, late, everywhere = archs.values()
    manifest = {
        "schema": 2,
        "name": "demo",
        "created": "2026-01-01T00:00:00+00:00",
        "se_nas_version": "0.1.0",
        "command": "se-nas search",
        "backbone": "resnet10t",
        "timm_kwargs": {},
        "space": {"name": "per_block", "size": 16, "fingerprint": "f"},
        "sites": {plain.position: [asdict(site) for site in plain.sites]},
        "data": {
            "name": "digits",
            "fingerprint": "d",
            "num_classes": 10,
            "class_names": [str(i) for i in range(10)],
            "num_train": 100,
            "num_val": 50,
            "num_test": 0,
            "split_seed": 0,
            "mean": [0.3, 0.3, 0.3],
            "std": [0.2, 0.2, 0.2],
        },
        "input_size": SIZE,
        "objectives": ["accuracy", "params"],
        "device": {"type": "cpu", "name": "a CPU"},
        "recipe": {"name": "short"},
        "budget": {},
        "seed": 0,
        "versions": {},
        "status": "finished",
        "provisional": False,
        "stop_reason": None,
        "warnings": [],
    }
    folder = RunFolder.create(tmp_path / "demo", {}, Manifest.from_json(manifest))
    folder.write_rows(
        [
            _row(plain, 0, 0, 90.0, baseline="plain"),
            _row(late, 1, 0, 92.0),
            _row(late, 2, 1, 94.0),
            _row(everywhere, 3, 0, 97.0, ece=0.1258),
        ]
    )
    return folder


def _keep(folder: RunFolder, arch: Architecture, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = build_model(arch, init="identity", num_classes=10).eval()
    folder.checkpoints.mkdir(exist_ok=True)
    save_file(model.state_dict(), folder.checkpoints / f"{arch.key}-s{seed}.safetensors")
    return model


@torch.no_grad()
def test_the_best_pick_comes_back(run: RunFolder, archs: dict[str, Architecture], tmp_path: Path) -> None:
    model = _keep(run, archs["all"], 0)
    exported = export(run.path, pick="best", out=tmp_path / "net")
    x = torch.randn(2, *SIZE)
    assert torch.equal(load_exported(exported.path)(x), model(x))
    card = (tmp_path / "net/README.md").read_text()
    assert "97.00 %" in card
    assert "| expected calibration error | 12.58 % |" in card
    assert "digits (fingerprint d)" in card
    assert "Picked because" in card
    assert f"| parameters | {1000 + sum(archs['all'].widths):,} |" in card


@torch.no_grad()
def test_of_several_seeds_the_best_that_was_kept(
    run: RunFolder, archs: dict[str, Architecture], tmp_path: Path
) -> None:
    models = [_keep(run, archs["late"], seed) for seed in (0, 1)]
    x = torch.randn(2, *SIZE)
    assert torch.equal(load_exported(export(run.path, "1", tmp_path / "a").path)(x), models[1](x))
    (run.checkpoints / f"{archs['late'].key}-s1.safetensors").unlink()
    by_key = export(run.path, archs["late"].key[:8], tmp_path / "b")
    assert torch.equal(load_exported(by_key.path)(x), models[0](x))


def test_the_folder_is_in_the_run_unless_given(run: RunFolder, archs: dict[str, Architecture]) -> None:
    _keep(run, archs["plain"], 0)
    exported = export(run.path, "0")
    assert exported.path == run.path / "export" / archs["plain"].key
    assert exported.timm_line == "import timm\ntimm.create_model('resnet10t', num_classes=10)"


def test_weights_that_were_not_kept(run: RunFolder, archs: dict[str, Architecture], tmp_path: Path) -> None:
    with pytest.raises(
        RunError, match=r"no weights of .* were kept in .*checkpoints\. Nothing is kept there"
    ):
        export(run.path, "best", tmp_path / "net")
    _keep(run, archs["late"], 0)
    with pytest.raises(RunError, match=rf"Kept: trials 1 \({archs['late'].key}\)\."):
        export(run.path, "best", tmp_path / "net")
    assert not (tmp_path / "net").exists()


def test_an_unknown_pick_lists_the_known(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no pick 'bst'.*best, knee, one-se.*'best'"):
        export(run.path, "bst", tmp_path / "net")
    with pytest.raises(RunError, match="no run folder"):
        export(tmp_path / "nowhere", "best", tmp_path / "net")


def test_a_row_and_its_manifest_make_the_architecture(run: RunFolder, archs: dict[str, Architecture]) -> None:
    for row in run.rows():
        assert architecture_of(row, run.manifest).key == row.key
    row = replace(run.rows()[3], widths=(0, 0, 0, 8))
    with pytest.raises(RunError, match="table and manifest disagree"):
        architecture_of(row, run.manifest)
    with pytest.raises(RunError, match="no sites at position 'pre'"):
        architecture_of(replace(row, position="pre"), run.manifest)


def test_damaged_weights_are_named(run: RunFolder, archs: dict[str, Architecture], tmp_path: Path) -> None:
    _keep(run, archs["all"], 0)
    path = run.checkpoints / f"{archs['all'].key}-s0.safetensors"
    path.write_bytes(b"nonsense")
    with pytest.raises(RunError, match=r"weights .*safetensors cannot be read"):
        export(run.path, "best", tmp_path / "net")
