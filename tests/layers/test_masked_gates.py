"""Masked gates against timm's own of the chosen width."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import EffectiveSEModule, LayerNorm2d, SEModule, create_attn
from timm.layers.squeeze_excite import SqueezeExciteCl
from timm.models._efficientnet_blocks import SqueezeExcite as EfficientNetSE
from timm.models.senet import SEModule as LegacySE
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

from se_nas.layers.gate_resizing import resized, takes_padding
from se_nas.layers.masked_gates import (
    MaskedSqueezeExcite,
    mask_native,
    set_mask,
    unit_axes,
    write_padded,
)
from se_nas.layers.native_gates import factor_layer
from se_nas.layers.squeeze_excite import SqueezeExcite
from se_nas.sites import ACTIVATIONS, GATES

CHANNELS, LARGEST = 12, 9

BOTTLENECKS = {
    "timm": lambda h: SEModule(CHANNELS, rd_channels=h, act_layer="silu"),
    "maximum": lambda h: SEModule(CHANNELS, rd_channels=h, add_maxpool=True, bias=False),
    "norm": lambda h: SEModule(CHANNELS, rd_channels=h, norm_layer=nn.BatchNorm2d),
    "bare norm": lambda h: SEModule(
        CHANNELS, rd_channels=h, norm_layer=partial(nn.BatchNorm2d, affine=False)
    ),
    "efficientnet": lambda h: EfficientNetSE(CHANNELS, rd_channels=h, gate_layer=nn.Hardsigmoid),
    "channels last": lambda h: SqueezeExciteCl(CHANNELS, rd_channels=h),
    "torchvision": lambda h: SqueezeExcitation(CHANNELS, h),
    "legacy": lambda h: LegacySE(CHANNELS, CHANNELS // h),
}
WHOLE = {
    "ese": lambda: EffectiveSEModule(CHANNELS),
    "eca": lambda: create_attn("eca", CHANNELS),
    "context": lambda: create_attn("gc", CHANNELS),
}


class FunctionalSE(nn.Module):
    """Without a module for its sigmoid."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(CHANNELS, hidden, 1), nn.Conv2d(hidden, CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.expand(self.reduce(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


def maps(gate: nn.Module, seed: int = 0) -> Tensor:
    shape = (4, 5, 5, CHANNELS) if isinstance(gate, SqueezeExciteCl) else (4, CHANNELS, 5, 5)
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=draws, dtype=torch.float64).requires_grad_()


@torch.no_grad()
def fill(target: nn.Module, source: nn.Module) -> None:
    state = source.state_dict()
    for name, tensor in target.state_dict().items():
        write_padded(tensor, state[name])


def assert_same_step(masked: nn.Module, real: nn.Module) -> None:
    """Outputs, all gradients and all statistics of a pass in training mode."""
    x, y = maps(real), maps(real)
    output, expected = masked.train()(x), real.train()(y)
    torch.testing.assert_close(output, expected, rtol=1e-10, atol=1e-12)
    output.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-9, atol=1e-10)
    twins = dict(masked.named_parameters())
    for name, parameter in real.named_parameters():
        whole = torch.zeros_like(twins[name])
        write_padded(whole, parameter.grad)
        torch.testing.assert_close(twins[name].grad, whole, rtol=1e-9, atol=1e-10)
        assert not twins[name].grad[whole == 0].any()
    whole_state = masked.state_dict()
    for name, buffer in real.named_buffers():
        padded = torch.zeros_like(whole_state[name])
        write_padded(padded, buffer)
        torch.testing.assert_close(whole_state[name], padded, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", BOTTLENECKS)
@pytest.mark.parametrize("width", [2, 5, LARGEST])
def test_a_masked_native_gate_is_the_gate_of_that_width(kind: str, width: int) -> None:
    torch.manual_seed(0)
    made = BOTTLENECKS[kind](6).double()
    real = resized(made, width)
    masked = resized(made, LARGEST)
    mask_native(masked)
    fill(masked, real)
    set_mask(masked, width)
    assert_same_step(masked, real)


@pytest.mark.parametrize("make", [*(partial(f, 6) for f in BOTTLENECKS.values()), *WHOLE.values()])
def test_an_absent_native_gate_returns_its_input_to_the_bit(make: Callable[[], nn.Module]) -> None:
    gate = make().double()
    names = [name for name, _ in gate.named_parameters()]
    mask_native(gate, gain=2.0)
    set_mask(gate, 0)
    x = maps(gate)
    output = gate(x)
    assert torch.equal(output, x)
    output.backward(torch.full_like(x, 3.0))
    assert torch.equal(x.grad, torch.full_like(x, 3.0))
    assert [name for name, _ in gate.named_parameters()] == names
    assert all(not parameter.grad.any() for parameter in gate.parameters())


@pytest.mark.parametrize("make", WHOLE.values())
def test_a_kept_gate_without_bottleneck_is_unchanged(make: Callable[[], nn.Module]) -> None:
    gate = make().double()
    real = copy.deepcopy(gate)
    mask_native(gate)
    for width in (0, -1):
        set_mask(gate, width)
    assert torch.equal(gate(maps(gate)), real(maps(real)))
    assert gate.state_dict().keys() == real.state_dict().keys()


@pytest.mark.parametrize("gain", [1.0, 2.0])
def test_the_gain_of_a_block_is_part_of_a_present_gate(gain: float) -> None:
    for make in (BOTTLENECKS["timm"], FunctionalSE):
        gate = make(6).double()
        real = copy.deepcopy(gate)
        mask_native(gate, gain)
        set_mask(gate, 6)
        torch.testing.assert_close(gate(maps(gate)), gain * real(maps(real)), rtol=1e-12, atol=0)
        set_mask(gate, 0)
        assert torch.equal(gate(maps(gate)), maps(gate))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (partial(SEModule, CHANNELS), "gate"),
        (partial(SqueezeExciteCl, CHANNELS), "gate"),
        (partial(SqueezeExcitation, CHANNELS, 3), "scale_activation"),
        (partial(LegacySE, CHANNELS, 2), "sigmoid"),
        (partial(EffectiveSEModule, CHANNELS), "gate"),
        (partial(create_attn, "eca", CHANNELS), "gate"),
        (partial(FunctionalSE, 3), None),
        (partial(nn.BatchNorm2d, CHANNELS), None),
    ],
)
def test_finds_the_layer_that_returns_the_factors(make: Callable[[], nn.Module], name: str | None) -> None:
    assert factor_layer(make()) == name


def test_tells_whether_units_can_be_added() -> None:
    from timm.layers import GroupNorm1, ScaledStdConv2d

    assert all(takes_padding(make(6)) for make in BOTTLENECKS.values())
    for norm in (LayerNorm2d, GroupNorm1):
        assert not takes_padding(SEModule(CHANNELS, rd_channels=6, norm_layer=norm))
    standardised = SEModule(CHANNELS, rd_channels=6)
    standardised.fc2 = ScaledStdConv2d(6, CHANNELS, 1)
    assert not takes_padding(standardised), "its weights are standardised over the hidden units"
    assert not takes_padding(EffectiveSEModule(CHANNELS))


def test_trying_out_draws_nothing() -> None:
    gate = SEModule(CHANNELS)
    before = torch.get_rng_state()
    takes_padding(gate)
    factor_layer(gate)
    assert torch.equal(torch.get_rng_state(), before)


def test_axes_of_hidden_units() -> None:
    assert unit_axes(SEModule(CHANNELS, norm_layer=nn.BatchNorm2d)) == {
        "fc1.weight": 0,
        "fc1.bias": 0,
        "bn.weight": 0,
        "bn.bias": 0,
        "bn.running_mean": 0,
        "bn.running_var": 0,
        "fc2.weight": 1,
    }
    assert unit_axes(MaskedSqueezeExcite(8, 4)) == {"fc1.weight": 0, "fc1.bias": 0, "fc2.weight": 1}
    assert unit_axes(EffectiveSEModule(8)) == {}


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, LARGEST),
    act=st.sampled_from(ACTIVATIONS),
    gate=st.sampled_from(GATES),
    last=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_masked_block_is_the_block_of_that_width(
    width: int, act: str, gate: str, last: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    keywords = {"act": act, "gate": gate, "init": "identity", "channel_dim": -1 if last else 1}
    real = SqueezeExcite(CHANNELS, width, **keywords).double()
    for parameter in real.parameters():
        nn.init.normal_(parameter)
    masked = MaskedSqueezeExcite(CHANNELS, LARGEST, **keywords).double()
    state = real.state_dict()
    with torch.no_grad():
        for name, parameter in masked.named_parameters():
            write_padded(parameter, state[name])
    set_mask(masked, width)
    x = torch.randn(3, CHANNELS, 4, 4, dtype=torch.float64)
    x = x.permute(0, 2, 3, 1).contiguous() if last else x
    torch.testing.assert_close(masked(x), real(x), rtol=1e-10, atol=1e-12)
    # With any values beyond the mask, too.
    with torch.no_grad():
        for name, parameter in masked.named_parameters():
            nn.init.normal_(parameter)
            corner = tuple(slice(size) for size in state[name].shape)
            parameter[corner] = state[name]
    torch.testing.assert_close(masked(x), real(x), rtol=1e-10, atol=1e-12)
    set_mask(masked, 0)
    assert torch.equal(masked(x), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_masks_survive_precision_and_copies_and_stay_out_of_state_dicts(dtype: torch.dtype) -> None:
    block = MaskedSqueezeExcite(8, 4, init="identity")
    set_mask(block, 3)
    twin = copy.deepcopy(block).to(dtype)
    set_mask(block, 0)
    assert twin.idle.flatten().tolist() == [False, False, False, True]
    assert twin.idle.dtype == torch.bool
    assert not twin.absent
    assert block.state_dict().keys() == SqueezeExcite(8, 4, init="identity").state_dict().keys()
    x = torch.randn(2, 8, 4, 4).to(dtype)
    assert torch.equal(twin(x), x)
    assert twin(x).dtype == dtype


def test_scale_follows_a_loaded_state() -> None:
    block = MaskedSqueezeExcite(8, 4, init="identity")
    assert block.scale == 2.0
    block.load_state_dict(SqueezeExcite(8, 4).state_dict())
    assert block.scale == 1.0
    block.load_state_dict(SqueezeExcite(8, 4, init="identity").state_dict())
    assert block.scale == 2.0
    with_gain = MaskedSqueezeExcite(8, 4, gain=3.0, init="identity")
    assert with_gain.scale == 6.0
    assert with_gain.gate_scale == 2.0
