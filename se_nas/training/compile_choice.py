"""Whether compiling and CUDA graphs pay: measured once on the first candidate, time spent against time saved."""

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
from se_nas.training.runtime import Runtime
from se_nas.training.timing import StepTime, measure_step_time

WORTH_TRYING = {"cuda": 1800.0, "cpu": 6 * 3600.0}
"""Seconds of training from which "auto" tries: the trial takes about a minute on a GPU, and up to five on a CPU
(docs/training.md), which must stay at a few percent if the answer is no."""
WORTH_CAPTURING = 120.0
"""The same for CUDA graphs, whose trial takes seconds."""
SLOWEST_STEP = 10.0
"""The longest that a step is assumed to take, in seconds: enough to see without measuring that little lies ahead."""


@dataclass(frozen=True, kw_only=True)
class CompileChoice:
    """Whether a run's candidates are compiled and use CUDA graphs, and why; JSON-ready by ``to_dict``.

    Attributes:
        compile: whether their blocks are compiled.
        graphs: whether their training steps are CUDA graphs.
        reason: in words.
        eager_step, graphs_step, compiled_step: seconds of one training step as it is, with CUDA graphs, and
            compiled (with graphs, if they pay); None if it was not measured.
        compile_seconds: what compiling the first candidate took; None if it was not tried.
    """

    compile: bool
    reason: str
    graphs: bool = False
    eager_step: float | None = None
    graphs_step: float | None = None
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

    "off" and "on" are followed, except that a network that cannot be compiled here is not compiled. "auto" measures
    a few steps as they are, then compiled, if enough training lies ahead for compiling to pay. On a GPU, "on" and
    "auto" first try CUDA graphs, and keep them if they save more time than capturing each candidate takes.

    Args:
        model: the first candidate.
        context: what it will be trained with.
        candidates: how many trainings of ``context.epochs`` epochs lie ahead.
        seconds: time that all of them have together, if time is what limits them.
        variants: gives the number of different blocks among all candidates, as a multiple of those in ``model``; each
            different block is compiled once. Called only if it matters.
    """
    asked = context.recipe.compile
    if asked == "off":
        return CompileChoice(compile=False, reason="off, as asked")
    kind = torch.device(context.device).type
    limit = WORTH_TRYING.get(kind)
    if asked == "auto":
        if limit is None:
            return CompileChoice(compile=False, reason=f"off: not tried on {context.device}")
        most = candidates * context.epochs * _steps(context) * SLOWEST_STEP if seconds is None else seconds
        if most < (WORTH_CAPTURING if kind == "cuda" else limit):
            return CompileChoice(compile=False, reason=_too_short(limit))
    eager = _measure(model, context, replace(context.runtime, compile=False, graphs=False))
    total = candidates * context.epochs * eager.epoch if seconds is None else seconds
    found = CompileChoice(compile=False, reason="", eager_step=eager.step)
    if kind == "cuda" and (asked == "on" or total >= WORTH_CAPTURING):
        found = _try_graphs(model, context, found)
    best = found.graphs_step if found.graphs and found.graphs_step is not None else eager.step
    if asked == "auto" and limit is not None and total < limit:
        return replace(found, reason=_too_short(limit) + found.reason)
    began = time.perf_counter()
    try:
        with compilation_errors():
            fast = _measure(model, context, replace(context.runtime, compile=True, graphs=found.graphs))
    except CompilationError as error:
        return replace(found, reason=f"off: compiling fails here: {error}{found.reason}")
    spent = time.perf_counter() - began
    saved = total * (1 - fast.step / best)
    cost = spent * variants() if asked == "auto" else spent
    measured = f"a step takes {1000 * fast.step:.1f} ms instead of {1000 * best:.1f} ms"
    if asked == "on":
        pays, reason = True, f"on, as asked: {measured}"
    else:
        pays = saved > cost
        reason = (
            f"{'on' if pays else 'off'}: {measured}, which saves about {saved:.0f} s of the training for"
            f" {cost:.0f} s of compiling"
        )
    return replace(
        found,
        compile=pays,
        reason=reason + found.reason,
        compiled_step=fast.step,
        compile_seconds=spent,
    )


def _try_graphs(model: nn.Module, context: Context, found: CompileChoice) -> CompileChoice:
    """``found`` with CUDA graphs decided; its reason is about them alone and is appended to another."""
    runtime = replace(context.runtime, graphs=True, compile=False)
    began = time.perf_counter()
    step = _measure(model, context, runtime).step
    spent = time.perf_counter() - began
    if not runtime.graphs:
        return replace(found, reason=f"; no CUDA graphs: {runtime.graphs_error}")
    assert found.eager_step is not None
    saved = context.epochs * _steps(context) * (found.eager_step - step)
    words = f"{1000 * step:.1f} ms per step instead of {1000 * found.eager_step:.1f} ms"
    if runtime.graphs_note:
        words += f" ({runtime.graphs_note})"
    # A candidate is captured once; the trial with its validation takes longer than that.
    pays = saved > spent
    return replace(
        found, graphs=pays, graphs_step=step, reason=f"; {'' if pays else 'no '}CUDA graphs: {words}"
    )


def _steps(context: Context) -> int:
    """Training steps in an epoch."""
    return len(context.data.train) // effective_batch(context.recipe, context.data.train)


def _measure(model: nn.Module, context: Context, runtime: Runtime) -> StepTime:
    return measure_step_time(model, replace(context, runtime=runtime, curve=[]))


def _too_short(limit: float) -> str:
    return (
        f"off: not tried, compiling only pays off after about {limit / 60:.0f} min of training on this device"
    )
