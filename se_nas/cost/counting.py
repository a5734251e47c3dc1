"""What fvcore counts in a model: parameters, multiply-adds and activations, whole and module by module.

fvcore (https://github.com/facebookresearch/fvcore, docs/flop_count.md) counts one fused multiply-add as one,
two per element for a batch norm in eval mode, and nothing for means, gates, products and activations.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from se_nas.errors import BackboneError

if TYPE_CHECKING:
    from torch import nn

_TRACE_ATTEMPTS = 3
_POOLING = "adaptive_avg_pool2d"


@dataclass(frozen=True, kw_only=True)
class Counts:
    """fvcore's counts of one model for one image.

    Attributes:
        num_params: parameters by module path; "" is the whole model.
        macs: multiply-adds by module path.
        activations: elements of the outputs of convolutions and matrix products by module path.
        pooling: the part of ``macs`` that average-pooling modules stand for, by module path.
    """

    num_params: Mapping[str, int]
    macs: Mapping[str, int]
    activations: Mapping[str, int]
    pooling: Mapping[str, int]


def count(model: nn.Module, input_size: tuple[int, int, int]) -> Counts:
    """Count parameters, multiply-adds and activations of ``model`` in eval mode for one image.

    Args:
        model: any traceable image model, on the CPU. Its training flag is restored afterwards.
        input_size: (channels, height, width) in pixels.

    Raises:
        BackboneError: the model cannot take images of this size.
    """
    import torch

    with quiet_fvcore():
        from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis, parameter_count

    training = model.training
    model.eval()
    image = torch.zeros(1, *input_size)
    try:
        with torch.no_grad():
            check_input_size(model, image)
            flops = _traced(FlopCountAnalysis, model, image)
            activations = _traced(ActivationCountAnalysis, model, image)
    finally:
        model.train(training)
    by_operator = flops.by_module_and_operator()
    return Counts(
        num_params=dict(parameter_count(model)),
        # fvcore gives the product of an einsum as a float.
        macs={path: int(value) for path, value in flops.by_module().items()},
        activations={path: int(value) for path, value in activations.by_module().items()},
        pooling={path: int(operators[_POOLING]) for path, operators in by_operator.items()},
    )


def check_input_size(model: nn.Module, images: Any) -> None:
    """Run ``model`` on ``images`` (N, channels, height, width) once and say what is wrong if it cannot.

    Raises:
        BackboneError: channels or size do not fit the network.
    """
    try:
        model(images)
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        if is_out_of_memory(error):
            raise
        size = "x".join(map(str, images.shape[1:]))
        default = (getattr(model, "default_cfg", None) or {}).get("input_size", (3, 224, 224))
        usual = "x".join(map(str, default))
        advice = (
            ""
            if images.shape[1] == default[0]
            else f", or build the backbone with in_chans={images.shape[1]}"
        )
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise BackboneError(
            f"input_size is {size}, which the backbone cannot take; its usual size is {usual}{advice}"
            f" ({reason[0]})."
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of torch or the system says that memory ran out, on any device."""
    import torch

    words = ("out of memory", "not enough memory", "can't allocate memory", "failed to allocate")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
    )


@contextmanager
def quiet_fvcore() -> Iterator[None]:
    """Ignore the notice that torch.jit will be removed: fvcore uses it, and no user can act on that."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is deprecated", category=FutureWarning)
        yield


def _traced(analysis: Any, model: nn.Module, image: Any) -> Any:
    for attempt in range(1, _TRACE_ATTEMPTS + 1):
        counter = (
            analysis(model, image)
            .unsupported_ops_warnings(False)
            .uncalled_modules_warnings(False)
            .tracer_warnings("none")
        )
        try:
            counter.total()
        except (RuntimeError, AssertionError):
            # torch's tracer occasionally fails an internal assertion about list_trace; a new trace succeeds.
            if attempt == _TRACE_ATTEMPTS:
                raise
        else:
            return counter
    raise AssertionError("unreachable")
