"""The graph of imports inside se_nas has no circle, not even one that only type checkers see.

A name that a package's ``__init__`` hands on counts as an import of the module that defines it. An import inside a
function may close a circle, if a comment on the line before says why it stands there.
"""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import se_nas

ROOT = Path(se_nas.__file__).parent
Graph = Mapping[str, set[str]]


@dataclass(frozen=True)
class Import:
    """An import of ``target`` by ``source``, both modules of se_nas.

    Attributes:
        local: it stands in a function.
        explained: a comment stands on the line before.
    """

    source: str
    target: str
    line: int
    local: bool
    explained: bool


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


def is_package(module: str) -> bool:
    return FILES[module].name == "__init__.py"


@cache
def handed_on(package: str) -> dict[str, str]:
    """Name → module that a package's ``__init__`` takes it from, imported at once or on first use."""
    found = {}
    for node in ast.walk(tree(package)):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(package + "."):
            found |= {alias.asname or alias.name: str(node.module) for alias in node.names}
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_EXPORTS":
            found |= ast.literal_eval(node.value)
    return found


def defining(module: str, name: str) -> str:
    """The module of se_nas that ``from module import name`` depends on."""
    if f"{module}.{name}" in FILES:
        return f"{module}.{name}"
    if is_package(module) and name in handed_on(module):
        return defining(handed_on(module)[name], name)
    return module


def statements(node: ast.AST, local: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Every import below ``node``, and whether it stands in a function."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, local
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from statements(child, local or inside)


def imports_of(module: str) -> Iterator[Import]:
    lines = FILES[module].read_text(encoding="utf-8").splitlines()
    for statement, local in statements(tree(module)):
        if isinstance(statement, ast.Import):
            targets = {alias.name for alias in statement.names if alias.name in FILES}
        elif statement.module in FILES:
            targets = {defining(str(statement.module), alias.name) for alias in statement.names}
        else:
            assert not statement.level, f"{module}, line {statement.lineno}: imports are absolute"
            targets = set()
        explained = lines[statement.lineno - 2].lstrip().startswith("#")
        for target in targets:
            # What an __init__ takes from its package is handed on; nothing defined there depends on it.
            if target != module and (local or not (is_package(module) and target.startswith(module + "."))):
                yield Import(module, target, statement.lineno, local, explained)


IMPORTS = [found for module in FILES for found in imports_of(module)]


def graph(imports: list[Import]) -> Graph:
    edges: dict[str, set[str]] = {module: set() for module in FILES}
    for found in imports:
        edges[found.source].add(found.target)
    return edges


def reaches(edges: Graph, start: str, end: str) -> bool:
    seen, waiting = {start}, [start]
    while waiting:
        new = edges[waiting.pop()] - seen
        seen |= new
        waiting += new
    return end in seen


def test_the_graph_is_the_whole_package() -> None:
    edges = graph(IMPORTS)
    assert len(FILES) > 100
    assert {"se_nas.errors", "se_nas.plugins"} <= edges["se_nas.cost.backends"]
    # Handed on by se_nas.pareto, and by se_nas.study on first use.
    assert "se_nas.pareto._front" in edges["se_nas.early_stopping.moasha"]
    assert defining("se_nas.study", "SearchConfig") == "se_nas.study.config"
    assert defining("se_nas", "find_sites") == "se_nas.backbones.discovery"


def test_imports_of_modules_have_no_circle() -> None:
    sorter = graphlib.TopologicalSorter(graph([found for found in IMPORTS if not found.local]))
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(reversed(error.args[1]))}")


def test_an_import_in_a_function_that_closes_a_circle_is_explained() -> None:
    edges = graph(IMPORTS)
    silent = [
        f"{FILES[found.source].relative_to(ROOT.parent)}:{found.line} imports {found.target}"
        for found in IMPORTS
        if found.local and not found.explained and reaches(edges, found.target, found.source)
    ]
    assert not silent, "\n".join(silent)
