"""Randomness that depends on what is drawn for, never on what was drawn before.

Every draw is keyed by (seed, epoch, batch) or (seed, epoch, image). So all candidates of a seed get the same
images in the same order with the same augmentation, whatever the model draws for itself; and a resumed
training needs no generator's history.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import torch

ORDER, AUGMENT, DROPOUT, INIT = range(4)
"""What a draw is for; keeps the streams of one seed apart."""


def generator(purpose: int, *key: int) -> np.random.Generator:
    """A generator of its own for this purpose and key (non-negative integers)."""
    return np.random.default_rng([purpose, *key])


def derived_seed(purpose: int, *key: int) -> int:
    """A 32-bit seed for libraries that take one number."""
    return int(np.random.SeedSequence([purpose, *key]).generate_state(1)[0])


@contextmanager
def seeded(purpose: int, *key: int) -> Iterator[None]:
    """Seed the global generators of ``random``, numpy and torch (CPU), which timm's augmentations draw from.

    Their states are put back at the end.
    """
    seed = derived_seed(purpose, *key)
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


@contextmanager
def isolated(device: str) -> Iterator[None]:
    """Leave torch's generators as they were found."""
    devices = [torch.device(device)] if device.startswith("cuda") else []
    with torch.random.fork_rng(devices=devices):
        yield


def initial_weights(seed: int) -> AbstractContextManager[None]:
    """Build models inside: ``with initial_weights(seed): model = build_model(arch)``.

    The backbone is initialised before SE is inserted, so all candidates of a seed share its first weights.
    """
    return seeded(INIT, seed)
