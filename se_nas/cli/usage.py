"""Errors of usage, such as an unknown option, told like every other error: one sentence, and what may be meant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from se_nas.errors import ConfigError, nearest

# Recent versions of typer bring a click of their own.
_UsageError: Any = typer.BadParameter.__base__
_NO_COMMAND = re.compile(r"No such command '(?P<name>.*?)'")


class Commands(TyperGroup):
    """The program's commands."""

    def make_context(self, *args: Any, **keywords: Any) -> Any:
        with _explained(self):
            return super().make_context(*args, **keywords)

    def invoke(self, ctx: Any) -> Any:
        with _explained(self):
            return super().invoke(ctx)


@contextmanager
def _explained(group: Commands) -> Iterator[None]:
    try:
        yield
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            raise
        raise ConfigError(f"{_sentence(group, error)}{_where(error)}") from None


def _sentence(group: Commands, error: Any) -> str:
    option, ctx = getattr(error, "option_name", None), error.ctx
    if option is not None and hasattr(error, "possibilities"):
        known = [name for parameter in ctx.command.params for name in parameter.opts] if ctx else []
        return f"there is no option {option}.{nearest(option, [name for name in known if name[:2] == '--'])}"
    message = str(error.format_message())
    unknown = _NO_COMMAND.match(message)
    if unknown is not None:
        wrong, commands = unknown["name"], list(group.commands)
        return f"there is no command {wrong!r}; allowed: {', '.join(commands)}.{nearest(wrong, commands)}"
    words = ": ".join(part[:1].lower() + part[1:] for part in message.split(": "))
    return words if words.endswith((".", "?")) else f"{words}."


def _where(error: Any) -> str:
    return f"\nSee:  {error.ctx.command_path} --help" if error.ctx is not None else ""
