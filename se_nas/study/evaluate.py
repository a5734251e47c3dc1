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
from se_nas.study.store import StudyStore, now
from se_nas.training import Context, TrainResult, evaluate, train

if TYPE_CHECKING:
    from se_nas.cost import LatencyMeter
    from se_nas.study.events import Progress

SEARCH, FINAL = "search", "final"
_MEASURED = ("accuracy", "top5", "loss", "train_loss", "ece")


class Evaluator:
    """Costs and trains candidates of one run, one at a time.

    Args:
        plan: the resolved search.
        store: where rows go.
        progress: told of every epoch.
        meter: measures latency against the plain backbone; None where latency is no objective.
        stop: polled between batches; True ends the training as unfinished.
        spent: seconds that the run has used so far, recorded with every epoch.
    """

    def __init__(
        self,
        plan: Plan,
        store: StudyStore,
        progress: Progress,
        meter: LatencyMeter | None,
        stop: Callable[[], bool],
        spent: Callable[[], float],
    ) -> None:
        self._plan, self._store, self._progress = plan, store, progress
        self._meter, self._stop, self._spent = meter, stop, spent
        self._latency: dict[str, dict[str, Any]] = {}

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

    def costs(self, architecture: Architecture) -> dict[str, Any]:
        """Exact costs, and the latency where it is an objective: measured once an architecture."""
        cost = self._plan.cost_model(architecture).cost(architecture.widths)
        fields: dict[str, Any] = {
            "num_params": cost.num_params,
            "macs": cost.macs,
            "activations": cost.activations,
        }
        if self._meter is not None:
            if architecture.key not in self._latency:
                self._latency[architecture.key] = self._measure(architecture)
            fields |= self._latency[architecture.key]
        return fields

    def remember_latency(self, row: Mapping[str, Any]) -> None:
        """Take the latency of an earlier trial of this run instead of measuring again."""
        if row.get("latency_ms") is not None:
            self._latency[row["key"]] = {
                name: row[name]
                for name in ("latency_ms", "latency_ratio", "latency_interval", "latency_source")
            }

    def _measure(self, architecture: Architecture) -> dict[str, Any]:
        assert self._meter is not None
        latency = self._meter.measure(architecture)
        return {
            # The axis is the ratio times one common median: timings of different minutes do not mix.
            "latency_ms": latency.ratio * self._meter.baseline_ms,
            "latency_ratio": latency.ratio,
            "latency_interval": list(latency.interval),
            "latency_source": "measured",
        }

    def evaluate(self, number: int, architecture: Architecture, *, seed: int, phase: str) -> dict[str, Any]:
        """Cost and train; returns the fields of the row. Never raises for a candidate's own failure.

        A candidate that does not fit the machine is "infeasible", one that raises is "failed" with its error.
        """
        began = time.monotonic()
        fields: dict[str, Any] = {}
        try:
            fields |= self.costs(architecture)
            self._store.record(number, **fields)
            fields |= self._train(number, architecture, seed, phase)
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

    def _train(self, number: int, architecture: Architecture, seed: int, phase: str) -> dict[str, Any]:
        plan = self._plan
        row = {
            "number": number,
            "key": architecture.key,
            "description": architecture.describe(),
            "phase": phase,
        }
        curve: list[dict[str, Any]] = []

        def on_epoch(epoch: int, metrics: Mapping[str, Any]) -> bool:
            curve.append(_plain(metrics))
            self._store.record(number, curve=curve, epochs=epoch)
            self._store.spend(self._spent())
            self._progress.epoch(row, metrics)
            return True

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
        )
        result = train(model, context)
        fields = _fields(result)
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
