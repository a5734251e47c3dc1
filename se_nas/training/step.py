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
from se_nas.training.average import Average
from se_nas.training.batches import Batches
from se_nas.training.buffers import Buffers
from se_nas.training.capture import CaptureError, capture
from se_nas.training.context import Context
from se_nas.training.draws import Inputs
from se_nas.training.evaluation import Evaluation
from se_nas.training.faults import memory_limit
from se_nas.training.optim import Schedule, can_be_captured, make_loss, make_optimizer, parameter_parts
from se_nas.training.optimizer_state import FixedState
from se_nas.training.randomness import Generators


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
        self._lr_factor = lr_factor
        self.updates = 0
        # Sums of a few 32-bit losses are exact in 64 bits, which MPS lacks.
        self.loss_sum = torch.zeros(
            (), device=device, dtype=torch.float32 if device.type == "mps" else torch.float64
        )
        self._loss_fn = make_loss(recipe, batches.augment.mixes)
        # Whether a graph can hold the optimiser too, with rates that it reads from the device.
        whole = runtime.graphs and can_be_captured(recipe, runtime.precision)
        self._inputs: Buffers | None = None
        self._graphs: dict[bool, Callable[[], None]] = {}
        self._frozen = False
        with self.active(after_others=True):
            self.optimizer = make_optimizer(model, recipe, lr_factor, capturable=whole)
            self._schedule = Schedule(self.optimizer, recipe, batches.steps, lr_factor)
            self._fixed = FixedState(self.optimizer) if whole else None
            self._scaler = torch.amp.GradScaler(device.type, enabled=runtime.precision == "fp16")
            # It makes its tensors at the first use, which a capture must not be.
            self._scaler.scale(torch.zeros((), device=device))
            self._first_scaler = self._scaler.state_dict()
            decay = recipe.ema_decay
            self._average = None if decay is None else Average(model, decay)
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
        return self.model if self._average is None else self._average.model

    @property
    def lr(self) -> float:
        """The learning rate of the next step, that of the last group."""
        return self._schedule.rates(self.updates)[-1]

    def begin(self, weights: dict[str, torch.Tensor]) -> None:
        """Start again from a state of the network. Nothing is built or captured anew."""
        self.model.load_state_dict(weights)
        if self._fixed is None:
            self.optimizer = make_optimizer(self.model, self.recipe, self._lr_factor)
        else:
            self._fixed.reset()
        self._scaler.load_state_dict(self._first_scaler)
        if self._average is not None:
            self._average.begin()
        self.updates = 0
        self.loss_sum.zero_()

    def set_mode(self, *, frozen: bool) -> None:
        """Training mode. With ``frozen`` the backbone keeps its weights and its norms' statistics."""
        self._frozen = frozen
        self.model.train()
        parts = parameter_parts(self.model)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(not frozen or parts[name] != "backbone")
        if frozen:
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def load(self, inputs: Inputs) -> None:
        """Copy what the next step reads: ``inputs`` of the batches, and the values of the schedules."""
        values, rates = dict(inputs), self._schedule.rates(self.updates)
        if self._fixed is not None:
            values["rates"] = torch.tensor(rates, dtype=torch.float32)
        if self._average is not None:
            values["share"] = torch.tensor(self._average.share(self.updates), dtype=torch.float32)
        if self._inputs is None:
            self._inputs = Buffers(values, self._device)
            if self._fixed is not None:
                self._set_rates(self._inputs["rates"].unbind())
        if self._fixed is None:
            self._set_rates(rates)
        self._inputs.load(values)

    def run(self) -> None:
        """Do the step that was loaded.

        Raises:
            OutOfMemoryError, CompilationError: weights and optimiser are then those of some step before or after.
        """
        with compilation_errors(), memory_limit():
            (self._captured() or self._all)()
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds of it, from which ``load_state_dict`` goes on."""
        optimizer = self.optimizer.state_dict()
        rates = self._schedule.rates(self.updates)
        groups = zip(optimizer["param_groups"], rates, strict=True)
        return {
            "model": self.model.state_dict(),
            "optimizer": optimizer | {"param_groups": [group | {"lr": rate} for group, rate in groups]},
            "scaler": self._scaler.state_dict(),
            "ema": None if self._average is None else self._average.model.state_dict(),
            "generators": self.generators.states(),
        }

    def load_state_dict(self, state: dict[str, Any], updates: int) -> None:
        """Go on after so many updates.

        Raises:
            RuntimeError, ValueError, KeyError: it is the state of another network or optimiser.
        """
        self.model.load_state_dict(state["model"])
        if self._fixed is None:
            self.optimizer.load_state_dict(_with_settings_of(self.optimizer, state["optimizer"]))
        else:
            self._fixed.load(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        if self._average is not None:
            self._average.model.load_state_dict(state["ema"])
        self.generators.restore(state["generators"])
        self.updates = updates
        self.loss_sum.zero_()

    def _captured(self) -> Callable[[], None] | None:
        """The graph of this mode, captured if there is none yet; None if the step runs as it is."""
        if not self.runtime.graphs or self._pieces() > 1:
            return None
        if self._frozen not in self._graphs:
            try:
                self._graphs[self._frozen] = self._capture()
            except CaptureError as error:
                self.runtime.graphs, self.runtime.graphs_error = False, str(error)
                return None
        return self._graphs[self._frozen]

    def _capture(self) -> Callable[[], None]:
        """A graph of the whole step, or of its passes alone if the optimiser cannot be captured."""
        reason = ""
        if self._fixed is not None:
            try:
                return capture(self._all, self._changed(), self._device)
            except CaptureError as error:
                self.optimizer.zero_grad()
                reason = f": {error}"
        replay = capture(self._passes, self._changed(), self._device, forget=self.optimizer.zero_grad)
        gradients = [(weight, weight.grad) for weight in self.model.parameters()]
        self.optimizer.zero_grad()
        self.runtime.graphs_note = (
            f"the optimiser {self.recipe.optimizer!r} runs outside of CUDA graphs{reason}"
        )

        def run() -> None:
            replay()
            # The graph writes to these, whatever the weights have by now.
            for weight, gradient in gradients:
                weight.grad = gradient
            self._update()
            self.optimizer.zero_grad()

        return run

    def _changed(self) -> Iterator[torch.Tensor]:
        yield from self.model.parameters()
        yield from self.model.buffers()
        yield self.loss_sum
        if self._fixed is not None:
            yield from self._fixed.tensors()
        if self._average is not None:
            yield from self._average.model.state_dict().values()
        if self._scaler.is_enabled():
            assert self._scaler._scale is not None
            assert self._scaler._growth_tracker is not None
            yield from (self._scaler._scale, self._scaler._growth_tracker)

    def _set_rates(self, rates: Sequence[float | torch.Tensor]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def _pieces(self) -> int:
        """Passes of one step: several if a whole batch did not fit in memory."""
        count = self._batches.batch_size
        return math.ceil(count / min(count, self.runtime.micro_batch or count))

    def _all(self) -> None:
        self._passes()
        self._update()
        self.optimizer.zero_grad()

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
            self._scaler.scale(loss).backward()
            total += loss.detach()
        self.loss_sum += total

    def _update(self) -> None:
        if self.recipe.clip_grad is not None:
            self._scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_grad)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        if self._average is not None:
            assert self._inputs is not None
            self._average.update(self._inputs["share"])


def _with_settings_of(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """A saved state with the optimiser's ways of computing, which depend on the machine and not on the training."""
    ways = ("capturable", "fused", "foreach")
    groups = [
        saved | {way: group[way] for way in ways if way in group}
        for saved, group in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    return state | {"param_groups": groups}
