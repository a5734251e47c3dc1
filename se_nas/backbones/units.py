"""The repeated units of a network: residual blocks, their siblings without a shortcut, and what plain nets have.

Nets without residual units are read as, in this order: layers of dense blocks, modules that end in a
concatenation, chains of convolution, norm and activation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from se_nas.backbones.graph import ACTIVATIONS, NORMS, RESHAPES, Graph, Path, is_map, is_spatial, resolution
from se_nas.backbones.residuals import Residual, find_residuals
from se_nas.backbones.tracing import Call


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A block, by the nodes at which its branch begins (``start``) and ends (``end``)."""

    kind: str
    """residual, sibling, dense, concat or plain."""
    block: Call
    start: int
    end: int
    output: int
    """What the block returns."""
    branch: Path
    residual: Residual | None = None


def find_units(graph: Graph) -> list[Unit]:
    """Every unit in order of execution."""
    units = [_from_residual(graph, residual) for residual in find_residuals(graph)]
    units += _siblings(graph, units)
    if not units:
        units = _dense_layers(graph)
    units += _concatenations(graph, units)
    if not units:
        units = _chains(graph)
    return sorted(units, key=lambda unit: unit.end)


def _from_residual(graph: Graph, residual: Residual) -> Unit:
    output = residual.addition
    if residual.block.single:
        returned = residual.block.outputs[0]
        after = graph.between(residual.addition, returned) if returned > residual.addition else None
        if after is not None and after.mixers == 0 and _same_map(graph, residual.addition, returned):
            output = returned
    return Unit(
        kind="residual",
        block=residual.block,
        start=residual.fork,
        end=residual.end,
        output=output,
        branch=residual.branch,
        residual=residual,
    )


def _same_map(graph: Graph, first: int, second: int) -> bool:
    return graph.nodes[first].shape == graph.nodes[second].shape


def _pattern(path: str) -> str:
    return re.sub(r"\d+", "*", path)


def _map_to_map(graph: Graph, call: Call) -> Path | None:
    """What a call computes, if it takes one feature map and returns one."""
    if not call.single or not call.inputs or not call.path:
        return None
    start, end = call.inputs[0], call.outputs[0]
    if end <= start or not is_map(graph.nodes[start]) or not is_map(graph.nodes[end]):
        return None
    if graph.common_dominator(start, end) != start:
        return None
    return graph.between(start, end)


def _overlaps(call: Call, units: list[Unit]) -> bool:
    return any(call.first < unit.block.last and unit.block.first < call.last for unit in units)


def _siblings(graph: Graph, units: list[Unit]) -> list[Unit]:
    """Blocks of the same class, or in the same place of the hierarchy, as residual ones but without a shortcut."""
    classes = {type(unit.block.module) for unit in units}
    patterns = {_pattern(unit.block.path) for unit in units}
    found: list[Unit] = []
    for call in graph.trace.calls:
        if type(call.module) not in classes and _pattern(call.path) not in patterns:
            continue
        branch = _map_to_map(graph, call)
        if branch is None or branch.convolutions == 0 or branch.non_linear == 0:
            continue
        if not _overlaps(call, units) and not _overlaps(call, found):
            found.append(_whole_call(call, "sibling", branch))
    return found


def _whole_call(call: Call, kind: str, branch: Path) -> Unit:
    end = call.outputs[0]
    return Unit(kind=kind, block=call, start=call.inputs[0], end=end, output=end, branch=branch)


def _dense_layers(graph: Graph) -> list[Unit]:
    """Layers whose output is concatenated more than once, with the last of each row of them."""
    found: list[Unit] = []
    rows: dict[tuple[int, type], list[Call]] = {}
    for call in graph.trace.calls:
        if (
            call.single
            and call.outputs
            and is_map(graph.nodes[call.outputs[0]])
            and call.contains(call.outputs[0])
        ):
            rows.setdefault((call.parent, type(call.module)), []).append(call)
    for row in rows.values():
        concatenated = [_readers_by_concatenation(graph, call.outputs[0]) for call in row]
        if len(row) < 2 or sum(count >= 2 for count in concatenated) < 2:
            continue
        for call, count in zip(row, concatenated, strict=True):
            if count:
                branch = graph.between(min(call.inputs), call.outputs[0])
                found.append(_whole_call(call, "dense", branch))
    return found


def _readers_by_concatenation(graph: Graph, index: int) -> int:
    return sum(graph.nodes[child].op == "cat" for child in graph.trace.children[index])


def _concatenations(graph: Graph, units: list[Unit]) -> list[Unit]:
    """Modules whose own last act is to concatenate feature maps."""
    found: list[Unit] = []
    for call in graph.trace.calls:
        branch = _map_to_map(graph, call)
        if branch is None or branch.convolutions == 0:
            continue
        end = graph.nodes[call.outputs[0]]
        if end.op == "cat" and end.call == call.index and not _overlaps(call, units):
            found.append(_whole_call(call, "concat", branch))
    return found


def _chains(graph: Graph) -> list[Unit]:
    """Spatial convolutions, each with the norm and the activation that follow it."""
    found: list[Unit] = []
    for node in graph.nodes:
        if not is_spatial(node) or resolution(node) == (1, 1):
            continue
        end = end_of_chain(graph, node.index)
        start = node.parents[0]
        block = graph.trace.enclosing([node.index, end])
        branch = graph.between(start, end)
        found.append(Unit(kind="plain", block=block, start=start, end=end, output=end, branch=branch))
    return found


def end_of_chain(graph: Graph, convolution: int) -> int:
    """The activation behind a convolution and its norm; without one the norm, without that the convolution."""
    end = index = convolution
    while True:
        children = graph.trace.children[index]
        if len(children) != 1:
            return end
        index = children[0]
        op = graph.nodes[index].op
        if op in ACTIVATIONS:
            return index
        if op in NORMS:
            end = index
        elif op not in RESHAPES:
            return end
