"""The backbone's native gates and empty slots, and where they are in the graph."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from se_nas.backbones._graph import PRODUCTS, Graph, is_map, is_spatial, resolution
from se_nas.backbones._tracing import Call
from se_nas.layers.native_gates import describe_native, is_channel_gate

_MAX_GATE_NODES = 40


@dataclass(frozen=True, kw_only=True)
class NativeGate:
    """A native channel gate: its input and output tensors, kind and hidden width."""

    call: Call
    start: int
    end: int
    kind: str
    rd_channels: int | None


def find_native_gates(graph: Graph) -> list[NativeGate]:
    """Every module call that multiplies its input by one factor per channel, computed from the whole map."""
    known: dict[tuple[object, ...], tuple[str, int | None] | None] = {}
    found: list[NativeGate] = []
    for call in graph.trace.calls:
        if not _may_be_gate(graph, call) or (found and found[-1].call.last >= call.last > call.first):
            continue
        module = call.module
        shapes = tuple(tuple(parameter.shape) for parameter in module.parameters())
        kind = (type(module), repr(module), shapes)
        if kind not in known:
            known[kind] = describe_native(module) if is_channel_gate(module) else None
        described = known[kind]
        if described is not None and graph.trace.module_calls[call.path] == 1:
            found.append(
                NativeGate(
                    call=call,
                    start=call.inputs[0],
                    end=call.outputs[0],
                    kind=described[0],
                    rd_channels=described[1],
                )
            )
    return found


def _may_be_gate(graph: Graph, call: Call) -> bool:
    if not call.path or not call.single or len(call.inputs) != 1 or call.last == call.first:
        return False
    start, end = graph.nodes[call.inputs[0]], graph.nodes[call.outputs[0]]
    if start.shape != end.shape or not is_map(start) or end.op not in PRODUCTS:
        return False
    inside = graph.nodes[call.first : call.last]
    squeezed = any(len(node.shape) > 1 and node.shape.count(1) >= len(node.shape) - 1 for node in inside)
    return (
        squeezed
        and len(inside) <= _MAX_GATE_NODES
        and not any(is_spatial(n) and is_map(n) and resolution(n) == resolution(start) for n in inside)
    )


def empty_slots(model: nn.Module, names: tuple[str, ...]) -> list[tuple[str, str]]:
    """(path of the block, attribute) for every attribute of these names that is None."""
    found = []
    for path, module in model.named_modules():
        for name in names:
            if name in {**vars(module), **module._modules} and getattr(module, name) is None:
                found.append((path, name))
    return found
