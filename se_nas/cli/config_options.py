"""Options that commands do not declare: those that are fields of `SearchConfig`, and those that all commands have.

The text of a field is written there only. Its option is made when a command's parameters are first asked for, because
pydantic takes longer to import than ``se-nas --help`` may.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from typer.core import TyperCommand

from se_nas.cli import logs
from se_nas.cli.panels import in_panels

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

ONLY_IN_FILES = ("timm_kwargs", "split_seed", "init")
"""Fields that are too rare or too structured for the command line; ``--config`` reads them."""
REPEATABLE = ("log", "warm_start")
"""Fields whose option is given once for each item."""


def _of_every_command(
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print nothing but results and errors.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also print debug messages.")] = False,
    log_file: Annotated[
        Path | None,
        typer.Option("--log-file", help="Append all log messages to this file.", show_default=False),
    ] = None,
) -> None:
    logs.configure(quiet=quiet, verbose=verbose, log_file=log_file)


class DescribedCommand(TyperCommand):
    """A command that logs as it is asked to, with its options in panels.

    Options without a help text have the description of the field of their name.
    """

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._declared = self.__dict__.pop("params")

    @cached_property
    def params(self) -> list[Any]:  # type: ignore[override]
        return [*self._complete(self._declared), *_made_of(_of_every_command)]

    def get_params(self, ctx: Any) -> list[Any]:
        return in_panels(super().get_params(ctx))

    def invoke(self, ctx: Any) -> Any:
        _of_every_command(**{name: ctx.params.pop(name) for name in ("quiet", "verbose", "log_file")})
        return super().invoke(ctx)

    def _complete(self, declared: list[Any]) -> list[Any]:
        for parameter in declared:
            if getattr(parameter, "help", "") is None:
                parameter.help = _fields()[parameter.name].description
        return declared


class ConfigCommand(DescribedCommand):
    """A command that takes every field of a configuration, besides the options that its function declares.

    The function finds the values that were given in ``ctx.obj``, a dictionary.
    """

    def _complete(self, declared: list[Any]) -> list[Any]:
        return [*_options(), *super()._complete(declared)]

    def invoke(self, ctx: Any) -> Any:
        given = {}
        for name in set(_fields()) & set(ctx.params):
            value = ctx.params.pop(name)
            source = ctx.get_parameter_source(name)
            if source is not None and source.name != "DEFAULT":
                given[name] = value
        ctx.obj = given
        return super().invoke(ctx)


def _fields() -> dict[str, FieldInfo]:
    from se_nas.study.config import SearchConfig

    return SearchConfig.model_fields


def _options() -> list[Any]:
    """The options of all fields that the command line has."""

    def options() -> None: ...

    signature = inspect.Signature(
        [_parameter(name, field) for name, field in _fields().items() if name not in ONLY_IN_FILES]
    )
    options.__signature__ = signature  # type: ignore[attr-defined]
    return _made_of(options)


def _made_of(function: Callable[..., None]) -> list[Any]:
    """The options that typer makes of a function's parameters."""
    app = typer.Typer(add_completion=False)
    app.command()(function)
    command: Any = typer.main.get_command(app)
    return list(command.params)


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    """The parameter of a typer function: values are checked by the configuration, so its type is a simple one."""
    kind = _kind(field.annotation)
    default = None if field.is_required() else field.default
    if name in REPEATABLE:
        kind, default = list[str], None
    elif isinstance(default, tuple):
        default = ",".join(default)
    flag = ("--" + name.replace("_", "-"),) if kind is bool else ()
    option = typer.Option(
        *flag, help=field.description, show_default=default is not None and kind is not bool
    )
    annotation = bool if kind is bool else kind | None
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[annotation, option]
    )


def _kind(annotation: Any) -> Any:
    """bool, int or float if a field takes nothing else besides None; else str."""
    kinds = [kind for kind in get_args(annotation) or (annotation,) if kind is not type(None)]
    return kinds[0] if len(kinds) == 1 and kinds[0] in (bool, int, float) else str
