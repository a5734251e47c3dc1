"""Exported folders: read back by us, by timm, and by processes that have no se_nas."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from se_nas.architecture import Architecture
from se_nas.errors import CheckpointError, ConfigError, RunError
from se_nas.exporting import export_model, load_exported, package
from se_nas.layers.squeeze_excite import SqueezeExcite
from se_nas.model import build_model
from se_nas.run import CostReading, Data, Device, Manifest, Space, TrialRow

SIZE = (3, 32, 32)
METADATA = {
    "input_size": SIZE,
    "mean": (0.1, 0.2, 0.3),
    "std": (0.4, 0.5, 0.6),
    "class_names": ["ant", "bee", "cat|x", "dog", "eel"],
}


def images(count: int = 2) -> Tensor:
    return torch.randn(count, *SIZE, generator=torch.Generator().manual_seed(5))


def trained(arch: Architecture, init: str = "identity") -> nn.Module:
    torch.manual_seed(0)
    model = build_model(arch, init=init, num_classes=5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        if isinstance(module, SqueezeExcite):
            nn.init.normal_(module.fc2.weight)
    return model.eval()


def without_se_nas(code: str, *arguments: object) -> str:
    """Run code in a process whose import of se_nas fails."""
    block = "import sys\nsys.modules['se_nas'] = None\n"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", block + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        cwd="/",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def arch() -> Architecture:
    return Architecture.uniform("resnet10t", reduction=8)


@torch.no_grad()
def test_a_folder_comes_back_with_equal_bits(arch: Architecture, tmp_path: Path) -> None:
    model = trained(arch)
    expected = model(images())
    exported = export_model(arch, model, tmp_path / "net", metadata=METADATA)
    files = ("CITATION.cff", "README.md", "architecture.json", "config.json", "model.safetensors")
    assert exported.files == files
    assert sorted(path.name for path in (tmp_path / "net").iterdir()) == list(exported.files)
    again = load_exported(tmp_path / "net")
    assert not again.training
    assert torch.equal(again(images()), expected)
    assert Architecture.from_dict(json.loads((tmp_path / "net/architecture.json").read_text())) == arch
    assert torch.equal(model(images()), expected), "the model itself is left alone"
    assert any(block.gate_scale == 2.0 for block in model.modules() if isinstance(block, SqueezeExcite))


def test_gate_scales_are_folded_where_that_is_exact(arch: Architecture, tmp_path: Path) -> None:
    folded = export_model(arch, trained(arch), tmp_path / "a", metadata=METADATA).folded
    assert len(folded.folded) == sum(width > 0 for width in arch.widths)
    assert not any("gate_scale" in key for key in load_file(tmp_path / "a/model.safetensors"))
    mobile = Architecture.uniform("mobilenetv2_035", reduction=8)
    model = trained(mobile)
    left = export_model(mobile, model, tmp_path / "b", metadata=METADATA).folded.left
    assert len(left) == len(mobile.sites)
    with torch.no_grad():
        assert torch.equal(load_exported(tmp_path / "b")(images()), model(images()))


@torch.no_grad()
def test_timm_loads_the_folder_as_its_own(arch: Architecture, tmp_path: Path) -> None:
    model = trained(arch)
    export_model(arch, model, tmp_path / "net", metadata=METADATA)
    name = f"local-dir:{tmp_path / 'net'}"
    again = timm.create_model(name, pretrained=True).eval()
    assert torch.equal(again(images()), model(images()))
    assert again.pretrained_cfg["label_names"] == METADATA["class_names"]
    config = timm.data.resolve_data_config({}, model=again)
    for key in ("input_size", "mean", "std"):
        assert tuple(config[key]) == METADATA[key]
    other_head = timm.create_model(name, pretrained=True, num_classes=3)
    assert other_head(images()).shape == (2, 3)
    assert torch.equal(other_head.conv1[0].weight, model.conv1[0].weight)
    features = timm.create_model(name, pretrained=True, features_only=True).eval()(images())
    assert [tuple(feature.shape[-2:]) for feature in features][-1] == (1, 1)
    grey = timm.create_model(name, pretrained=True, in_chans=1)
    assert grey(images()[:, :1]).shape == (2, 5)


def test_import_of_se_nas_alone_registers_and_stays_light(arch: Architecture, tmp_path: Path) -> None:
    export_model(arch, trained(arch), tmp_path / "net", metadata=METADATA)
    for first in (
        "import se_nas, sys; assert 'torch' not in sys.modules; import timm",
        "import timm, se_nas",
    ):
        code = f"{first}\nm = timm.create_model('local-dir:{tmp_path / 'net'}', pretrained=True)\n"
        code += "print(type(m).__name__, m.num_classes, 'se_nas' in timm.list_models())"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.stdout.strip() == "ResNet 5 False", done.stderr


def test_timms_entry_by_name_alone_says_what_it_is_for() -> None:
    with pytest.raises(ConfigError, match=r"for exported folders: timm.create_model\('local-dir:PATH'"):
        timm.create_model("se_nas")


def test_a_state_dict_is_enough(arch: Architecture, tmp_path: Path) -> None:
    model = trained(arch)
    export_model(arch, model.state_dict(), tmp_path / "net", metadata={**METADATA, "num_classes": 5})
    with torch.no_grad():
        assert torch.equal(load_exported(tmp_path / "net")(images()), model(images()))


@pytest.mark.parametrize(
    ("backbone", "settings"),
    [
        ("resnet10t", {}),
        ("resnet18", {"position": "identity"}),
        ("mobilenetv3_small_050", {"native": "remove"}),
        ("nf_regnet_b0", {"native": "remove"}),
        ("rexnet_100", {"native": "resize"}),
        ("mambaout_femto", {}),
        ("resnet10t", {"gate": "hard_sigmoid", "act": "silu", "bias": False}),
    ],
)
@torch.no_grad()
def test_standalone_text_gives_equal_bits(backbone: str, settings: dict[str, Any], tmp_path: Path) -> None:
    arch = Architecture.uniform(backbone, reduction=8, **settings)
    model = trained(arch)
    out = tmp_path / "net"
    export_model(arch, model, out, metadata=METADATA, formats=["standalone"])
    text = (out / "model.py").read_text()
    assert "import se_nas" not in text
    assert "from se_nas" not in text
    sys.path.insert(0, str(out))
    try:
        import model as standalone

        assert torch.equal(standalone.create_model()(images()), model(images()))
    finally:
        sys.path.remove(str(out))
        sys.modules.pop("model", None)


def test_standalone_and_program_run_where_se_nas_is_not(arch: Architecture, tmp_path: Path) -> None:
    model = trained(arch)
    out = tmp_path / "net"
    exported = export_model(arch, model, out, metadata=METADATA, formats=["standalone", "pt2"])
    assert exported.differences == {"pt2": 0.0}
    x = images(3)
    with torch.no_grad():
        save_file({"x": x, "y": model(x)}, tmp_path / "expected.safetensors")
    code = """
import torch
from safetensors.torch import load_file
folder, expected = sys.argv[1], load_file(sys.argv[2])
program = torch.export.load(folder + "/model.pt2").module()
assert 'timm' not in sys.modules
sys.path.insert(0, folder)
from model import create_model
with torch.no_grad():
    print(torch.equal(create_model()(expected['x']), expected['y']))
    print(torch.allclose(program(expected['x']), expected['y'], rtol=1e-5, atol=1e-6))
"""
    assert without_se_nas(code, out, tmp_path / "expected.safetensors").split() == ["True", "True"]


def test_the_timm_line_of_the_card_gives_the_exported_weights(tmp_path: Path) -> None:
    arch = Architecture.uniform("resnet18", reduction=16)
    model, out = trained(arch), tmp_path / "net"
    export_model(arch, model, out, metadata=METADATA)
    card = (out / "README.md").read_text()
    line = card.split("## In timm")[1].split("```python\n")[1].split("\n```")[0]
    assert line.endswith('checkpoint_path="model.safetensors")')
    x = images(3)
    with torch.no_grad():
        save_file({"x": x, "y": model(x)}, tmp_path / "expected.safetensors")
    code = f"""
import os, torch
from safetensors.torch import load_file
expected = load_file(sys.argv[2])
os.chdir(sys.argv[1])
{line.replace("timm.create_model", "model = timm.create_model")}
with torch.no_grad():
    print(torch.equal(model.eval()(expected["x"]), expected["y"]))
"""
    assert without_se_nas(code, out, tmp_path / "expected.safetensors").split() == ["True"]


def test_onnx_and_the_timm_line_run_where_se_nas_is_not(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    arch = Architecture.uniform("resnet18", reduction=16)
    model, out = trained(arch), tmp_path / "net"
    exported = export_model(arch, model, out, metadata=METADATA, formats=["onnx"])
    assert exported.timm_line is not None
    (tmp_path / "line.py").write_text(
        exported.timm_line.replace("timm.create_model", "model = timm.create_model")
    )
    x = images(3)
    with torch.no_grad():
        save_file({"x": x, "y": model(x)}, tmp_path / "expected.safetensors")
    code = """
import onnxruntime, torch
from safetensors.torch import load_file
folder, expected = sys.argv[1], load_file(sys.argv[2])
session = onnxruntime.InferenceSession(folder + "/model.onnx", providers=["CPUExecutionProvider"])
(got,) = session.run(None, {"images": expected['x'].numpy()})
print(torch.allclose(torch.from_numpy(got), expected['y'], rtol=1e-4, atol=1e-5))
exec(open(sys.argv[3]).read())
model.load_state_dict(load_file(folder + "/model.safetensors"))
with torch.no_grad():
    print(torch.equal(model.eval()(expected['x']), expected['y']))
"""
    told = without_se_nas(code, out, tmp_path / "expected.safetensors", tmp_path / "line.py")
    assert told.split() == ["True", "True"]


def test_onnx_runs_with_any_batch(arch: Architecture, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = trained(arch)
    exported = export_model(arch, model, tmp_path / "net", metadata=METADATA, formats=["onnx"])
    assert exported.differences["onnx"] <= 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "net/model.onnx", providers=["CPUExecutionProvider"])
    for batch in (1, 4):
        (got,) = session.run(None, {"images": images(batch).numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(got), model(images(batch)), rtol=1e-4, atol=1e-5)


def test_the_card_says_what_is_known_and_what_is_not(arch: Architecture, tmp_path: Path) -> None:
    row = TrialRow(
        number=0,
        key=arch.key,
        widths=arch.widths,
        phase="final",
        state="complete",
        accuracy=91.234,
        epochs=7,
        seed=3,
        costs={"params": CostReading(value=1234567), "macs": CostReading(value=42)},
    )
    manifest = Manifest(
        name="run",
        backbone=arch.backbone,
        objectives=("accuracy", "latency"),
        space=Space(name="per_block", size=16, fingerprint="f"),
        data=Data(
            name="a|b <script>",
            fingerprint="d",
            num_classes=5,
            num_train=10,
            num_val=5,
            split_seed=0,
            mean=(0.1, 0.2, 0.3),
            std=(0.4, 0.5, 0.6),
        ),
        input_size=SIZE,
        sites={},
        device=Device(type="cpu", name="a CPU"),
        recipe={},
    )
    facts = {**METADATA, "row": row, "manifest": manifest, "accuracy_interval": (90.0, 92.5), "seeds": [1, 3]}
    facts["interval_basis"] = "over seeds"
    export_model(arch, trained(arch), tmp_path / "net", metadata=facts)
    card = (tmp_path / "net/README.md").read_text()
    assert "91.23 % (95 % interval over seeds 90.00 to 92.50)" in card
    assert "| parameters | 1,234,567 |" in card
    assert "| latency | not recorded |" in card
    assert "<script>" not in card
    latency = CostReading(value=6.5, ratio=1.25, interval=(1.2, 1.3), source="measured")
    timed = {**facts, "row": replace(row, costs={"latency": latency})}
    export_model(arch, trained(arch), tmp_path / "timed", metadata=timed)
    words = "| latency | 6.500 ms, 1.250 times the plain backbone (1.200 to 1.300), measured on a CPU |"
    assert words in (tmp_path / "timed/README.md").read_text()
    assert "seed 3 of 1, 3" in card
    assert card.startswith("---\nlibrary_name: timm\n")


def test_the_timm_line_is_verified_before_it_is_claimed(arch: Architecture, tmp_path: Path) -> None:
    line = export_model(arch, trained(arch), tmp_path / "a", metadata=METADATA).timm_line
    assert line is not None
    scope: dict[str, Any] = {}
    *imports, call = line.splitlines()
    exec("\n".join(imports), scope)
    twin = eval(call, scope).eval()
    twin.load_state_dict(load_file(tmp_path / "a/model.safetensors"))
    with torch.no_grad():
        assert torch.equal(twin(images()), trained(arch)(images()))
    by_name = Architecture.uniform("resnet18", reduction=16)
    line = export_model(by_name, trained(by_name), tmp_path / "b", metadata=METADATA).timm_line
    assert line == "import timm\ntimm.create_model('seresnet18', num_classes=5)"
    summary = str(export_model(by_name, trained(by_name), tmp_path / "b", metadata=METADATA, force=True))
    assert "gate scale folded exactly in 8 blocks\n" in summary
    assert summary.endswith("from timm alone: timm.create_model('seresnet18', num_classes=5)")
    some = Architecture.from_widths("resnet10t", widths={arch.sites[0].path: 8})
    assert export_model(some, trained(some), tmp_path / "c", metadata=METADATA).timm_line is None


def test_a_taken_folder_is_refused_and_untouched(arch: Architecture, tmp_path: Path) -> None:
    out = tmp_path / "net"
    first = export_model(arch, trained(arch), out, metadata=METADATA)
    before = {name: (out / name).read_bytes() for name in first.files}
    with pytest.raises(ConfigError, match="already holds an exported network"):
        export_model(arch, trained(arch), out, metadata=METADATA)
    assert {name: (out / name).read_bytes() for name in first.files} == before
    (out / "old.txt").touch()
    export_model(arch, trained(arch), out, metadata=METADATA, force=True)
    assert not (out / "old.txt").exists()
    other = tmp_path / "photos"
    other.mkdir()
    (other / "me.jpg").touch()
    with pytest.raises(ConfigError, match="is not empty and does not hold an exported network"):
        export_model(arch, trained(arch), other, metadata=METADATA, force=True)
    with pytest.raises(ConfigError, match="is a file"):
        export_model(arch, trained(arch), other / "me.jpg", metadata=METADATA)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net", "photos"]


def test_a_full_disk_leaves_nothing_behind(
    arch: Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(package, "save_sealed", full)
    with pytest.raises(RunError, match="net cannot be written: No space left on device"):
        export_model(arch, trained(arch), tmp_path / "net", metadata=METADATA)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"formats": ["onx"]}, "format is 'onx'; allowed: .*Did you mean 'onnx'"),
        ({"metadata": {"colour": 1}}, "metadata is 'colour'"),
        ({"metadata": {"num_classes": 9}}, "num_classes is 9, but the network has 5"),
    ],
)
def test_bad_arguments_are_named_and_nothing_is_written(
    change: dict[str, Any], message: str, arch: Architecture, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        export_model(arch, trained(arch), tmp_path / "net", **{"metadata": METADATA, **change})
    assert list(tmp_path.iterdir()) == []


def test_weights_that_do_not_fit(arch: Architecture, tmp_path: Path) -> None:
    weights = trained(Architecture.plain("resnet10t")).state_dict()
    with pytest.raises(CheckpointError, match="do not fit resnet10t"):
        export_model(arch, weights, tmp_path / "net", metadata={**METADATA, "num_classes": 5})
    export_model(arch, trained(arch), tmp_path / "net", metadata=METADATA)
    save_file(weights, tmp_path / "net/model.safetensors")
    with pytest.raises(CheckpointError, match="does not fit its architecture"):
        load_exported(tmp_path / "net")


def test_a_damaged_folder_is_named(arch: Architecture, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"it has no architecture.json, config.json, model.safetensors"):
        load_exported(tmp_path)
    export_model(arch, trained(arch), tmp_path / "net", metadata=METADATA)
    (tmp_path / "net/model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(RunError, match=r"model.safetensors cannot be read"):
        load_exported(tmp_path / "net")
    (tmp_path / "net/config.json").write_text("{")
    with pytest.raises(RunError, match=r"config.json is damaged"):
        load_exported(tmp_path / "net")


def test_channels_last_weights_and_shared_tensors_are_saved(arch: Architecture, tmp_path: Path) -> None:
    model = trained(arch).to(memory_format=torch.channels_last)
    export_model(arch, model, tmp_path / "net", metadata=METADATA)
    with torch.no_grad():
        torch.testing.assert_close(
            load_exported(tmp_path / "net")(images()), model(images()), rtol=1e-4, atol=1e-5
        )
