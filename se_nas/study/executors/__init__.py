"""Where candidates are trained: in this process, one by one or side by side, in several, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from se_nas.study.executors.base import Executor, Listener
from se_nas.study.executors.inline import Inline
from se_nas.study.executors.packed import Packed
from se_nas.study.executors.process_pool import ProcessPool
from se_nas.study.executors.task import Setup, Task, failure
from se_nas.study.executors.worker import Pack
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
    rooms = rooms if packing.masked else ()
    if setup.config.on_ray:
        # Ray is an extra; whether it is installed was checked when the run was planned.
        from se_nas.study.executors.ray import RayExecutor

        return RayExecutor(setup, packing, rooms, say)
    # Only another process can be ended wherever its training is.
    elsewhere = setup.config.candidate_seconds is not None
    if packing.packed:
        if elsewhere:
            return ProcessPool(setup, packing.at_a_time, say, Pack(packing=packing, rooms=rooms))
        return Packed.planned(setup, packing, rooms, say)
    return ProcessPool(setup, packing.places, say) if elsewhere or packing.places > 1 else Inline(setup)
