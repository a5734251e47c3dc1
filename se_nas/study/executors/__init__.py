"""Where candidates are trained: in this process, or in several on one machine."""

from __future__ import annotations

from collections.abc import Callable

from se_nas.study.executors.base import Executor, Listener
from se_nas.study.executors.inline import Inline
from se_nas.study.executors.process_pool import ProcessPool
from se_nas.study.executors.task import Setup, Task, failure

__all__ = ["Executor", "Inline", "Listener", "ProcessPool", "Setup", "Task", "failure", "make_executor"]


def make_executor(setup: Setup, say: Callable[[str], object]) -> Executor:
    """The executor that a configuration asks for.

    Args:
        setup: what all trainings share.
        say: is given what a person should know, such as that a worker died.
    """
    return Inline(setup) if setup.config.per_gpu == 1 else ProcessPool(setup, setup.config.per_gpu, say)
