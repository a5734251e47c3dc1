"""A run's study in optuna-dashboard, read-only: a search in progress is shown as it goes and never disturbed."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from se_nas.errors import ConfigError
from se_nas.run import RunFolder
from se_nas.samplers.pareto_sampler import MODEL
from se_nas.study.storage import StudyStore

HOST = "127.0.0.1"
_LONG = ("curve", "se_nas:curve", "se_nas:partial", "widths")
"""User attributes that are made for programs."""


class _JournalReader(BaseJournalBackend):
    """The journal of a run, which this process must not write."""

    def __init__(self, path: Path) -> None:
        self._file = JournalFileBackend(str(path))

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        return self._file.read_logs(log_number_from)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        raise PermissionError("the dashboard does not write to a run.")


class _ReadableStorage(JournalStorage):
    """The study with what a person wants to see in each trial: the model's picture of it, and no long lists."""

    def __init__(self, path: Path, objectives: Sequence[str]) -> None:
        super().__init__(_JournalReader(path))
        self._objectives = objectives

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = super().get_all_trials(study_id, deepcopy=False, states=states)
        shown = []
        for trial in trials:
            own = copy.deepcopy(trial) if deepcopy else copy.copy(trial)
            kept = {name: value for name, value in trial.user_attrs.items() if name not in _LONG}
            own.user_attrs = kept | expectations(trial.system_attrs.get(MODEL), self._objectives)
            shown.append(own)
        return shown


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
    StudyStore.open(folder)
    app = optuna_dashboard.wsgi(_ReadableStorage(folder.journal, folder.manifest.objectives))

    def read_only(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return app(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "application/json")])
        return [json.dumps({"reason": "This dashboard only reads the run."}).encode()]

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
