"""The study of a run that several workers write; see ``server`` for how they take turns."""

from __future__ import annotations

import base64
import hashlib
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial

from se_nas.run import FINAL, RunFolder, packed_correct
from se_nas.study.attributes import IMAGES, ROW
from se_nas.study.checking import ENDED
from se_nas.study.database_errors import TakenOverError, UnavailableError
from se_nas.study.shared_trials import SharedTrials
from se_nas.study.storage import StudyStore

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class SharedStore(StudyStore):
    """The study as one worker has it, with a folder that need not be that of the others; see ``StudyStore``."""

    shared = True
    _storage: SharedTrials

    def __init__(self, folder: RunFolder, storage: SharedTrials) -> None:
        super().__init__(folder, storage)

    def look(self) -> None:
        """Learn without a turn what others have done, to prepare one."""
        try:
            self._follow(self._storage.look())
        except UnavailableError as error:
            # The turn that follows is not taken before the database answers, and learns it all.
            self._storage.wait(error)

    def rehearsal(self) -> AbstractContextManager[list[FrozenTrial]]:
        """Nothing that is written inside of this is kept.

        Afterwards the list that it yields has the trials that were begun or made, for ``adopt``.
        """
        return self._storage.rehearsal()

    def adopt(self, trial: FrozenTrial, *, queued: bool) -> FrozenTrial | None:
        """Make a trial that was rehearsed one of the study; only in a turn.

        Args:
            trial: of a rehearsal.
            queued: whether it was in the study before, as a queued one.

        Returns:
            The trial with its number now; None if another worker has taken it from the queue.
        """
        number = self._storage.adopt(trial, queued=queued)
        return None if number is None else self._storage.get_trial(number)

    def others_at_work(self) -> bool:
        """Whether another worker trains; only in a turn."""
        return self._storage.others_at_work()

    def stirred(self) -> bool:
        return self._storage.stirred()

    def give_sign(self) -> float:
        """Tell the other workers that this one is alive; returns the seconds that all have used.

        May be called from another thread.
        """
        return self._storage.give_sign()

    def leave_all(self) -> None:
        for number in sorted(self._storage.claimed):
            with suppress(TakenOverError):
                self._storage.leave(number)

    def end_search(self, reason: str) -> None:
        if self.search_ended is None:
            self.set_attributes(**{ENDED: reason})

    def keep_correct(self, number: int, correct: NDArray[np.bool_]) -> dict[str, Any]:
        """Only of final trainings, and in the database, as other workers have folders of their own."""
        if self._storage.get_trial(number).user_attrs[ROW]["phase"] != FINAL:
            return {}
        content = packed_correct(correct)
        self.mark(number, **{IMAGES: base64.b64encode(content).decode("ascii")})
        return {"correct": hashlib.sha256(content).hexdigest()}

    def spend(self, seconds: float) -> None:
        """Nothing: the workers' signs of life count the time."""

    def _write_files(self) -> None:
        for trial in self.trials():
            kept = trial.user_attrs.get(IMAGES)
            if kept is not None and trial.state.is_finished() and not self.folder.has_correct(trial.number):
                self.folder.put_correct(trial.number, base64.b64decode(kept))
        super()._write_files()
