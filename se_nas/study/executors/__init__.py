"""Where candidates are trained: in this process, one by one or side by side, in several, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from se_nas.study.executors.base import Executor, Listener
from se_nas.study.executors.inline import Inline
from se_nas.study.executors.packed import Packed
from se_nas.study.executors.process_pool import ProcessPool
from se_nas.study.executors.task import Setup, Task, failure
from se_nas.study.packing import Packing
from se_nas.training.masked import Capacity

__all__ = [
    "Executor",
    "Inline",
    "Listener",
    "Packed",
    "ProcessPool",
    "Setup",
    "Task",
    "failure",
    "make_executor",
]


def make_executor(
    setup: Setup, packing: Packing, rooms: Sequence[Capacity], say: Callable[[str], object]
) -> Executor:
    """The executor that a run was planned with.

    Args:
        setup: what all trainings share.
        packing: how many candidates train at a time, and where.
        rooms: what masked networks can be.
        say: is given what a person should know, such as that a worker died.
    """
    if setup.config.on_ray:
        # Ray is an extra; whether it is installed was checked when the run was planned.
        from se_nas.study.executors.ray import RayExecutor

        return RayExecutor(setup, packing, rooms, say)
    if packing.packed:
        runtimes = [setup.runtime, *(setup.runtime.on(device) for device in packing.devices[1:])]
        return Packed(setup, rooms if packing.masked else (), packing.at_a_time, say, runtimes)
    # Only another process can be ended wherever its training is.
    alone = packing.places == 1 and setup.config.candidate_seconds is None
    return Inline(setup) if alone else ProcessPool(setup, packing.places, say)
