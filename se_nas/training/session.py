"""A training that goes on one step at a time, with its faults, checkpoints and reports."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import nullcontext

import torch
from torch import nn

from se_nas.compilation import CompilationError, compilation_errors
from se_nas.data import ImageData
from se_nas.errors import CheckpointError, DataError, InfeasibleError
from se_nas.training.batches import Batches, MemoryBatches, effective_batch
from se_nas.training.checkpoint import (
    STATE,
    WEIGHTS,
    StateWriter,
    checkpoint_path,
    load_state,
)
from se_nas.training.compiling import compile_blocks, uncompile_blocks
from se_nas.training.context import Context, Interrupted, StopTraining, TrainResult
from se_nas.training.faults import DivergedError, OutOfMemoryError, check_loss, memory_limit
from se_nas.training.loader import LoaderBatches
from se_nas.training.metrics import Metrics
from se_nas.training.optim import classifier
from se_nas.training.progress import Progress, Reached, identity
from se_nas.training.randomness import DROPOUT, derived_seed
from se_nas.training.step import Step

RESTART_LR = 0.1
"""Share of the learning rate with which a diverged training is started again, once."""
CHECK_EVERY = 20
"""Steps between looks at the loss: a look makes a GPU wait, and one bad step is no divergence."""


def make_batches(context: Context) -> Batches:
    """Training batches for data in memory or on disk."""
    kind = MemoryBatches if context.data.in_memory else LoaderBatches
    return kind(context.data, context.recipe, context.runtime, context.seed)


class Training:
    """What ``train`` does, step by step: call ``advance`` until it returns False, then ``result``.

    Several trainings may advance in turns in one thread. Faults are handled on the way as ``train`` handles them.

    Attributes:
        step: the step that it uses, None before the first ``advance``. After the last, another training may be
            given it.
    """

    def __init__(
        self,
        model: nn.Module,
        context: Context,
        step: Step | None = None,
        *,
        batches: Batches | None = None,
        weights: Callable[[], Mapping[str, torch.Tensor]] | None = None,
        reset: Callable[[], None] | None = None,
        alone: Callable[[], bool] = lambda: True,
    ) -> None:
        """
        Args:
            model: with the candidate's first weights.
            context: see ``Context``.
            step: steps of ``model`` made by an earlier training with the same recipe, data and runtime, of which
                nothing is built or captured anew; None makes them.
            batches: of the context's seed, shared with other trainings; None makes them.
            weights: gives the state that is saved at the end, which is copied; None for that of ``model``.
            reset: gives ``model`` its first weights again; None keeps a copy of them.
            alone: whether nothing else takes memory that could be given up. If not, running out of memory ends the
                training with ``OutOfMemoryError`` instead of halving its batch; the last checkpoint stays.
        """
        self.context, self.recipe, self.runtime = context, context.recipe, context.runtime
        _check_head(model, context.data)
        self.model = model
        if step is None:
            self.model = self.runtime.place(model)
            if self.runtime.compile:
                compile_blocks(self.model)
        self.step: Step | None = None
        self._given = step
        self._batches = make_batches(context) if batches is None else batches
        self._weights, self._alone = weights or model.state_dict, alone
        self._reset = reset or _keep_weights(model)
        self.batch_size = effective_batch(self.recipe, context.data.train)
        folder = context.checkpoint_dir
        self._writer = StateWriter(
            None if folder is None else checkpoint_path(folder, context.name, context.seed, STATE)
        )
        self._progress = Progress()
        self._unseen = 0
        self._result: TrainResult | None = None
        self._course = self._run()

    def advance(self) -> bool:
        """Do one step, or what comes between steps, such as a validation; whether anything is left to do.

        Raises:
            as ``train``; the training is then over.
        """
        if self._result is not None:
            return False
        try:
            with nullcontext() if self.step is None else self.step.active():
                next(self._course, None)
        except BaseException:
            self.close()
            raise
        if self._result is None:
            return True
        self._course.close()
        if self.step is not None:
            self.step.join()
        return False

    @property
    def restarts(self) -> int:
        """Times that it was started again, at a lower rate, because its loss exploded."""
        return self._progress.restarts

    @property
    def outcome(self) -> TrainResult:
        """What ``result`` will return, once ``advance`` has returned False; files may still be written."""
        assert self._result is not None
        return self._result

    @property
    def saved(self) -> bool:
        """Whether ``result`` has nothing to wait for."""
        return self._writer.idle

    def wait(self, seconds: float | None = None) -> None:
        """Return when the training's files are written, or when the time is up; errors are those of ``result``."""
        self._writer.wait(seconds)

    def result(self) -> TrainResult:
        """The outcome, once ``advance`` has returned False and the files are on disk.

        Raises:
            DiskError: they cannot be written.
        """
        self._writer.close()
        return self.outcome

    def close(self) -> None:
        """Give up what is left to do; the last checkpoint stays. Needed only before the end."""
        self._course.close()
        self._writer.close()

    def _run(self) -> Generator[None, None, None]:
        while True:
            try:
                self._prepare()
                # What follows runs inside the new step's ``active``.
                yield
                yield from self._fit()
                self._finish("complete")
                return
            except StopTraining:
                self._finish("stopped")
                return
            except Interrupted:
                self._finish("unfinished")
                return
            except OutOfMemoryError as error:
                if not self._alone():
                    raise
                self._halve(error)
            except CompilationError as error:
                self._go_on_eagerly(error)
            except DivergedError:
                self._writer.discard()
                if self._progress.restarts:
                    self._finish("diverged")
                    return
                self._progress.restarts = 1
            self._start_over()

    def _fit(self) -> Generator[None, None, None]:
        progress = self._progress
        while progress.epoch < self.recipe.epochs:
            yield from self._train_epoch(progress)
            with compilation_errors(), memory_limit():
                self._steps.validate.begin()
            # Others take their turns while the device validates; whoever waited for it would leave them without.
            yield
            while not (self._alone() or self._steps.validate.ready):
                yield
            self._look()
            with compilation_errors(), memory_limit():
                metrics = self._steps.validate.end()
            # Before the norms have settled, this loss may be huge where nothing is wrong.
            check_loss(metrics.loss, None)
            progress.epoch, progress.step = progress.epoch + 1, 0
            self._report(progress, metrics)
            yield

    def _train_epoch(self, progress: Progress) -> Generator[None, None, None]:
        """The rest of the epoch."""
        epoch = progress.epoch
        if progress.step == 0:
            torch.manual_seed(derived_seed(DROPOUT, self.context.seed, epoch))
            progress.loss_sum = 0.0
        frozen = round(self.recipe.freeze_epochs * self._batches.steps)
        self._steps.set_mode(frozen=self._steps.updates < frozen)
        for inputs in self._batches.inputs(epoch, progress.step):
            if self._steps.updates == frozen:
                self._steps.set_mode(frozen=False)
            if self.context.should_stop():
                self._look()
                self._save(must=True)
                raise Interrupted
            self._steps.load(inputs)
            self._steps.run()
            progress.step += 1
            self._unseen += 1
            if self._unseen == CHECK_EVERY:
                self._look()
            yield

    def _look(self) -> None:
        """Add up the losses of the last steps, and see whether they still make sense."""
        if self._unseen:
            total, count = self._steps.loss_sum.item(), self._unseen
            self._steps.loss_sum.zero_()
            self._unseen = 0
            self._progress.loss_sum += total
            check_loss(total / count, self.context.data.num_classes)

    @property
    def _steps(self) -> Step:
        assert self.step is not None
        return self.step

    def _prepare(self) -> None:
        """Begin, or go on from the state of this training if there is one."""
        self._writer.wait()
        state = None if self._writer.path is None else load_state(self._writer.path)
        restarts, self._unseen = self._progress.restarts, 0
        # A state from before a restart is not gone on from.
        if state is None or state["identity"] != identity(self.context) or state["restarts"] < restarts:
            self._progress = Progress(restarts=restarts, reached=self._progress.reached)
            self._make_step()
            return
        restarts = state["restarts"]
        self._progress = Progress(restarts=restarts)
        self._make_step()
        try:
            with self._steps.active(after_others=True):
                updates = int(state["epoch"]) * self._batches.steps + int(state["step"])
                self._steps.load_state_dict(state, updates)
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"{str(self._writer.path)!r} is the state of another network: {str(error).splitlines()[0]}"
            ) from error
        self._progress = Progress.from_state(state, self.context, self.batch_size)

    def _make_step(self) -> None:
        """A step at its start: that of an earlier training if there is one, at the rate it was made for."""
        given, self._given = self._given, None
        if given is None or self._progress.restarts:
            factor = RESTART_LR if self._progress.restarts else 1.0
            self.step = Step(self.model, self.context, self._batches, factor)
        else:
            self.step = given
            with given.active(after_others=True):
                given.begin()

    def _save(self, *, must: bool = False) -> None:
        """Write the state; where a GPU ends epochs faster than the disk takes states, some of them are left out."""
        late = self.context.device.startswith("cuda") and not self._writer.idle
        if self._writer.path is not None and (must or not late):
            self._writer.write({**self._progress.to_state(self.context), **self._steps.state_dict()})

    def _report(self, progress: Progress, metrics: Metrics) -> None:
        extra = {
            "loss": metrics.loss,
            "top5": metrics.top5,
            "ece": metrics.ece,
            "train_loss": progress.loss_sum / self._batches.steps,
            "lr": self._steps.lr,
        }
        try:
            self.context.report(progress.epoch, metrics.accuracy, **extra)
        finally:
            progress.reached = Reached(metrics=metrics, extra=extra, curve=list(self.context.curve))
            if progress.epoch < self.recipe.epochs:
                self._save()

    def _start_over(self) -> None:
        self.model.zero_grad()
        self._reset()
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
        self.step = None
        if self.context.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def _go_on_eagerly(self, error: CompilationError) -> None:
        """Train this candidate and all that follow without compiling."""
        self.runtime.compile, self.runtime.compile_error = False, str(error)
        uncompile_blocks(self.model)

    def _finish(self, state: str) -> None:
        context, reached = self.context, self._progress.reached
        weights = None
        if state in ("complete", "stopped"):
            if self._steps.evaluated is not self.model:
                self.model.load_state_dict(self._steps.evaluated.state_dict())
            if context.checkpoint_dir is not None:
                weights = checkpoint_path(context.checkpoint_dir, context.name, context.seed, WEIGHTS)
                epochs = len(reached.curve) if reached else 0
                about = {"name": context.name, "seed": context.seed, "epochs": epochs, "state": state}
                about |= reached.metrics.to_dict() if reached else {}
                self._writer.finish(weights, self._weights(), about)
        self._result = self._progress.result(
            state, context, self.batch_size, self._batches.skipped(), weights
        )
        for logger in context.loggers:
            logger.on_end(context.name, self._result)


def _keep_weights(model: nn.Module) -> Callable[[], None]:
    """What puts a network back to the weights that it has now."""
    first = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    def reset() -> None:
        model.load_state_dict(first)

    return reset


def _check_head(model: nn.Module, data: ImageData) -> None:
    outputs = getattr(classifier(model), "out_features", data.num_classes)
    if outputs < data.num_classes:
        raise DataError(
            f"the model's classifier has {outputs} outputs, but the labels of {data.name!r} go up to"
            f" {data.num_classes - 1}; build the model with num_classes={data.num_classes}."
        )
