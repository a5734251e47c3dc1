"""Residual units: additions of a branch and a shortcut around it."""

from __future__ import annotations

from dataclasses import dataclass

from se_nas.backbones._graph import ADDITIONS, Graph, Path, channels, is_map
from se_nas.backbones._tracing import Call


@dataclass(frozen=True, kw_only=True)
class Residual:
    """``addition = shortcut + end``, both computed from ``fork``; fields that are integers are node indices."""

    fork: int
    end: int
    shortcut: int
    addition: int
    branch: Path
    projection: Path
    block: Call


def find_residuals(graph: Graph) -> list[Residual]:
    """Every residual unit on feature maps, in order of execution; of nested units one is kept."""
    found = [unit for node in graph.nodes if (unit := _residual_at(graph, node.index)) is not None]
    return _without_nested(found)


def _residual_at(graph: Graph, addition: int) -> Residual | None:
    node = graph.nodes[addition]
    if node.op not in ADDITIONS or len(node.parents) != 2 or not is_map(node):
        return None
    first, second = (graph.nodes[parent] for parent in node.parents)
    if first.shape != second.shape or first.axis != second.axis:
        return None
    fork = graph.common_dominator(first.index, second.index)
    if channels(graph.nodes[fork]) <= 1 and fork == 0:
        return None
    paths = {index: graph.between(fork, index) for index in node.parents}
    for end, shortcut in (node.parents, node.parents[::-1]):
        branch, projection = paths[end], paths[shortcut]
        # A linear branch is for reparameterisation or positional encoding; two non-linear paths are a merge.
        if branch.non_linear > 0 and branch.convolutions > 0 and projection.non_linear == 0:
            block = graph.trace.enclosing([*branch.nodes, addition])
            return Residual(
                fork=fork,
                end=end,
                shortcut=shortcut,
                addition=addition,
                branch=branch,
                projection=projection,
                block=block,
            )
    return None


def _without_nested(units: list[Residual]) -> list[Residual]:
    """One unit of several nested ones: the block, not what is inside it and not a skip over several blocks."""
    kept: list[Residual] = []
    for unit in units:
        region = set(unit.branch.nodes)
        inner = [other for other in kept if other.addition in region]
        if len(inner) <= 1 or all(other.block is unit.block for other in inner):
            kept = [other for other in kept if other not in inner]
            kept.append(unit)
    return sorted(kept, key=lambda unit: unit.addition)
