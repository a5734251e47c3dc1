"""Names of plug-ins: what they resolve to, and that all parts explain a wrong one alike."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from small_cases import SEARCH

from se_nas import plugins
from se_nas.backbones import adapters
from se_nas.cost import backends
from se_nas.data import sources
from se_nas.errors import ConfigError
from se_nas.plugins import Plugins
from se_nas.study import SearchConfig, sampler_choice, search
from se_nas.study.plan import resolve
from se_nas.study.tracking import choice
from se_nas.training import trainers

TAKERS = {
    "backbone": adapters.NAMES,
    "data": sources.NAMES,
    "latency_backend": backends.NAMES,
    "log": choice.NAMES,
    "sampler": sampler_choice.NAMES,
    "trainer": trainers.NAMES,
}
FORMS = [option for option, names in TAKERS.items() if names.form]
GROUPS = [option for option, names in TAKERS.items() if names.group]


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A package with entry points in every group: one works, one cannot be imported, one raises on import."""
    (tmp_path / "installed_one.py").write_text("thing = object()\n")
    (tmp_path / "raises_on_import.py").write_text("\n1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)

    def entry_points(group: str) -> list[EntryPoint]:
        values = {
            "working": "installed_one:thing",
            "missing": "no_such_package:thing",
            "raising": "raises_on_import:thing",
        }
        return [EntryPoint(name, value, group) for name, value in values.items()]

    monkeypatch.setattr(plugins, "entry_points", entry_points)


@pytest.mark.parametrize("option", GROUPS)
def test_an_entry_point_is_loaded_when_it_is_chosen(option: str) -> None:
    names = TAKERS[option]
    assert names.names() == [*names.built_in, "missing", "raising", "working"]
    assert names.load("working") is sys.modules["installed_one"].thing


@pytest.mark.parametrize("option", FORMS)
def test_a_name_in_a_module_is_imported(option: str) -> None:
    assert TAKERS[option].load("installed_one:thing") is sys.modules["installed_one"].thing


@pytest.mark.parametrize("option", TAKERS)
def test_an_unknown_name_lists_the_known_ones_with_the_nearest(option: str) -> None:
    names = TAKERS[option]
    for known in names.names():
        with pytest.raises(names.error) as caught:
            names.load(known + "x")
        message = str(caught.value)
        assert message.startswith(f"{names.option} is '{known}x'; allowed: {', '.join(names.names())}")
        assert f"Did you mean '{known}'" in message
        assert ("package.module:" in message) == (names.form is not None)


@pytest.mark.parametrize("option", GROUPS)
def test_a_broken_entry_point_says_what_it_raised(option: str) -> None:
    names = TAKERS[option]
    with pytest.raises(names.error) as caught:
        names.load("missing")
    assert str(caught.value) == (
        f"{names.option} 'missing' (no_such_package:thing) cannot be imported:"
        " ModuleNotFoundError: No module named 'no_such_package'."
    )
    with pytest.raises(names.error) as caught:
        names.load("raising")
    assert str(caught.value) == (
        f"{names.option} 'raising' (raises_on_import:thing) failed with"
        " ZeroDivisionError: division by zero (<module>, line 2)"
    )


@pytest.mark.parametrize("option", FORMS)
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("installed_one:gone", "cannot be imported: AttributeError: .* has no attribute 'gone'"),
        (
            "no_such_package:gone",
            "cannot be imported: ModuleNotFoundError: No module named 'no_such_package'",
        ),
        ("raises_on_import:gone", r"failed with ZeroDivisionError: division by zero \(<module>, line 2\)"),
        ("installed_one:", "allowed: "),
        (":thing", "allowed: "),
        ("installed_one:a b", "invalid format"),
    ],
)
def test_a_module_that_does_not_have_it(option: str, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"{option} .*'{name}'.* ?{message}"):
        TAKERS[option].load(name)


def test_a_built_in_name_is_never_replaced() -> None:
    names = Plugins(option="log", built_in={"working": 1}, group="any")
    assert names.load("working") == 1
    assert names.names() == ["working", "missing", "raising"]


def test_where_nothing_is_installed_the_message_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "entry_points", lambda group: [])
    with pytest.raises(Exception, match="'cifar'; allowed: none, as no package that adds one is installed"):
        adapters.NAMES.load("cifar")


LOGGER = """
class Folder:
    def __init__(self, path):
        path.mkdir(parents=True)
        self.path = path
    def on_epoch(self, name, epoch, metrics):
        with open(self.path / "seen.txt", "a") as file:
            file.write(f"{name} {epoch}\\n")
    def on_end(self, name, result):
        pass
"""


def test_a_logger_may_make_its_folder_since_checking_its_name_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder_logger.py").write_text(LOGGER)
    runs = tmp_path / "runs"
    config = SearchConfig(
        **SEARCH, runs=str(runs), name="logged", log="folder_logger:Folder", trials=2, final_seeds=0
    )
    resolve(config)
    assert not runs.exists()
    search(config)
    (seen,) = (runs / "logged").rglob("seen.txt")
    assert len(seen.read_text().splitlines()) == 2
