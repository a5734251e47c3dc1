"""Gates that timm builds: recognised in the real networks, resized with the function kept where it can be."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import timm
import torch
from timm.layers import EffectiveSEModule, LayerScale2d, Mlp, SEModule, create_attn
from timm.layers.squeeze_excite import SqueezeExciteCl
from timm.models._efficientnet_blocks import SqueezeExcite as EfficientNetSE
from torch import nn
from torchvision.ops import SqueezeExcitation

from se_nas.errors import BackboneError
from se_nas.layers.gate_resizing import removed, resized
from se_nas.layers.native_gates import describe_native, is_channel_gate
from se_nas.layers.squeeze_excite import SqueezeExcite

# kind and width read off timm's configurations, by hand
IN_THE_ZOO = [
    ("efficientnet_b0", "blocks.0.0.se", ("se", 8)),
    ("mobilenetv3_small_100", "blocks.0.0.se", ("se", 8)),
    ("regnety_002", "s1.b1.se", ("se", 8)),
    ("seresnet18", "layer4.1.se", ("se", 32)),
    ("legacy_seresnet18", "layer1.0.se_module", ("se", 4)),
    ("mnasnet_small", "blocks.3.0.se", ("se", 4)),
    ("ghostnet_100", "blocks.3.0.se", ("se", 20)),
    ("rexnet_100", "features.3.se", ("se", 19)),
    ("fastvit_t8", "final_conv.se", ("se", 48)),
    ("repvit_m1", "stages.0.blocks.0.se", ("se", 16)),
    ("ese_vovnet19b_dw", "stages.0.blocks.0.attn", ("ese", None)),
    ("eca_resnext26ts", "stages.0.0.attn", ("eca", None)),
]


@pytest.mark.parametrize(("name", "path", "expected"), IN_THE_ZOO)
def test_describes_timms_gates(name: str, path: str, expected: tuple[str, int | None]) -> None:
    with torch.device("meta"):
        module = timm.create_model(name).get_submodule(path)
    assert describe_native(module) == expected


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (SEModule(16, rd_channels=4, add_maxpool=True), ("se", 4)),
        (SqueezeExciteCl(16, rd_channels=4), ("se", 4)),
        (SqueezeExcitation(16, 4), ("se", 4)),
        (SqueezeExcite(16, 4, init="identity"), ("se", 4)),
        (SqueezeExcite(16, 4, channel_dim=-1), ("se", 4)),
        (SEModule(16, rd_channels=16), ("se", 16)),
        (EffectiveSEModule(16), ("ese", None)),
        (create_attn("eca", 16), ("eca", None)),
        (create_attn("ceca", 16), ("eca", None)),
        (create_attn("ecam", 16), ("eca", None)),
        (create_attn("gc", 16), ("globalcontext", None)),
    ],
)
def test_describes_gates_of_other_builders(module: nn.Module, expected: tuple[str, int | None]) -> None:
    assert describe_native(module) == expected


def test_a_saturated_gate_is_still_a_gate() -> None:
    module = SEModule(8, rd_channels=4, gate_layer="hard_sigmoid")
    nn.init.constant_(module.fc2.bias, 50.0)
    assert describe_native(module) == ("se", 4)


@pytest.mark.parametrize(
    "module",
    [
        nn.Identity(),
        nn.BatchNorm2d(8),
        LayerScale2d(8),
        nn.Conv2d(8, 8, 1),
        nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1)),
        Mlp(8, 4),
        create_attn("cbam", 16),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)),
    ],
)
def test_what_is_not_a_channel_gate(module: nn.Module) -> None:
    assert not is_channel_gate(module)
    with pytest.raises(BackboneError, match=f"{type(module).__name__} is not a channel gate"):
        describe_native(module)


def test_trying_out_leaves_the_module_as_it_was() -> None:
    module = SEModule(8, rd_channels=4, norm_layer=nn.BatchNorm2d)
    before = copy.deepcopy(module.state_dict())
    module.train()
    describe_native(module)
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_removed_returns_its_input() -> None:
    x = torch.randn(2, 8, 4, 4)
    assert removed(SEModule(8))(x) is x


MODULES = [
    lambda: SEModule(12, rd_channels=6, act_layer="silu"),
    lambda: SEModule(12, rd_channels=6, bias=False, gate_layer="hard_sigmoid"),
    lambda: SEModule(12, rd_channels=6, norm_layer=nn.BatchNorm2d),
    lambda: SEModule(12, rd_channels=6, norm_layer=partial(nn.BatchNorm2d, affine=False)),
    lambda: EfficientNetSE(12, rd_channels=6),
    lambda: SqueezeExciteCl(12, rd_channels=6),
    lambda: SqueezeExcitation(12, 6),
    lambda: SqueezeExcite(12, 6, init="identity"),
]


def _trained(make: object) -> nn.Module:
    torch.manual_seed(3)
    module = make()  # type: ignore[operator]
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    for name, buffer in module.named_buffers():
        if "running" in name:
            nn.init.uniform_(buffer, 0.5, 1.5)
    return module.eval()


def _input(module: nn.Module) -> torch.Tensor:
    return torch.randn(2, 5, 5, 12) if isinstance(module, SqueezeExciteCl) else torch.randn(2, 12, 5, 5)


@pytest.mark.parametrize("make", MODULES)
def test_a_larger_width_keeps_the_function_and_can_learn(make: object) -> None:
    module = _trained(make)
    wider = resized(module, 9)
    x = _input(module)
    assert type(wider) is type(module)
    assert describe_native(wider) == ("se", 9)
    torch.testing.assert_close(wider(x), module(x), rtol=1e-5, atol=1e-6)
    wider(x).square().sum().backward()
    expand = [p for p in wider.parameters() if p.ndim > 1][1]
    assert expand.grad[:, 6:].abs().max() > 0


@pytest.mark.parametrize("make", MODULES)
def test_the_same_width_is_the_same_function(make: object) -> None:
    module = _trained(make)
    x = _input(module)
    same = resized(module, 6)
    assert torch.equal(same(x), module(x))
    assert same.state_dict().keys() == module.state_dict().keys()


@pytest.mark.parametrize("make", MODULES)
def test_a_smaller_width_drops_units_without_effect_first(make: object) -> None:
    module = _trained(make)
    weights = [p for p in module.parameters() if p.ndim > 1]
    with torch.no_grad():
        weights[1][:, [0, 2, 5]] = 0.0
    smaller = resized(module, 3)
    x = _input(module)
    assert describe_native(smaller) == ("se", 3)
    torch.testing.assert_close(smaller(x), module(x), rtol=1e-5, atol=1e-6)


def test_importance_is_norm_in_times_norm_out() -> None:
    module = SEModule(2, rd_channels=3)
    with torch.no_grad():
        # importances by hand: 5 * 1, 1 * 4, 2 * 3
        module.fc1.weight.copy_(torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 2.0]])[:, :, None, None])
        module.fc2.weight.copy_(torch.tensor([[1.0, 0.0, 3.0], [0.0, 4.0, 0.0]])[:, :, None, None])
    two = resized(module, 2)
    assert two.fc1.weight[:, :, 0, 0].tolist() == [[3.0, 4.0], [0.0, 2.0]]
    assert two.fc2.weight[:, :, 0, 0].tolist() == [[1.0, 3.0], [0.0, 0.0]]
    assert torch.equal(two.fc1.bias, module.fc1.bias[[0, 2]])
    assert torch.equal(two.fc2.bias, module.fc2.bias)


def test_a_norm_between_counts_in_the_importance() -> None:
    module = SEModule(2, rd_channels=2, norm_layer=nn.BatchNorm2d)
    with torch.no_grad():
        module.fc1.weight.fill_(1.0)
        module.fc2.weight.fill_(1.0)
        module.bn.weight.copy_(torch.tensor([1.0, 2.0]))
        module.bn.running_var.copy_(torch.tensor([1.0, 100.0]))
    one = resized(module, 1)
    assert one.bn.running_var.item() == 1.0, "2 / sqrt(100) is less than 1 / sqrt(1)"


def test_resizing_a_whole_pretrained_style_network_keeps_the_rest() -> None:
    model = timm.create_model("rexnet_100", num_classes=7).eval()
    before = copy.deepcopy(model.state_dict())
    for path in [name for name, module in model.named_modules() if isinstance(module, SEModule)]:
        model.set_submodule(path, resized(model.get_submodule(path), 5))
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in after if ".se." not in name)
    model.train()(torch.randn(2, 3, 64, 64)).sum().backward()


def test_resizing_keeps_device_precision_mode_and_frozen_weights() -> None:
    module = SEModule(8, rd_channels=4, norm_layer=nn.BatchNorm2d).bfloat16().requires_grad_(False).eval()
    other = resized(module, 2)
    assert not other.training
    assert {p.dtype for p in other.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in other.parameters())
    with torch.device("meta"):
        meta = SEModule(8, rd_channels=4)
    assert all(p.is_meta for p in resized(meta, 2).parameters())


@pytest.mark.parametrize("width", [0, -1, 2.0, True])
def test_an_invalid_width_is_refused(width: object) -> None:
    with pytest.raises(BackboneError, match=r"rd_channels is .*; it must be an integer of at least 1"):
        resized(SEModule(8), width)  # type: ignore[arg-type]


def test_a_gate_without_bottleneck_cannot_be_resized() -> None:
    with pytest.raises(BackboneError, match=r"EffectiveSEModule has no bottleneck.*keep it or remove it"):
        resized(EffectiveSEModule(8), 2)
