"""The block against the implementations it must equal, its identity start, and what carries its scale."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from timm.layers import SEModule
from timm.layers.squeeze_excite import SqueezeExciteCl
from timm.models._efficientnet_blocks import SqueezeExcite as EfficientNetSE
from timm.utils import ModelEmaV3
from torch import nn
from torchvision.ops import SqueezeExcitation

from se_nas.errors import ConfigError
from se_nas.layers.squeeze_excite import SqueezeExcite
from se_nas.sites import ACTIVATIONS, GATES

FORMATS = [torch.contiguous_format, torch.channels_last]


def _copy_by_order(source: nn.Module, target: nn.Module) -> None:
    values = list(source.state_dict().values())
    target.load_state_dict(dict(zip(target.state_dict(), values, strict=True)), strict=True)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("act", ["relu", "silu", "leaky_relu", "gelu", "hard_swish", "relu6"])
@pytest.mark.parametrize("gate", ["sigmoid", "hard_sigmoid", "tanh", "relu"])
def test_equals_timm_to_the_bit(act: str, gate: str, memory_format: torch.memory_format) -> None:
    timm_block = SEModule(24, rd_channels=6, act_layer=act, gate_layer=gate)
    ours = SqueezeExcite(24, 6, act=act, gate=gate)
    _copy_by_order(timm_block, ours)
    x = torch.randn(3, 24, 9, 5).to(memory_format=memory_format)
    assert torch.equal(ours(x), timm_block(x))
    assert ours(x).is_contiguous(memory_format=memory_format)


def test_equals_timms_efficientnet_block_to_the_bit() -> None:
    timm_block = EfficientNetSE(32, rd_channels=8, act_layer="silu")
    ours = SqueezeExcite(32, 8, act="silu")
    _copy_by_order(timm_block, ours)
    x = torch.randn(2, 32, 14, 14)
    assert torch.equal(ours(x), timm_block(x))


def test_torchvisions_state_dict_loads_strictly_and_equals_to_the_bit() -> None:
    theirs = SqueezeExcitation(64, 4)
    ours = SqueezeExcite(64, 4, init="identity")
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(2, 64, 8, 8)
    assert torch.equal(ours(x), theirs(x))
    theirs.load_state_dict(ours.state_dict(), strict=True)


def test_equals_the_definition_of_the_paper() -> None:
    ours = SqueezeExcite(5, 2).double()
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    w1, w2 = ours.fc1.weight[:, :, 0, 0], ours.fc2.weight[:, :, 0, 0]
    hidden = (x.mean((2, 3)) @ w1.T + ours.fc1.bias).clamp(min=0)
    scale = 1 / (1 + torch.exp(-(hidden @ w2.T + ours.fc2.bias)))
    torch.testing.assert_close(ours(x), x * scale[:, :, None, None], rtol=1e-12, atol=1e-12)


def test_parameters_are_those_of_the_closed_form() -> None:
    for channels, width in [(64, 4), (7, 1), (256, 16)]:
        with_bias = sum(p.numel() for p in SqueezeExcite(channels, width).parameters())
        without = sum(p.numel() for p in SqueezeExcite(channels, width, bias=False).parameters())
        assert (with_bias, without) == (2 * channels * width + width + channels, 2 * channels * width)


def test_channels_last_tensors_equal_timms_linear_form() -> None:
    timm_block = SqueezeExciteCl(16, rd_channels=4)
    ours = SqueezeExcite(16, 4, channel_dim=-1)
    shapes = [value.shape for value in ours.state_dict().values()]
    values = [v.reshape(s) for v, s in zip(timm_block.state_dict().values(), shapes, strict=True)]
    ours.load_state_dict(dict(zip(ours.state_dict(), values, strict=True)))
    x = torch.randn(2, 7, 5, 16)
    torch.testing.assert_close(ours(x), timm_block(x), rtol=1e-6, atol=1e-6)
    plain = SqueezeExcite(16, 4)
    plain.load_state_dict(ours.state_dict())
    torch.testing.assert_close(
        ours(x), plain(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1), rtol=1e-6, atol=1e-6
    )
    assert ours(x).is_contiguous()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("channel_dim", [1, -1])
def test_identity_start_returns_its_input(gate: str, dtype: torch.dtype, channel_dim: int) -> None:
    block = SqueezeExcite(40, 8, gate=gate, init="identity", channel_dim=channel_dim).to(dtype)
    x = torch.randn(2, 40, 6, 40).to(dtype)
    assert torch.equal(block(x), x)


@given(
    act=st.sampled_from(ACTIVATIONS),
    channels=st.integers(1, 70),
    width=st.integers(1, 9),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_identity_start_whatever_the_widths(act: str, channels: int, width: int, seed: int) -> None:
    torch.manual_seed(seed)
    x = 30 * torch.randn(1, channels, 3, 3)
    assert torch.equal(SqueezeExcite(channels, width, act=act, init="identity")(x), x)
    assert torch.equal(SqueezeExcite(channels, width, act=act, bias=False, init="identity")(x), x)


@pytest.mark.parametrize("gate", GATES)
def test_identity_start_has_a_live_gradient(gate: str) -> None:
    torch.manual_seed(0)
    block = SqueezeExcite(16, 8, gate=gate, init="identity")
    optimizer = torch.optim.SGD(block.parameters(), lr=0.5)
    x, target = torch.randn(4, 16, 5, 5), torch.randn(4, 16, 5, 5)
    (block(x) - target).square().mean().backward()
    assert block.fc2.weight.grad.abs().max() > 1e-4
    assert block.fc1.weight.grad.abs().max() == 0
    optimizer.step()
    optimizer.zero_grad()
    (block(x) - target).square().mean().backward()
    assert block.fc1.weight.grad.abs().max() > 1e-6


def test_state_dict_carries_the_scale_only_where_it_is_not_one() -> None:
    assert set(SqueezeExcite(8, 2).state_dict()) == {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}
    identity = SqueezeExcite(8, 2, init="identity").state_dict()
    assert identity["gate_scale"].shape == ()
    assert identity["gate_scale"] == 2.0


def test_loading_sets_and_resets_the_scale_inside_a_model() -> None:
    one, two = (
        nn.Sequential(nn.Conv2d(3, 8, 3), SqueezeExcite(8, 2, init=i)) for i in ("default", "identity")
    )
    saved_one, saved_two = copy.deepcopy(one.state_dict()), copy.deepcopy(two.state_dict())
    one.load_state_dict(saved_two, strict=True)
    two.load_state_dict(saved_one, strict=True)
    assert (one[1].gate_scale, two[1].gate_scale) == (2.0, 1.0)
    one.load_state_dict({"0.bias": saved_one["0.bias"]}, strict=False)
    assert one[1].gate_scale == 2.0, "a dict without this block says nothing about its scale"
    one.load_state_dict(load(save(saved_two)), strict=True)
    assert one[1].gate_scale == 2.0


@pytest.mark.parametrize("value", [torch.tensor(0.0), torch.tensor(float("nan")), torch.ones(2)])
def test_a_bad_scale_in_a_state_dict_is_named(value: torch.Tensor) -> None:
    block = SqueezeExcite(8, 2)
    with pytest.raises(RuntimeError, match="gate_scale must be one finite number above 0"):
        block.load_state_dict({**block.state_dict(), "gate_scale": value})


def test_scale_survives_copies_averages_and_precision() -> None:
    model = nn.Sequential(SqueezeExcite(8, 2, init="identity"))
    assert copy.deepcopy(model)[0].gate_scale == 2.0
    for kwargs in ({}, {"foreach": True}):
        ema = ModelEmaV3(model, decay=0.9, **kwargs)
        for _ in range(3):
            ema.update(model)
        assert ema.module[0].gate_scale == 2.0
    averaged = torch.optim.swa_utils.AveragedModel(model, use_buffers=True)
    averaged.update_parameters(model)
    assert averaged.module[0].gate_scale == 2.0
    assert model.half().state_dict()["0.gate_scale"].dtype == torch.float16


def test_scale_survives_the_meta_device() -> None:
    with torch.device("meta"):
        block = SqueezeExcite(8, 2, init="identity")
    real = SqueezeExcite(8, 2, init="identity")
    block.to_empty(device="cpu").load_state_dict(real.state_dict(), strict=True)
    assert block.gate_scale == 2.0
    with torch.device("meta"):
        assigned = SqueezeExcite(8, 2)
    assigned.load_state_dict(real.state_dict(), strict=True, assign=True)
    x = torch.randn(1, 8, 4, 4)
    assert torch.equal(assigned(x), x)


def test_data_parallel_training_keeps_the_scale(tmp_path: Path) -> None:
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(SqueezeExcite(8, 2, init="identity"))
        model(torch.randn(2, 8, 4, 4)).sum().backward()
        assert model.module.fc2.weight.grad.abs().max() > 0
        assert model.state_dict()["module.gate_scale"] == 2.0
    finally:
        torch.distributed.destroy_process_group()


def test_distributed_state_dicts_carry_the_scale() -> None:
    from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict

    source = nn.Sequential(SqueezeExcite(8, 2, init="identity"))
    target = nn.Sequential(SqueezeExcite(8, 2))
    set_model_state_dict(target, get_model_state_dict(source))
    assert target[0].gate_scale == 2.0


@pytest.mark.parametrize("init", ["default", "identity"])
def test_torch_export_keeps_the_output(init: str) -> None:
    block = SqueezeExcite(16, 4, init=init).eval()
    nn.init.normal_(block.fc2.weight)
    x = torch.randn(2, 16, 8, 8)
    batch = torch.export.Dim("batch")
    program = torch.export.export(block, (x,), dynamic_shapes=({0: batch},))
    other = torch.randn(5, 16, 8, 8)
    assert torch.equal(program.module()(other), block(other))


def test_compile_without_breaks_follows_a_loaded_scale() -> None:
    block = SqueezeExcite(16, 4, init="identity")
    nn.init.normal_(block.fc2.weight)
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True)
    x = torch.randn(2, 16, 8, 8)
    torch.testing.assert_close(compiled(x), block(x))
    block.load_state_dict(SqueezeExcite(16, 4).state_dict())
    torch.testing.assert_close(compiled(x), block(x))


def test_autocast_to_bfloat16_is_still_the_identity() -> None:
    block = SqueezeExcite(16, 4, init="identity")
    x = torch.randn(2, 16, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(block(x), x)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"rd_channels": 0}, "rd_channels is 0; it must be an integer of at least 1"),
        ({"channels": -3}, "channels is -3"),
        ({"rd_channels": 2.5}, "rd_channels is 2.5"),
        ({"act": "rellu"}, "act is 'rellu'.*Did you mean 'relu'"),
        ({"gate": "softmax"}, "gate is 'softmax'; allowed: sigmoid, hard_sigmoid, tanh, relu"),
        ({"init": "zero"}, "init is 'zero'; allowed: default, identity"),
        ({"channel_dim": 2}, "channel_dim is 2"),
        ({"gate": "tanh", "bias": False, "init": "identity"}, "'tanh' needs bias=True"),
        ({"gate": "relu", "bias": False, "init": "identity"}, "'relu' needs bias=True"),
    ],
)
def test_bad_arguments_name_the_value(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SqueezeExcite(**{"channels": 8, "rd_channels": 2, **kwargs})


def test_every_gate_and_activation_builds_and_trains() -> None:
    for act, gate, bias in itertools.product(ACTIVATIONS, GATES, (True, False)):
        block = SqueezeExcite(6, 3, act=act, gate=gate, bias=bias)
        block(torch.randn(2, 6, 4, 4)).sum().backward()
        assert all(p.grad is not None for p in block.parameters())
