"""Queries on a traced graph: what dominates a tensor, what lies between two tensors, what kind an operation is."""

from __future__ import annotations

from dataclasses import dataclass

from se_nas.backbones._tracing import Node, Trace

ADDITIONS = frozenset({"add", "add_"})
PRODUCTS = frozenset({"mul", "mul_"})
NORMS = frozenset({"native_batch_norm", "native_layer_norm", "native_group_norm", "rms_norm"})
ACTIVATIONS = frozenset(
    name + suffix
    for name in (
        *("relu", "silu", "gelu", "hardswish", "hardtanh", "leaky_relu", "elu", "sigmoid", "hardsigmoid"),
        *("tanh", "softplus", "mish", "clamp", "clamp_min", "threshold", "_prelu_kernel", "prelu"),
    )
    for suffix in ("", "_")
)
NON_LINEAR = ACTIVATIONS | {
    *("_softmax", "softmax", "_safe_softmax", "exp", "scaled_dot_product_attention"),
    *("_scaled_dot_product_attention_math", "_scaled_dot_product_flash_attention_for_cpu"),
}
RESHAPES = frozenset(
    {
        *("view", "_unsafe_view", "reshape", "permute", "transpose", "t", "clone", "contiguous", "expand"),
        *("unsqueeze", "squeeze", "alias", "detach", "_to_copy", "_reshape_alias", "flatten"),
    }
)
SPATIAL_MEANS = frozenset({"mean", "_adaptive_avg_pool2d", "adaptive_avg_pool2d", "avg_pool2d", "sum"})
ATTENTION = frozenset(
    {
        *("scaled_dot_product_attention", "_scaled_dot_product_attention_math"),
        "_scaled_dot_product_flash_attention_for_cpu",
    }
)


def is_map(node: Node) -> bool:
    """Whether the tensor is the feature map of a whole image, channels first or last.

    Traces have a batch of one image: if attention heads or windows take the place of the batch, a gate would see
    only a part of the image or of the channels.
    """
    return len(node.shape) == 4 and node.shape[0] == 1 and node.axis in (1, 3)


def channels(node: Node) -> int:
    return node.shape[node.axis]


def resolution(node: Node) -> tuple[int, int]:
    """(height, width) of a feature map."""
    return (node.shape[2], node.shape[3]) if node.axis == 1 else (node.shape[1], node.shape[2])


def is_spatial(node: Node) -> bool:
    """Whether the tensor is the output of a convolution with a kernel larger than 1x1."""
    return len(node.kernel) == 2 and max(node.kernel) > 1


def is_non_linear(node: Node) -> bool:
    return node.op in NON_LINEAR or (node.op in {*PRODUCTS, "bmm", "pow"} and len(node.parents) == 2)


@dataclass(frozen=True, kw_only=True)
class Path:
    """What lies between two tensors: the nodes after the first, up to and including the second."""

    nodes: tuple[int, ...]
    convolutions: int
    mixers: int
    """Convolutions and matrix products with weights."""
    non_linear: int


class Graph:
    """Dominators and paths of a trace."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.nodes = trace.nodes
        self._idom = [0] * len(trace.nodes)
        self._depth = [0] * len(trace.nodes)
        for node in trace.nodes[1:]:
            dominator = node.parents[0]
            for parent in node.parents[1:]:
                dominator = self.common_dominator(dominator, parent)
            self._idom[node.index] = dominator
            self._depth[node.index] = self._depth[dominator] + 1

    def common_dominator(self, first: int, second: int) -> int:
        """The last tensor on every path from the input to either of the two."""
        while first != second:
            if self._depth[first] < self._depth[second]:
                first, second = second, first
            first = self._idom[first]
        return first

    def between(self, start: int, end: int) -> Path:
        """Everything computed from ``start`` on the way to ``end``; ``start`` must dominate ``end``."""
        seen: set[int] = set()
        waiting = [end]
        while waiting:
            index = waiting.pop()
            if index == start or index in seen or index < start:
                continue
            seen.add(index)
            waiting.extend(self.nodes[index].parents)
        found = [self.nodes[index] for index in sorted(seen)]
        return Path(
            nodes=tuple(node.index for node in found),
            convolutions=sum(node.op == "convolution" for node in found),
            mixers=sum(node.op in ("convolution", "addmm", "mm") for node in found),
            non_linear=sum(is_non_linear(node) for node in found),
        )
