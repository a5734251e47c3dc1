"""The progress that a command shows, as its options ask for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from se_nas.cli.events import JsonProgress, emit
from se_nas.cli.exit_codes import USER_ERROR
from se_nas.cli.logs import is_quiet
from se_nas.errors import SeNasError
from se_nas.study.display import make_progress
from se_nas.study.progress import Progress


def command_progress(*, json: bool = False) -> Progress:
    """For people on standard error unless ``--quiet`` is given; with ``json``, as events on standard output too."""
    people = Progress() if is_quiet() else make_progress()
    return JsonProgress(people) if json else people


@contextmanager
def failures_as_events(json: bool) -> Iterator[None]:
    """With ``json``, an error that ends the command is its last event."""
    try:
        yield
    except SeNasError as error:
        if json:
            emit("failed", error=str(error), exit_code=USER_ERROR)
        raise
