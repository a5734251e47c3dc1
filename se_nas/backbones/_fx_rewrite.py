"""SE on an identity shortcut, or before a branch of several modules: the block's forward pass is rewritten by torch.fx.

No module corresponds to either. The block stays the same object, with the same children and weights, and becomes
an instance of a subclass of its class. Only its ``forward`` is replaced, by the traced one with SE between the
tensor at which the shortcut starts and the addition, or all of its other readers. Children are leaves of the
trace, so stochastic depth and norms keep their training behaviour.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx, nn

from se_nas.errors import BackboneError

GATE_NAME = "se_shortcut"
REWRITTEN = ("shortcut", "branch")
"""Anchors of sites whose block gets another forward pass; the block holds the gate as ``GATE_NAME``."""
_ADDITIONS = (operator.add, operator.iadd, torch.add)
_ADDITION_METHODS = ("add", "add_")
_FROZEN_BY_TRACING = ("dropout", "drop_path", "drop_block", "batch_norm")


class _Leaves(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def shortcut_source(block: nn.Module) -> str | None:
    """The start of the block's one identity shortcut, if it can be rewritten.

    Returns:
        The name of the child whose output it is, "" for the block's input; None if there is no such shortcut.
    """
    traced = _traced(block)
    if traced is None:
        return None
    source = traced[2]
    return str(source.target) if source.op == "call_module" else ""


def gate_shortcut(block: nn.Module, se: nn.Module, gated: str = "shortcut") -> None:
    """Put SE on the block's identity shortcut, or with ``gated="branch"`` before all other readers of its start.

    Raises:
        BackboneError: the block's forward pass cannot be rewritten.
    """
    traced = _traced(block)
    if traced is None:
        raise BackboneError(f"{type(block).__name__} has no identity shortcut that SE can be put on.")
    graph, addition, source = traced
    block.add_module(GATE_NAME, se.train(block.training))
    readers = [node for node in source.users if (node is addition) == (gated == "shortcut")]
    # In-place operations of the branch may change the tensor, so SE must read it first.
    with graph.inserting_after(source):
        output = graph.call_module(GATE_NAME, (source,))
    for node in readers:
        node.replace_input_with(source, output)
    graph.lint()
    forward = type(fx.GraphModule(block, graph)).forward
    cls = type(block)
    block.__class__ = type(cls.__name__, (cls,), {"forward": forward, "__module__": cls.__module__})


def _traced(block: nn.Module) -> tuple[fx.Graph, fx.Node, fx.Node] | None:
    if isinstance(block, nn.Sequential | nn.ModuleList):
        return None
    try:
        graph = _Leaves().trace(block)
    except Exception:
        # fx raises whatever the block's own code raises on symbolic values.
        return None
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    if len(inputs) != 1 or any(_frozen(node) for node in graph.nodes):
        return None
    additions = [node for node in graph.nodes if _is_addition(node) and len(node.all_input_nodes) == 2]
    for sources in (inputs, [node for node in graph.nodes if node.op == "call_module"]):
        pairs = [
            (addition, source)
            for addition in additions
            for source in set(sources).intersection(addition.all_input_nodes)
            if any(source in _ancestors(other) for other in addition.all_input_nodes if other is not source)
        ]
        if pairs:
            return (graph, *pairs[0]) if len(pairs) == 1 else None
    return None


def _ancestors(node: fx.Node) -> set[fx.Node]:
    found: set[fx.Node] = set()
    waiting = [node]
    while waiting:
        new = [parent for parent in waiting.pop().all_input_nodes if parent not in found]
        found.update(new)
        waiting.extend(new)
    return found


def _is_addition(node: fx.Node) -> bool:
    if node.op == "call_function":
        return node.target in _ADDITIONS
    return node.op == "call_method" and node.target in _ADDITION_METHODS


def _frozen(node: fx.Node) -> bool:
    target: Any = node.target
    name = target if isinstance(target, str) else getattr(target, "__name__", "")
    return node.op == "call_function" and (name in _FROZEN_BY_TRACING or "training" in node.kwargs)
