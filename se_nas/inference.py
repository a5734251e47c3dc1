"""Rewrites of a trained network that keep its function: bit for bit, or up to rounding."""

from __future__ import annotations

import copy
import math
import statistics
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from timm.layers.activations import Sigmoid
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from se_nas.arguments import checked
from se_nas.backbones._graph import RESHAPES
from se_nas.backbones._tracing import Call, Node, Trace, trace
from se_nas.backbones.creation import input_size_of
from se_nas.layers.native_gates import bottleneck_layers, is_channel_gate
from se_nas.layers.squeeze_excite import SqueezeExcite
from se_nas.sites import image_size

TOLERANCE = 1e-5
"""Largest difference of an optimised block's output from the original's, as a share of the largest output.

In float32; in a narrower type it is eight times the distance from 1 to the next number.
"""

# Twice the input gives exactly twice the output.
_HOMOGENEOUS = RESHAPES | {"relu", "relu_", "leaky_relu", "leaky_relu_", "max_pool2d_with_indices"}
_VIEWS = frozenset({"input", "chunk", "split", "split_with_sizes", "slice", "select", "unbind", "narrow"})


@dataclass(kw_only=True)
class Folded:
    """Paths of the blocks that now have a plain gate, and of those left as they were, with the reason."""

    folded: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)


def fold_gate_scale(model: nn.Module, *, input_size: tuple[int, int, int] | None = None) -> Folded:
    """Turn scaled gates (2·sigmoid) into plain ones, in place, if outputs stay equal bit for bit.

    s·gate(W1·z)·x = gate((W1/s)·(s·z))·(s·x): if x comes from a norm or a convolution with weights and nothing
    else reads it, those weights are multiplied by s and the first SE layer's are divided by it. ReLU, leaky ReLU
    and max pooling in between let the factor through. This is exact because s is a power of two.

    Args:
        model: a network with ``SqueezeExcite`` blocks; its training mode is kept.
        input_size: (channels, height, width) of its images; None is what timm says about the network.
    """
    result = Folded()
    scaled = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, SqueezeExcite) and module.gate_scale != 1.0
    }
    if not scaled:
        return result
    recorded = trace(model, input_size or input_size_of(model))
    for path, block in scaled.items():
        source = _affine_before(recorded, path, block.gate_scale)
        if isinstance(source, str):
            result.left[path] = source
            continue
        _move_scale(block, source)
        result.folded.append(path)
    return result


@torch.no_grad()
def _move_scale(block: SqueezeExcite, source: nn.Module) -> None:
    for parameter in source.parameters(recurse=False):
        parameter.mul_(block.gate_scale)
    block.fc1.weight.div_(block.gate_scale)
    block.gate_scale = 1.0


def _affine_before(recorded: Trace, path: str, scale: float) -> nn.Module | str:
    """The module whose weights scale the tensor that the block gates, or why there is none."""
    if math.frexp(scale)[0] != 0.5:
        return f"its scale {scale:g} is not a power of two"
    calls = [call for call in recorded.calls if call.path == path]
    if len(calls) != 1:
        return f"it runs {len(calls)} times"
    node = recorded.nodes[calls[0].inputs[0]]
    if not _read_only_by(recorded, node, calls[0]):
        return "something else reads the tensor that it gates"
    while node.op in _HOMOGENEOUS:
        node = recorded.nodes[node.parents[0]]
        if len(recorded.children[node.index]) != 1:
            return "something else reads the tensor that it gates"
    source = recorded.calls[node.call] if node.call >= 0 else None
    if source is None or source.module._parameters.get("weight") is None:
        return f"the tensor that it gates comes from {node.op}, which has no weights"
    if recorded.module_calls[source.path] != 1 or not source.inputs:
        return f"{source.path} runs {recorded.module_calls[source.path]} times"
    if not _scales_with_its_weights(source.module, recorded.nodes[source.inputs[0]].shape, scale):
        return f"the output of {source.path} is not proportional to its weights"
    return source.module


@torch.no_grad()
def _scales_with_its_weights(module: nn.Module, shape: tuple[int, ...], scale: float) -> bool:
    """Tried with random weights: the output of a weight-standardising convolution, for example, does not scale."""
    if any(parameter.dtype == torch.float16 or parameter.is_meta for parameter in module.parameters()):
        return False
    probe = copy.deepcopy(module).cpu().float()
    probe.eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in probe.parameters(recurse=False):
        parameter.normal_(generator=generator)
    x = torch.randn(shape, generator=generator)
    expected = scale * probe(x)
    for parameter in probe.parameters(recurse=False):
        parameter.mul_(scale)
    return torch.equal(probe(x), expected)


def _relu(x: Tensor) -> Tensor:
    return x.relu_()


def _sigmoid(x: Tensor) -> Tensor:
    return x.sigmoid_()


_FUNCTIONS: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {
    nn.ReLU: _relu,
    nn.Sigmoid: _sigmoid,
    Sigmoid: _sigmoid,
}


class LinearSqueezeExcite(nn.Module):
    """The same function as an SE block, in fewer and cheaper steps.

    A convolution of a 1x1 map takes several times as long as the equal matrix product, above all on a CPU, and
    calling a layer's module takes longer than calling its function. The scaled map can overwrite the map that it
    is computed from, which saves the memory of a second one.

    Args:
        reduce, act, expand, gate: the layers of the block, in order.
        gate_scale: constant factor of the gate.
        in_place: scale the input itself; set it only if nothing else reads the input. Not done while autograd
            records, nor for a single channels-last image on several CPU threads, unless compiled.
        channels_last: the input is (N, H, W, C) rather than (N, C, H, W).
    """

    def __init__(
        self,
        reduce: nn.Linear,
        act: nn.Module,
        expand: nn.Linear,
        gate: nn.Module,
        *,
        gate_scale: float = 1.0,
        in_place: bool = False,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.fc1, self.fc2 = reduce, expand
        self.act, self.gate = (_FUNCTIONS.get(type(layer), layer) for layer in (act, gate))
        self.gate_scale = gate_scale
        self.in_place = in_place
        self.dims = (1, 2) if channels_last else (2, 3)

    def forward(self, x: Tensor) -> Tensor:
        fc1, fc2 = self.fc1, self.fc2
        hidden = self.act(F.linear(x.mean(self.dims), fc1.weight, fc1.bias))
        gate = self.gate(F.linear(hidden, fc2.weight, fc2.bias))
        if self.gate_scale != 1.0:
            gate = self.gate_scale * gate
        gate = gate[:, None, None, :] if self.dims == (1, 2) else gate[:, :, None, None]
        if self.in_place and not torch.is_grad_enabled() and not self._is_split_two_ways(x):
            return x.mul_(gate)
        return x * gate

    def _is_split_two_ways(self, x: Tensor) -> bool:
        """Whether writing into ``x`` takes memory from other cores, which can take longer than a second map.

        In channels-last order, threads split the mean by channels and the product by pixels. In batches, a second
        map takes longer than that.
        """
        if torch.compiler.is_compiling() or not x.is_cpu or len(x) > 1:
            return False
        channels_last = self.dims == (1, 2) or not x.is_contiguous()
        return channels_last and torch.get_num_threads() > 1


@checked
def optimize_for_inference(
    model: nn.Module, *, input_size: int | tuple[int, int, int] | None = None, in_place: bool = True
) -> nn.Module:
    """A copy in eval mode whose SE blocks, inserted and native ones alike, take their fastest form.

    Outputs agree up to rounding (``TOLERANCE``); a block whose fast form does not is left as it was. The
    state dict has other shapes. Run it under ``torch.inference_mode()`` or ``torch.no_grad()``: while
    autograd records, nothing is done in place.

    Args:
        model: any network.
        input_size: (channels, height, width) of its images, or the side of square images; None is what timm says
            about the network.
        in_place: let a block write into the tensor that it gates if nothing else reads that tensor.
    """
    result = copy.deepcopy(model)
    result.eval()
    blocks = {
        path: module
        for path, module in result.named_modules()
        if bottleneck_layers(module) is not None and is_channel_gate(module)
    }
    if not blocks:
        return result
    size = input_size_of(result) if input_size is None else image_size(input_size)
    recorded = trace(result, size)
    for path, block in blocks.items():
        calls = [call for call in recorded.calls if call.path == path and call.inputs]
        if not calls:
            continue
        node = recorded.nodes[calls[0].inputs[0]]
        fast = _fast_form(block, channels_last=node.axis != 1)
        if fast is None or not _agrees(fast, block, node.shape):
            continue
        fast.in_place = in_place and len(calls) == 1 and _may_be_overwritten(recorded, node, calls[0])
        result.set_submodule(path, _fastest(fast, node.shape))
    return result


def _fast_form(block: nn.Module, *, channels_last: bool) -> LinearSqueezeExcite | None:
    layers = bottleneck_layers(block)
    if layers is None:
        return None
    reduce, expand, norms = layers
    for norm in norms:
        if not isinstance(norm, nn.BatchNorm2d | nn.BatchNorm1d) or norm.running_mean is None:
            return None
        if isinstance(reduce, nn.Conv2d):
            reduce = fuse_conv_bn_eval(reduce, norm)
        elif isinstance(reduce, nn.Linear):
            reduce = fuse_linear_bn_eval(reduce, norm)
    # Besides the layers and modules that do nothing, an activation and a gate are left, in this order.
    passive = (nn.Identity, nn.Dropout, nn.AdaptiveAvgPool2d)
    others = [child for child in block.children() if not isinstance(child, passive)]
    others = [child for child in others if next(child.parameters(), None) is None and child not in norms]
    if len(others) != 2:
        return None
    return LinearSqueezeExcite(
        _as_linear(reduce),
        others[0],
        _as_linear(expand),
        others[1],
        gate_scale=block.gate_scale if isinstance(block, SqueezeExcite) else 1.0,
        channels_last=channels_last,
    ).eval()


def _as_linear(layer: nn.Module) -> nn.Linear:
    if isinstance(layer, nn.Linear):
        return layer
    weight = layer.get_parameter("weight").flatten(1)
    with torch.device("meta"):
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=layer.bias is not None)
    linear.weight = nn.Parameter(weight.detach().clone(), layer.get_parameter("weight").requires_grad)
    if layer.bias is not None:
        linear.bias = nn.Parameter(layer.get_parameter("bias").detach().clone())
    return linear


@torch.no_grad()
def _agrees(fast: nn.Module, block: nn.Module, shape: tuple[int, ...], device: str = "cpu") -> bool:
    """Compared on the CPU by default: other devices may compute convolutions in a lower precision (TF32)."""
    reference = next(block.parameters())
    if reference.is_meta:
        return True
    fast, block = (copy.deepcopy(module).to(device) for module in (fast, block))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device, reference.dtype)
    expected = block(x.clone()).float()
    epsilon = TOLERANCE if reference.dtype == torch.float32 else 8 * torch.finfo(reference.dtype).eps
    return bool((fast(x).float() - expected).abs().max() <= epsilon * expected.abs().max())


def _fastest(block: LinearSqueezeExcite, shape: tuple[int, ...]) -> nn.Module:
    """The Triton form if it works on this device and is faster here, else the block."""
    weight = block.fc1.weight
    known = block.dims == (2, 3) and (block.act, block.gate) == (_relu, _sigmoid)
    if weight.device.type != "cuda" or not known:
        return block
    try:
        from se_nas.layers.triton_gate import TritonSqueezeExcite

        rival = TritonSqueezeExcite(block)
        if not _agrees(rival, block, shape, str(weight.device)):
            return block
        x = torch.ones(shape, device=weight.device, dtype=weight.dtype)
        torch_ms, triton_ms = (_milliseconds(module, x) for module in (block, rival))
    except Exception as error:
        # No Triton, no C compiler, an old GPU: all that is lost is speed.
        warnings.warn(f"the Triton form does not run here: {error}", RuntimeWarning, stacklevel=3)
        return block
    return rival if triton_ms < torch_ms else block


@torch.inference_mode()
def _milliseconds(module: nn.Module, x: Tensor) -> float:
    times = []
    for _ in range(30):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        module(x)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def _read_only_by(recorded: Trace, node: Node, call: Call) -> bool:
    """Whether all that is ever computed from this tensor is computed inside the call."""
    leaves = any(node.index in outer.outputs for outer in recorded.calls if outer.parent < 0)
    return not leaves and all(call.contains(child) for child in recorded.children[node.index])


def _may_be_overwritten(recorded: Trace, node: Node, call: Call) -> bool:
    """Whether nothing reads the tensor's memory after the call."""
    if not _read_only_by(recorded, node, call):
        return False
    while node.op.endswith("_") or node.op in RESHAPES:
        node = recorded.nodes[node.parents[0]]
        if len(recorded.children[node.index]) != 1:
            return False
    return node.op not in _VIEWS
