"""`ParetoSampler` computed in a process of its own, for a pack.

The thread that launches the steps of a pack needs Python's lock for a moment at every step. A thread that fits a
model holds it for milliseconds at a time, in which every place of the pack waits. So the model is kept by another
process, which is told of trials as they change. It suggests what the sampler would suggest here.

This module is also what that process runs.
"""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Container, Sequence
from contextlib import suppress
from typing import IO, Any, cast

from optuna.distributions import BaseDistribution
from optuna.logging import WARNING, set_verbosity
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from se_nas.samplers.pareto_sampler import MODEL, ParetoSampler

_log = logging.getLogger(__name__)

_COMMAND = [
    sys.executable,
    *("-P", "-W", "ignore"),
    *("-c", "from se_nas.study.sampler_process import serve; serve()"),
]
END_SECONDS = 10.0
"""How long the process may take to end before it is killed: it may be in the middle of a fit."""
_BROKEN = (OSError, EOFError, pickle.PickleError, AttributeError, TypeError)
"""What is raised if the process is gone, or if something cannot be pickled."""


class SamplerProcess(BaseSampler):
    """A sampler whose suggestions another process computes, as long as that one works.

    If it cannot be started, or is gone, ``sampler`` suggests here, and a warning is logged. One thread at a time may
    ask.

    Args:
        sampler: with ``space``, so that what it suggests is a trial's attribute ``se_nas:model``.
        directions: of the study.
    """

    def __init__(self, sampler: ParetoSampler, directions: Sequence[StudyDirection]) -> None:
        self._sampler = sampler
        self._told: list[FrozenTrial] = []
        self._process: subprocess.Popen[bytes] | None = None
        try:
            content = pickle.dumps((sampler, list(directions)))
            path = os.pathsep.join(entry for entry in sys.path if entry)
            # A process group of its own: Ctrl-C is for the search, which ends this one.
            self._process = subprocess.Popen(
                _COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""},
            )
            self._send(content)
        except _BROKEN as error:
            self._give_up(error)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        given = search_space.keys() <= trial.system_attrs.get("fixed_params", {}).keys()
        record = None if given or self._process is None else self._asked(study, trial, search_space)
        if record is None:
            return self._sampler.sample_relative(study, trial, search_space)
        study._storage.set_trial_system_attr(trial._trial_id, MODEL, record)
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._sampler.after_trial(study, trial, state, values)

    def close(self) -> None:
        """End the process; from now on ``sampler`` suggests here."""
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            # What was still to be sent has nobody to read it.
            with suppress(OSError):
                pipe.close()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _asked(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any] | None:
        """The suggestion of the other process; None if it has none, and the sampler here may say why."""
        trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
        # A trial that has changed is another object.
        changed = [
            known
            for number, known in enumerate(trials)
            if number >= len(self._told) or known is not self._told[number]
        ]
        try:
            assert self._process is not None
            assert self._process.stdout is not None
            self._send(pickle.dumps((len(trials), changed, trial.number, search_space)))
            self._told = trials
            return cast("dict[str, Any] | None", pickle.load(self._process.stdout))
        except _BROKEN as error:
            self._give_up(error)
            return None

    def _send(self, content: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(content)
        self._process.stdin.flush()

    def _give_up(self, error: Exception) -> None:
        _log.warning(
            "suggestions are computed in this process, where steps may wait for them: the process for them failed (%s)",
            str(error) or type(error).__name__,
        )
        self.close()


class _Trials:
    """What `ParetoSampler` asks of a storage, and the record that it leaves."""

    def __init__(self) -> None:
        self.trials: list[FrozenTrial] = []
        self.record: dict[str, Any] | None = None

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return [trial for trial in self.trials if states is None or trial.state in states]

    def set_trial_system_attr(self, trial_id: int, key: str, value: dict[str, Any]) -> None:
        assert key == MODEL
        self.record = value


class _Study:
    """What `ParetoSampler` asks of a study."""

    _study_id = 0

    def __init__(self, directions: list[StudyDirection]) -> None:
        self.directions, self._storage = directions, _Trials()

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return self._storage.get_all_trials(self._study_id, deepcopy, states)


def serve() -> None:
    """Answer suggestions on standard input and output until the former ends."""
    warnings.simplefilter("ignore")
    set_verbosity(WARNING)
    # What a library prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        answer(sys.stdin.buffer, answers)
    except (EOFError, BrokenPipeError):
        # The search has ended, or was killed.
        os._exit(0)


def answer(questions: IO[bytes], answers: IO[bytes]) -> None:
    """Answer until there is no question left; then `EOFError` is raised."""
    sampler, directions = pickle.load(questions)
    study = _Study(directions)
    storage = study._storage
    while True:
        count, changed, number, search_space = pickle.load(questions)
        del storage.trials[count:]
        for trial in changed:
            storage.trials[trial.number : trial.number + 1] = [trial]
        storage.record = None
        try:
            sampler.sample_relative(cast(Study, study), storage.trials[number], search_space)
        except Exception as error:
            # The sampler in the other process meets it too, where somebody sees it.
            _log.debug("no suggestion: %s", error)
        pickle.dump(storage.record, answers)
        answers.flush()
