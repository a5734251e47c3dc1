"""How a family rounds hidden widths: what the reduction ratio divides, to which multiples, and the activation.

If the backbone has gates with a bottleneck, the convention is the one that explains most of their widths.
Otherwise MBConv and RegNet blocks (an ``se`` slot after the spatial convolution, or a depthwise convolution on an
expanded width) divide the block's input, to the nearest integer, with the block's activation (EfficientNet,
arXiv 1905.11946; RegNet, arXiv 2003.13678); all others divide the gated width, in multiples of 8, with ReLU
(timm's ``SEModule``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from se_nas.backbones._blocks import Unit
from se_nas.backbones._graph import ACTIVATIONS, Graph, channels, is_map, is_spatial
from se_nas.backbones._native_sites import NativeGate
from se_nas.sites import Site

_RATIOS = (4, 16, 8, 2, 12, 20, 24, 3, 6, 32, 1)
_NAMES = {"hardtanh": "relu6", "hardswish": "hard_swish"}
_KNOWN = {"relu": "relu", "silu": "silu", "gelu": "gelu", "leaky_relu": "leaky_relu", **_NAMES}


@dataclass(frozen=True, kw_only=True)
class Convention:
    base: str
    """What γ divides: "channels" (the gated width) or "input" (the block's input width)."""
    rd_divisor: int
    rd_round_limit: float
    act: str | None
    """Inner activation; None is the block's."""


SE_MODULE = Convention(base="channels", rd_divisor=8, rd_round_limit=0.0, act="relu")
MBCONV = Convention(base="input", rd_divisor=1, rd_round_limit=0.0, act=None)
_ALTERNATIVES = (
    (SE_MODULE.base, 8, 0.0),
    (MBCONV.base, 1, 0.0),
    ("channels", 8, 0.9),
    ("channels", 1, 0.0),
    ("input", 8, 0.0),
    ("input", 8, 0.9),
    ("channels", 4, 0.9),
    ("channels", 16, 0.0),
    ("channels", 4, 0.0),
)


def infer(
    graph: Graph,
    gates: Sequence[tuple[NativeGate, Unit | None]],
    units: Sequence[Unit],
    *,
    slots: Sequence[tuple[str | None, str | None]],
) -> Convention:
    """The convention of a backbone.

    Args:
        gates: its native gates, each with the unit that contains it.
        slots: for every unit the name and the position of its first empty slot.
    """
    measured = [
        (channels(graph.nodes[gate.start]), channels(graph.nodes[unit.start]), gate.rd_channels)
        for gate, unit in gates
        if gate.rd_channels is not None and unit is not None
    ]
    if any(name for name, _ in slots):
        like_mbconv = sum(slot == ("se", "conv3x3") for slot in slots)
    else:
        like_mbconv = sum(is_mbconv(graph, unit) for unit in units)
    fallback = MBCONV if like_mbconv > len(units) // 3 else SE_MODULE
    if not measured:
        return fallback
    orders = sorted(_ALTERNATIVES, key=lambda rule: rule[0] != fallback.base)
    best = max(orders, key=lambda rule: max(_explained(measured, rule, ratio) for ratio in _RATIOS))
    gate = next(gate for gate, unit in gates if gate.rd_channels is not None and unit is not None)
    act = activation(graph, range(gate.call.first, gate.call.last))
    return Convention(base=best[0], rd_divisor=best[1], rd_round_limit=best[2], act=act)


def _explained(measured: Sequence[tuple[int, int, int]], rule: tuple[str, int, float], ratio: float) -> int:
    base, divisor, limit = rule
    count = 0
    for own, entry, width in measured:
        probe = Site(
            stage=0,
            block=0,
            path="",
            channels=own,
            reduction_base=own if base == "channels" else entry,
            resolution=(1, 1),
            rd_divisor=divisor,
            rd_round_limit=limit,
        )
        count += probe.rd_channels(ratio) == width
    return count


def is_mbconv(graph: Graph, unit: Unit) -> bool:
    """Whether the unit's last spatial convolution is depthwise, on a width above the block's input."""
    spatial = [
        graph.nodes[i] for i in unit.branch.nodes if is_spatial(graph.nodes[i]) and is_map(graph.nodes[i])
    ]
    if not spatial:
        return False
    last = spatial[-1]
    return last.groups == channels(last) > channels(graph.nodes[unit.start])


def activation(graph: Graph, nodes: Sequence[int]) -> str:
    """The first known activation among these nodes, by se-nas's name; ReLU if there is none."""
    for index in nodes:
        op = graph.nodes[index].op.removesuffix("_")
        if graph.nodes[index].op in ACTIVATIONS and op in _KNOWN:
            return _KNOWN[op]
    return "relu"
