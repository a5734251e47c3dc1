"""Inserted blocks survive what is done to models, and state dicts do not show the wrappers."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from timm.layers import convert_sync_batchnorm, freeze_batch_norm_2d
from torch import nn

from se_nas import Architecture, build_model, find_sites
from se_nas.backbones import insert
from se_nas.errors import BackboneError
from se_nas.layers.squeeze_excite import SqueezeExcite

WRAPPED = [("resnet10t", "pre"), ("resnet10t", "post"), ("vgg11_bn", "standard"), ("resnet10t", "identity")]


def num_gates(model: nn.Module) -> int:
    return sum(isinstance(module, SqueezeExcite) for module in model.modules())


def output(model: nn.Module) -> torch.Tensor:
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.eval()(image)


@pytest.mark.parametrize(("name", "position"), WRAPPED)
def test_state_dict(name: str, position: str) -> None:
    built = build_model(Architecture.uniform(name, reduction=16, position=position))
    plain = timm.create_model(name).state_dict()
    state = built.state_dict()
    assert [key for key in state if key in plain] == list(plain)
    assert not any("gated_host" in key for key in state)
    again = build_model(Architecture.uniform(name, reduction=16, position=position))
    again.load_state_dict(state)
    assert torch.equal(output(built), output(again))
    missing, unexpected = built.load_state_dict(plain, strict=False)
    assert not unexpected
    assert set(missing) == state.keys() - plain.keys()


def test_load_reports_what_is_wrong_without_the_wrappers_level() -> None:
    built = build_model(Architecture.uniform("resnet10t", reduction=16, position="pre"))
    state = built.state_dict()
    del state["layer1.0.conv1.weight"]
    state["layer2.0.conv1.nonsense"] = torch.zeros(1)
    missing, unexpected = built.load_state_dict(state, strict=False)
    assert missing == ["layer1.0.conv1.weight"]
    assert unexpected == ["layer2.0.conv1.nonsense"]


@pytest.mark.parametrize(("name", "position"), WRAPPED)
def test_deepcopy(name: str, position: str) -> None:
    built = build_model(Architecture.uniform(name, reduction=16, position=position))
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    twin = copy.deepcopy(built)
    assert torch.equal(output(built), output(twin))
    with torch.no_grad():
        for module in twin.modules():
            if isinstance(module, SqueezeExcite):
                module.fc2.bias.fill_(5.0)
    assert not torch.equal(output(built), output(twin))


@pytest.mark.parametrize("name", ["convnext_atto", "vgg11_bn", "resnet10t", "mobilenetv2_035"])
def test_batch_norm_conversions_keep_the_gates(name: str) -> None:
    for position in ("standard", None):
        built = build_model(Architecture.uniform(name, reduction=8, position=position))
        count, keys = num_gates(built), list(built.state_dict())
        converted = convert_sync_batchnorm(copy.deepcopy(built))
        assert num_gates(converted) == count
        assert list(converted.state_dict()) == keys
        frozen = freeze_batch_norm_2d(built)
        assert num_gates(frozen) == count


def test_the_block_keeps_its_class_and_methods() -> None:
    for position in ("standard", "pre", "post", "identity", "conv3x3"):
        built = build_model(Architecture.uniform("resnet10t", reduction=16, position=position))
        reference = timm.create_model("resnet10t")
        assert type(built) is type(reference)
        for block, own in zip(built.layer1, reference.layer1, strict=True):
            assert isinstance(block, type(own))
            assert block.conv1.weight.shape == own.conv1.weight.shape
        built.reset_classifier(7)
        assert output(built).shape == (1, 7)


def test_training_behaviour_is_kept_on_the_shortcut_position() -> None:
    arch = Architecture.uniform("resnet18", reduction=16, position="identity")
    built = build_model(arch, init="identity", drop_path_rate=0.9)
    plain = timm.create_model("resnet18", drop_path_rate=0.9)
    built.load_state_dict(plain.state_dict(), strict=False)
    image = torch.randn(4, 3, 64, 64)
    for mode in (True, False):
        results = []
        for model in (built.train(mode), plain.train(mode)):
            torch.manual_seed(3)
            results.append(model(image))
        assert torch.equal(*results)


def test_insert_into_a_live_model() -> None:
    model = timm.create_model("resnet10t").double()
    sites = find_sites(model)
    insert(model, [(sites[1], 8)], lambda site, width: SqueezeExcite(site.channels, width))
    assert num_gates(model) == 1
    assert model.layer2[0].se.fc1.weight.dtype == torch.float64
    with pytest.raises(BackboneError, match=r"'layer2.0.se' already holds a SqueezeExcite"):
        insert(model, [(sites[1], 8)], lambda site, width: SqueezeExcite(site.channels, width))


def test_insert_into_another_backbone() -> None:
    sites = find_sites("resnet10t", position="post")
    with pytest.raises(BackboneError, match=r"no module 'layer1.0.act2'"):
        insert(
            timm.create_model("vgg11"),
            [(sites[0], 8)],
            lambda site, width: SqueezeExcite(site.channels, width),
        )


def test_a_gate_on_a_block_that_has_its_own() -> None:
    built = build_model(Architecture.uniform("test_nfnet", reduction=4, position="post", native="keep"))
    plain = timm.create_model("test_nfnet")
    _, unexpected = built.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert num_gates(built) == 4
    assert len({key for key in built.state_dict() if "attn_last" in key}) == len(
        {key for key in plain.state_dict() if "attn_last" in key}
    )
