"""Makes modules repeatedly from one state of torch's generator, without drawing the random numbers each time.

Torch's CPU generator is serial, and most of the time to make a gate goes into it. But layers draw uniform numbers
one after the other, so everything made from one state takes pieces of the same sequence. The sequence is drawn once
and its pieces are scaled to the range that a layer asks for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Made = TypeVar("Made")


class Replay:
    """Calls functions as if the CPU generator had a given state, with bit-identical results.

    The generator itself is left alone. Every number that has been needed is kept, at 4 bytes each.
    """

    def __init__(self, state: Tensor) -> None:
        self._state = state
        self._numbers = torch.empty(0)

    def make(self, maker: Callable[[], Made]) -> Made:
        """What ``maker`` returns if called with the generator in this state. It may be called twice."""
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._state)
            if _scaled_as_torch_does():
                try:
                    with _Uniform(self):
                        made = maker()
                    # Any other kind of draw would have changed the generator.
                    if torch.equal(torch.get_rng_state(), self._state):
                        return made
                except _OtherDrawError:
                    pass
                torch.set_rng_state(self._state)
            return maker()

    def numbers(self, start: int, count: int) -> Tensor:
        """Numbers ``start`` to ``start + count`` of the sequence, uniform in [0, 1), shape (count,)."""
        if start + count > len(self._numbers):
            with torch.random.fork_rng(devices=[]):
                torch.set_rng_state(self._state)
                self._numbers = torch.empty(max(start + count, 2 * len(self._numbers))).uniform_()
        return self._numbers[start : start + count]


class _OtherDrawError(Exception):
    """A call of ``uniform_`` that the sequence cannot serve."""


class _Uniform(TorchDispatchMode):
    """Serves ``tensor.uniform_(low, high)`` from the sequence of a ``Replay``."""

    def __init__(self, replay: Replay) -> None:
        super().__init__()
        self.replay, self.used = replay, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not torch.ops.aten.uniform_.default:
            return func(*args, **kwargs)
        return self._fill(*args, **kwargs)

    def _fill(self, tensor: Tensor, low: float = 0.0, high: float = 1.0, *, generator: Any = None) -> Tensor:
        served = tensor.dtype == torch.float32 and tensor.device.type == "cpu" and tensor.is_contiguous()
        if generator is not None or not served:
            raise _OtherDrawError
        numbers = self.replay.numbers(self.used, tensor.numel())
        self.used += tensor.numel()
        return _scale(numbers, low, high, out=tensor)


def _scale(numbers: Tensor, low: float, high: float, out: Tensor) -> Tensor:
    # Bounds in single precision, and product and sum rounded once, as in torch's kernel.
    bottom, top = torch.tensor([low, high]).unbind()
    torch.addcmul(bottom, numbers, top - bottom, out=out.detach().view(-1))
    return out


@functools.cache
def _scaled_as_torch_does() -> bool:
    """Whether scaled pieces of one long draw equal separate draws, bit for bit, with this build of torch."""
    sizes, ends = (1, 7, 1003, 4099), (0.0625, 27**-0.5, 2048**-0.5, 0.3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = torch.get_rng_state()
        pieces = torch.empty(sum(sizes)).uniform_().split(sizes)
        torch.set_rng_state(state)
        return all(
            torch.equal(
                torch.empty(len(piece)).uniform_(-end, end), _scale(piece, -end, end, torch.empty_like(piece))
            )
            for piece, end in zip(pieces, ends, strict=True)
        )
