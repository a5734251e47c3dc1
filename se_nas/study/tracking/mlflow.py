"""MLflow: one run for each trial, nested in a run of the study.

The server is the one that MLflow itself would use (``MLFLOW_TRACKING_URI``); its address, which may hold a password, is
neither asked for nor kept. `MlflowClient` is used and not ``mlflow.start_run``: several trials are in training at a
time, and the active run is one for the whole process.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from typing import Any

from se_nas.errors import ConfigError
from se_nas.study.tracking.base import (
    UNFINISHED,
    Row,
    StudyFacts,
    described,
    flat,
    labels,
    numbers,
    results,
    run_name,
)

EXPERIMENT = "se-nas"
_STUDY, _TRIAL = "se_nas.study", "se_nas.trial"
_PARENT = "mlflow.parentRunId"
_LONGEST = 6000
"""Characters of a parameter's value that MLflow stores."""


class MlflowRuns:
    """Runs in the experiment ``MLFLOW_EXPERIMENT_NAME``, by default "se-nas"."""

    def __init__(self, study: StudyFacts) -> None:
        self._study = study
        self._client: Any = None
        self._experiment, self._parent = "", ""
        self._runs: dict[int, str] = {}

    @staticmethod
    def check() -> None:
        # Otherwise it prints the address of every run that ends. It and what the import sets must be there before a
        # training begins, after which the environment is put back.
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        try:
            import mlflow.tracking  # noqa: F401
        except ImportError as error:
            raise ConfigError(
                "log is 'mlflow', which is not installed: pip install 'se-nas[mlflow]'."
            ) from error

    def begin(self, row: Row) -> int:
        if not self._parent:
            self._connect()
        number = row["number"]
        found = self._find(f"tags.`{_TRIAL}` = '{number}'")
        if found is not None:
            self._runs[number] = found
            self._client.update_run(found, status="RUNNING")
            history = self._client.get_metric_history(found, "accuracy")
            return max((metric.step for metric in history), default=0)
        from mlflow.entities import Param

        marks = {f"se_nas.{name}": str(row[name]) for name in ("phase", "baseline", "key") if row.get(name)}
        tags = marks | {_TRIAL: str(number), _PARENT: self._parent, "se_nas.labels": " ".join(labels(row))}
        self._runs[number] = run_id = self._create(run_name(row), tags)
        params = [Param(name, str(value)[:_LONGEST]) for name, value in flat(described(row)).items()]
        # A batch takes 100 of them.
        for start in range(0, len(params), 100):
            self._client.log_batch(run_id, params=params[start : start + 100])
        return 0

    def epoch(self, row: Row, entry: Mapping[str, Any]) -> None:
        self._log(row, numbers(entry), entry["epoch"])

    def end(self, row: Row) -> None:
        state = row["state"]
        if state not in UNFINISHED:
            costs = {f"result.{name}": value for name, value in results(row).items()}
            self._log(row, costs, row.get("epochs") or 0)
        run_id = self._runs.pop(row["number"])
        self._client.set_tag(run_id, "se_nas.state", state)
        if row.get("error"):
            self._client.set_tag(run_id, "se_nas.error", str(row["error"])[:_LONGEST])
        ended = {"complete": "FINISHED", "stopped": "FINISHED", "unfinished": "KILLED"}.get(state, "FAILED")
        self._client.set_terminated(run_id, ended)

    def close(self) -> None:
        if self._parent:
            self._client.set_terminated(self._parent, "FINISHED")

    def _connect(self) -> None:
        from mlflow.tracking import MlflowClient

        # It says at length what it does to a new database.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        self._client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        experiment = self._client.get_experiment_by_name(name)
        self._experiment = (
            experiment.experiment_id if experiment is not None else self._client.create_experiment(name)
        )
        parent = self._find(f"tags.`{_TRIAL}` = 'study'")
        if parent is None:
            self._create(self._study.name, {_TRIAL: "study"} | _texts(self._study.facts))
            # Another worker may have made one at the same time: all take the first.
            parent = self._find(f"tags.`{_TRIAL}` = 'study'")
        else:
            self._client.update_run(parent, status="RUNNING")
        assert parent is not None
        self._parent = parent

    def _find(self, condition: str) -> str | None:
        """The first run of the study that meets a condition."""
        of_study = f"tags.`{_STUDY}` = '{self._study.identity}'"
        runs = self._client.search_runs(
            [self._experiment],
            f"{of_study} and {condition}",
            max_results=1,
            order_by=["attributes.start_time ASC"],
        )
        return runs[0].info.run_id if runs else None

    def _create(self, name: str, tags: Mapping[str, str]) -> str:
        tagged = {_STUDY: self._study.identity, **tags}
        return str(self._client.create_run(self._experiment, run_name=name, tags=tagged).info.run_id)

    def _log(self, row: Row, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        moment = time.time_ns() // 1_000_000
        metrics = [Metric(name, float(value), moment, step) for name, value in values.items()]
        self._client.log_batch(self._runs[row["number"]], metrics=metrics)


def _texts(facts: Mapping[str, Any]) -> dict[str, str]:
    return {f"se_nas.{name}": str(value) for name, value in facts.items() if value is not None}
