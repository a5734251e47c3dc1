"""The database of a study on a PostgreSQL server, which several workers write.

Whoever chooses what is trained next takes a turn: alone among all workers it reads what the others have done, decides
and stores its decision, all in one transaction. What it has thereby claimed is its own; it writes epochs and outcome
without a turn. A claim lasts as long as its worker gives signs of life.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import sqlalchemy
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import (
    TrialHeartbeatModel,
    TrialModel,
    TrialSystemAttributeModel,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, Table, func
from sqlalchemy.dialects.postgresql import insert

from se_nas.errors import RunError
from se_nas.study.database import USER_ATTRIBUTES, Database, find_study
from se_nas.study.database_errors import TakenOverError, closed_if_refused, explained
from se_nas.study.patience import Patience
from se_nas.study.server_access import GRACE, LOCKS, open_storage

T = TypeVar("T")
WORKER = "se_nas:worker"
"""System attribute of a trial: the worker that it belongs to, or that finished it."""
CLOCK = "se_nas:clock"
"""User attribute of the study: the seconds that it has used, and the server's time when that was counted."""
_Stamp = tuple[TrialState, bool, str]
"""What tells that a trial was written: its state, whether a worker has it, and the transaction that wrote it last."""


class SharedDatabase(Database):
    """One study on a server.

    Args:
        storage: Optuna's access to the database.
        study_id: the study's number in it.
        name: of the database, for messages.

    Attributes:
        worker: who writes: host, process and a random part.
        patience: of this worker with the server.
    """

    # Workers change the study side by side, and a server has checksums of its own.
    _sealed = False

    def __init__(self, storage: RDBStorage, study_id: int, name: str) -> None:
        super().__init__(storage, study_id, name)
        self.worker = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        self.patience = Patience()
        self._turn: Connection | None = None
        self._stamps: dict[int, _Stamp] = {}
        self._alive: set[int] = set()
        self._count = 0

    @classmethod
    def connect(
        cls, url: str, study: str, directions: Sequence[StudyDirection] | None = None
    ) -> SharedDatabase:
        """The study of that name on a server.

        Args:
            url: as ``address.check_address`` allows it.
            study: its name.
            directions: of the objectives. The study is made with these if there is none yet; None: it must exist.

        Raises:
            UnavailableError: the server does not answer.
            RunError: the server refuses, there is no study, or Optuna's schema is not the one known here.
        """
        with explained(url):
            storage = open_storage(url, study, create=directions is not None)
            with closed_if_refused(storage.engine.dispose):
                study_id = find_study(storage, study, directions, url)
                return cls(storage, study_id, f"study {study!r} on {url}")

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Alone among all workers; what is read and written inside of this is one transaction.

        Raises:
            UnavailableError: at the beginning or the end; nothing was stored, or, at the end, perhaps everything.
        """
        with explained(self._name):
            connection = self._engine.connect()
        try:
            with explained(self._name):
                # The lock is taken before the transaction, whose picture of the data would be older otherwise.
                connection.execution_options(isolation_level="AUTOCOMMIT")
                connection.execute(sqlalchemy.select(func.pg_advisory_lock(LOCKS, self._study_id)))
                connection.commit()
                connection.execution_options(isolation_level="REPEATABLE READ")
            self._turn = connection
            yield
            with explained(self._name):
                connection.commit()
                connection.execution_options(isolation_level="AUTOCOMMIT")
                connection.execute(sqlalchemy.select(func.pg_advisory_unlock_all()))
                connection.commit()
        except BaseException:
            # The end of the session is that of its lock and its transaction, in whatever state they are.
            connection.invalidate()
            raise
        finally:
            self._turn = None
            connection.close()
        self.patience.answered()

    def attributes(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return self._patiently(super().attributes)

    def trials(self, first: int = 0) -> list[FrozenTrial]:
        return self._patiently(lambda: super(SharedDatabase, self).trials(first))

    def news(self, unfinished: Collection[int], first: int) -> list[FrozenTrial]:
        """What other workers have written since the last call, in order of number.

        How long this takes depends on how much that is, and on how many trials are in training, but not on how many
        there are. In a turn, for which others wait, epochs that have ended are left to the next call.

        Args:
            unfinished: trials that had not ended by the last call.
            first: number of the first trial that was not there yet.

        Raises:
            UnavailableError: the server does not answer.
            RunError: the database is damaged.
        """
        trials = TrialModel.__table__
        with explained(self._name), self._reading() as connection:
            looked = self._look(connection, unfinished, first)
            stamps = {number: stamp for number, _, stamp in looked}
            changed = []
            for number, own, stamp in looked:
                before = self._stamps.get(number)
                if number >= first or before == stamp:
                    continue
                if self._turn is not None and before is not None and before[:2] == stamp[:2]:
                    stamps[number] = before
                else:
                    changed.append((number, own))
            which = (trials.c.trial_id > self._last(first)) | trials.c.trial_id.in_(
                [own for _, own in changed]
            )
            # What is in training keeps its parameters.
            described = {
                own: trial
                for number, own in changed
                if (trial := self._saved.get(number)) is not None and trial.state == TrialState.RUNNING
            }
            read = changed or max(stamps, default=-1) >= first
            found = list(self._read(connection, which, described)) if read else []
        added = [trial.number for trial in found if trial.number >= first]
        if added != list(range(first, first + len(added))) or not stamps.keys() >= set(unfinished):
            raise RunError(f"{self._name} is damaged: a trial is missing.")
        self._stamps, self._count = stamps, first + len(added)
        self._saved |= {trial.number: trial for trial in found}
        return found

    def stirred(self) -> bool:
        """Whether a trial has begun, ended or been left since ``news``, without a turn: all that a worker waits for.

        Those who wait look often, and turns are what those who train have to wait for.
        """
        known = {number: stamp[:2] for number, stamp in self._stamps.items() if not stamp[0].is_finished()}

        def look() -> dict[int, tuple[TrialState, bool]]:
            with explained(self._name), self._reading() as connection:
                return {number: stamp[:2] for number, _, stamp in self._look(connection, known, self._count)}

        return self._patiently(look) != known

    def save(self, trials: Iterable[FrozenTrial], attributes: Iterable[tuple[Table, str, Any]] = ()) -> None:
        """See ``Database.save``.

        Raises:
            TakenOverError: a trial that is written without a turn belongs to another worker; nothing was written.
        """
        trials, attributes = list(trials), list(attributes)
        self._patiently(lambda: super(SharedDatabase, self).save(trials, attributes))

    def forget(self) -> None:
        """What was saved before is not known any more: a turn has failed, or another worker has written."""
        self._ids.clear()
        self._saved.clear()
        self._stamps.clear()

    def alive(self) -> set[int]:
        """Numbers of the running trials whose workers had given a sign of life within ``GRACE`` when they were read."""
        return self._alive

    def give_sign(self, numbers: Collection[int]) -> float:
        """Prolong the claims on trials, count the time that the study uses, and return it in seconds.

        Time in which no worker has given a sign does not count. May be called from another thread.

        Raises:
            UnavailableError: the server does not answer.
        """
        trials, signs, clock = TrialModel.__table__, TrialHeartbeatModel.__table__, USER_ATTRIBUTES
        ids = sqlalchemy.select(trials.c.trial_id).where(
            trials.c.study_id == self._study_id, trials.c.number.in_(numbers)
        )
        mine = (clock.c.study_id == self._study_id) & (clock.c.key == CLOCK)
        with explained(self._name), self._engine.begin() as connection:
            connection.execute(signs.update().where(signs.c.trial_id.in_(ids)).values(heartbeat=_now()))
            now = float(connection.execute(sqlalchemy.select(func.extract("epoch", _now()))).scalar_one())
            stored = connection.execute(
                sqlalchemy.select(clock.c.value_json).where(mine).with_for_update()
            ).scalar_one()
            spent, at = json.loads(stored)
            if 0 < now - at < GRACE:
                spent += now - at
            connection.execute(clock.update().where(mine).values(value_json=json.dumps([spent, now])))
        return spent

    def _look(
        self, connection: Connection, unfinished: Collection[int], first: int
    ) -> list[tuple[int, int, _Stamp]]:
        """Number, id and stamp of some trials and of all from number ``first`` on.

        They are found by their ids, which grow with their numbers and are what the tables are sorted by.
        """
        trials, signs = TrialModel.__table__, TrialHeartbeatModel.__table__
        age = func.extract("epoch", _now() - signs.c.heartbeat)
        # Every write of a trial updates its row, and PostgreSQL keeps which transaction did; signs of life do not.
        written = sqlalchemy.cast(sqlalchemy.literal_column("trials.xmin"), sqlalchemy.Text)
        wanted = (
            sqlalchemy.select(
                trials.c.number,
                trials.c.trial_id,
                trials.c.state,
                signs.c.heartbeat.is_not(None),
                age < GRACE,
                written,
            )
            .join(signs, isouter=True)
            .where(
                trials.c.study_id == self._study_id,
                (trials.c.trial_id > self._last(first))
                | trials.c.trial_id.in_([self._ids[number] for number in unfinished]),
            )
        )
        found = connection.execute(wanted).all()
        self._alive = {row[0] for row in found if row[2] == TrialState.RUNNING and row[4]}
        return [(number, own, (state, claimed, writer)) for number, own, state, claimed, _, writer in found]

    def _last(self, first: int) -> int:
        """Id of the trial before number ``first``, below every id if there is none."""
        return self._ids[first - 1] if first else 0

    @property
    def _engine(self) -> sqlalchemy.Engine:
        return self._storage.engine

    def _patiently(self, action: Callable[[], T]) -> T:
        """In a turn the whole turn is taken again, and not a part of it."""
        return action() if self._turn is not None else self.patience.until_done(action)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        if self._turn is not None:
            yield self._turn
            return
        with self._engine.connect() as connection:
            yield connection.execution_options(isolation_level="REPEATABLE READ")

    def _writing(self) -> AbstractContextManager[Connection]:
        return self._engine.begin() if self._turn is None else nullcontext(self._turn)

    def _save(self, connection: Connection, trial: FrozenTrial) -> int:
        own = self._ids.get(trial.number)
        if self._turn is None and own is not None and self._is_stored(connection, own, trial):
            return own
        own = super()._save(connection, trial)
        if trial.state == TrialState.RUNNING:
            self._sign(connection, own, claimed=trial.system_attrs.get(WORKER) is not None)
        return own

    def _is_stored(self, connection: Connection, own: int, trial: FrozenTrial) -> bool:
        """Whether a trial's outcome reached the server although its answer did not reach us.

        Raises:
            TakenOverError: the trial is another worker's, and this is not its outcome, or it has one.
        """
        trials, attributes = TrialModel.__table__, TrialSystemAttributeModel.__table__
        named = (attributes.c.trial_id == trials.c.trial_id) & (attributes.c.key == WORKER)
        state, owner = connection.execute(
            sqlalchemy.select(trials.c.state, attributes.c.value_json)
            .join(attributes, named, isouter=True)
            .where(trials.c.trial_id == own)
            .with_for_update(of=trials)
        ).one()
        ours = owner == json.dumps(self.worker)
        if state.is_finished():
            if not ours:
                raise TakenOverError(trial.number)
            return True
        if not ours:
            if not trial.state.is_finished():
                raise TakenOverError(trial.number)
            # The first outcome counts. All of it is written, the name of its worker included.
            self._saved.pop(trial.number, None)
        return False

    def _sign(self, connection: Connection, own: int, *, claimed: bool) -> None:
        signs = TrialHeartbeatModel.__table__
        if claimed:
            row = insert(signs).values(trial_id=own, heartbeat=_now())
            connection.execute(
                row.on_conflict_do_update(index_elements=["trial_id"], set_={"heartbeat": _now()})
            )
        else:
            connection.execute(signs.delete().where(signs.c.trial_id == own))


def _now() -> Any:
    """The server's time, as Optuna stores times: naive, in UTC."""
    return func.timezone("utc", func.clock_timestamp())
