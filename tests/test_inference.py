"""Rewrites for inference: what is exact is compared to the bit, what is not with the stated tolerance."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from timm.layers import SEModule, StdConv2d
from torch import Tensor, nn

from se_nas.architecture import Architecture
from se_nas.inference import TOLERANCE, LinearSqueezeExcite, fold_gate_scale, optimize_for_inference
from se_nas.layers.squeeze_excite import SqueezeExcite
from se_nas.model import build_model

SIZE = (3, 64, 64)


def _lively(model: nn.Module) -> nn.Module:
    """Norms and gates as after a training: nothing is zero, nothing is one."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        if isinstance(module, SqueezeExcite):
            nn.init.normal_(module.fc2.weight)
            nn.init.normal_(module.fc2.bias)
    return model.eval()


def _images(count: int = 2) -> Tensor:
    return torch.randn(count, *SIZE, generator=torch.Generator().manual_seed(2))


def _blocks(model: nn.Module) -> list[SqueezeExcite]:
    return [module for module in model.modules() if isinstance(module, SqueezeExcite)]


@pytest.mark.parametrize("backbone", ["resnet10t", "vgg11_bn", "regnetx_002", "mobilenetv2_035"])
@torch.no_grad()
def test_folding_leaves_every_bit_of_the_output(backbone: str) -> None:
    arch = Architecture.uniform(backbone, reduction=8)
    model = _lively(build_model(arch, init="identity", num_classes=5))
    before = model(_images())
    report = fold_gate_scale(model, input_size=SIZE)
    assert torch.equal(model(_images()), before)
    assert {block.gate_scale for block in _blocks(model)} <= {1.0, 2.0}
    folded = sum(block.gate_scale == 1.0 for block in _blocks(model))
    assert (folded, len(_blocks(model)) - folded) == (len(report.folded), len(report.left))
    if backbone == "mobilenetv2_035":
        assert folded == 0, "twice the input of a ReLU6 is not twice its output"
        assert all("hardtanh" in reason for reason in report.left.values())
    else:
        assert not report.left


def test_a_folded_state_dict_is_one_of_plain_blocks() -> None:
    arch = Architecture.uniform("resnet10t", reduction=8)
    model = build_model(arch, init="identity")
    fold_gate_scale(model, input_size=SIZE)
    assert not any("gate_scale" in key for key in model.state_dict())


class _Net(nn.Module):
    def __init__(self, before: nn.Module, *, shortcut: bool = False, twice: bool = False) -> None:
        super().__init__()
        self.before, self.se = before, SqueezeExcite(8, 4, init="identity")
        self.after = nn.Conv2d(8, 2, 1)
        self.shortcut, self.twice = shortcut, twice

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        y = self.se(x)
        if self.twice:
            y = self.se(y)
        return self.after(y + x if self.shortcut else y)


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (_Net(nn.Conv2d(3, 8, 3)), None),
        (_Net(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())), None),
        (_Net(nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.LeakyReLU(), nn.MaxPool2d(2))), None),
        (_Net(nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU())), "comes from silu"),
        (_Net(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False))), "has no weights"),
        (_Net(StdConv2d(3, 8, 3)), "not proportional to its weights"),
        (_Net(nn.Conv2d(3, 8, 3), shortcut=True), "something else reads"),
        (_Net(nn.Conv2d(3, 8, 3), twice=True), "runs 2 times"),
    ],
)
@torch.no_grad()
def test_what_folds_and_why_the_rest_does_not(net: _Net, reason: str | None) -> None:
    net = copy.deepcopy(_lively(net))
    before = net(_images())
    report = fold_gate_scale(net, input_size=SIZE)
    assert torch.equal(net(_images()), before)
    if reason is None:
        assert report.folded == ["se"]
        assert net.se.gate_scale == 1.0
    else:
        assert reason in report.left["se"]
        assert net.se.gate_scale == 2.0


def test_only_powers_of_two_fold() -> None:
    net = _Net(nn.Conv2d(3, 8, 3))
    net.se.gate_scale = 1.5
    assert fold_gate_scale(net, input_size=SIZE).left == {"se": "its scale 1.5 is not a power of two"}


CASES = [
    "resnet10t",
    "seresnet18",
    "efficientnet_b0",
    "mobilenetv3_small_050",
    "rexnet_100",
    "mambaout_femto",
]


@pytest.mark.parametrize("backbone", CASES)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_optimised_network_agrees_and_repeats(backbone: str, memory_format: torch.memory_format) -> None:
    arch = Architecture.uniform(backbone, reduction=8)
    model = _lively(build_model(arch, init="identity", num_classes=5)).to(memory_format=memory_format)
    fast = optimize_for_inference(model, input_size=SIZE)
    x = _images().to(memory_format=memory_format)
    with torch.inference_mode():
        expected, first, second = model(x), fast(x), fast(x)
    assert (first - expected).abs().max() <= 10 * TOLERANCE * expected.abs().max()
    assert torch.equal(first, second)
    swapped = [module for module in fast.modules() if isinstance(module, LinearSqueezeExcite)]
    assert len(swapped) == sum(width != 0 for width in arch.widths)
    assert any(module.in_place for module in swapped)
    assert not any(isinstance(module, LinearSqueezeExcite) for module in model.modules()), (
        "the model is copied"
    )


def test_a_tensor_that_others_read_is_not_overwritten() -> None:
    for net in (_Net(nn.Conv2d(3, 8, 3), shortcut=True), _Net(nn.Identity())):
        net.se = SqueezeExcite(8 if net.shortcut else 3, 4)
        if not net.shortcut:
            net.after = nn.Conv2d(3, 2, 1)
        fast = optimize_for_inference(net, input_size=SIZE)
        assert isinstance(fast.se, LinearSqueezeExcite)
        assert not fast.se.in_place
        x = _images()
        with torch.inference_mode():
            torch.testing.assert_close(fast(x.clone()), net(x), rtol=1e-4, atol=1e-5)


class _Views(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.se = nn.Conv2d(3, 16, 3), SEModule(8, rd_channels=4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        first, second = x.chunk(2, dim=1)
        return self.se(first) + second + x[:, :8]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_threads_that_split_a_map_in_two_ways_do_not_write_into_it(
    threads: int, count: int, memory_format: torch.memory_format
) -> None:
    net = optimize_for_inference(_Net(nn.Conv2d(3, 8, 3)), input_size=SIZE)
    x = torch.randn(count, 8, 9, 9).to(memory_format=memory_format)
    overwritten = x.clone()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            result = net.se(overwritten)
            compiled = torch.compile(net.se, backend="aot_eager", fullgraph=True)
            torch.testing.assert_close(compiled(x.clone()), result)
    finally:
        torch.set_num_threads(before)
    two_ways = threads > 1 and count == 1 and memory_format == torch.channels_last
    assert torch.equal(overwritten, x if two_ways else result)


def test_views_are_not_overwritten() -> None:
    net = _Views().eval()
    fast = optimize_for_inference(net, input_size=SIZE)
    assert not fast.se.in_place
    with torch.inference_mode():
        torch.testing.assert_close(fast(_images()), net(_images()))


def test_gradients_still_flow_through_an_optimised_network() -> None:
    net = optimize_for_inference(_Net(nn.Conv2d(3, 8, 3)), input_size=SIZE)
    assert net.se.in_place
    x = _images().requires_grad_()
    net(x).sum().backward()
    assert x.grad.abs().max() > 0


def test_in_place_can_be_refused_and_nothing_is_no_error() -> None:
    net = optimize_for_inference(_Net(nn.Conv2d(3, 8, 3)), input_size=SIZE, in_place=False)
    assert not net.se.in_place
    plain = timm.create_model("resnet10t")
    assert optimize_for_inference(plain).state_dict().keys() == plain.state_dict().keys()


def test_a_block_of_another_form_stays_as_it_was() -> None:
    net = _Net(nn.Conv2d(3, 8, 3))
    net.se = SEModule(8, rd_channels=4, add_maxpool=True)
    assert isinstance(optimize_for_inference(net, input_size=SIZE).se, SEModule)


def test_bfloat16_networks_optimise() -> None:
    net = _lively(_Net(nn.Conv2d(3, 8, 3))).bfloat16()
    fast = optimize_for_inference(net, input_size=SIZE)
    assert isinstance(fast.se, LinearSqueezeExcite)
    with torch.inference_mode():
        torch.testing.assert_close(
            fast(_images().bfloat16()), net(_images().bfloat16()), rtol=0.05, atol=0.05
        )


def test_an_optimised_network_compiles_and_exports() -> None:
    net = optimize_for_inference(_lively(_Net(nn.Conv2d(3, 8, 3))), input_size=SIZE)
    with torch.inference_mode():
        expected = net(_images())
        compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(_images()), expected)
    with torch.no_grad():
        program = torch.export.export(net, (_images(),))
    torch.testing.assert_close(program.module()(_images()), expected)
