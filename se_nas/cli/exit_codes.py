"""The exit codes of all commands; ``--help`` shows this table and docs/exit-codes.md explains it."""

from __future__ import annotations

import signal

OK, USER_ERROR, WORSE, NOTHING_FINISHED, TABLE_FAILED, UNDECIDED = 0, 2, 3, 4, 5, 6
SIGNALLED = 128
"""Less the signal's number; so shells have it."""
INTERRUPTED = SIGNALLED + signal.SIGINT

MEANINGS = {
    f"{OK}": "success",
    f"{USER_ERROR}": "an error that you can fix, explained in one sentence",
    f"{WORSE}": "compare --fail-if-worse: the last run's front is worse",
    f"{NOTHING_FINISHED}": "search, resume: no candidate has finished",
    f"{TABLE_FAILED}": "profile: a latency table failed its check, or time ran out",
    f"{UNDECIDED}": "compare --fail-if-worse: undecided",
    f"{INTERRUPTED}": "Ctrl-C; the run can be resumed",
    f"{SIGNALLED}+N": "ended by signal N",
}
