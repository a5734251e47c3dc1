"""Where in a unit each position's tensor is: Hu et al. (arXiv 1709.01507), section 6.5, and timm's own places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from se_nas.backbones.graph import ACTIVATIONS, Graph, is_map, is_spatial
from se_nas.backbones.hosts import Host, before, behind
from se_nas.backbones.shortcut import has_plain_shortcut
from se_nas.backbones.tracing import Call
from se_nas.backbones.units import Unit, end_of_chain

POSITIONS = ("standard", "pre", "post", "identity", "conv3x3", "slot")


@dataclass(frozen=True, kw_only=True)
class Place:
    """The tensor of a position in a unit, and the module at which it can be gated."""

    unit: Unit
    node: int
    call: Call
    anchor: str
    slot: str | None = None


def place_at(graph: Graph, unit: Unit, position: str) -> Place | None:
    """The place of a position in a unit, or None where the unit has none."""
    if position == "standard":
        return _placed(unit, behind(graph, unit.end))
    if position == "conv3x3" and unit.kind in ("residual", "sibling", "repeated"):
        node = spatial_activation(graph, unit)
        return None if node is None else _placed(unit, behind(graph, node, within=unit.block))
    if unit.residual is None:
        return None
    if position == "post":
        return _placed(unit, behind(graph, unit.output))
    if position == "pre":
        return _placed(unit, _entrance(graph, unit))
    if position == "identity":
        return _on_shortcut(graph, unit)
    return None


def _placed(unit: Unit, host: Host | None) -> Place | None:
    if host is None:
        return None
    return Place(unit=unit, node=host.node, call=host.call, anchor=host.anchor)


def spatial_activation(graph: Graph, unit: Unit) -> int | None:
    """The activation behind the branch's last spatial convolution that has one before the branch ends."""
    inside = set(unit.branch.nodes)
    ends = []
    for index in unit.branch.nodes:
        node = graph.nodes[index]
        if is_spatial(node) and is_map(node) and graph.nodes[index].parents:
            end = end_of_chain(graph, index)
            # In one of several parallel branches SE would stop their reparameterisation.
            if end in inside and graph.common_dominator(end, unit.end) == end:
                ends.append(end)
    activated = [end for end in ends if graph.nodes[end].op in ACTIVATIONS]
    within = [end for end in activated if end != unit.end]
    return next(iter(reversed(within or activated or ends)), None)


def _entrance(graph: Graph, unit: Unit) -> Host | None:
    inside = set(unit.branch.nodes)
    children = set(graph.trace.children[unit.start])
    return before(graph, unit.start, children & inside, children - inside)


def _on_shortcut(graph: Graph, unit: Unit) -> Place | None:
    residual = unit.residual
    assert residual is not None
    if residual.shortcut != residual.fork:
        return _placed(unit, behind(graph, residual.shortcut))
    for call in graph.trace.consumers.get(residual.fork, ()):
        passes = call.single and call.outputs == [residual.fork] and not call.contains(residual.fork)
        if passes and unit.block.first <= call.first < unit.block.last:
            return Place(unit=unit, node=residual.fork, call=call, anchor="output")
    block = unit.block
    enters = (
        bool(block.path) and block.inputs == [residual.fork] and graph.trace.module_calls[block.path] == 1
    )
    if not enters or not has_plain_shortcut(block.module):
        return None
    return Place(unit=unit, node=residual.fork, call=block, anchor="shortcut")


def available(counts: dict[str, int], units: Sequence[Unit]) -> list[str]:
    """Positions that at least half of the units in question have."""
    residual = sum(unit.residual is not None for unit in units)
    need = {"standard": 1, "conv3x3": max(1, len(units) // 2), "slot": max(1, len(units) // 4)}
    return [p for p in POSITIONS if counts.get(p, 0) >= max(1, need.get(p, residual // 2))]
