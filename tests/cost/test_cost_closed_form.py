"""Costs by closed form against published integers, fvcore on the built model, and hand counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import timm
from hypothesis import given, settings
from hypothesis import strategies as st

from se_nas import Architecture, build_model, find_sites, measure_cost
from se_nas.cost import COST_NAMES, CostModel, closed_form
from se_nas.cost.counting import count
from se_nas.errors import BackboneError, ConfigError

# Native gates with and without norms, pooling, bottleneck; other gates; depthwise, NHWC, dense and plain nets.
QUICK = (
    "resnet18",
    "mobilenetv3_small_050",
    "regnety_002",
    "ese_vovnet19b_dw",
    "mambaout_femto",
    "eca_resnet33ts",
)
FAMILIES = (
    *QUICK,
    *("seresnet50", "efficientnet_b0", "efficientnet_lite0", "tf_efficientnetv2_b0", "mobilenetv2_050"),
    *("densenet121", "vgg11_bn", "inception_v3", "inception_resnet_v2", "xception41", "dla34", "dpn48b"),
    *("hrnet_w18_small", "res2net50_14w_8s", "resnest14d", "skresnet18", "gcresnext26ts", "legacy_seresnext26_32x4d"),
    *("cspresnet50", "darknet53", "sedarknet21", "vovnet39a", "selecsls42b", "tresnet_m", "ghostnet_100"),
    *("ghostnetv2_100", "hardcorenas_a", "rexnet_100", "repvgg_a0", "mobileone_s0", "convnext_atto", "mnasnet_small"),
    *("dm_nfnet_f0", "eca_nfnet_l0", "nf_regnet_b1", "resnetv2_50", "legacy_seresnet18", "fbnetc_100"),
    *("spnasnet_100", "tinynet_e", "lcnet_035", "repghostnet_050", "starnet_s1", "inception_next_atto", "hgnet_tiny"),
    *("mobilenetv4_conv_small", "rdnet_tiny", "gernet_s", "resnext50_32x4d", "regnetx_002", "convmixer_768_32"),
)  # fmt: skip


def random_widths(arch: Architecture, generator: np.random.Generator) -> tuple[int, ...]:
    widths = []
    for site in arch.sites:
        if site.native and site.native_rd_channels is None:
            choices = [-1, 0]
        else:
            choices = [site.native_rd_channels or 0, 0, 1, 5, 16, max(1, site.channels // 4)]
        widths.append(int(generator.choice(choices)))
    return tuple(widths)


def assert_equals_fvcore(backbone: str, size: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    plain = Architecture.plain(backbone)
    arch = replace(plain, widths=random_widths(plain, generator), bias=bool(generator.integers(2)))
    cost = measure_cost(arch, input_size=(3, size, size), num_classes=7)
    counts = count(build_model(arch, num_classes=7), (3, size, size))
    assert (cost.num_params, cost.macs, cost.activations) == (
        counts.num_params[""],
        counts.macs[""],
        counts.activations[""],
    )


@pytest.mark.parametrize("backbone", QUICK)
def test_equals_fvcore_on_the_built_model(backbone: str) -> None:
    assert_equals_fvcore(backbone, 64, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", FAMILIES)
@pytest.mark.parametrize("seed", [1, 2])
def test_equals_fvcore_in_every_family(backbone: str, seed: int) -> None:
    assert_equals_fvcore(backbone, 224, seed)


@pytest.mark.parametrize(
    ("reduction", "bias", "num_params"),
    [
        (2, False, 45_676_584), (2, True, 45_699_240), (4, False, 35_616_808), (8, True, 30_603_912),
        (16, False, 28_071_976), (16, True, 28_088_024), (32, False, 26_814_504), (32, True, 26_830_080),
    ],
)  # fmt: skip
def test_parameters_of_se_resnet50_are_the_published_ones(
    reduction: int, bias: bool, num_params: int
) -> None:
    arch = Architecture.uniform("resnet50", reduction=reduction, bias=bias, rounding="exact")
    assert measure_cost(arch).num_params == num_params


def test_macs_of_resnet50_with_and_without_se() -> None:
    assert measure_cost(Architecture.plain("resnet50")).macs == 4_111_512_576
    assert measure_cost(Architecture.uniform("resnet50", reduction=16)).macs == 4_114_027_520


def test_equals_timms_own_twin() -> None:
    size = (3, 96, 64)
    cost = measure_cost(Architecture.uniform("resnet18", reduction=16), input_size=size)
    twin = count(timm.create_model("seresnet18"), size)
    assert (cost.num_params, cost.macs, cost.activations) == (
        twin.num_params[""],
        twin.macs[""],
        twin.activations[""],
    )


def test_one_block_by_hand() -> None:
    """64 channels on a 16x8 map at input 64x32 (layer1 of resnet18 works at a quarter), hidden width 8."""
    size = (3, 64, 32)
    plain = Architecture.plain("resnet18")
    arch = Architecture.from_widths("resnet18", widths={plain.sites[0].path: 8})
    before, after = measure_cost(plain, input_size=size), measure_cost(arch, input_size=size)
    assert after.num_params - before.num_params == 2 * 64 * 8 + 8 + 64
    assert after.macs - before.macs == 2 * 64 * 8
    assert after.activations - before.activations == 8 + 64
    assert before.se_elementwise_ops == 0
    assert after.se_elementwise_ops == 2 * 64 * 16 * 8 + 64 + 8


def test_a_native_gate_that_is_kept_has_elementwise_operations_too() -> None:
    kept = measure_cost(Architecture.plain("mobilenetv3_small_050"), input_size=(3, 64, 64))
    removed = measure_cost(
        Architecture.uniform("mobilenetv3_small_050", reduction={}, native="remove"), input_size=(3, 64, 64)
    )
    assert kept.se_elementwise_ops > 0
    assert removed.se_elementwise_ops == 0
    assert removed.num_params < kept.num_params


def test_bias_is_counted() -> None:
    arch = Architecture.uniform("resnet18", reduction=16)
    without = replace(arch, bias=False)
    biases = sum(width + site.channels for site, width in zip(arch.sites, arch.widths, strict=True))
    size = (3, 64, 64)
    difference = (
        measure_cost(arch, input_size=size).num_params - measure_cost(without, input_size=size).num_params
    )
    assert difference == biases


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 512), min_size=8, max_size=8), min_size=1, max_size=20))
def test_arrays_agree_with_single_architectures(widths: list[list[int]]) -> None:
    model = CostModel.for_backbone("resnet18", input_size=(3, 64, 64))
    columns = model.evaluate(np.array(widths))
    for row, single in enumerate(widths):
        cost = model.cost(single)
        assert {name: int(columns[name][row]) for name in COST_NAMES} == {
            name: getattr(cost, name) for name in COST_NAMES
        }


def test_plain_is_the_backbone() -> None:
    plain = Architecture.plain("mobilenetv3_small_050")
    model = CostModel.for_architecture(plain, (3, 64, 64))
    assert model.cost(plain.widths) == model.plain


def test_the_cache_tells_sites_and_conditions_apart() -> None:
    plain = Architecture.plain("resnet18")
    small, large = (measure_cost(plain, input_size=(3, side, side)).macs for side in (32, 64))
    assert small < large
    half = replace(plain, sites=plain.sites[:4], widths=plain.widths[:4])
    assert len(CostModel.for_architecture(half, (3, 32, 32)).sites) == 4
    assert len(CostModel.for_architecture(plain, (3, 32, 32)).sites) == 8
    ten = measure_cost(plain, input_size=(3, 32, 32), num_classes=10)
    assert measure_cost(plain, input_size=(3, 32, 32)).num_params - ten.num_params == 990 * 513


def test_architectures_whose_sites_differ_are_counted_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sites that were found at another input size differ in their resolution alone."""
    arch = Architecture.uniform("test_resnet", reduction=4)
    found = find_sites("test_resnet", input_size=(3, 64, 64))
    other = replace(arch, sites=tuple(found))
    assert other.sites != arch.sites
    expected = measure_cost(arch)
    assert measure_cost(other) == expected
    monkeypatch.setattr(closed_form, "_build", None)
    for candidate in (arch, other, arch):
        assert measure_cost(candidate) == expected


@pytest.mark.parametrize(
    "widths",
    [np.zeros((2, 7), int), np.zeros(8, int), np.zeros((1, 8)), np.full((1, 8), -2)],
    ids=["columns", "shape", "type", "range"],
)
def test_wrong_widths_are_refused(widths: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="widths"):
        CostModel.for_backbone("resnet18", input_size=(3, 64, 64)).evaluate(widths)


@pytest.mark.parametrize("size", [(3, 0, 64), (3, 64), (-3, 64, 64)])
def test_input_size_must_be_three_positive_integers(size: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="input_size"):
        measure_cost(Architecture.plain("resnet18"), input_size=size)


def test_channels_that_the_backbone_has_not() -> None:
    with pytest.raises(BackboneError, match=r"1x64x64.*in_chans=1"):
        count(timm.create_model("resnet18"), (1, 64, 64))


def test_size_that_the_backbone_cannot_take() -> None:
    with pytest.raises(BackboneError, match=r"3x8x8.*3x299x299"):
        count(timm.create_model("inception_v3", aux_logits=False), (3, 8, 8))


def test_counting_restores_the_training_flag() -> None:
    model = timm.create_model("resnet18").train()
    count(model, (3, 32, 32))
    assert model.training


def test_a_failed_trace_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from fvcore.nn import jit_analysis

    original = jit_analysis._get_scoped_trace_graph
    calls = []

    def unlucky(*args: object) -> object:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("list_trace INTERNAL ASSERT FAILED")
        return original(*args)

    monkeypatch.setattr(jit_analysis, "_get_scoped_trace_graph", unlucky)
    assert count(timm.create_model("resnet18"), (3, 32, 32)).num_params[""] == 11_689_512
    assert len(calls) == 3  # multiply-adds twice, activations once
