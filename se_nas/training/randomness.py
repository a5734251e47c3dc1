"""Randomness that depends on what is drawn for, never on what was drawn before.

Every draw is keyed by (seed, epoch, batch) or (seed, epoch, image). So all candidates of a seed get the same
images in the same order with the same augmentation, whatever the model itself draws; and a resumed training
needs no history of a generator.
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
    """A new generator for this purpose and key (non-negative integers)."""
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


class Generators:
    """torch's global generators, with states that belong to one training: dropout draws from them.

    ``with generators:`` puts the states in place, and at the end those that it found there. On CUDA the state is a
    separate object, and a graph that is captured meanwhile stays bound to it.
    """

    def __init__(self, device: str) -> None:
        self._cpu = self._found = torch.get_rng_state()
        self._default: torch.Generator | None = None
        if device.startswith("cuda"):
            torch.cuda.init()
            index = torch.device(device).index
            self._default = torch.cuda.default_generators[
                torch.cuda.current_device() if index is None else index
            ]
            self._cuda = self._default.clone_state()

    def __enter__(self) -> Generators:
        self._found = torch.get_rng_state()
        torch.set_rng_state(self._cpu)
        if self._default is not None:
            self._found_cuda = self._default.graphsafe_get_state()
            self._default.graphsafe_set_state(self._cuda)
        return self

    def __exit__(self, *exception: object) -> None:
        self._cpu = torch.get_rng_state()
        torch.set_rng_state(self._found)
        if self._default is not None:
            self._default.graphsafe_set_state(self._found_cuda)

    def renew(self) -> None:
        """Go on with a copy of the CUDA state, inside ``with``: a failed capture may have left it unusable."""
        if self._default is not None:
            self._cuda = self._cuda.clone_state()
            self._default.graphsafe_set_state(self._cuda)

    def states(self) -> dict[str, torch.Tensor]:
        """The states inside ``with``, for a checkpoint."""
        states = {"cpu": torch.get_rng_state()}
        if self._default is not None:
            states["cuda"] = self._default.get_state()
        return states

    def restore(self, states: dict[str, torch.Tensor]) -> None:
        """Go on from ``states``, inside ``with``."""
        torch.set_rng_state(states["cpu"])
        if "cuda" in states and self._default is not None:
            self._default.set_state(states["cuda"])


def initial_weights(seed: int) -> AbstractContextManager[None]:
    """Build models inside: ``with initial_weights(seed): model = build_model(arch)``.

    The backbone is initialised before SE is inserted, so all candidates of a seed share its first weights.
    """
    return seeded(INIT, seed)
