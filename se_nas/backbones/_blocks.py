"""The repeated units of a network: residual blocks, their siblings without a shortcut, and units of plain nets.

Nets without residual units are searched, in this order, for layers of dense blocks, modules that end in a
concatenation, modules at the same place in the hierarchy, and chains of convolution, norm and activation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from se_nas.backbones._attachment import behind, scaled_from
from se_nas.backbones._graph import (
    ACTIVATIONS,
    ADDITIONS,
    NORMS,
    RESHAPES,
    Graph,
    Path,
    channels,
    is_map,
    is_spatial,
    resolution,
)
from se_nas.backbones._residuals import Residual, find_residuals
from se_nas.backbones._tracing import Call, Node

_MIN_REPEATED = 3
# The 1x1 convolution that fuses a concatenation (VoVNet, SelecSLS); a gate's convolutions work on one pixel.
_AFTER_CAT = 1


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A block and the nodes at which its branch begins (``start``) and ends (``end``)."""

    kind: str
    """residual, sibling, dense, concat, repeated or plain."""
    block: Call
    start: int
    end: int
    output: int
    """The node that the block returns."""
    branch: Path
    residual: Residual | None = None


def find_units(graph: Graph) -> list[Unit]:
    """Every unit in order of execution."""
    units = [_from_residual(graph, residual) for residual in find_residuals(graph)]
    units = _without_cells(graph, units)
    shared = any(graph.trace.module_calls.get(unit.block.path, 0) > 1 for unit in units)
    if not shared and all(behind(graph, unit.end) is None for unit in units):
        units = []
    units += _siblings(graph, units)
    units = units or _dense_layers(graph)
    units += _concatenations(graph, units)
    units = units or _repeated(graph) or _chains(graph)
    return sorted(units, key=lambda unit: unit.end)


def _from_residual(graph: Graph, residual: Residual) -> Unit:
    output = residual.addition
    if residual.block.single:
        returned = residual.block.outputs[0]
        after = graph.between(residual.addition, returned) if returned > residual.addition else None
        if after is not None and after.mixers == 0 and _is_all_of(graph, residual, returned):
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


def _is_all_of(graph: Graph, residual: Residual, returned: int) -> bool:
    """Whether a map is the sum, or the sum concatenated with the branch's remaining channels (ReXNet)."""
    node = graph.nodes[returned]
    if node.shape == graph.nodes[residual.addition].shape:
        return True
    branch = set(scaled_from(graph, residual.end))
    rest = [parent for parent in node.parents if parent != residual.addition]
    return node.op == "cat" and all(branch.intersection(scaled_from(graph, parent)) for parent in rest)


def _pattern(path: str) -> str:
    return re.sub(r"\d+", "*", path)


def _map_to_map(graph: Graph, call: Call) -> Path | None:
    """The path through a call that takes one feature map and returns one; None for other calls."""
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


def _without_cells(graph: Graph, units: list[Unit]) -> list[Unit]:
    """Leave out additions inside cells that concatenate several of them (NASNet, PNASNet)."""
    cells = []
    for call in graph.trace.calls:
        if call.single and call.outputs and graph.nodes[call.outputs[0]].op == "cat":
            operands = graph.nodes[call.outputs[0]].parents
            if sum(unit.output in operands for unit in units) >= 2:
                cells.append(call)
    return [unit for unit in units if not any(cell.contains(unit.output) for cell in cells)]


def _siblings(graph: Graph, units: list[Unit]) -> list[Unit]:
    """Blocks with the class of residual blocks, or at their place in the hierarchy, but without a shortcut."""
    classes = {type(unit.block.module) for unit in units} - {nn.Sequential}
    patterns = {_pattern(unit.block.path) for unit in units}
    alike = (
        call for call in graph.trace.calls if type(call.module) in classes or _pattern(call.path) in patterns
    )
    return _whole_calls(graph, alike, units, "sibling")


def _whole_calls(graph: Graph, calls: Iterable[Call], units: list[Unit], kind: str) -> list[Unit]:
    """The outermost of these calls that go from map to map through a spatial convolution and an activation."""
    found: list[Unit] = []
    for call in calls:
        branch = _map_to_map(graph, call)
        if branch is None or branch.non_linear == 0 or not _has_spatial(graph, branch):
            continue
        # A module that reads the image is the stem; one that adds to its input is a block of another kind (attention).
        if call.inputs[0] == 0 or any(_adds_to_itself(graph, index) for index in branch.nodes):
            continue
        if not _overlaps(call, units) and not _overlaps(call, found):
            found.append(_whole_call(call, kind, branch))
    return found


def _adds_to_itself(graph: Graph, index: int) -> bool:
    node = graph.nodes[index]
    if node.op not in ADDITIONS or len(node.parents) != 2:
        return False
    return graph.common_dominator(*node.parents) in node.parents


def _repeated(graph: Graph) -> list[Unit]:
    """Modules at the same place in the hierarchy (``blocks.*.*``), for the place with the most of them."""
    groups: dict[str, list[Call]] = {}
    for call in graph.trace.calls:
        pattern = _pattern(call.path)
        if "*" in pattern and not isinstance(call.module, nn.Sequential):
            groups.setdefault(pattern, []).append(call)
    best: list[Unit] = []
    for calls in groups.values():
        units = _whole_calls(graph, calls, [], "repeated")
        if len(units) >= _MIN_REPEATED and len(units) > len(best):
            best = units
    return best


def _has_spatial(graph: Graph, branch: Path) -> bool:
    return any(is_spatial(graph.nodes[index]) for index in branch.nodes)


def _whole_call(call: Call, kind: str, branch: Path) -> Unit:
    end = call.outputs[0]
    return Unit(kind=kind, block=call, start=call.inputs[0], end=end, output=end, branch=branch)


def _dense_layers(graph: Graph) -> list[Unit]:
    """Layers of one class, side by side, most of whose outputs are concatenated with each other more than once."""
    rows: dict[tuple[int, type], list[Call]] = {}
    for call in graph.trace.calls:
        if (
            call.single
            and call.outputs
            and is_map(graph.nodes[call.outputs[0]])
            and call.contains(call.outputs[0])
        ):
            rows.setdefault((call.parent, type(call.module)), []).append(call)
    found: list[Unit] = []
    for row in rows.values():
        made = {call.outputs[0] for call in row}
        shared = [cat for cat in graph.nodes if cat.op == "cat" and len(made.intersection(cat.parents)) >= 2]
        readers = [sum(call.outputs[0] in cat.parents for cat in shared) for call in row]
        if sum(count >= 2 for count in readers) < 2:
            continue
        for call, count in zip(row, readers, strict=True):
            if count:
                branch = graph.between(min(call.inputs), call.outputs[0])
                found.append(_whole_call(call, "dense", branch))
    return found


def _concatenations(graph: Graph, units: list[Unit]) -> list[Unit]:
    """Modules that concatenate feature maps, at their end or before one last convolution."""
    found: list[Unit] = []
    for cat in graph.nodes:
        if cat.op != "cat" or not is_map(cat) or channels(cat) <= max(_widths(graph, cat)):
            continue
        unit = None
        for index in graph.trace.stack(cat.call):
            call = graph.trace.calls[index]
            wider = _around(graph, cat, call)
            alone = not any(call.contains(other.end) for other in found)
            if wider is None or not alone or _overlaps(call, units):
                break
            unit = wider
            # In a Sequential, what follows the module is not part of it.
            if call.parent >= 0 and isinstance(graph.trace.calls[call.parent].module, nn.Sequential):
                break
        if unit is not None:
            found.append(unit)
    if units:
        # Next to residual blocks, a convolution after the concatenation marks a junction (DLA's roots, pyramids).
        found = [unit for unit in found if graph.nodes[unit.end].op == "cat"]
    outer = [unit for unit in found if not any(_inside(unit, other) for other in found)]
    return [unit for unit in outer if unit.branch.convolutions]


def _inside(unit: Unit, other: Unit) -> bool:
    return unit is not other and other.block.first <= unit.block.first and unit.block.last <= other.block.last


def _around(graph: Graph, cat: Node, call: Call) -> Unit | None:
    """A call as the unit of a concatenation inside it, if little follows the concatenation."""
    end = call.outputs[0] if call.outputs else 0
    if not call.path or not call.contains(end) or not is_map(graph.nodes[end]):
        return None
    if end < cat.index or graph.common_dominator(cat.index, end) != cat.index:
        return None
    after = [graph.nodes[index] for index in graph.between(cat.index, end).nodes]
    if sum(node.op == "convolution" and resolution(node) == resolution(cat) for node in after) > _AFTER_CAT:
        return None
    start = graph.common_dominator(end, min(call.inputs))
    return Unit(kind="concat", block=call, start=start, end=end, output=end, branch=graph.between(start, end))


def _widths(graph: Graph, node: Node) -> list[int]:
    return [channels(graph.nodes[parent]) for parent in node.parents if is_map(graph.nodes[parent])] or [0]


def _chains(graph: Graph) -> list[Unit]:
    """Spatial convolutions, each with the norm and the activation that follow it."""
    found: list[Unit] = []
    for node in graph.nodes:
        if not is_spatial(node) or not is_map(node) or resolution(node) == (1, 1):
            continue
        end = end_of_chain(graph, node.index)
        start = node.parents[0]
        block = graph.trace.enclosing([node.index, end])
        branch = graph.between(start, end)
        found.append(Unit(kind="plain", block=block, start=start, end=end, output=end, branch=branch))
    # Patches cut from the image are tokens, not feature maps of a convolutional network.
    return found if any(unit.start for unit in found) else []


def end_of_chain(graph: Graph, convolution: int) -> int:
    """The activation after a convolution and its norm, or the norm, or the convolution, whichever comes last."""
    end = index = convolution
    while True:
        children = graph.trace.children[index]
        if len(children) != 1:
            return end
        index = children[0]
        op = graph.nodes[index].op
        if len(graph.nodes[index].shape) != len(graph.nodes[convolution].shape):
            return end
        if op in ACTIVATIONS:
            return index
        if op in NORMS:
            end = index
        elif op not in RESHAPES:
            return end
