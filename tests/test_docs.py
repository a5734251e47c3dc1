"""Documentation is part of the product: what it names exists, and what exists is documented."""

import ast
import importlib
import json
import re
import shlex
import textwrap
import tomllib
from pathlib import Path

import pytest
import typer
import yaml

import se_nas
from se_nas.cli import app
from se_nas.space import shipped_spaces

ROOT = Path(__file__).parents[1]
# Those in docs/project only include files of the root, for the site.
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")])
CHANGELOG = ROOT / "CHANGELOG.md"
BENCHMARKS = sorted(ROOT.glob("benchmarks/*.py"))
COMMANDS = typer.main.get_command(app).commands
FOREIGN = {
    "--help",
    "--install-completion",
    "--amp",
    "--logdir",
    "--channels-last",
    "--numprocesses",
    "--dist",
    "--hypothesis-profile",
}
"""Options in the documentation that are typer's, or belong to timm's train.py, to TensorBoard and to pytest."""

by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def read(path):
    return path.read_text(encoding="utf-8")


def blocks(text, *languages):
    """Code of the fenced blocks in one of the languages; indented blocks count as language ""."""
    for language, code in re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        if language in languages:
            yield code
    if "" in languages:
        for code in re.findall(r"(?:^|\n)\n((?:    .+\n)+)", without_fences(text)):
            yield textwrap.dedent(code)


def without_fences(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def spans(text):
    """Inline code, which may be broken over lines."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", without_fences(text))]


def shell_lines(page):
    """Lines of shell in blocks, and inline code that could be one."""
    text = read(page)
    for code in blocks(text, "", "sh", "bash", "console"):
        for line in code.replace("\\\n", " ").splitlines():
            for part in line.split("&&"):
                yield part.strip().removeprefix("$ ").partition(" #")[0]
    yield from spans(text)


def options_of(command):
    return {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}


@by_page
def test_every_command_and_option_exists(page):
    for line in shell_lines(page):
        if not line.startswith("se-nas "):
            continue
        _, name, *rest = shlex.split(line)
        if name.startswith("--"):
            continue
        assert name in COMMANDS, line
        known = options_of(COMMANDS[name]) | {"--help"}
        for word in rest:
            if word.startswith("--"):
                assert word.partition("=")[0] in known, line


@by_page
def test_every_benchmark_and_its_options_exist(page):
    for line in shell_lines(page):
        if line.startswith(("python benchmarks/", "benchmarks/")):
            script, *rest = line.removeprefix("python ").split()
            source = read(ROOT / script)
            for word in rest:
                if word.startswith("--"):
                    assert f'"{word}"' in source, line


@pytest.mark.parametrize("page", [*PAGES, CHANGELOG], ids=lambda page: page.name)
def test_every_option_in_the_text_exists(page):
    known = FOREIGN.union(*map(options_of, COMMANDS.values()))
    known |= {option for path in BENCHMARKS for option in re.findall(r'"(--[a-z-]+)"', read(path))}
    for span in spans(read(page)):
        for option in re.findall(r"(?<!\S)--[a-z][a-z-]+", span):
            assert option in known, span


def test_readme_lists_the_commands_as_help_does():
    text = read(ROOT / "README.md")
    assert re.findall(r"^\| `se-nas (\w+)` \|", text, re.MULTILINE) == list(COMMANDS)
    assert next(iter(COMMANDS)) == "search"


def anchors(page):
    """GitHub's anchors of the headings."""
    headings = re.findall(r"^#+ (.*)$", without_fences(read(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page):
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", read(page)):
        if not target.startswith(("http://", "https://", "mailto:")):
            yield (page.parent / target).resolve() if target else page, anchor


@by_page
def test_links_pictures_and_anchors_exist(page):
    for target, anchor in links(page):
        assert target.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {target.name}#{anchor}"


def test_every_page_can_be_reached_from_the_readme():
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        reached.add(page)
        todo += [target for target, _ in links(page) if target.suffix == ".md" and target not in reached]
    assert set(PAGES) <= reached


def test_every_page_is_in_the_sites_contents():
    docs = ROOT / "docs"
    contents = " ".join(re.findall(r"```\{toctree\}\n(.*?)```", read(docs / "index.md"), re.DOTALL))
    for page in [*docs.rglob("*.md"), *docs.rglob("*.ipynb")]:
        name = str(page.relative_to(docs).with_suffix(""))
        assert name == "index" or name in contents.split(), name


def exists(name):
    """Whether a dotted name is a module, or an attribute of one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part, None)
        return found is not None
    return False


@by_page
def test_every_module_in_the_text_exists(page):
    groups = {
        group
        for path in (ROOT / "se_nas").rglob("*.py")
        for group in re.findall(r"[\"'](se_nas\.\w+)[\"']", read(path))
    }
    for name in re.findall(r"(?<![\w./-])se_nas(?:\.\w+)+", read(page)):
        assert name in groups or exists(name), name


@by_page
def test_every_path_in_the_text_exists(page):
    folders = "|".join(("se_nas", "tests", "benchmarks", "docs", "search_spaces"))
    for path in re.findall(rf"(?<![\w/.-])(?:{folders})/[\w./*-]*\w[\w*/]*", read(page)):
        assert any(ROOT.glob(path.rstrip("/"))), path


@pytest.mark.parametrize(
    "path", [*PAGES, *ROOT.glob("docs/examples/*.py"), *BENCHMARKS], ids=lambda path: path.name
)
def test_imports_in_pages_examples_and_benchmarks_exist(path):
    codes = [read(path)] if path.suffix == ".py" else [*blocks(read(path), "python", "py")]
    for code in codes:
        for node in ast.walk(ast.parse(textwrap.dedent(code))):
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "se_nas":
                for alias in node.names:
                    assert exists(f"{node.module}.{alias.name}"), f"{node.module}.{alias.name}"


def test_readme_shows_the_shipped_space_as_it_is():
    shown = [code for code in blocks(read(ROOT / "README.md"), "yaml") if "granularity" in code]
    assert shown == [read(ROOT / "search_spaces" / "per_block.yaml")]


def test_the_comments_of_the_shipped_space_show_the_defaults():
    shipped = yaml.safe_load(read(ROOT / "search_spaces" / "per_block.yaml"))
    schema = yaml.safe_load(read(ROOT / "search_spaces" / "schema.json"))
    defaults = {key: value["default"] for key, value in schema["properties"].items() if "default" in value}
    assert list(shipped) == ["description", *(key for key in schema["properties"] if key != "description")]
    assert {key: shipped[key] for key in defaults if key != "description"} == {
        key: value for key, value in defaults.items() if key != "description"
    }


def test_every_shipped_space_is_documented():
    text = read(ROOT / "docs" / "search-spaces.md")
    for name in shipped_spaces():
        assert f"`{name}`" in text


def test_the_table_of_parts_is_the_import_contract():
    contracts = tomllib.loads(read(ROOT / "pyproject.toml"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract.get("exhaustive"))
    expected = [sorted(layer.replace(" ", "").split("|")) for layer in reversed(layers) if "__" not in layer]
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", read(ROOT / "docs" / "architecture.md"), re.MULTILINE)
    assert [sorted(re.findall(r"\w+", row)) for row in rows] == expected


def texts_of_the_program():
    """Every string in the package's code, with … for what is filled in."""
    for path in (ROOT / "se_nas").rglob("*.py"):
        for node in ast.walk(ast.parse(read(path))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_the_quoted_messages_are_the_programs():
    quoted = re.findall(r"^\*\*`(.+)`\*\*$", read(ROOT / "docs" / "faq.md"), re.MULTILINE)
    assert len(set(quoted)) == len(quoted) >= 20
    program = list(texts_of_the_program())
    for message in quoted:
        assert any(message.removesuffix("…") in text for text in program), message


def test_the_reference_has_every_public_name():
    documented = re.findall(r"^\.\. auto\w+:: se_nas\.(\w+)", read(ROOT / "docs" / "api.md"), re.MULTILINE)
    public = {name for name in se_nas.__all__ if not name.startswith("__")}
    assert public <= set(documented)


def test_the_installation_page_has_every_extra():
    extras = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]["optional-dependencies"]
    rows = re.findall(r"^\| (`.*?) \|", read(ROOT / "docs" / "installation.md"), re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == set(extras)


def test_the_readme_of_a_package_index_has_no_relative_links():
    hooks = tomllib.loads(read(ROOT / "pyproject.toml"))["tool"]["hatch"]["metadata"]["hooks"]
    text = read(ROOT / "README.md")
    for rule in hooks["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(rule["pattern"], rule["replacement"], text)
    assert re.findall(r"\]\((?!https?://)[^)]*\)", text) == []
    assert "a first run" in text
    assert "](https://github.com/huggingface/pytorch-image-models)" in text


def test_links_of_the_tutorial_exist():
    cells = json.loads(read(ROOT / "docs" / "tutorial.ipynb"))["cells"]
    text = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    targets = re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", text)
    assert targets
    for target, anchor in targets:
        page = ROOT / "docs" / target
        assert page.exists(), target
        assert not anchor or anchor in anchors(page), target


def test_the_gallery_is_rendered_from_saved_reports(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    gallery = importlib.import_module("gallery")
    sources = gallery.sources(ROOT / "docs" / "gallery")
    assert {f"gallery/{name}" for name in sources} == set(
        re.findall(r'href="([^"]+)"', read(ROOT / "docs" / "gallery.md"))
    )
    for name, source in sources.items():
        assert gallery.render(source, tmp_path / name).read_text().startswith("<!doctype html>")
    for path in (ROOT / "docs" / "gallery").rglob("*.json"):
        # Nothing of the machine that a run was made on but its processor.
        saved = json.loads(read(path))
        assert not saved["manifest"].get("paths"), path
        assert saved["source"] == f"runs/{path.stem}"


def test_the_reference_of_commands_has_every_option(monkeypatch):
    pytest.importorskip("sphinx", reason="the extra docs is not installed")
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    reference = importlib.import_module("generated_reference")
    for name, command in COMMANDS.items():
        text = "\n".join(reference.command_lines(name, command))
        assert f"## se-nas {name}" in text
        for option in options_of(command):
            assert not option.startswith("-") or option in text, f"{name} {option}"
