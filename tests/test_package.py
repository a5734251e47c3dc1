"""What ``import se_nas`` offers, to programs and to type checkers."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from importlib import resources
from pathlib import Path

import pytest

import se_nas


def imports_for_type_checkers() -> dict[str, str]:
    """Name → module of the imports under ``TYPE_CHECKING``."""
    tree = ast.parse(Path(se_nas.__file__).read_text(encoding="utf-8"))
    (block,) = [
        node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    return {
        alias.name: str(statement.module)
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }


def test_programs_and_type_checkers_get_the_same_names() -> None:
    assert imports_for_type_checkers() == se_nas._EXPORTS
    assert set(se_nas.__all__) == {"__version__", *se_nas._EXPORTS}


@pytest.mark.parametrize("name", se_nas.__all__)
def test_public_names_are_all_there(name: str) -> None:
    assert getattr(se_nas, name) is not None
    assert name in dir(se_nas)


def test_a_name_that_is_none_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'se_nas' has no attribute 'serach'"):
        _ = se_nas.serach


def test_the_package_says_that_it_is_typed() -> None:
    assert resources.files(se_nas).joinpath("py.typed").is_file()


@pytest.mark.slow
def test_a_users_program_is_type_checked(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(
        textwrap.dedent(
            """
            import se_nas
            from se_nas import SearchConfig, search

            a: se_nas.Architecture = se_nas.Architecture.plain("resnet18")
            reveal_type(a)
            reveal_type(se_nas.find_sites("resnet18"))
            reveal_type(search(SearchConfig(backbone="resnet18")))
            reveal_type(SearchConfig(backbone="resnet18").trials)
            wrong: int = se_nas.ParetoReport.load("run")
            se_nas.serach
            """
        )
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "user.py"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    for line, text in (
        (6, 'Revealed type is "se_nas.architecture.Architecture"'),
        (7, 'Revealed type is "list[se_nas.sites.Site]"'),
        (8, 'Revealed type is "se_nas.report.run.Run"'),
        (9, 'Revealed type is "int | None"'),
        (10, 'expression has type "ParetoReport", variable has type "int"'),
        (11, 'Module has no attribute "serach"'),
    ):
        assert any(row.startswith(f"user.py:{line}:") and text in row for row in said.splitlines()), said
    assert "Found 2 errors in 1 file" in said


def test_parts_are_there_without_an_import_of_their_own():
    code = "import sys, se_nas; assert 'torch' not in sys.modules; print(se_nas.data.load_data.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "load_data"
