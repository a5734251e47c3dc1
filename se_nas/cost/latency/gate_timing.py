"""The time of each gate inside the running network, measured on entering and on leaving it.

A gate is a few percent of an inference, and two inferences differ by as much. The gate and the rest of the same
inference slow down together, so a few inferences determine their quotient far better than the difference of two
networks. The quotient misses what a gate does to the layers around it; ``additive`` finds that from whole networks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import nn

_WARM_UP = 3
_FEWEST = 8


def gate_shares(
    run: Callable[[], object],
    gates: Sequence[nn.Module | None],
    *,
    max_seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> np.ndarray:
    """Time in each gate as a share of the inference's time outside of all gates; medians over inferences.

    Args:
        run: does one inference on the CPU, which calls the gates.
        gates: the modules, None for a site without one, whose share is 0.
        max_seconds: time limit; eight inferences are timed in any case.
        clock: seconds that pass.

    Returns:
        float64 of shape (len(gates),).
    """
    inside = np.zeros(len(gates))
    entered = np.zeros(len(gates))

    def watch(stack: ExitStack, index: int, gate: nn.Module) -> None:
        def enter(*_: Any) -> None:
            entered[index] = clock()

        def leave(*_: Any) -> None:
            inside[index] += clock() - entered[index]

        stack.callback(gate.register_forward_pre_hook(enter).remove)
        stack.callback(gate.register_forward_hook(leave).remove)

    shares: list[np.ndarray] = []
    with ExitStack() as stack:
        for index, gate in enumerate(gates):
            if gate is not None:
                watch(stack, index, gate)
        for _ in range(_WARM_UP):
            run()
        end = clock() + max_seconds
        while len(shares) < _FEWEST or clock() < end:
            inside[:] = 0.0
            start = clock()
            run()
            total = clock() - start
            shares.append(inside / (total - inside.sum()))
    return np.asarray(np.median(shares, axis=0))
