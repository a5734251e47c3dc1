"""Weights & Biases: one run for each trial, in a group for the study.

Project, entity, key and mode are those of W&B's own environment variables and settings; none is kept here.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import Any

from se_nas.errors import ConfigError
from se_nas.study.tracking.base import (
    UNFINISHED,
    Row,
    StudyFacts,
    described,
    labels,
    numbers,
    results,
    run_name,
)

PROJECT = "se-nas"
FINISH_SECONDS = 30.0
"""How long a run that ends may wait for the server."""


class WandbRuns:
    """Runs in the project ``WANDB_PROJECT``, by default "se-nas"; files are in ``logs/wandb`` of the run folder."""

    def __init__(self, study: StudyFacts) -> None:
        self._study = study
        self._runs: dict[int, Any] = {}

    @staticmethod
    def check() -> None:
        try:
            import wandb
        except ImportError as error:
            raise ConfigError(
                "log is 'wandb', which is not installed: pip install 'se-nas[wandb]'."
            ) from error
        if wandb.setup().settings.mode != "online":
            return
        try:
            wandb.login(verify=False)
        except wandb.errors.UsageError as error:
            raise ConfigError(
                "log is 'wandb', but there is no key to log in with: run `wandb login`, set WANDB_API_KEY, or set"
                " WANDB_MODE=offline."
            ) from error

    def begin(self, row: Row) -> int:
        import wandb

        if row["number"] in self._runs:
            return int(self._runs[row["number"]].step)
        run_id = f"{self._study.identity}-{row['number']:03}"
        if wandb.setup().settings.mode != "online":
            self._forget(run_id)
        self._study.folder.mkdir(parents=True, exist_ok=True)
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            group=self._study.name,
            name=run_name(row),
            id=run_id,
            job_type=row["phase"],
            tags=labels(row),
            config={**described(row), "study": dict(self._study.facts)},
            dir=str(self._study.folder),
            # Several trials are in training at a time, and the user's own run is left alone.
            reinit="create_new",
            resume="allow",
            # Neither the command line, nor code, nor what the terminal shows: any of them may hold a secret.
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_code=True,
                disable_git=True,
                save_code=False,
                x_disable_meta=True,
                x_disable_stats=True,
                finish_timeout=FINISH_SECONDS,
            ),
        )
        run.define_metric("epoch")
        run.define_metric("*", step_metric="epoch")
        self._runs[row["number"]] = run
        return int(run.step)

    def epoch(self, row: Row, entry: Mapping[str, Any]) -> None:
        self._runs[row["number"]].log({"epoch": entry["epoch"], **numbers(entry)})

    def end(self, row: Row) -> None:
        run = self._runs.pop(row["number"])
        run.summary.update({**results(row), "state": row["state"], "error": row.get("error")})
        good = row["state"] in ("complete", "stopped", *UNFINISHED)
        run.finish(exit_code=0 if good else 1)

    def close(self) -> None:
        for run in self._runs.values():
            run.finish(exit_code=1)
        self._runs.clear()

    def _forget(self, run_id: str) -> None:
        """Remove what an earlier process kept of a run offline: all of it is written again, and W&B would not go on
        with it (``resume`` needs its server).
        """
        for old in (self._study.folder / "wandb").glob(f"offline-run-*-{run_id}"):
            shutil.rmtree(old, ignore_errors=True)
