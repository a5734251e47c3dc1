"""Every table of every command at every width from 60 columns up."""

from __future__ import annotations

import io
from collections import Counter

import pytest
from fake_meter import FakeMeter
from rich.cells import cell_len
from rich.console import Console
from synthetic_run import write_run
from typer.testing import CliRunner

from se_nas.cli import app, layout, tables
from se_nas.cli.exit_codes import TABLE_FAILED
from se_nas.cost import profiling
from se_nas.cost.latency.time_limit import TimeUpError

WIDTHS = (60, 70, 80, 100, 120, 200)
COMMANDS = {
    "show": ("show", "{runs}/one"),
    "show a provisional front": ("show", "{runs}/provisional"),
    "compare": ("compare", "{runs}/one", "{runs}/other-configuration"),
    "compare repeats": ("compare", *("{runs}/" + name for name in ("one", "two", "provisional"))),
    "inspect": ("inspect", "resnet18"),
    "inspect with native gates": ("inspect", "mobilenetv3_small_050", "--position", "standard"),
    "profile": ("profile", "resnet18", "--input-size", "64", "--device", "cpu"),
    "profile with native gates": ("profile", "mobilenetv3_small_050", "--device", "cpu"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for seed, name in enumerate(("one", "two")):
        write_run(folder / name, seed=seed, baseline=7.1 + seed)
    write_run(folder / "other-configuration", seed=1)
    (folder / "other-configuration" / "config.json").write_text(
        '{"backbone": "resnet50", "seed": 1, "early_stopping": "curves", "data": "/data/images/train-2026.tar"}'
    )
    write_run(folder / "provisional", seeds=0)
    return folder


@pytest.fixture
def printed(monkeypatch, tmp_path, runs):
    """``printed(command, width)``: the output, and the rows of each table that was printed."""
    monkeypatch.setenv("SE_NAS_CACHE", str(tmp_path))
    monkeypatch.setattr(profiling, "LatencyMeter", lambda arch, settings: FakeMeter(arch, settings))

    def run(command, width=None):
        found = []

        def recorded(rows, width, optional=()):
            found.append((rows, optional))
            return layout.fitted(rows, width, optional)

        with monkeypatch.context() as patch:
            patch.setattr(tables, "fitted", recorded)
            if width is not None:
                patch.setenv("COLUMNS", str(width))
            words = [word.format(runs=runs) for word in COMMANDS[command]]
            result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
        return result.stdout, found

    return run


def rendered(rows, width, optional=()):
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(layout.fitted(rows, width, optional))
    return console.file.getvalue()


def numbers(text):
    return Counter(word for word in text.split() if any(letter.isdigit() for letter in word))


def left_out(text):
    _, note, names = " ".join(text.split()).partition("Not shown at this width: ")
    return names.removesuffix(".").split(", ") if note else []


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("command", COMMANDS)
def test_numbers_are_whole_and_lines_fit(printed, command, width):
    output, found = printed(command, width)
    assert max(map(cell_len, output.splitlines())) <= width, output
    assert found
    for rows, optional in found:
        text = rendered(rows, width, optional)
        assert text.strip() in output
        missing = left_out(text)
        assert set(missing) <= set(rows[0])
        shown = " ".join(cell for row in rows for name, cell in row.items() if name not in missing)
        assert not numbers(shown) - numbers(text), text


@pytest.mark.parametrize("command", COMMANDS)
def test_a_pipe_gets_everything_side_by_side(printed, command, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    output, found = printed(command)
    assert "Not shown" not in output
    words = set(output.split())
    for rows, _ in found:
        assert {word for name, cell in rows[0].items() if cell for word in name.split()} <= words


ROWS = [
    {
        "trial": "7",
        "SE": "SE in stages 2 and 3 at γ=8",
        "accuracy %": "91.25±0.40",
        "": "",
        "P(front)": "0.93",
    },
    {"trial": "12", "SE": "no SE", "accuracy %": "90.75±0.38", "": "", "P(front)": "1.00"},
]


def test_columns_go_in_their_order_and_then_rows_are_stacked():
    whole = rendered(ROWS, 60, ("P(front)",))
    assert whole.splitlines()[0].split() == ["trial", "SE", "accuracy", "%", "P(front)"]
    text = rendered(ROWS, 33, ("P(front)",))
    assert left_out(text) == ["P(front)"]
    assert [line.rstrip() for line in text.splitlines()[:4]] == [
        "trial  SE            accuracy %",
        "    7  SE in stages  91.25±0.40",
        "       2 and 3 at",
        "       γ=8",
    ]
    stacked = rendered(ROWS, 30, ("P(front)",))
    assert [line.rstrip() for line in stacked.splitlines()] == [
        "trial       7",
        "SE          SE in stages 2 and",
        "            3 at γ=8",
        "accuracy %  91.25±0.40",
        "P(front)    0.93",
        "",
        "trial       12",
        "SE          no SE",
        "accuracy %  90.75±0.38",
        "P(front)    1.00",
    ]


def test_choices_by_site_become_rows():
    rows = [
        {"path": "a", "γ=4": "16", "γ=16": "8", "native": ""},
        {"path": "b", "γ=4": "", "γ=16": "", "native": "+1 µs"},
    ]
    assert layout.by_prefix(rows, "γ", "SE adds") == [
        {"path": "a", "native": "", "γ": "4", "SE adds": "16"},
        {"path": "", "native": "", "γ": "16", "SE adds": "8"},
        {"path": "b", "native": "+1 µs", "γ": "", "SE adds": ""},
    ]


def test_escapes_and_markup_in_cells_are_text():
    text = rendered([{"name": "[bold]\x1b[31mx", "value": "1"}], 60)
    assert r"[bold]\x1b[31mx" in text


class BusyMeter(FakeMeter):
    """A device on which measuring anything takes longer than there is."""

    def measure(self, arch, **options):
        raise TimeUpError("the time limit has passed.")


@pytest.mark.parametrize(
    ("meter", "limit", "sentence"),
    [
        (BusyMeter, "300", "the time limit is too short for a latency table of resnet18"),
        # Its imports alone take longer.
        (FakeMeter, "1e-9", "the time limit of 1e-09 s had passed before it was started"),
    ],
)
@pytest.mark.parametrize("json", [(), ("--json",)])
def test_time_that_runs_out_before_the_first_table_has_an_exit_code_of_its_own(
    monkeypatch, tmp_path, meter, limit, sentence, json
):
    monkeypatch.setenv("SE_NAS_CACHE", str(tmp_path))
    monkeypatch.setattr(profiling, "LatencyMeter", lambda arch, settings: meter(arch, settings))
    result = CliRunner().invoke(app, (*COMMANDS["profile"], "--max-seconds", limit, *json))
    assert result.exit_code == TABLE_FAILED
    assert "batch size 1 was not measured" in result.stderr
    assert sentence in result.stderr
    assert result.stdout == ""


def test_a_table_that_fails_its_check_has_the_same_exit_code(monkeypatch, tmp_path):
    monkeypatch.setenv("SE_NAS_CACHE", str(tmp_path))
    monkeypatch.setattr(
        profiling, "LatencyMeter", lambda arch, settings: FakeMeter(arch, settings, noise=0.1)
    )
    result = CliRunner().invoke(app, COMMANDS["profile"])
    assert result.exit_code == TABLE_FAILED, result.output
    assert "stage" in result.stdout
