"""The tensor of each position in a unit: those of Hu et al. (arXiv 1709.01507), section 6.5, and timm's slots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from se_nas.backbones._attachment import Host, as_returned, before, behind
from se_nas.backbones._blocks import Unit, end_of_chain
from se_nas.backbones._fx_rewrite import shortcut_source
from se_nas.backbones._graph import ACTIVATIONS, Graph, is_map, is_spatial
from se_nas.backbones._tracing import Call, Node

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
    """The place of a position in a unit, or None if the unit does not have the position."""
    if position == "standard":
        return _placed(unit, behind(graph, unit.end))
    if position == "conv3x3" and unit.kind in ("residual", "sibling", "repeated"):
        node = spatial_activation(graph, unit)
        if node is None:
            return None
        # A ReLU shared by several activations cannot host SE, but the module that reads the tensor may.
        readers = set(graph.trace.children[node])
        return _placed(unit, behind(graph, node, within=unit.block) or before(graph, node, readers, set()))
    if unit.residual is None:
        return None
    if position == "post":
        return _placed(unit, behind(graph, unit.output))
    if position == "pre":
        return _entrance(graph, unit)
    if position == "identity":
        return _on_shortcut(graph, unit)
    return None


def _placed(unit: Unit, host: Host | None) -> Place | None:
    if host is None:
        return None
    return Place(unit=unit, node=host.node, call=host.call, anchor=host.anchor)


def spatial_activation(graph: Graph, unit: Unit) -> int | None:
    """The tensor after the branch's last spatial convolution, its norm and activation, before the branch ends.

    Parallel convolutions whose outputs are concatenated (MixNet, Res2Net, FasterNet) count as one. Convolutions with
    an activation are preferred to those without (ConvNeXt).
    """
    inside = set(unit.branch.nodes)
    ends: list[int] = []
    activated: list[int] = []
    for index in unit.branch.nodes:
        node = graph.nodes[index]
        if node.op == "cat" and is_map(node):
            spatial = any(
                is_spatial(graph.nodes[last]) for last in graph.between(_origin(graph, node), index).nodes
            )
        else:
            spatial = is_spatial(node) and is_map(node)
        if not spatial:
            continue
        last = end_of_chain(graph, index)
        end = as_returned(graph, last)
        # SE in one of several parallel branches would prevent their reparameterisation.
        if end in inside and graph.common_dominator(end, unit.end) == end:
            ends.append(end)
            if graph.nodes[last].op in ACTIVATIONS:
                activated.append(end)
    within = [[end for end in found if end != unit.end] for found in (activated, ends)]
    return next((found[-1] for found in (within[0], activated, within[1], ends) if found), None)


def _origin(graph: Graph, node: Node) -> int:
    """The last tensor from which all operands of a node are computed."""
    origin = node.parents[0]
    for parent in node.parents[1:]:
        origin = graph.common_dominator(origin, parent)
    return origin


def _entrance(graph: Graph, unit: Unit) -> Place | None:
    inside = set(unit.branch.nodes)
    children = set(graph.trace.children[unit.start])
    host = before(graph, unit.start, children & inside, children - inside)
    if host is None and unit.residual is not None and unit.residual.shortcut == unit.start:
        return _rewritten(graph, unit, "branch")
    return _placed(unit, host)


def _on_shortcut(graph: Graph, unit: Unit) -> Place | None:
    residual = unit.residual
    assert residual is not None
    if residual.shortcut != residual.fork:
        return _placed(unit, behind(graph, residual.shortcut))
    for call in graph.trace.consumers.get(residual.fork, ()):
        passes = call.single and call.outputs == [residual.fork] and not call.contains(residual.fork)
        if passes and unit.block.first <= call.first < unit.block.last:
            return Place(unit=unit, node=residual.fork, call=call, anchor="output")
    return _rewritten(graph, unit, "shortcut")


def _rewritten(graph: Graph, unit: Unit, anchor: str) -> Place | None:
    """A place without a module, in a block whose forward pass can be rewritten."""
    block, fork = unit.block, unit.start
    calls = graph.trace.module_calls
    if not block.path or calls[block.path] != 1:
        return None
    makers = [call for call in graph.trace.producers.get(fork, ()) if call.parent == block.index]
    sources = [call.path.removeprefix(f"{block.path}.") for call in makers if calls[call.path] == 1]
    if block.inputs == [fork]:
        sources.append("")
    if not sources or shortcut_source(block.module) not in sources:
        return None
    return Place(unit=unit, node=fork, call=block, anchor=anchor)


def available(counts: dict[str, int], units: Sequence[Unit]) -> list[str]:
    """Positions that at least half of the units in question have."""
    residual = sum(unit.residual is not None for unit in units)
    need = {"standard": 1, "conv3x3": max(1, len(units) // 2), "slot": max(1, len(units) // 4)}
    return [p for p in POSITIONS if counts.get(p, 0) >= max(1, need.get(p, residual // 2))]
