"""What can go wrong in the middle of a training, and how it is recognised."""

from __future__ import annotations

import math

import torch

EXPLODED = 10.0
"""A loss this many times that of guessing (ln K) is no longer learning."""


class DivergedError(Exception):
    """The loss is not finite, or has exploded."""


class OutOfMemoryError(Exception):
    """One pass did not fit in the device's memory."""


def check_loss(loss: float, num_classes: int) -> None:
    """Raise ``DivergedError`` where a mean loss is not finite or exceeds ten times ln K."""
    if not math.isfinite(loss) or loss > EXPLODED * math.log(num_classes):
        raise DivergedError(f"loss {loss:g}")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is how torch says that memory ran out, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        words in text for words in ("out of memory", "can't allocate memory", "not enough memory")
    )
