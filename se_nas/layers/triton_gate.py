# mypy: disable-error-code="no-untyped-def"
"""An SE block in three Triton kernels instead of torch's six, for CUDA and maps in (N, C, H, W) order.

The kernels are: pooling; first layer with ReLU; second layer, sigmoid and product together, since the gate of one
channel takes only as many products as there are hidden units. Sums are in float32. ``optimize_for_inference`` uses
them if they measure faster than torch's kernels.
"""

from __future__ import annotations

from typing import Protocol

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

_LARGEST_BLOCK = 1024


@triton.jit  # type: ignore[untyped-decorator]
def _pool(x, pooled, area, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    total = tl.zeros([block], tl.float32)
    for start in range(0, area, block):
        at = start + tl.arange(0, block)
        total += tl.load(x + row * area + at, mask=at < area, other=0.0).to(tl.float32)
    tl.store(pooled + row, tl.sum(total) / area)


@triton.jit  # type: ignore[untyped-decorator]
def _dot(first, second, size, block: tl.constexpr):
    total = tl.zeros([block], tl.float32)
    for start in range(0, size, block):
        at = start + tl.arange(0, block)
        inside = at < size
        total += tl.load(first + at, mask=inside, other=0.0).to(tl.float32) * tl.load(
            second + at, mask=inside, other=0.0
        )
    return tl.sum(total)


@triton.jit  # type: ignore[untyped-decorator]
def _reduce(pooled, weight, bias, hidden, channels, width, has_bias: tl.constexpr, block: tl.constexpr):
    image, unit = tl.program_id(0), tl.program_id(1)
    value = _dot(weight + unit * channels, pooled + image * channels, channels, block)
    if has_bias:
        value += tl.load(bias + unit).to(tl.float32)
    tl.store(hidden + image * width + unit, tl.maximum(value, 0.0))


@triton.jit  # type: ignore[untyped-decorator]
def _scale(
    x, hidden, weight, bias, out, channels, width, area, gate_scale,
    has_bias: tl.constexpr, hidden_block: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    image, channel = row // channels, row % channels
    value = _dot(weight + channel * width, hidden + image * width, width, hidden_block)
    if has_bias:
        value += tl.load(bias + channel).to(tl.float32)
    gate = gate_scale / (1.0 + tl.exp(-value))
    for start in range(0, area, block):
        at = start + tl.arange(0, block)
        part = tl.load(x + row * area + at, mask=at < area, other=0.0).to(tl.float32)
        tl.store(out + row * area + at, (part * gate).to(out.dtype.element_ty), mask=at < area)


def block_size(length: int) -> int:
    """Elements that a kernel handles at a time, a power of two, for a row of that many elements."""
    return min(_LARGEST_BLOCK, int(triton.next_power_of_2(length)))


class Block(Protocol):
    """What the kernels need to know of an SE block with ReLU and sigmoid."""

    fc1: nn.Linear
    fc2: nn.Linear
    gate_scale: float
    in_place: bool

    def __call__(self, x: Tensor) -> Tensor:
        """The block's output."""


class TritonSqueezeExcite(nn.Module):
    """Computes ``block`` up to rounding; while autograd or a compiler records, ``block`` itself runs."""

    block: Block

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.add_module("block", block)

    def forward(self, x: Tensor) -> Tensor:
        plain = self.block
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return plain(x)
        fc1, fc2 = plain.fc1, plain.fc2
        # Maps in channels-last order are accepted too, at the price of a copy.
        given = x.contiguous()
        images, channels, area = given.shape[0], given.shape[1], given.shape[2] * given.shape[3]
        width = fc1.weight.shape[0]
        pooled = torch.empty(images, channels, device=x.device)
        hidden = torch.empty(images, width, device=x.device)
        out = given if plain.in_place and given is x else torch.empty_like(given)
        block = block_size(area)
        rows = (images * channels,)
        _pool[rows](given, pooled, area, block=block)
        _reduce[(images, width)](
            pooled, fc1.weight, fc1.bias, hidden, channels, width,
            has_bias=fc1.bias is not None, block=block_size(channels),
        )  # fmt: skip
        _scale[rows](
            given, hidden, fc2.weight, fc2.bias, out, channels, width, area, plain.gate_scale,
            has_bias=fc2.bias is not None, hidden_block=block_size(width), block=block,
        )  # fmt: skip
        return out
