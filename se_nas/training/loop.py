"""``train``: one candidate, from its first weights to its final ones."""

from __future__ import annotations

import math
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import nn

from se_nas.compilation import CompilationError, compilation_errors
from se_nas.data import ImageData
from se_nas.errors import CheckpointError, DataError, InfeasibleError
from se_nas.training.augment import Augment
from se_nas.training.batches import Batches, MemoryBatches, effective_batch, memory_eval_batches
from se_nas.training.checkpoint import (
    STATE,
    WEIGHTS,
    StateWriter,
    checkpoint_path,
    load_state,
    save_weights,
)
from se_nas.training.compiling import compile_blocks, uncompile_blocks
from se_nas.training.context import Context, Interrupted, StopTraining, TrainResult
from se_nas.training.faults import DivergedError, OutOfMemoryError, check_loss, memory_limit
from se_nas.training.graphs import Forward
from se_nas.training.loader import LoaderBatches, loader_eval_batches
from se_nas.training.metrics import Metrics, score
from se_nas.training.optim import classifier, make_loss, make_optimizer, make_scheduler, parameter_parts
from se_nas.training.randomness import DROPOUT, derived_seed, isolated

RESTART_LR = 0.1
"""Share of the learning rate with which a diverged training is started again, once."""
CHECK_EVERY = 20
"""Steps between looks at the loss: a look makes a GPU wait, and one bad step is no divergence."""


def train(model: nn.Module, context: Context) -> TrainResult:
    """Train a model as ``context.recipe`` says and evaluate it after every epoch.

    The model is changed in place and ends with its final weights (those of the average, where the recipe has
    one), on ``context.device``. On a CPU the result is a function of first weights, recipe, data and seed,
    for a given number of threads. Where ``context.checkpoint_dir`` holds a state of this candidate, training
    goes on from there, with the same result as without the interruption.

    Raises:
        InfeasibleError: a single image does not fit in the device's memory.
        CheckpointError: a checkpoint cannot be written, or the one found does not fit.
        DataError: too many images cannot be decoded, or the model has fewer outputs than the data has classes.
    """
    with isolated(context.device):
        return _Training(model, context).run()


def evaluate(model: nn.Module, context: Context, split: str = "val") -> Metrics:
    """Metrics of a model on ``data.val`` or ``data.test``, in the runtime's precision."""
    augment = make_batches(context).augment
    return _evaluate(model, context, augment, split)


def make_batches(context: Context) -> Batches:
    """Training batches for data in memory or on disk."""
    kind = MemoryBatches if context.data.in_memory else LoaderBatches
    return kind(context.data, context.recipe, context.runtime, context.seed)


class _Training:
    """State of one ``train`` call. ``run`` handles faults, ``_fit`` is the loop itself."""

    def __init__(self, model: nn.Module, context: Context) -> None:
        self.context, self.recipe, self.runtime = context, context.recipe, context.runtime
        _check_head(model, context.data)
        self.model = self.runtime.place(model)
        if self.runtime.compile:
            compile_blocks(self.model)
        self.forward = Forward(self.model, self.runtime)
        self.batches = make_batches(context)
        self.loss_fn = make_loss(self.recipe, self.batches.augment.mixes)
        self.first = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        self.batch_size = effective_batch(self.recipe, context.data.train)
        folder = context.checkpoint_dir
        self.writer = StateWriter(
            None if folder is None else checkpoint_path(folder, context.name, context.seed, STATE)
        )
        self.restarts = 0
        self.best: tuple[Metrics, dict[str, Any], list[dict[str, Any]]] | None = None

    def run(self) -> TrainResult:
        try:
            return self._run()
        finally:
            self.writer.close()

    def _run(self) -> TrainResult:
        while True:
            try:
                self._fit()
                return self._finish("complete")
            except StopTraining:
                return self._finish("stopped")
            except Interrupted:
                return self._finish("unfinished")
            except OutOfMemoryError as error:
                self._halve(error)
            except CompilationError as error:
                self._go_on_eagerly(error)
            except DivergedError:
                self.writer.discard()
                if self.restarts:
                    return self._finish("diverged")
                self.restarts = 1
            self._start_over()

    def _fit(self) -> None:
        self._prepare()
        epoch, step = self._resume()
        for index in range(epoch, self.recipe.epochs):
            train_loss = self._epoch(index, step)
            step = 0
            with compilation_errors(), memory_limit():
                metrics = _evaluate(self.evaluated, self.context, self.batches.augment, "val")
            # Before the norms have settled, this loss may be huge where nothing is wrong.
            check_loss(metrics.loss, None)
            self._report(index, train_loss, metrics)

    def _prepare(self) -> None:
        factor = RESTART_LR if self.restarts else 1.0
        self.optimizer = make_optimizer(self.model, self.recipe, factor)
        self.scheduler = make_scheduler(self.optimizer, self.recipe, self.batches.steps, factor)
        self.scaler = torch.amp.GradScaler(
            torch.device(self.context.device).type, enabled=self.runtime.precision == "fp16"
        )
        decay = self.recipe.ema_decay
        self.ema = None if decay is None else ModelEmaV3(self.model, decay=decay, use_warmup=True)
        self.loss_sum = 0.0
        self.frozen: bool | None = None

    @property
    def evaluated(self) -> nn.Module:
        return self.model if self.ema is None else self.ema.module

    def _epoch(self, epoch: int, start: int) -> float:
        """Mean training loss of the epoch; its first ``start`` batches were done before an interruption."""
        if start == 0:
            torch.manual_seed(derived_seed(DROPOUT, self.context.seed, epoch))
            self.loss_sum = 0.0
        self._set_mode(frozen=epoch < self.recipe.freeze_epochs)
        pending: list[torch.Tensor] = []
        for step, (images, targets) in enumerate(self.batches.epoch(epoch, start), start):
            if self.context.should_stop():
                self._check(pending)
                self._save(epoch, step)
                raise Interrupted
            pending.append(self._step(images, targets))
            updates = epoch * self.batches.steps + step + 1
            self.scheduler.step_update(updates)
            if self.ema is not None:
                self.ema.update(self.model, step=updates)
            if len(pending) == CHECK_EVERY:
                self._check(pending)
        self._check(pending)
        return self.loss_sum / self.batches.steps

    def _step(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        count = len(images)
        pieces = math.ceil(count / min(count, self.runtime.micro_batch or count))
        total = torch.zeros((), device=images.device)
        forward = self.forward if pieces == 1 else self.model
        with compilation_errors(), memory_limit():
            parts = zip(images.tensor_split(pieces), targets.tensor_split(pieces), strict=True)
            for part, wanted in parts:
                with self.runtime.autocast():
                    loss = self.loss_fn(forward(part).float(), wanted) * (len(part) / count)
                self.scaler.scale(loss).backward()
                total += loss.detach()
        if self.recipe.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        return total

    def _check(self, pending: list[torch.Tensor]) -> None:
        """Add the losses of the last steps, and look whether they still make sense."""
        if pending:
            losses = torch.stack(pending).tolist()
            self.loss_sum += math.fsum(losses)
            check_loss(math.fsum(losses) / len(losses), self.context.data.num_classes)
            pending.clear()

    def _set_mode(self, frozen: bool) -> None:
        """Training mode. With ``frozen`` the backbone keeps its weights and its norms' statistics."""
        if frozen is not self.frozen:
            self.forward.reset()
        self.frozen = frozen
        self.model.train()
        parts = parameter_parts(self.model)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(not frozen or parts[name] != "backbone")
        if frozen:
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def _report(self, epoch: int, train_loss: float, metrics: Metrics) -> None:
        extra = {
            "loss": metrics.loss,
            "top5": metrics.top5,
            "ece": metrics.ece,
            "train_loss": train_loss,
            "lr": self.optimizer.param_groups[-1]["lr"],
        }
        try:
            self.context.report(epoch + 1, metrics.accuracy, **extra)
        finally:
            self.best = (metrics, extra, list(self.context.curve))
            if epoch + 1 < self.recipe.epochs:
                self._save(epoch + 1, 0)

    def _identity(self) -> dict[str, Any]:
        """What must be equal for a state to be this training's."""
        return {
            "recipe": self.recipe.to_dict(),
            "data": self.context.data.fingerprint,
            "split_seed": self.context.data.split_seed,
            "input_size": list(self.context.data.input_size),
            "seed": self.context.seed,
            "precision": self.runtime.precision,
        }

    def _save(self, epoch: int, step: int) -> None:
        if self.writer.path is None:
            return
        best = self.best
        state = {
            "identity": self._identity(),
            "epoch": epoch,
            "step": step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
            "generators": _generator_states(self.context.device),
            "loss_sum": self.loss_sum,
            "restarts": self.restarts,
            "micro_batch": self.runtime.micro_batch,
            "curve": list(self.context.curve),
            "seconds": self.context.seconds,
            "metrics": None if best is None else {**best[0].to_dict(), "per_class": list(best[0].per_class)},
            "extra": None if best is None else best[1],
        }
        self.writer.write(state)

    def _resume(self) -> tuple[int, int]:
        """Epoch and step to go on from; (0, 0) without a state, or with one of another training."""
        self.writer.wait()
        state = None if self.writer.path is None else load_state(self.writer.path)
        if state is None or state["identity"] != self._identity() or state["restarts"] < self.restarts:
            return 0, 0
        if state["restarts"] > self.restarts:
            self.restarts = state["restarts"]
            self._prepare()
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            if self.ema is not None:
                self.ema.module.load_state_dict(state["ema"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"{str(self.writer.path)!r} is the state of another network: {str(error).splitlines()[0]}"
            ) from error
        _restore_generators(state["generators"], self.context.device)
        self.loss_sum = state["loss_sum"]
        if state["micro_batch"] is not None:
            self.runtime.micro_batch = min(state["micro_batch"], self.runtime.micro_batch or self.batch_size)
        self.context.curve[:] = state["curve"]
        # States of earlier versions do not have them.
        self.context.go_on_from(state.get("seconds", 0.0))
        if state["metrics"] is not None:
            values = {**state["metrics"], "per_class": tuple(state["metrics"]["per_class"])}
            self.best = (Metrics(**values), state["extra"], list(self.context.curve))
        return int(state["epoch"]), int(state["step"])

    def _start_over(self) -> None:
        self.optimizer.zero_grad()
        self.model.load_state_dict(self.first)
        self.context.curve.clear()

    def _halve(self, error: OutOfMemoryError) -> None:
        """Remember half the images of one pass; the optimiser's step keeps its size by accumulation."""
        micro = min(self.runtime.micro_batch or self.batch_size, self.batch_size)
        if micro == 1:
            raise InfeasibleError(
                f"{self.context.name} does not fit in the memory of {self.context.device}, not even one"
                f" image of {self.context.data.input_size} at a time: {error}."
            ) from error
        self.runtime.micro_batch = max(1, micro // 2)
        if self.context.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def _go_on_eagerly(self, error: CompilationError) -> None:
        """Train this candidate and all that follow without compiling."""
        self.runtime.compile, self.runtime.compile_error = False, str(error)
        uncompile_blocks(self.model)

    def _finish(self, state: str) -> TrainResult:
        context, best = self.context, self.best
        curve = tuple(best[2]) if best else ()
        weights = None
        if self.ema is not None and state in ("complete", "stopped"):
            self.model.load_state_dict(self.ema.module.state_dict())
        if context.checkpoint_dir is not None and state in ("complete", "stopped"):
            weights = checkpoint_path(context.checkpoint_dir, context.name, context.seed, WEIGHTS)
            about = {"name": context.name, "seed": context.seed, "epochs": len(curve), "state": state}
            save_weights(weights, self.model, about | (best[0].to_dict() if best else {}))
            self.writer.discard()
        result = TrainResult(
            state=state,
            accuracy=best[0].accuracy if best else None,
            top5=best[0].top5 if best else None,
            loss=best[0].loss if best else None,
            ece=best[0].ece if best else None,
            per_class=best[0].per_class if best else (),
            correct=best[0].correct if best else None,
            train_loss=best[1]["train_loss"] if best else None,
            curve=curve,
            epochs=len(curve),
            epochs_planned=self.recipe.epochs,
            seconds=context.seconds,
            batch_size=self.batch_size,
            micro_batch=min(self.runtime.micro_batch or self.batch_size, self.batch_size),
            restarts=self.restarts,
            skipped=self.batches.skipped(),
            weights=weights,
        )
        for logger in context.loggers:
            logger.on_end(context.name, result)
        return result


@torch.inference_mode()
def _evaluate(model: nn.Module, context: Context, augment: Augment, split: str) -> Metrics:
    batches = memory_eval_batches if getattr(context.data, split).pixels is not None else loader_eval_batches
    model.eval()
    logits, labels = [], []
    for batch, wanted in batches(context.data, split, augment, context.runtime):
        with context.runtime.autocast():
            logits.append(model(batch).float().cpu())
        labels.append(wanted.cpu())
    return score(torch.cat(logits), torch.cat(labels), context.data.num_classes)


def _check_head(model: nn.Module, data: ImageData) -> None:
    outputs = getattr(classifier(model), "out_features", data.num_classes)
    if outputs < data.num_classes:
        raise DataError(
            f"the model's classifier has {outputs} outputs, but the labels of {data.name!r} go up to"
            f" {data.num_classes - 1}; build the model with num_classes={data.num_classes}."
        )


def _generator_states(device: str) -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.startswith("cuda"):
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _restore_generators(states: dict[str, torch.Tensor], device: str) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and device.startswith("cuda"):
        torch.cuda.set_rng_state(states["cuda"], device)
