"""Built models against timm's own SE networks: outputs equal to the bit, integers of the paper's tables."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from se_nas import Architecture, build_model

PAIRS = [
    ("resnet18", "seresnet18", 11_779_624),
    ("resnet50", "seresnet50", 28_088_024),
    ("resnext50_32x4d", "seresnext50_32x4d", 27_559_896),
    ("resnet50t", "seresnet50t", 28_104_720),
    ("resnext26ts", "seresnext26ts", 10_388_064),
    ("darknet21", "sedarknet21", None),
    ("regnetx_002", None, None),
]


def randomised(model: nn.Module) -> nn.Module:
    """Weights in which no branch is zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if value.ndim > 1:
                value.copy_(noise * (2 / value[0].numel()) ** 0.5)
            else:
                value.copy_(0.2 * noise + float(name.endswith("weight")))
    return model.eval()


def num_params(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def largest_difference(first: nn.Module, second: nn.Module, side: int = 64) -> float:
    image = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return float((first.eval()(image) - second.eval()(image)).abs().max())


@pytest.mark.parametrize(("base", "twin", "params"), [pair for pair in PAIRS if pair[1]])
def test_equal_to_timm_to_the_bit(base: str, twin: str, params: int | None) -> None:
    built = build_model(Architecture.uniform(base, reduction=16))
    reference = randomised(timm.create_model(twin))
    built.load_state_dict(reference.state_dict())
    assert num_params(built) == num_params(reference)
    assert params is None or num_params(built) == params
    assert largest_difference(built, reference) == 0.0


def efficientnet_weights(reference: nn.Module) -> dict[str, torch.Tensor]:
    names = {"conv_reduce": "fc1", "conv_expand": "fc2"}
    state = reference.state_dict()
    for old, new in names.items():
        state = {key.replace(old, new): value for key, value in state.items()}
    return state


def test_efficientnet_lite_with_silu_is_efficientnet() -> None:
    built = build_model(Architecture.uniform("efficientnet_lite0", reduction=4, act_layer="silu"))
    reference = randomised(timm.create_model("efficientnet_b0"))
    built.load_state_dict(efficientnet_weights(reference))
    assert num_params(built) == 5_288_548
    assert largest_difference(built, reference) == 0.0


@pytest.mark.parametrize(("base", "twin"), [("resnetaa50", "seresnet50"), ("resnet50d", "seresnetaa50d")])
def test_same_shapes_but_another_network(base: str, twin: str) -> None:
    built = build_model(Architecture.uniform(base, reduction=16))
    reference = randomised(timm.create_model(twin))
    built.load_state_dict(reference.state_dict())
    assert largest_difference(built, reference) > 0.01


def test_efficientnet_lite_with_its_own_activation_is_not_efficientnet() -> None:
    built = build_model(Architecture.uniform("efficientnet_lite0", reduction=4))
    reference = randomised(timm.create_model("efficientnet_b0"))
    built.load_state_dict(efficientnet_weights(reference))
    assert largest_difference(built, reference) > 0.01


def test_regnet_se_has_the_widths_of_regnety() -> None:
    sites = Architecture.uniform("regnetx_002", reduction=4).sites
    block = timm.create_model("regnetx_002", se_ratio=0.25)
    widths = {
        name: module.fc1.out_channels for name, module in block.named_modules() if hasattr(module, "fc1")
    }
    assert {site.slot: site.rd_channels(4) for site in sites} == widths


def on_meta(arch: Architecture) -> nn.Module:
    with torch.device("meta"):
        return build_model(arch)


@pytest.mark.parametrize(
    ("reduction", "without_bias", "with_bias"),
    [
        (2, 45_676_584, 45_699_240),
        (4, 35_616_808, 35_635_688),
        (8, 30_586_920, 30_603_912),
        (16, 28_071_976, 28_088_024),
        (32, 26_814_504, 26_830_080),
    ],
)
def test_parameters_of_se_resnet50(reduction: int, without_bias: int, with_bias: int) -> None:
    for bias, expected in ((False, without_bias), (True, with_bias)):
        arch = Architecture.uniform("resnet50", reduction=reduction, bias=bias, rounding="exact")
        assert num_params(on_meta(arch)) == expected


@pytest.mark.parametrize(
    ("stages", "without_bias", "with_bias"),
    [
        ((0,), 25_581_608, 25_582_424),
        ((1,), 25_688_104, 25_690_280),
        ((2,), 26_343_464, 26_349_992),
        ((3,), 27_129_896, 27_136_424),
        ((0, 1, 2), 26_499_112, 26_508_632),
    ],
)
def test_parameters_with_se_in_some_stages(
    stages: tuple[int, ...], without_bias: int, with_bias: int
) -> None:
    for bias, expected in ((False, without_bias), (True, with_bias)):
        arch = Architecture.uniform("resnet50", reduction=dict.fromkeys(stages, 16), bias=bias)
        assert num_params(on_meta(arch)) == expected


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        ("standard", 28_071_976),
        ("pre", 27_548_200),
        ("post", 28_071_976),
        ("identity", 28_071_976),
        ("conv3x3", 25_714_216),
    ],
)
def test_parameters_of_the_positions(position: str, expected: int) -> None:
    arch = Architecture.uniform("resnet50", reduction=16, position=position, bias=False, rounding="exact")
    assert num_params(on_meta(arch)) == expected
