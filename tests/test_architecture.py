import json
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import make_divisible

from se_nas.architecture import Architecture
from se_nas.errors import ConfigError
from se_nas.sites import ABSENT, KEEP, Site, check_reductions, width_at


def site(index=0, channels=64, stage=0, **fields):
    return Site(
        **{
            "stage": stage,
            "block": index,
            "path": f"layer{stage}.{index}",
            "channels": channels,
            "reduction_base": channels,
            "resolution": (56, 56),
            **fields,
        }
    )


def architecture(widths, sites=None, **fields):
    sites = sites or tuple(site(index) for index in range(len(widths)))
    return Architecture(
        **{"backbone": "net", "position": "standard", "sites": sites, "widths": widths, **fields}
    )


@given(st.integers(1, 4096), st.sampled_from([1.5, 2, 3, 4, 8, 16, 32, 64]), st.sampled_from([0.0, 0.9]))
def test_rounding_is_timms(channels, reduction, limit):
    ours = site(channels=channels, rd_round_limit=limit).rd_channels(reduction)
    assert ours == make_divisible(channels * (1.0 / reduction), 8, round_limit=limit)


@pytest.mark.parametrize(("base", "reduction", "width"), [(32, 4, 8), (10, 4, 2), (14, 4, 4), (3, 16, 1)])
def test_nearest_rounding_is_pythons(base, reduction, width):
    assert site(reduction_base=base, rd_divisor=1).rd_channels(reduction) == width


def test_exact_rounding():
    assert site(channels=320).rd_channels(16, "exact") == 20
    assert site(channels=320).rd_channels(16) == 24
    with pytest.raises(ConfigError, match=r"reduction 65 is larger than the 64 channels.*layer0\.0"):
        site().rd_channels(65, "exact")


@pytest.mark.parametrize("reduction", [0, -4, float("nan")])
def test_reduction_out_of_range(reduction):
    with pytest.raises(ConfigError, match=f"reduction is {reduction}"):
        site().rd_channels(reduction)
    with pytest.raises(ConfigError, match=f"reduction is {reduction}"):
        check_reductions([site()], {0: reduction})


@pytest.mark.parametrize("rounding", ["timm", "exact"])
@pytest.mark.parametrize("reduction", [1e-320, 1e-300, 6e-5])
def test_reduction_that_makes_a_width_that_nobody_can_build(reduction, rounding):
    for divisor in (1, 8):
        with pytest.raises(
            ConfigError, match=r"makes the hidden width at site 'layer0\.0' larger than 1048576"
        ):
            site(rd_divisor=divisor).rd_channels(reduction, rounding)


def test_reduction_larger_than_any_channels():
    with pytest.raises(ConfigError, match=r"reduction 1000 is larger than the channels allow.*64"):
        check_reductions([site()], {0: 1000})


def test_aliases_are_one_architecture():
    # se_blocks.md: at C=64 the ratios 8, 16 and 32 build the same block.
    made = {architecture((site().rd_channels(ratio),)) for ratio in (8, 16, 32)}
    assert len(made) == 1
    assert architecture((16,)) not in made


def test_settings_that_no_block_uses_are_no_part_of_the_key():
    plain = architecture((0, 0))
    assert plain == architecture((0, 0), gate="tanh", bias=False, position="pre", act="silu")
    assert architecture((8, 0)) != architecture((8, 0), gate="tanh")
    assert architecture((8, 0)) != architecture((8, 0), bias=False)
    assert architecture((8, 0)) != architecture((8, 0), position="pre")
    assert architecture((8, 0)) == architecture((8, 0), act="relu")
    assert architecture((8, 0)) != architecture((0, 8))
    assert architecture((8, 0)) != architecture((8, 0), backbone="other")


NATIVE = Site(**{**site().__dict__, "native": "se", "native_rd_channels": 16})
NO_BOTTLENECK = Site(**{**site().__dict__, "native": "eca"})


def test_native_gates():
    kept = architecture((16,), (NATIVE,))
    assert kept.is_plain
    assert kept.num_gated == 1
    assert architecture((0,), (NATIVE,)) != kept
    assert architecture((8,), (NATIVE,)) != kept
    assert width_at(NATIVE, 4, native="keep") == 16
    assert width_at(NATIVE, 8, native="resize") == 8
    assert width_at(NATIVE, 4, native="remove") == ABSENT
    assert width_at(NO_BOTTLENECK, 4, native="resize") == KEEP
    assert width_at(NO_BOTTLENECK, 4, native="remove") == ABSENT


@pytest.mark.parametrize(
    ("sites", "widths", "message"),
    [
        ((site(),), (8, 8), "1 sites.*2 widths"),
        ((site(),), (-2,), "width at 'layer0.0' is -2"),
        ((site(),), (1 << 21,), "width at 'layer0.0' is 2097152; it must be 1048576 at most"),
        ((site(),), (True,), r"widths is \(True,\); it must be a list of integers"),
        ((site(),), (KEEP,), "keeps a native gate"),
        ((NO_BOTTLENECK,), (8,), "eca gate at 'layer0.0' has no width"),
        ((site(), site()), (8, 8), "'layer0.0' is named twice"),
    ],
)
def test_widths_that_do_not_fit(sites, widths, message):
    with pytest.raises(ConfigError, match=message):
        architecture(widths, sites)


@pytest.mark.parametrize("fields", [{"gate": "softmax"}, {"act": "maxout"}])
def test_unknown_settings(fields):
    with pytest.raises(ConfigError, match="allowed:"):
        architecture((8,), **fields)


@given(
    st.lists(st.sampled_from([0, 8, 16, 24]), min_size=1, max_size=6),
    st.booleans(),
    st.sampled_from(["relu", None]),
)
def test_round_trip(widths, bias, act):
    made = architecture(tuple(widths), bias=bias, act=act, timm_kwargs=(("act_layer", "silu"),))
    again = Architecture.from_dict(json.loads(json.dumps(made.to_dict())))
    assert again == made
    assert hash(again) == hash(made)
    assert again.sites == made.sites
    assert again.widths == made.widths
    assert dict(again.timm_kwargs) == {"act_layer": "silu"}


def test_from_dict_refuses_what_it_does_not_know():
    data = architecture((8,)).to_dict()
    with pytest.raises(ConfigError, match=r"schema 9.*Upgrade"):
        Architecture.from_dict({**data, "schema": 9})
    with pytest.raises(ConfigError, match="lacks bias"):
        Architecture.from_dict({name: value for name, value in data.items() if name != "bias"})
    with pytest.raises(ConfigError, match="unknown 'colour'"):
        Architecture.from_dict({**data, "colour": 1})


def test_description():
    sites = (site(0), site(1), site(0, stage=2, channels=256))
    assert architecture((0, 0, 0), sites).describe() == "no SE"
    assert architecture((8, 0, 16), sites).describe() == "stage 0: 1/2 γ=8; stage 2: 1/1 γ=16"
    assert architecture((8, 16, 0), sites).describe() == "stage 0: 2/2 γ=4–8"
    assert architecture((KEEP,), (replace(site(), native="eca"),)).describe() == "stage 0: 1/1 no bottleneck"


def test_architecture_needs_neither_torch_nor_timm():
    heavy = "[m for m in ('torch', 'timm', 'optuna') if m in sys.modules]"
    code = f"import sys, se_nas.architecture, se_nas.run; print({heavy})"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
