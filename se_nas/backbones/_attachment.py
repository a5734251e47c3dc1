"""At which module a tensor can be gated: after the module that returns it, or before one that passes it on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from se_nas.backbones._graph import Graph
from se_nas.backbones._tracing import Call

SLOTS = ("se", "attn", "attn_last", "se_module", "attention")
"""Attributes in which timm's blocks keep a channel gate; the earlier name wins."""
_SCALINGS = frozenset({"mul", "mul_", "slice", "permute", "transpose", "clone", "contiguous", "div", "alias"})


@dataclass(frozen=True, kw_only=True)
class Host:
    """A module at whose ``anchor`` ("output" or "input") the tensor ``node`` can be gated."""

    call: Call
    node: int
    anchor: str


def behind(graph: Graph, node: int, within: Call | None = None) -> Host | None:
    """A host that gates the tensor for all of its readers.

    The innermost module that returns the tensor, or else a module that passes it on unchanged and is its only
    reader (stochastic depth at the end of a branch: SE comes first, so that the squeeze does not see its
    scaling). If neither exists, the search goes back through constant scalings and permutations.
    """
    trace = graph.trace
    index = node
    while True:
        makers = [call for call in trace.producers.get(index, ()) if call.contains(index)]
        for call in reversed(makers):
            if _usable(graph, call) and (within is None or call.path.startswith(within.path)):
                return Host(call=_fused_whole(graph, call, makers), node=index, anchor="output")
        passing = _passes(graph, index)
        if passing is not None:
            return Host(call=passing, node=index, anchor="input")
        here = graph.nodes[index]
        if here.op not in _SCALINGS or len(here.parents) != 1:
            return None
        index = here.parents[0]
        # Other parts of a sliced tensor belong to the branch too (ReXNet adds to some of its channels).
        readers = [graph.nodes[child].op for child in trace.children[index]]
        if len(readers) != 1 and set(readers) != {"slice"}:
            return None


def before(graph: Graph, node: int, readers: set[int], others: set[int]) -> Host | None:
    """A host that gates the tensor for the nodes ``readers`` and for none of ``others``.

    The outermost module that takes the tensor as input and contains all of ``readers`` and none of ``others``.
    """
    for call in graph.trace.consumers.get(node, ()):
        if not _usable(graph, call) or len(call.inputs) != 1:
            continue
        if all(call.contains(index) for index in readers) and not any(
            call.contains(index) for index in others
        ):
            return Host(call=call, node=node, anchor="input")
    return None


def as_returned(graph: Graph, node: int) -> int:
    """The tensor in the form in which its module returns it, possibly after a constant scaling or permutation.

    Norms over the last axis of channels-first maps permute back, and NFNet's activations apply a gain.
    """
    made_in = set(graph.trace.stack(graph.nodes[node].call))
    index = node
    while not graph.trace.producers.get(index):
        children = graph.trace.children[index]
        if len(children) != 1:
            return node
        (index,) = children
        if graph.nodes[index].op not in _SCALINGS or len(graph.nodes[index].parents) != 1:
            return node
    makers = graph.trace.producers[index]
    return index if any(call.contains(node) and call.index in made_in for call in makers) else node


def scaled_from(graph: Graph, node: int) -> Iterator[int]:
    """The tensor, and the tensors of which it is a constant scaling, a slice or a permutation."""
    yield node
    while graph.nodes[node].op in _SCALINGS and len(graph.nodes[node].parents) == 1:
        node = graph.nodes[node].parents[0]
        yield node


def _fused_whole(graph: Graph, call: Call, makers: list[Call]) -> Call:
    """The call, or an enclosing one that returns the same tensor and can later be fused into one convolution.

    ``fuse`` replaces such a module by a convolution (ConvNorm in EfficientViT, RepViT, TinyViT), so a wrapper around
    the norm inside it would be lost.
    """
    while call.parent >= 0:
        around = graph.trace.calls[call.parent]
        if around not in makers or not hasattr(around.module, "fuse") or not _usable(graph, around):
            break
        call = around
    return call


def _usable(graph: Graph, call: Call) -> bool:
    return bool(call.path) and graph.trace.module_calls[call.path] == 1


def _passes(graph: Graph, index: int) -> Call | None:
    calls = [
        call
        for call in graph.trace.consumers.get(index, ())
        if call.single and call.outputs == [index] and call.inputs == [index] and not call.contains(index)
    ]
    return next((call for call in calls if _usable(graph, call)), None)
