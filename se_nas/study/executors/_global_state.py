"""What a training may change for the whole process, and puts the next one at a disadvantage if it stays changed."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch


class _Setting(NamedTuple):
    """A setting of the process: its name for people, how it is read, and how it is put back."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]


def _environment(values: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(values)


def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


def _go_to(path: str | None) -> None:
    if path is not None:
        os.chdir(path)


def _device(device: torch.device) -> None:
    # A device that was never set is the CPU; to set it would put a mode on every call of torch's.
    torch.set_default_device(None if device == torch.device("cpu") else device)


_SETTINGS = (
    _Setting("the default dtype", torch.get_default_dtype, torch.set_default_dtype),
    _Setting("the default device", torch.get_default_device, _device),
    _Setting("the gradient mode", torch.is_grad_enabled, torch.set_grad_enabled),
    _Setting("the number of threads", torch.get_num_threads, torch.set_num_threads),
    _Setting(
        "the precision of float32 products",
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    ),
    _Setting(
        "deterministic algorithms",
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
    _Setting("the working directory", _working_directory, _go_to),
    _Setting("environment variables", lambda: dict(os.environ), _environment),
)


@contextmanager
def kept(changed: list[str]) -> Iterator[None]:
    """Put the process's settings and random states back at the end.

    Args:
        changed: is given the names of settings that were put back. Random states are put back without a word,
            because every training draws.
    """
    before = [setting.read() for setting in _SETTINGS]
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        for setting, value in zip(_SETTINGS, before, strict=True):
            if setting.read() != value:
                setting.write(value)
                changed.append(setting.name)
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
