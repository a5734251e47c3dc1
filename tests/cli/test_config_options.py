"""Options that come from the configuration's fields, and what ``--help`` costs and shows."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import se_nas
from se_nas.cli import app, main
from se_nas.cli.config_options import ONLY_IN_FILES, REPEATABLE
from se_nas.objectives import COSTS
from se_nas.study import SearchConfig

COMMANDS = typer.main.get_command(app).commands
FIELDS = {name: field for name, field in SearchConfig.model_fields.items() if name not in ONLY_IN_FILES}


def option(command: str, name: str) -> Any:
    (found,) = [parameter for parameter in COMMANDS[command].params if parameter.name == name]
    return found


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "se_nas", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def dry_run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    """The configuration that ``se-nas search ARGUMENTS --dry-run`` arrives at."""
    monkeypatch.setattr(sys, "argv", ["se-nas", "search", *arguments, "--dry-run"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code
    return yaml.safe_load(capsys.readouterr().out)


def test_search_has_an_option_for_every_field_in_their_order() -> None:
    names = [parameter.name for parameter in COMMANDS["search"].params]
    assert names == [*FIELDS, "config", "dry_run", "measure", "force", "json", "quiet", "verbose", "log_file"]


@pytest.mark.parametrize("name", FIELDS)
def test_an_option_has_its_fields_text_default_and_kind(name: str) -> None:
    field, made = FIELDS[name], option("search", name)
    assert made.help == field.description
    assert made.opts == ["--" + name.replace("_", "-")]
    assert made.secondary_opts == []
    assert made.is_flag == (field.annotation is bool)
    if name == "objectives":
        assert made.default == "accuracy,latency"
    elif name in REPEATABLE:
        assert (made.default, made.multiple) == (None, True)
    else:
        assert made.default == (None if field.is_required() else field.default)


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("retrain", ["val_data", "batch_size", "input_size", "device", "strict"]),
        ("inspect", ["input_size"]),
        (
            "profile",
            [
                "input_size",
                "device",
                *(name for name in FIELDS if re.match("latency_(?!width|batch|on)", name)),
            ],
        ),
    ],
)
def test_other_commands_say_the_same_of_the_same_option(command: str, names: list[str]) -> None:
    for name in names:
        assert option(command, name).help == FIELDS[name].description


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_a_text_that_ends_a_sentence(command: str) -> None:
    for parameter in COMMANDS[command].params:
        assert parameter.help.endswith("."), parameter.name
        assert not re.search(r"[.;] [A-Z]", parameter.help), f"{parameter.name} has more than a sentence"


PANELS = ["Data", "Search", "Training", "Latency", "Limits", "Output"]


def test_help_of_search_has_its_panels_in_order_with_every_option_in_one() -> None:
    command = COMMANDS["search"]
    panels = [parameter.rich_help_panel for parameter in command.get_params(typer.Context(command))]
    assert sorted(panels, key=PANELS.index) == panels
    assert set(panels) == set(PANELS)
    of = {parameter.name: parameter.rich_help_panel for parameter in command.params}
    assert [name for name in of if of[name] == "Limits"] == [f"max_{name}" for name in COSTS]
    assert [name for name in of if of[name] == "Latency"] == [
        name for name in of if name.startswith("latency")
    ]


def test_an_option_has_the_same_panel_in_every_command() -> None:
    seen: dict[str, set[str]] = {}
    for command in COMMANDS.values():
        for parameter in command.get_params(typer.Context(command)):
            if parameter.param_type_name == "option":
                seen.setdefault(parameter.help, set()).add(parameter.rich_help_panel)
    assert {text: panels for text, panels in seen.items() if len(panels) > 1} == {}
    assert set().union(*seen.values()) == set(PANELS)


def test_only_what_was_given_replaces_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = {"backbone": "test_resnet", "objectives": "accuracy,macs", "epochs": 3, "sampler": "random"}
    Path("c.yaml").write_text(json.dumps({**file, "strict": True, "device": "cpu", "final_seeds": 1}))
    options = ("--epochs", "2", "--sampler", "pareto", "--latency-width", "0.05")
    given = dry_run(capsys, monkeypatch, "--config", "c.yaml", *options)
    # A default that is given on the command line is given.
    assert (given["epochs"], given["sampler"], given["latency_width"]) == (2, "pareto", 0.05)
    assert (given["strict"], given["final_seeds"], given["objectives"]) == (True, 1, ["accuracy", "macs"])
    assert dry_run(capsys, monkeypatch, "--config", "c.yaml")["sampler"] == "random"


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_h_is_help(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    for flag in ("-h", "--help"):
        monkeypatch.setattr(sys, "argv", ["se-nas", *command.split(), flag])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert not stopped.value.code
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert f"Usage: se-nas {command}".strip() in shown[0]


def test_light_import_and_help() -> None:
    """Help imports nothing heavy. That of a command may import pydantic, as recent versions of typer do."""
    heavy = ["torch", "timm", "optuna", "pandas", "numpy", "scipy", "pydantic"]
    program = textwrap.dedent(
        """
        import sys
        from se_nas.cli import main
        sys.argv = ["se-nas", *sys.argv[1:]]
        try:
            main()
        except SystemExit:
            pass
        print("\\nimported", *sys.modules)
        """
    )
    for arguments in ([], ["--help"], ["--version"], ["show", "-h"], ["search", "-h"], ["retrain", "-h"]):
        out = subprocess.check_output([sys.executable, "-c", program, *arguments], text=True)
        imported = set(heavy) & set(out.splitlines()[-1].split())
        assert imported <= ({"pydantic"} if "-h" in arguments else set()), arguments


def test_a_new_cost_is_an_option_and_an_objective_without_more_ado() -> None:
    program = textwrap.dedent(
        """
        import dataclasses, sys
        from se_nas import objectives
        energy = dataclasses.replace(
            objectives.LATENCY, name="energy", column="energy_mj", title="energy", limit_example="40mJ"
        )
        objectives.OBJECTIVES = {**objectives.OBJECTIVES, "energy": energy}
        objectives.COSTS = {**objectives.COSTS, "energy": energy}
        import typer
        from se_nas.cli import app
        from se_nas.study import SearchConfig
        config = SearchConfig(backbone="x", objectives="accuracy,energy", max_energy="40mJ")
        print(config.objectives, config.limits())
        options = {p.name: p.help for p in typer.main.get_command(app).commands["search"].params}
        print(options["max_energy"], options["objectives"])
        """
    )
    out = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert out.splitlines() == [
        "('accuracy', 'energy') {'energy': '40mJ'}",
        "Upper limit on energy, such as 40mJ. accuracy and one or two of latency, macs, params, activations, memory,"
        " energy, separated by commas.",
    ]


def test_python_m_is_the_program(tmp_path: Path) -> None:
    assert run("--version", cwd=tmp_path).stdout == f"se-nas {se_nas.__version__}\n"
    wrong = run("show", "nothing", cwd=tmp_path)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("error: ")


def test_a_shell_completes_commands_and_options(tmp_path: Path) -> None:
    def completed(*words: str) -> list[str]:
        environment = {
            "_SE_NAS_COMPLETE": "complete_bash",
            "COMP_WORDS": " ".join(["se-nas", *words]),
            "COMP_CWORD": str(len(words)),
            "PYTHONPATH": str(Path(se_nas.__file__).parents[1]),
        }
        program = "import sys; sys.argv = ['se-nas']; from se_nas.cli import main; main()"
        out = subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        return out.stdout.split()

    assert completed("res") == ["resume"]
    assert completed("search", "--max") == [f"--max-{name}" for name in COSTS]
