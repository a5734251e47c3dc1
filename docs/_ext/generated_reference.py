"""Directives that list the commands with their options, and the fields of a configuration, from the program itself."""

from __future__ import annotations

from typing import Any

import typer
from docutils import nodes
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import stringify_annotation

from se_nas import SearchConfig
from se_nas.cli import app as program


class CommandReference(SphinxDirective):
    """A section for each command: what it does, an example, and its options by the panels of ``--help``."""

    def run(self) -> list[nodes.Node]:
        group: Any = typer.main.get_command(program)
        text = "\n".join(
            line for name, command in group.commands.items() for line in command_lines(name, command)
        )
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def command_lines(name: str, command: Any) -> list[str]:
    context = command.make_context(name, [], resilient_parsing=True)
    description, _, example = command.help.partition("Example:")
    lines = [f"## se-nas {name}", "", " ".join(description.split()), ""]
    if example:
        lines += ["```sh", " ".join(example.split()), "```", ""]
    panels: dict[str, list[Any]] = {"Arguments": []}
    for parameter in command.params:
        if getattr(parameter, "hidden", False):
            continue
        panel = getattr(parameter, "rich_help_panel", None)
        usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
        panels.setdefault(panel or usual, []).append(parameter)
    for panel, parameters in panels.items():
        if not parameters:
            continue
        if len(parameters) < len(command.params):
            lines += [f"**{panel}**", ""]
        for parameter in parameters:
            lines += [f"{_head(parameter, context)}", f": {_help(parameter)}", ""]
    return lines


def _head(parameter: Any, context: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper()}`"
    names = ", ".join([*parameter.opts, *parameter.secondary_opts])
    return f"`{names}`" if parameter.is_flag else f"`{names} {parameter.display_type(context)}`"


def _help(parameter: Any) -> str:
    text = " ".join((parameter.help or "").split())
    if parameter.required:
        return f"{text} Required."
    shown = getattr(parameter, "show_default", False) and not getattr(parameter, "is_flag", False)
    if shown and parameter.default not in (None, ()):
        default = ", ".join(parameter.default) if isinstance(parameter.default, list) else parameter.default
        text = f"{text} Default: `{default}`."
    return text


class ConfigFields(SphinxDirective):
    """The fields of `SearchConfig` with their types, defaults and descriptions."""

    def run(self) -> list[nodes.Node]:
        lines = []
        for name, field in SearchConfig.model_fields.items():
            default = "required" if field.is_required() else f"default `{field.get_default()!r}`"
            lines += [f"`{name}`: `{stringify_annotation(field.annotation)}`, {default}"]
            lines += [f": {field.description}", ""]
        return self.parse_text_to_nodes("\n".join(lines))


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("command-reference", CommandReference)
    app.add_directive("config-fields", ConfigFields)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
