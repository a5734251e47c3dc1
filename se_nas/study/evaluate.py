"""One candidate: its costs, its training, its row."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from se_nas.architecture import Architecture
from se_nas.errors import InfeasibleError, SeNasError
from se_nas.study.plan import Plan, candidate_model
from se_nas.study.store import FINAL, StudyStore, now
from se_nas.training import Context, TrainResult, evaluate, load_trainer, make_logger

if TYPE_CHECKING:
    from se_nas.study.events import Progress
    from se_nas.study.stopping import Stopping

LOGS = "logs"
_MEASURED = ("accuracy", "top5", "loss", "train_loss", "ece")


class Evaluator:
    """Costs and trains candidates of one run, one at a time.

    Args:
        plan: the resolved search.
        store: where rows go.
        progress: told of every epoch.
        stopping: the rule that ends hopeless candidates early.
        stop: polled between batches; True ends the training as unfinished.
        spent: seconds that the run has used so far, recorded with every epoch.
    """

    def __init__(
        self,
        plan: Plan,
        store: StudyStore,
        progress: Progress,
        stopping: Stopping,
        stop: Callable[[], bool],
        spent: Callable[[], float],
    ) -> None:
        self._plan, self._store, self._progress = plan, store, progress
        self._stop, self._spent = stop, spent
        self._stopping = stopping
        self._trainer = load_trainer(plan.config.trainer)
        self._loggers = (
            () if plan.config.log is None else (make_logger(plan.config.log, store.folder.path / LOGS),)
        )

    def begin(
        self, number: int, architecture: Architecture, *, seed: int, phase: str, baseline: str | None
    ) -> None:
        """Record what a trial is, before it is trained."""
        self._store.record(
            number,
            key=architecture.key,
            description=architecture.describe(),
            baseline=baseline,
            position=architecture.position,
            widths=list(architecture.widths),
            gate=architecture.gate,
            act=architecture.act,
            bias=architecture.bias,
            seed=seed,
            phase=phase,
            epochs_planned=self._plan.recipe.epochs,
            state="running",
            started=now(),
        )

    def costs(self, architecture: Architecture, phase: str) -> dict[str, Any]:
        """Exact costs, and the latency where the search has it; finalists are measured, not predicted."""
        cost = self._plan.cost_model(architecture).cost(architecture.widths)
        fields: dict[str, Any] = {
            "num_params": cost.num_params,
            "macs": cost.macs,
            "activations": cost.activations,
        }
        if self._plan.axis is not None:
            fields |= self._plan.axis.fields(architecture, measure=phase == FINAL)
        return fields

    def evaluate(self, number: int, architecture: Architecture, *, seed: int, phase: str) -> dict[str, Any]:
        """Cost and train; returns the fields of the row. Never raises for a candidate's own failure.

        A candidate that does not fit the machine is "infeasible", one that raises is "failed" with its error.
        """
        began = time.monotonic()
        fields: dict[str, Any] = {}
        try:
            fields |= self.costs(architecture, phase)
            self._store.record(number, **fields)
            fields |= self._train(number, architecture, seed, phase, fields)
        except (InfeasibleError, torch.OutOfMemoryError) as error:
            fields |= {"state": "infeasible", "error": str(error)}
        except SeNasError as error:
            fields |= {"state": "failed", "error": str(error)}
        except Exception as error:
            # One candidate must not end a search of hours; the error is kept and many in a row stop the run.
            last = traceback.extract_tb(error.__traceback__)[-1]
            fields |= {
                "state": "failed",
                "error": f"{type(error).__name__}: {error} ({last.name}, line {last.lineno})",
            }
        fields["seconds"] = round(time.monotonic() - began, 3)
        return fields

    def _train(
        self, number: int, architecture: Architecture, seed: int, phase: str, costs: Mapping[str, Any]
    ) -> dict[str, Any]:
        plan = self._plan
        row = {
            "number": number,
            "key": architecture.key,
            "description": architecture.describe(),
            "phase": phase,
        }

        # Another reading is asked for because the first is not sure: half of one would not make it surer.
        judged = phase != FINAL and seed == plan.config.seed

        def on_epoch(epoch: int, metrics: Mapping[str, Any]) -> bool:
            # The context's curve is whole after a resume and begins anew after a restart with a lower rate.
            curve = [_plain(entry) for entry in context.curve]
            self._store.record(number, curve=curve, epochs=epoch)
            self._store.spend(self._spent())
            self._progress.epoch(row, metrics)
            return not judged or self._stopping.goes_on(number, architecture, costs, curve)

        model = candidate_model(plan.config, architecture, plan.data, seed)
        context = Context(
            data=plan.data,
            recipe=plan.recipe,
            runtime=plan.runtime,
            seed=seed,
            checkpoint_dir=self._store.folder.checkpoints,
            name=architecture.key,
            on_epoch=on_epoch,
            stop=self._stop,
            loggers=self._loggers,
        )
        compiled = plan.runtime.compile
        result = self._trainer(model, context)
        if compiled and not plan.runtime.compile:
            self._progress.message(
                f"{architecture.describe()} cannot be compiled ({plan.runtime.compile_error}); it and later"
                " candidates are trained without compiling"
            )
        fields = _fields(result)
        if result.state == "complete" and result.correct is not None:
            self._store.folder.write_correct(number, result.correct)
        if judged and result.state == "complete":
            self._stopping.finished(number, architecture, {**costs, **fields})
        if judged and result.state == "stopped":
            self._store.record(
                number, **self._stopping.expectation(number, architecture, {**costs, **fields})
            )
        if phase == FINAL and result.state == "complete" and plan.data.test is not None:
            fields["test_accuracy"] = evaluate(model, context, "test").accuracy
        return fields


def _fields(result: TrainResult) -> dict[str, Any]:
    return {
        **{name: _finite(getattr(result, name)) for name in _MEASURED},
        "state": result.state,
        "epochs": result.epochs,
        "curve": [_plain(entry) for entry in result.curve],
    }


def _plain(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _finite(value) for name, value in metrics.items()}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
