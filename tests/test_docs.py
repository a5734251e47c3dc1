"""Documentation is part of the product: what it names exists, and what exists is documented."""

import re
import shlex
import textwrap
from pathlib import Path

import pytest
import typer
import yaml

from se_nas.cli import app
from se_nas.space import shipped_spaces

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")])
COMMANDS = typer.main.get_command(app).commands


def blocks(text, *languages):
    """Code of fenced blocks with one of the languages, and of indented ones where "" is among them."""
    for language, code in re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        if language in languages:
            yield code


def command_lines(page):
    text = page.read_text(encoding="utf-8")
    for code in blocks(text, "", "sh", "bash", "console"):
        for line in code.replace("\\\n", " ").splitlines():
            for part in line.split("&&"):
                part = part.strip().removeprefix("$ ")
                if part.startswith("se-nas "):
                    yield part.partition(" #")[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_option_exists(page):
    for line in command_lines(page):
        _, name, *rest = shlex.split(line)
        if name.startswith("--"):
            continue
        assert name in COMMANDS, line
        known = {option for parameter in COMMANDS[name].params for option in parameter.opts} | {"--help"}
        for word in rest:
            if word.startswith("--"):
                assert word.partition("=")[0] in known, line


def test_readme_lists_the_commands_as_help_does():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `se-nas (\w+)` \|", text, re.MULTILINE) == list(COMMANDS)
    assert next(iter(COMMANDS)) == "search"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_exist(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_readme_shows_the_shipped_space_as_it_is():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = [yaml.safe_load(code) for code in blocks(text, "yaml") if "granularity" in code]
    shipped = yaml.safe_load((ROOT / "search_spaces" / "per_block.yaml").read_text(encoding="utf-8"))
    assert shown == [shipped]


def test_every_shipped_space_is_documented():
    text = (ROOT / "docs" / "search-spaces.md").read_text(encoding="utf-8")
    for name in shipped_spaces():
        assert f"`{name}`" in text


def test_python_in_the_documentation_compiles():
    for page in PAGES:
        for code in blocks(page.read_text(encoding="utf-8"), "python", "py"):
            compile(textwrap.dedent(code), str(page), "exec")
