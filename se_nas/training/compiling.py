"""Regional compilation: the repeated blocks of a network are compiled, one by one.

Blocks with the same code share what was compiled, within a network and between candidates that differ in SE
alone; compiling a whole network would start anew for each candidate.
"""

from __future__ import annotations

from collections import Counter

from torch import nn

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """The outermost modules with children whose class occurs twice or more in one container."""
    blocks: list[nn.Module] = []
    _collect(model, blocks)
    return blocks


def compile_blocks(model: nn.Module, backend: str = "inductor") -> nn.Module:
    """Compile the repeated blocks in place (the whole network where there are none); keys stay.

    ``backend`` is one of ``torch.compile``.
    """
    for block in repeated_blocks(model) or [model]:
        block.compile(backend=backend)
    return model


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
