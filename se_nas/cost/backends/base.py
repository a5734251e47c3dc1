"""What a backend is: it makes a network ready to be timed.

A backend is a function ``prepare(model, images, settings) -> Prepared``. It is given the network in eval mode and
images of shape (N, channels, height, width), both in float32 on the CPU, and the settings, whose mode is never
"auto", and returns a function that runs one inference and returns when it has ended. docs/costs.md has an example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from torch import nn

    from se_nas.cost.settings import LatencySettings


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """An inference that is ready to be timed.

    Attributes:
        run: does one inference and returns when it has ended, the device's work included.
        peak_memory: bytes that one inference holds at most, weights and images included; None if unknown.
        versions: programs that the timing depends on besides torch and timm.
        move: moves weights and images elsewhere in memory, within milliseconds; None if that takes longer or cannot
            be done. Their place is worth about 1 % of the time, so it is drawn anew for every quartet.
    """

    run: Callable[[], object]
    peak_memory: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    move: Callable[[], object] | None = None


class Backend(Protocol):
    """Makes a network ready to be timed."""

    def __call__(self, model: nn.Module, images: torch.Tensor, settings: LatencySettings) -> Prepared:
        """Prepare ``model`` for ``images``; raises a ``SeNasError`` for settings that it does not support."""
