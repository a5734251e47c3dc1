"""Whether compiling pays: measured once on the first candidate, compile time against time saved."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from se_nas.compilation import CompilationError, compilation_errors
from se_nas.training.batches import effective_batch
from se_nas.training.context import Context
from se_nas.training.timing import StepTime, measure_step_time

WORTH_TRYING = {"cuda": 1800.0, "cpu": 6 * 3600.0}
"""Seconds of training from which "auto" tries: the trial takes about a minute on a GPU, and up to five on a CPU
(docs/training.md), which must stay a few percent where the answer is no."""
SLOWEST_STEP = 10.0
"""Seconds that a step is taken to need at most, to see without measuring that little lies ahead."""


@dataclass(frozen=True, kw_only=True)
class CompileChoice:
    """Whether the blocks of a run's candidates are compiled, and why; JSON-ready by ``to_dict``.

    Attributes:
        compile: the decision.
        reason: in words.
        eager_step, compiled_step: seconds of one training step; None where it was not measured.
        compile_seconds: what compiling the first candidate took; None where it was not tried.
    """

    compile: bool
    reason: str
    eager_step: float | None = None
    compiled_step: float | None = None
    compile_seconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def choose_compile(
    model: nn.Module,
    context: Context,
    *,
    candidates: int,
    seconds: float | None = None,
    variants: Callable[[], float] = lambda: 1.0,
) -> CompileChoice:
    """Decide what ``context.recipe.compile`` asks for; the model and the context are not changed.

    "off" and "on" are taken as they are, except that what cannot be compiled here is not. "auto" measures a few
    steps as they are, then compiled, where so much training lies ahead that it can pay.

    Args:
        model: the first candidate.
        context: what it will be trained with.
        candidates: how many trainings of ``context.epochs`` epochs lie ahead.
        seconds: time that all of them have together, where that is the limit.
        variants: gives how many times the different blocks of ``model`` all candidates have together; each
            different block is compiled once. Called only where it matters.
    """
    asked = context.recipe.compile
    if asked == "off":
        return CompileChoice(compile=False, reason="off, as asked")
    limit = WORTH_TRYING.get(torch.device(context.device).type)
    if asked == "auto":
        if limit is None:
            return CompileChoice(compile=False, reason=f"off: not tried on {context.device}")
        if seconds is not None and seconds < limit:
            return CompileChoice(compile=False, reason=_too_short(seconds, limit))
        most = candidates * context.epochs * _steps(context) * SLOWEST_STEP
        if seconds is None and most < limit:
            return CompileChoice(compile=False, reason=_too_short(most, limit))
    eager = _measure(model, context, compiled=False)
    total = candidates * context.epochs * eager.epoch if seconds is None else seconds
    if asked == "auto" and limit is not None and total < limit:
        return CompileChoice(compile=False, reason=_too_short(total, limit), eager_step=eager.step)
    began = time.perf_counter()
    try:
        with compilation_errors():
            fast = _measure(model, context, compiled=True)
    except CompilationError as error:
        return CompileChoice(
            compile=False, reason=f"off: compiling fails here: {error}", eager_step=eager.step
        )
    spent = time.perf_counter() - began
    saved = total * (1 - fast.step / eager.step)
    cost = spent * variants() if asked == "auto" else spent
    measured = f"a step takes {1000 * fast.step:.1f} ms instead of {1000 * eager.step:.1f} ms"
    if asked == "on":
        pays, reason = True, f"on, as asked: {measured}"
    else:
        pays = saved > cost
        reason = (
            f"{'on' if pays else 'off'}: {measured}, which saves about {saved:.0f} s of the training for"
            f" {cost:.0f} s of compiling"
        )
    return CompileChoice(
        compile=pays,
        reason=reason,
        eager_step=eager.step,
        compiled_step=fast.step,
        compile_seconds=spent,
    )


def _steps(context: Context) -> int:
    """Training steps of an epoch."""
    return len(context.data.train) // effective_batch(context.recipe, context.data.train)


def _measure(model: nn.Module, context: Context, *, compiled: bool) -> StepTime:
    runtime = replace(context.runtime, compile=compiled)
    return measure_step_time(model, replace(context, runtime=runtime, curve=[]))


def _too_short(seconds: float, limit: float) -> str:
    return (
        f"off: not tried, because at most {seconds / 60:.0f} min of training are too few for it to pay"
        f" (from {limit / 60:.0f} min here)"
    )
