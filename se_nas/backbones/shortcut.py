"""SE on an identity shortcut, which has no module of its own: the block's forward pass is rewritten by torch.fx.

The block stays what it is: same object, a subclass of its class, same children and weights. Only its
``forward`` is replaced by the traced one with SE between the block's input and the addition; children are
leaves of the trace, so stochastic depth and norms keep their training behaviour.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx, nn

from se_nas.errors import BackboneError

GATE_NAME = "se_shortcut"
_ADDITIONS = (operator.add, operator.iadd, torch.add)
_ADDITION_METHODS = ("add", "add_")
_FROZEN_BY_TRACING = ("dropout", "drop_path", "drop_block", "batch_norm")


class _Leaves(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def has_plain_shortcut(block: nn.Module) -> bool:
    """Whether the block adds its own input, unchanged, exactly once, in a way that can be rewritten."""
    return _traced(block) is not None


def gate_shortcut(block: nn.Module, se: nn.Module) -> None:
    """Put SE between the block's input and its addition, in place.

    Raises:
        BackboneError: the block's forward pass cannot be rewritten.
    """
    traced = _traced(block)
    if traced is None:
        raise BackboneError(f"{type(block).__name__} has no identity shortcut that SE can be put on.")
    graph, addition, source = traced
    block.add_module(GATE_NAME, se.train(block.training))
    with graph.inserting_before(addition):
        gated = graph.call_module(GATE_NAME, (source,))
    addition.replace_input_with(source, gated)
    # SE reads the input while in-place operations of the branch may still change it: it must run first.
    source.append(gated)
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
    source = inputs[0]
    additions = [node for node in graph.nodes if _is_addition(node) and source in node.all_input_nodes]
    if len(additions) != 1 or len(additions[0].all_input_nodes) != 2:
        return None
    return graph, additions[0], source


def _is_addition(node: fx.Node) -> bool:
    if node.op == "call_function":
        return node.target in _ADDITIONS
    return node.op == "call_method" and node.target in _ADDITION_METHODS


def _frozen(node: fx.Node) -> bool:
    target: Any = node.target
    name = target if isinstance(target, str) else getattr(target, "__name__", "")
    return node.op == "call_function" and (name in _FROZEN_BY_TRACING or "training" in node.kwargs)
