"""A masked network on a device, with steps that are captured once: one candidate after the other trains there."""

from __future__ import annotations

from collections.abc import Callable

from se_nas.architecture import Architecture
from se_nas.training.batches import Batches
from se_nas.training.context import Context
from se_nas.training.masked.capacity import Capacity
from se_nas.training.masked.first_weights import FirstWeights
from se_nas.training.masked.network import MaskedNetwork
from se_nas.training.runtime import Runtime
from se_nas.training.session import Training
from se_nas.training.step import Step


class Place:
    """Trains candidates of one capacity, one at a time, without building, compiling or capturing for each.

    Args:
        capacity: what its network can be.
        first: first weights; places of one device share them.
        runtime: device, precision and memory format.

    Attributes:
        layout: of the tensors in checkpoints that are made here, see ``Context.layout``.
    """

    def __init__(self, capacity: Capacity, first: FirstWeights, runtime: Runtime) -> None:
        self.network = MaskedNetwork(capacity, first)
        runtime.place(self.network.model)
        self.layout = f"masked {capacity.widest.key}"
        self._step: Step | None = None

    def begin(
        self,
        architecture: Architecture,
        context: Context,
        *,
        batches: Batches | None = None,
        alone: Callable[[], bool] = lambda: True,
    ) -> Training:
        """The training of a candidate with its first weights. Give it to ``end`` before the next begins.

        Args:
            architecture: the candidate.
            context: with this place's ``layout``.
            batches, alone: see ``Training``.

        Raises:
            ConfigError: the architecture has no room here.
        """
        self.network.load(architecture, context.seed)
        if self._step is not None and self._step.evaluated is not self.network.model:
            # The average of weights is a copy of the network, with masks that no state dict holds.
            self.network.around(self._step.evaluated).set_masks(architecture)
        return Training(
            self.network.model,
            context,
            self._step,
            batches=batches,
            weights=self.network.uncut,
            reset=lambda: self.network.load(architecture, context.seed),
            alone=alone,
        )

    def end(self, training: Training) -> None:
        """Keep the training's steps for the next candidate, unless they are of a restart with a lower rate."""
        if training.step is None or not training.restarts:
            self._step = training.step
