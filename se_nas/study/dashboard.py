"""A run's study in optuna-dashboard, read-only: a search in progress is shown as it goes and never disturbed."""

from __future__ import annotations

import copy
import json
import tempfile
import threading
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from optuna.trial import FrozenTrial, TrialState

from se_nas.errors import ConfigError
from se_nas.run import CONFIG, STUDY, RunFolder
from se_nas.samplers.pareto_sampler import MODEL
from se_nas.study.attributes import IMAGES, ROW
from se_nas.study.database import Database
from se_nas.study.journal import copy_journal
from se_nas.study.server import SharedDatabase
from se_nas.study.whole_trials import WholeTrials

HOST = "127.0.0.1"
_LONG = (ROW, IMAGES, "curve", "se_nas:curve", "se_nas:partial", "widths")
"""User attributes that are made for programs."""


class _Watched(WholeTrials):
    """A study that another process may be writing, with what a person wants to see in each trial.

    That is its row, the model's picture of it, and no long lists.
    """

    def __init__(self, database: Database, objectives: Sequence[str], *, live: bool) -> None:
        super().__init__(database)
        self._objectives, self._live = objectives, live
        self._settled = 0

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        with self._lock:
            while self._settled < len(self._trials) and self._trials[self._settled].state.is_finished():
                self._settled += 1
            if self._live:
                self._trials[self._settled :] = self._database.trials(self._settled)
        return [self._shown(trial) for trial in super().get_all_trials(study_id, False, states)]

    def _shown(self, trial: FrozenTrial) -> FrozenTrial:
        known = {**trial.user_attrs, **trial.user_attrs.get(ROW, {})}
        shown = copy.copy(trial)
        shown.user_attrs = {
            name: value for name, value in known.items() if name not in _LONG and value is not None
        } | expectations(trial.system_attrs.get(MODEL), self._objectives)
        return shown


def _watched(folder: RunFolder) -> _Watched:
    manifest, config = folder.manifest, folder.config if (folder.path / CONFIG).is_file() else {}
    if config.get("storage") is not None:
        return _Watched(
            SharedDatabase.connect(config["storage"], config["study"]), manifest.objectives, live=True
        )
    path = folder.path / STUDY
    with tempfile.TemporaryDirectory(prefix="se-nas-") as scratch:
        # Only the process that goes on with a run of version 0.1.0 may copy its journal into the folder.
        elsewhere = Path(scratch) / STUDY
        live = path.exists() or not copy_journal(folder, elsewhere)
        database = Database.open(path if live else elsewhere, read_only=True)
        watched = _Watched(database, manifest.objectives, live=live)
        if not live:
            database.close()
        return watched


def expectations(record: Mapping[str, Any] | None, objectives: Sequence[str]) -> dict[str, Any]:
    """What the sampler's model expected of a trial, by readable names; empty for a trial that it did not propose."""
    if record is None:
        return {}
    found: dict[str, Any] = {"model: proposed as": record["source"]}
    if record["improvement"] is not None:
        found["model: hypervolume promised (%)"] = 100 * record["improvement"]
    for name, mean, sd in zip(objectives, record["mean"] or (), record["sd"] or (), strict=False):
        found[f"model: {name} expected"] = mean
        if sd > 0:
            found[f"model: {name} expected, deviation"] = sd
    return found


def make_app(run: str | Path) -> Callable[..., Iterable[bytes]]:
    """The dashboard of a run as a WSGI application that answers reading requests alone.

    Raises:
        ConfigError: optuna-dashboard is not installed.
        RunError: there is no run, or its study is missing or damaged.
    """
    try:
        import optuna_dashboard
    except ImportError:
        raise ConfigError(
            "the dashboard needs optuna-dashboard, which is not installed: pip install 'se-nas[dashboard]'"
        ) from None
    folder = RunFolder.open(run)
    app = optuna_dashboard.wsgi(_watched(folder))

    def read_only(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        # A page elsewhere whose name was made to lead to this machine asks with that name.
        asked = environ.get("HTTP_HOST", HOST).rpartition(":")[0] or environ.get("HTTP_HOST", HOST)
        if asked not in (HOST, "localhost"):
            reason = f"This dashboard only answers requests to {HOST}."
        elif environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            reason = "This dashboard is read-only."
        else:
            return app(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "application/json")])
        return [json.dumps({"reason": reason}).encode()]

    return read_only


class Dashboard:
    """A server of `make_app` on this machine alone.

    Args:
        run: the run folder.
        port: where it listens; 0 for any free port.

    Attributes:
        url: where a browser finds the study.

    Raises:
        ConfigError: optuna-dashboard is not installed, or the port is taken or not allowed.
        RunError: there is no run, or its study is missing or damaged.
    """

    def __init__(self, run: str | Path, port: int = 8080) -> None:
        if not 0 <= port < 1 << 16:
            raise ConfigError(f"port is {port}; allowed: 1 to {(1 << 16) - 1}, or 0 for any free port.")
        app = make_app(run)
        try:
            self._server = make_server(HOST, port, app, server_class=_Server, handler_class=_Handler)
        except OSError as error:
            raise ConfigError(
                f"port {port} cannot be used ({error.strerror}); give another --port, or 0 for any free one."
            ) from error
        self.url = f"http://{HOST}:{self._server.server_port}/dashboard/studies/0"

    def serve(self) -> None:
        """Answer requests until Ctrl-C or ``close`` from another thread."""
        try:
            self._server.serve_forever()
        except KeyboardInterrupt:
            pass
        finally:
            self._server.server_close()

    def close(self) -> None:
        """End ``serve``."""
        threading.Thread(target=self._server.shutdown).start()


class _Server(ThreadingMixIn, WSGIServer):
    # A page holds connections open; none may keep the others or the end waiting.
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """No line a request: the page asks every few seconds."""
