"""A training step as one unit: augmentation, forward and backward pass, clipping, optimiser and weight average.

What a step reads is copied into buffers that stay where they are: draws, the learning rates, the share of the
average. So the same code runs as it is on a CPU, and on a GPU as one CUDA graph that is captured at the first step
and replayed for all others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from se_nas.compilation import compilation_errors
from se_nas.training.batches import Batches
from se_nas.training.buffers import Buffers
from se_nas.training.capture import CaptureError, capture
from se_nas.training.context import Context
from se_nas.training.draws import Inputs
from se_nas.training.evaluation import Evaluation
from se_nas.training.faults import memory_limit
from se_nas.training.optim import Schedule, make_loss, parameter_parts
from se_nas.training.randomness import Generators
from se_nas.training.train_state import TrainState


class Step:
    """The steps of one network, on a stream of its own; ``begin`` starts them again for other weights.

    Its methods are called inside ``with step.active()``. If the network, or the optimiser, cannot be captured, the
    step does without, and ``context.runtime`` says why.

    Attributes:
        model: the network that is trained.
        evaluated: the network that counts: the average of ``model`` if the recipe has one.
        validate: metrics of ``evaluated`` on the validation images.
        updates: steps so far.
        loss_sum: sum of the losses of the steps since it was last zeroed; looking at it waits for the device.
    """

    def __init__(self, model: nn.Module, context: Context, batches: Batches, lr_factor: float = 1.0) -> None:
        """
        Args:
            model: where ``Runtime.place`` puts it.
            context, batches: nothing of them that depends on the candidate or the seed is used.
            lr_factor: share of the recipe's learning rate.
        """
        self.model, self.recipe, self.runtime = model, context.recipe, context.runtime
        recipe, runtime = context.recipe, context.runtime
        device = torch.device(runtime.device)
        self._device, self._batches = device, batches
        self.generators = Generators(runtime.device)
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.updates = 0
        # Sums of a few 32-bit losses are exact in 64 bits, which MPS lacks.
        self.loss_sum = torch.zeros(
            (), device=device, dtype=torch.float32 if device.type == "mps" else torch.float64
        )
        self._loss_fn = make_loss(recipe, batches.augment.mixes)
        self._inputs: Buffers | None = None
        self._graphs: dict[bool, _Graph] = {}
        self._parts = parameter_parts(model)
        self._frozen: bool | None = None
        with self.active(after_others=True):
            self._state = TrainState(model, recipe, runtime, lr_factor)
        self._schedule = Schedule(self._state.optimizer, recipe, batches.steps, lr_factor)
        self.validate = Evaluation(self.evaluated, context.data, batches.augment, runtime, repeated=True)

    @contextmanager
    def active(self, *, after_others: bool = False) -> Iterator[None]:
        """Work on the step's stream, with its generators.

        Args:
            after_others: let the stream wait for what others have begun, such as a copy of first weights.
        """
        with self.generators:
            if self._stream is None:
                yield
                return
            if after_others:
                self._stream.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(self._stream):
                yield

    def join(self) -> None:
        """Let what others do from now on, on their stream, wait for the step's."""
        if self._stream is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)

    @property
    def evaluated(self) -> nn.Module:
        return self._state.evaluated

    @property
    def lr(self) -> float:
        """The learning rate of the next step, that of the last group."""
        return self._schedule.rates(self.updates)[-1]

    def begin(self) -> None:
        """Start again from the weights that the network has now. Nothing is built or captured anew."""
        self._state.begin()
        self.updates = 0
        self.loss_sum.zero_()

    def set_mode(self, *, frozen: bool) -> None:
        """Training mode. With ``frozen`` the backbone keeps its weights; its norms' statistics then too."""
        self.model.train()
        if frozen != self._frozen:
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_(not frozen or self._parts[name] != "backbone")
        self._frozen = frozen
        if frozen or self.recipe.norm_eval:
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def load(self, inputs: Inputs) -> None:
        """Copy what the next step reads: ``inputs`` of the batches, and the values of the schedules."""
        state, rates = self._state, self._schedule.rates(self.updates)
        values = dict(inputs)
        if state.fixed:
            values["rates"] = torch.tensor(rates, dtype=torch.float32)
        if state.average is not None:
            values["share"] = torch.tensor(state.average.share(self.updates), dtype=torch.float32)
        if self._inputs is None:
            self._inputs = Buffers(values, self._device)
            if state.fixed:
                state.set_rates(self._inputs["rates"].unbind())
        if not state.fixed:
            state.set_rates(rates)
        self._inputs.load(values)

    def run(self) -> None:
        """Do the step that was loaded.

        Raises:
            OutOfMemoryError, CompilationError: weights and optimiser are then those of some step before or after.
        """
        with compilation_errors(), memory_limit():
            graph = self._captured()
            if graph is None:
                self._passes()
            else:
                graph.replay()
            if graph is None or graph.gradients:
                self._update()
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds of it, from which ``load_state_dict`` goes on."""
        rates = self._schedule.rates(self.updates)
        return {**self._state.state_dict(rates), "generators": self.generators.states()}

    def load_state_dict(self, state: dict[str, Any], updates: int) -> None:
        """Go on after so many updates.

        Raises:
            RuntimeError, ValueError, KeyError: it is the state of another network or optimiser.
        """
        self._state.load_state_dict(state)
        self.generators.restore(state["generators"])
        self.updates = updates
        self.loss_sum.zero_()

    def _captured(self) -> _Graph | None:
        """The graph of this mode, captured if there is none yet; None if the step runs as it is."""
        if not self.runtime.graphs or self._pieces() > 1:
            return None
        frozen = bool(self._frozen)
        if frozen not in self._graphs:
            try:
                self._graphs[frozen] = self._capture()
            except CaptureError as error:
                self.generators.renew()
                self.runtime.graphs, self.runtime.graphs_error = False, str(error)
                return None
        return self._graphs[frozen]

    def _capture(self) -> _Graph:
        """A graph of the whole step, or of its passes alone if the optimiser cannot be captured."""
        changed, forget = [*self._state.tensors(), self.loss_sum], self._state.optimizer.zero_grad
        reason = ""
        if self._state.fixed:
            try:
                return _Graph(capture(self._all, changed, self._device, forget))
            except CaptureError as error:
                self.generators.renew()
                reason = f": {error}"
        replay = capture(self._passes, changed, self._device, forget)
        graph = _Graph(replay, [(weight, weight.grad) for weight in self.model.parameters()])
        forget()
        self.runtime.graphs_note = (
            f"the optimiser {self.recipe.optimizer!r} runs outside of CUDA graphs{reason}"
        )
        return graph

    def _pieces(self) -> int:
        """Passes of one step: several if a whole batch did not fit in memory."""
        count = self._batches.batch_size
        return math.ceil(count / min(count, self.runtime.micro_batch or count))

    def _all(self) -> None:
        self._passes()
        self._update()

    def _passes(self) -> None:
        assert self._inputs is not None
        images, targets = self._batches.batch(dict(self._inputs))
        pieces = self._pieces()
        parts = zip(images.tensor_split(pieces), targets.tensor_split(pieces), strict=True)
        total = torch.zeros((), device=self._device)
        for part, wanted in parts:
            # A graph must cast its weights itself, not find them in a cache.
            with self.runtime.autocast(cache_enabled=not self.runtime.graphs):
                loss = self._loss_fn(self.model(part).float(), wanted) * (len(part) / len(images))
            self._state.scaler.scale(loss).backward()
            total += loss.detach()
        self.loss_sum += total

    def _update(self) -> None:
        assert self._inputs is not None
        self._state.update(self._inputs.get("share"))


class _Graph:
    """A captured step, or its passes alone: then ``gradients`` are the tensors that a replay writes to."""

    def __init__(
        self,
        replay: Callable[[], None],
        gradients: Sequence[tuple[nn.Parameter, torch.Tensor | None]] = (),
    ) -> None:
        self._replay, self.gradients = replay, gradients

    def replay(self) -> None:
        self._replay()
        for weight, gradient in self.gradients:
            weight.grad = gradient
