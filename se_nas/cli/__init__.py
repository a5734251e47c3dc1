"""The command line: parses, calls the Python API, renders. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, NoReturn

import typer

import se_nas
from se_nas.cli.exit_codes import MEANINGS, SIGNALLED, USER_ERROR
from se_nas.cli.usage import Commands
from se_nas.errors import ConfigError, SeNasError

_ORDER = (
    *("search", "resume", "worker", "show", "report", "export", "retrain", "compare", "dashboard"),
    *("inspect", "spaces", "profile"),
)
"""Commands in the order in which a user needs them; ``--help`` lists them so."""

app = typer.Typer(
    name="se-nas",
    cls=Commands,
    help="Find where channel attention pays off: search for Squeeze-and-Excitation (SE) blocks in a timm backbone.",
    epilog="\n\n".join(
        [
            "Begin with:  se-nas search --backbone resnet50",
            "Exit codes:",
            *(f"{code:>5}  {meaning}" for code, meaning in MEANINGS.items()),
        ]
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"se-nas {se_nas.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Find where channel attention pays off."""


def _refuse_empty(words: Sequence[str]) -> None:
    """Refuse an empty argument: as a path it would be the current folder."""
    for before, word in pairwise(words):
        option, sign, value = word.partition("=")
        if not word.strip() or (option.startswith("--") and sign and not value.strip()):
            name = option if sign else before if before.startswith("-") else "an argument"
            raise ConfigError(f"{name} is empty; is it a shell variable that is not set?")


def main() -> None:
    """Entry point of ``se-nas``. A user's mistake ends in one message and exit code 2, never in a traceback."""
    try:
        _refuse_empty(sys.argv)
        app(prog_name="se-nas")
    except BrokenPipeError:
        # The reader (head, less) went away; writing on would raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except (SeNasError, OSError) as error:
        # An OSError here is a path that the user gave, or a full disk.
        from se_nas.console import make_console, print_text
        from se_nas.run.disk import refused

        print_text(make_console(stderr=True), f"error: {refused(error) or error}", style="red")
        raise SystemExit(USER_ERROR) from None
    except KeyboardInterrupt as error:
        _end(error)
    except SystemExit as error:
        # Typer ends every KeyboardInterrupt as if it were Ctrl-C, whichever signal was behind it.
        behind = getattr(error.__context__, "__cause__", None)
        if not isinstance(behind, KeyboardInterrupt):
            raise
        _end(behind)


def _end(interrupt: KeyboardInterrupt) -> NoReturn:
    typer.echo("interrupted", err=True)
    raise SystemExit(SIGNALLED + getattr(interrupt, "number", signal.SIGINT)) from None


from se_nas.cli import models, results, retraining, runs  # noqa: E402, F401  (they register their commands)

app.registered_commands.sort(key=lambda command: _ORDER.index(getattr(command.callback, "__name__", "")))
