"""What can go wrong in the middle of a training, and how it is recognised."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_WORDS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "Expected more than 1 value per channel",
)
EXPLODED = 10.0
"""A loss this many times that of guessing (ln K) is no longer learning."""


class DivergedError(Exception):
    """The loss is not finite, or has exploded."""


class OutOfMemoryError(Exception):
    """One pass did not fit in the device's memory."""


def check_loss(loss: float, num_classes: int | None) -> None:
    """Raise ``DivergedError`` if a mean loss is not finite, or exceeds ten times ln K (unless K is None)."""
    if not math.isfinite(loss) or (num_classes is not None and loss > EXPLODED * math.log(num_classes)):
        raise DivergedError(f"loss {loss:g}")


@contextmanager
def memory_limit() -> Iterator[None]:
    """Turn every way in which torch says that memory ran out into ``OutOfMemoryError``.

    A batch norm's refusal of one value per channel is turned into it too: passes have become too small.
    """
    try:
        yield
    except (RuntimeError, MemoryError, ValueError) as error:
        if _is_out_of_memory(error):
            raise OutOfMemoryError(str(error)) from error
        raise


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether this is how torch says that memory ran out, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(words in str(error) for words in _WORDS)
