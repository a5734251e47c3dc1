"""Regional compilation: the repeated blocks of a network are compiled, one by one.

Blocks of one structure share what was compiled, within a network and between candidates that differ in SE
alone; compiling a whole network would start anew for each candidate.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any

from torch import nn

from se_nas.compilation import compile_separately

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """The outermost modules with children whose class occurs twice or more in one container."""
    blocks: list[nn.Module] = []
    _collect(model, blocks)
    return blocks


def compile_blocks(model: nn.Module, backend: str = "inductor") -> nn.Module:
    """Compile the repeated blocks in place (the whole network where there are none); keys stay.

    Compilation happens at the first call with a shape and mode. ``backend`` is one of ``torch.compile``.
    """
    for block in repeated_blocks(model) or [model]:
        # What Module.compile does, with compiled code that belongs to the structure instead of the class.
        block._compiled_call_impl = functools.partial(_compiled(_structure(block), backend), block)
    return model


@functools.cache
def _compiled(structure: str, backend: str) -> Callable[..., Any]:
    def call(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return block._call_impl(*args, **kwargs)

    # Candidates of a run see a few fixed shapes, and code for fixed shapes is faster.
    return compile_separately(call, backend=backend, dynamic=False)


def _structure(block: nn.Module) -> str:
    """Equal for blocks that the same code can serve: modules with their settings, and shapes of weights."""
    tensors = {**dict(block.named_parameters()), **dict(block.named_buffers())}
    return f"{block!r} { {name: (tuple(t.shape), t.dtype, t.device) for name, t in tensors.items()} }"


def _collect(module: nn.Module, blocks: list[nn.Module]) -> None:
    children = list(module.children())
    counts = Counter(type(child) for child in children)
    repeats = isinstance(module, _CONTAINERS)
    for child in children:
        holds_parts = next(child.children(), None) is not None and not isinstance(child, _CONTAINERS)
        if repeats and holds_parts and counts[type(child)] > 1:
            blocks.append(child)
        else:
            _collect(child, blocks)
