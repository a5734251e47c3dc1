"""Questions about latency and their answers, in the database of a shared study: a table beside Optuna's.

Whoever trains asks and waits, and one worker that only measures answers, so that the front is for its device.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy
from sqlalchemy import Column, DateTime, MetaData, String, Table, Text, func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.pool import NullPool

from se_nas.architecture import Architecture
from se_nas.study.database_errors import explained
from se_nas.study.patience import Patience
from se_nas.study.server_access import LOCKS, connect_options

BEGIN = ""
"""Key of the first question; those about networks have the keys of these."""
POLL_SECONDS = 1.0
MESSAGE_SECONDS = 60.0
"""For how long nobody answers before somebody is told so."""
_mail = Table(
    "se_nas_latency",
    MetaData(),
    Column("study", String(512), primary_key=True),
    Column("key", String(64), primary_key=True),
    Column("machine", String(255), nullable=False),
    Column("question", Text, nullable=False),
    Column("answer", Text),
    Column("asked", DateTime, nullable=False, server_default=func.clock_timestamp()),
)


class Mail:
    """What is asked and answered for one study.

    Args:
        storage: the address of its database.
        study: the study's name.
        patience: with a server that does not answer.

    Raises:
        RunError: from any method, if the database cannot be used.
    """

    def __init__(self, storage: str, study: str, patience: Patience) -> None:
        self._study, self._name, self._patience = study, f"study {study!r} on {storage}", patience
        with explained(storage):
            self._engine = sqlalchemy.create_engine(
                storage, poolclass=NullPool, connect_args=connect_options()
            )
            with self._engine.begin() as connection:
                connection.execute(sqlalchemy.select(func.pg_advisory_xact_lock(LOCKS, 0)))
                _mail.metadata.create_all(connection)

    def ask(self, key: str, machine: str, question: Mapping[str, Any]) -> None:
        """Ask, unless that was asked before."""
        row = insert(_mail).values(study=self._study, key=key, machine=machine, question=json.dumps(question))
        self._execute(row.on_conflict_do_nothing())

    def forget(self) -> None:
        """Delete what was asked for an earlier study of that name."""
        self._execute(_mail.delete().where(_mail.c.study == self._study))

    def answer(self, key: str, answer: Mapping[str, Any]) -> None:
        """Answer a question."""
        own = (_mail.c.study == self._study) & (_mail.c.key == key)
        self._execute(_mail.update().where(own).values(answer=json.dumps(answer)))

    def find(self, key: str) -> tuple[str, dict[str, Any], dict[str, Any] | None] | None:
        """Machine, question and answer of a key; None if that was not asked, and for an answer that is not there."""
        columns = _mail.c.machine, _mail.c.question, _mail.c.answer
        own = (_mail.c.study == self._study) & (_mail.c.key == key)
        found = self._execute(sqlalchemy.select(*columns).where(own))
        if not found:
            return None
        machine, question, answer = found[0]
        return machine, json.loads(question), None if answer is None else json.loads(answer)

    def open_questions(self) -> list[tuple[str, dict[str, Any]]]:
        """Keys and questions without answers, the oldest first."""
        waiting = (_mail.c.study == self._study) & _mail.c.answer.is_(None)
        rows = self._execute(
            sqlalchemy.select(_mail.c.key, _mail.c.question).where(waiting).order_by(_mail.c.asked)
        )
        return [(key, json.loads(question)) for key, question in rows]

    def _execute(self, statement: Any) -> list[Any]:
        def execute() -> list[Any]:
            with explained(self._name), self._engine.begin() as connection:
                result = connection.execute(statement)
                return list(result) if result.returns_rows else []

        return self._patience.until_done(execute)


class MailMeasurer:
    """A `Measurer` that asks the worker of a host by mail.

    Args:
        mail: of the study.
        machine: the name of the host.
        fresh: whether the search begins, so that nothing that was asked under its name counts.
        say: is given a line if nobody answers.
    """

    def __init__(self, mail: Mail, machine: str, *, fresh: bool, say: Callable[[str], object]) -> None:
        self.name = machine
        self._mail, self._fresh, self._say = mail, fresh, say

    def begin(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        if self._fresh:
            self._mail.forget()
        self._mail.ask(BEGIN, self.name, question)
        answer = self._wait(BEGIN, lambda: False, after=0.0)
        assert answer is not None
        return answer

    def measure(
        self, architecture: Mapping[str, Any], should_stop: Callable[[], bool]
    ) -> Mapping[str, Any] | None:
        key = Architecture.from_dict(architecture).key
        self._mail.ask(key, self.name, architecture)
        return self._wait(key, should_stop, after=MESSAGE_SECONDS)

    def _wait(self, key: str, should_stop: Callable[[], bool], *, after: float) -> dict[str, Any] | None:
        began, said = time.monotonic(), False
        while not should_stop():
            found = self._mail.find(key)
            if found is not None and found[2] is not None:
                return found[2]
            if not said and time.monotonic() - began >= after:
                said = True
                self._say(
                    f"waiting for a measurement on {self.name}; se-nas worker --latency-only must be running there"
                )
            time.sleep(POLL_SECONDS)
        return None
