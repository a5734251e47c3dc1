"""Regional compilation: the repeated blocks of a network are compiled, one by one.

Blocks of one structure share what was compiled, within a network and between candidates that differ only in
SE; compiling a whole network would start anew for each candidate.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from se_nas.compilation import compile_separately

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_LAYERS = (nn.Linear, nn.modules.conv._ConvNd)


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks that stages are made of, in order: of a class with two layers or more that occurs more than once.

    A class that holds several such blocks is a stage and is looked into.
    """
    counts = Counter(type(module) for module in model.modules() if _has_layers(module))
    stages = {type(module) for module in model.modules() if _holds_blocks(module)}
    blocks: list[nn.Module] = []

    def collect(module: nn.Module) -> None:
        for part in _parts(module):
            if _has_layers(part) and counts[type(part)] > 1 and type(part) not in stages:
                blocks.append(part)
            else:
                collect(part)

    collect(model)
    return blocks


def compile_blocks(model: nn.Module, backend: str = "inductor") -> nn.Module:
    """Compile the repeated blocks in place (the whole network if there are none); keys stay.

    Compilation happens at the first call with a shape and mode. ``backend`` is one of ``torch.compile``.
    """
    for block in repeated_blocks(model) or [model]:
        # What Module.compile does, with compiled code that belongs to the structure instead of the class.
        block._compiled_call_impl = functools.partial(_compiled(_structure(block), backend), block)
    return model


def uncompile_blocks(model: nn.Module) -> nn.Module:
    """Undo ``compile_blocks``."""
    for block in repeated_blocks(model) or [model]:
        block._compiled_call_impl = None
    return model


def block_structures(model: nn.Module) -> set[str]:
    """What is compiled once: the different structures among the repeated blocks."""
    return {_structure(block) for block in repeated_blocks(model) or [model]}


@functools.cache
def _compiled(structure: str, backend: str) -> Callable[..., Any]:
    def call(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return block._call_impl(*args, **kwargs)

    # Candidates of a run see a few fixed shapes, and code for fixed shapes is faster.
    return compile_separately(call, backend=backend, dynamic=False)


def _structure(block: nn.Module) -> str:
    """Equal for blocks that the same code can serve: modules with their settings, and shapes of weights."""
    tensors = {**dict(block.named_parameters()), **dict(block.named_buffers())}
    return f"{block!r} { {name: (tuple(t.shape), t.dtype) for name, t in tensors.items()} }"


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """The modules that a module is made of, those in its containers instead of the containers."""
    for child in module.children():
        if isinstance(child, _CONTAINERS):
            yield from _parts(child)
        else:
            yield child


def _has_layers(module: nn.Module) -> bool:
    layers = sum(isinstance(part, _LAYERS) for part in module.modules())
    return layers > 1 and not isinstance(module, _CONTAINERS)


def _holds_blocks(module: nn.Module) -> bool:
    counts = Counter(type(part) for part in _parts(module) if _has_layers(part))
    return any(count > 1 for count in counts.values())
