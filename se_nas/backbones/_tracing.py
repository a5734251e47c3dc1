"""One forward pass on the meta device, recorded as a graph of tensors and module calls.

Nothing is computed: weights are replaced by meta tensors during the pass, so a network of any size is traced in a
fraction of a second and its tensors stay untouched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from se_nas.errors import BackboneError

aten = torch.ops.aten
_CHANNELS_FIRST = ("convolution", "native_batch_norm", "native_group_norm")
_FIRST_RESULT_ONLY = (
    aten.native_batch_norm,
    aten.native_layer_norm,
    aten.native_group_norm,
    aten.max_pool2d_with_indices,
)


@dataclass(eq=False, slots=True)
class Node:
    """A tensor that depends on the network's input."""

    index: int
    op: str
    parents: tuple[int, ...]
    shape: tuple[int, ...]
    call: int
    num_operands: int = 0
    """Tensor operands of the operation, weights included."""
    kernel: tuple[int, ...] = ()
    """Spatial kernel of a convolution."""
    groups: int = 1
    macs: int = 0
    """Multiply-adds of a convolution."""
    axis: int = 1
    """Axis that holds the channels."""


@dataclass(eq=False, slots=True)
class Call:
    """One call of a module, which made the nodes ``first <= index < last``."""

    index: int
    path: str
    module: nn.Module
    parent: int
    inputs: list[int]
    first: int
    last: int = -1
    outputs: list[int] = field(default_factory=list)
    single: bool = False
    """Whether the module returned one tensor rather than a structure."""

    def contains(self, node: int) -> bool:
        return self.first <= node < self.last


@dataclass(eq=False)
class Trace:
    """Nodes in order of execution (node 0 is the input) and the module calls that made them."""

    nodes: list[Node]
    calls: list[Call]
    module_calls: dict[str, int]
    """How often each module ran."""

    def __post_init__(self) -> None:
        self.children: list[list[int]] = [[] for _ in self.nodes]
        for node in self.nodes:
            for parent in node.parents:
                self.children[parent].append(node.index)
        self.producers: dict[int, list[Call]] = {}
        self.consumers: dict[int, list[Call]] = {}
        for call in self.calls:
            for index in call.outputs if call.single else ():
                self.producers.setdefault(index, []).append(call)
            for index in dict.fromkeys(call.inputs):
                self.consumers.setdefault(index, []).append(call)

    def stack(self, call: int) -> list[int]:
        """The call and the calls around it, innermost first."""
        found = []
        while call >= 0:
            found.append(call)
            call = self.calls[call].parent
        return found

    def enclosing(self, indices: Sequence[int]) -> Call:
        """The innermost call in which all of these nodes were made."""
        low, high = min(indices), max(indices)
        call = self.calls[self.nodes[low].call]
        while not call.contains(high) and call.parent >= 0:
            call = self.calls[call.parent]
        return call


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self.calls: list[Call] = []
        self.open: list[int] = []
        self.of_tensor: dict[int, int] = {}
        # Every recorded tensor is kept alive, so that no id is used twice.
        self.alive: list[Tensor] = []

    def add(self, tensor: Tensor, op: str, parents: Sequence[int], **facts: Any) -> Node:
        node = Node(
            index=len(self.nodes),
            op=op,
            parents=tuple(dict.fromkeys(parents)),
            shape=tuple(tensor.shape),
            call=self.open[-1] if self.open else -1,
            **facts,
        )
        node.axis = self._channel_axis(node)
        self.nodes.append(node)
        self.of_tensor[id(tensor)] = node.index
        self.alive.append(tensor)
        return node

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        packet = func.overloadpacket
        result: Any = _normalised(args) if packet is aten.native_batch_norm else func(*args, **(kwargs or {}))
        operands = list(_tensors((args, kwargs)))
        parents = [self.of_tensor[id(t)] for t in operands if id(t) in self.of_tensor]
        if not parents:
            return result
        facts: dict[str, Any] = {"num_operands": len(operands)}
        if packet is aten.convolution:
            weight = args[1]
            macs = result.numel() * weight[0].numel()
            facts |= {"kernel": tuple(weight.shape[2:]), "groups": int(args[8]), "macs": macs}
        self.permutation: list[int] | None = None
        if packet is aten.permute:
            self.permutation = [axis % args[0].dim() for axis in args[1]]
        elif packet is aten.transpose:
            first, second = (axis % args[0].dim() for axis in args[1:3])
            self.permutation = list(range(args[0].dim()))
            self.permutation[first], self.permutation[second] = second, first
        # Norms and pools also return statistics or indices that nothing downstream reads.
        results = list(_tensors(result))
        for tensor in results[:1] if packet in _FIRST_RESULT_ONLY else results:
            self.add(tensor, packet.__name__, parents, **facts)
        return result

    def _channel_axis(self, node: Node) -> int:
        if not node.parents or node.op in _CHANNELS_FIRST or len(node.shape) < 2:
            return 1
        parent = self.nodes[node.parents[0]]
        if node.op in ("permute", "transpose") and self.permutation is not None:
            return self.permutation.index(parent.axis) if parent.axis in self.permutation else 1
        if node.op in ("addmm", "mm", "bmm"):
            return len(node.shape) - 1
        if len(parent.shape) == len(node.shape):
            return parent.axis
        if parent.axis == len(parent.shape) - 1:
            return len(node.shape) - 1
        return _axis_of_width(node.shape, parent.shape[parent.axis], parent.axis)

    def nodes_of(self, structure: Any) -> list[int]:
        return [self.of_tensor[id(t)] for t in _tensors(structure) if id(t) in self.of_tensor]

    def before(self, path: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        call = Call(
            index=len(self.calls),
            path=path,
            module=module,
            parent=self.open[-1] if self.open else -1,
            inputs=self.nodes_of((args, kwargs)),
            first=len(self.nodes),
        )
        self.calls.append(call)
        self.open.append(call.index)

    def after(self, output: Any) -> None:
        call = self.calls[self.open.pop()]
        call.last = len(self.nodes)
        call.outputs = self.nodes_of(output)
        call.single = isinstance(output, Tensor) and len(call.outputs) == 1
        if isinstance(call.module, nn.Linear) and call.single:
            node = self.nodes[call.outputs[0]]
            node.axis = len(node.shape) - 1


def trace(model: nn.Module, input_size: tuple[int, ...]) -> Trace:
    """Record one forward pass in eval mode with a batch of one image.

    Args:
        model: any module that takes one image tensor; its weights, buffers and mode are left unchanged.
        input_size: (channels, height, width) of the image.

    Raises:
        BackboneError: the model cannot run on an image of this size.
    """
    recorder = _Recorder()
    named = dict(model.named_modules())
    modes = [(module, module.training) for module in named.values()]
    counts: dict[str, int] = {}
    with ExitStack() as undo, torch.no_grad():
        for path, module in named.items():

            def enter(module: nn.Module, args: Any, kwargs: Any, path: str = path) -> None:
                counts[path] = counts.get(path, 0) + 1
                recorder.before(path, module, args, kwargs)

            def leave(module: nn.Module, args: Any, output: Any) -> None:
                recorder.after(output)

            if not isinstance(module, torch.jit.ScriptModule):
                undo.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
                undo.callback(module.register_forward_hook(leave).remove)
        for module, training in modes:
            undo.callback(setattr, module, "training", training)
            module.training = False
        undo.enter_context(_on_meta(model))
        dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
        image = torch.empty((1, *input_size), device="meta", dtype=dtype)
        try:
            with recorder:
                recorder.add(image, "input", ())
                model(image)
        except Exception as error:
            raise BackboneError(
                f"{type(model).__name__} cannot run on an image of {'x'.join(map(str, input_size))}:"
                f" {type(error).__name__}: {error}. Give the size it takes as input_size=(channels, height, width)."
            ) from error
    return Trace(recorder.nodes, recorder.calls, counts)


def _normalised(args: tuple[Any, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """What a batch norm gives for these arguments; PyTorch's own way on the meta device takes half of a trace."""
    images: Tensor = args[0]
    statistics = images.new_empty(images.shape[1])
    return torch.empty_like(images), statistics, statistics


@contextmanager
def _on_meta(model: nn.Module) -> Iterator[None]:
    """Replace every parameter and buffer by a meta tensor of the same shape, and put them back."""
    replaced: list[tuple[Any, str, Any]] = []
    twins: dict[int, Tensor] = {}
    for module in model.modules():
        stores: tuple[Any, ...] = (module._parameters, module._buffers, vars(module))
        for store in stores:
            for name, value in list(store.items()):
                if isinstance(value, Tensor) and value.device.type != "meta":
                    if id(value) not in twins:
                        twins[id(value)] = torch.empty_like(value, device="meta", requires_grad=False)
                    replaced.append((store, name, value))
    try:
        for store, name, value in replaced:
            store[name] = twins[id(value)]
        yield
    finally:
        for store, name, value in replaced:
            store[name] = value


def _tensors(structure: Any) -> Iterator[Tensor]:
    if isinstance(structure, Tensor):
        yield structure
    elif isinstance(structure, list | tuple):
        for item in structure:
            yield from _tensors(item)
    elif isinstance(structure, dict):
        for item in structure.values():
            yield from _tensors(item)


def _axis_of_width(shape: tuple[int, ...], width: int, preferred: int) -> int:
    if preferred < len(shape) and shape[preferred] == width:
        return preferred
    return shape.index(width) if width in shape else min(preferred, len(shape) - 1)
