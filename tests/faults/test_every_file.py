"""Every file of a run folder and of an export, damaged in every way, read by every command.

What a command then gives is what it gave before, or one sentence that names the file, with exit code 2.
"""

import io
import json
import os
import random
import shutil
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from main_in_process import exit_code_of
from small_cases import SEARCH, table

import se_nas
from se_nas.errors import SeNasError
from se_nas.exporting import load_exported
from se_nas.report import figures
from se_nas.study import search
from se_nas.study.dashboard import make_app

HUGE = (1 << 30) + (1 << 20)
WRITTEN_ANEW = ("report.json", "report.html", "figures", "logs")
"""Of a run folder, what commands write and none reads there."""
EXPORTED = (".json", ".safetensors")
"""Of an export, what ``load_exported`` reads."""
RESULT = ("number", "key", "seed", "phase", "state", "accuracy", "loss", "num_params", "epochs")


def flip_one_bit(path):
    content = bytearray(path.read_bytes())
    place = random.randrange(8 * len(content))
    content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)


def make_a_folder(path):
    path.unlink()
    path.mkdir()


def make_large(path):
    """Larger than anything that is read, and sparse."""
    os.truncate(path, HUGE)


DAMAGES = {
    "half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "deleted": Path.unlink,
    "random": lambda path: path.write_bytes(random.randbytes(path.stat().st_size)),
    **{f"one bit, {number}": flip_one_bit for number in range(4)},
    "a folder": make_a_folder,
    "null": lambda path: path.write_text("null"),
    "text": lambda path: path.write_text('"text"'),
    "too deep": lambda path: path.write_text("[" * 100_000),
    "too large": make_large,
}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A finished run with weights, and an export of one of its networks."""
    base = tmp_path_factory.mktemp("pristine")
    config = {**SEARCH, "runs": str(base), "trials": 3, "final_seeds": 2, "objectives": "accuracy,params"}
    run = search(se_nas.SearchConfig(**config, name="run")).path
    assert command("export", run, "--pick", "best", "--out", base / "exported") == (0, "", "")
    return SimpleNamespace(run=run, exported=base / "exported", base=base)


@pytest.fixture(autouse=True)
def one_figure(monkeypatch):
    """Drawing all takes longer than the rest of a command."""
    monkeypatch.setattr(figures, "_FIGURES", {"front": figures._FIGURES["front"]})


def command(*arguments):
    """Exit code, what is left of standard output, and standard error of a command in this process."""
    out, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(errors):
        code = exit_code_of(arguments)
    said = [line for line in errors.getvalue().splitlines() if line.startswith(("error:", "Traceback"))]
    return code, "" if arguments[0] == "export" else out.getvalue(), "\n".join(said)


def shown(at):
    code, output, errors = command("show", at.run, "--json")
    return code, results_of(output) if code == 0 else "", errors


def compared(at):
    return command("compare", at.run, at.run, "--json")


def reported(at):
    code, _, errors = command("report", at.run, "--out", at.base / "page.html")
    return code, results_of((at.base / "page.json").read_text()) if code == 0 else "", errors


def exported(at):
    out = at.base / "out"
    shutil.rmtree(out, ignore_errors=True)
    code, _, errors = command("export", at.run, "--pick", "best", "--out", out)
    return code, outputs(load_exported(out)) if code == 0 else "", errors


def resumed(at):
    code, _, errors = command("resume", at.run)
    return code, results(at.run) if code == 0 else "", errors


def retrained(at):
    out = at.base / "retrained"
    shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(f"{out}.partial", ignore_errors=True)
    given = ("--epochs", "1", "--from-weights", "--device", "cpu")
    code, _, errors = command("retrain", at.run, "--pick", "best", "--out", out, *given)
    return code, outputs(load_exported(out)) if code == 0 else "", errors


def watched(at):
    """The trials as optuna-dashboard gets them."""
    try:
        parts = make_app(at.run)(
            {
                "REQUEST_METHOD": "GET",
                "PATH_INFO": "/api/studies/0",
                "QUERY_STRING": "after=0",
                "SERVER_NAME": "localhost",
                "SERVER_PORT": "80",
                "wsgi.url_scheme": "http",
                "wsgi.input": io.BytesIO(),
                "wsgi.errors": io.StringIO(),
            },
            lambda *_: None,
        )
        return 0, json.dumps(json.loads(b"".join(parts))["trials"]), ""
    except SeNasError as error:
        return 2, "", f"error: {error}"


def loaded(at):
    try:
        return 0, outputs(load_exported(at.exported)), ""
    except SeNasError as error:
        return 2, "", f"error: {error}"


def results_of(report):
    """A saved report without the configuration, of which no result depends, and without its own digest."""
    return str(
        {name: value for name, value in json.loads(report).items() if name not in ("config", "sha256")}
    )


def outputs(model):
    with torch.no_grad():
        return str(model(torch.ones(1, 3, 32, 32)).tolist()) + str(model.pretrained_cfg)


def results(run):
    return str([{name: row[name] for name in RESULT} for row in table(run)])


QUICK = {"show": shown, "compare": compared, "dashboard": watched}
SLOW = {"report": reported, "export": exported, "resume": resumed, "retrain": retrained}


def cases_of(folder):
    """Every file of which a command reads one, and all damages: of weights and images one file stands for all."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and path.stat().st_size and name.parts[0] not in WRITTEN_ANEW:
            found[name.parent, path.suffix if len(name.parts) > 1 else name] = name
    return [(file, damage) for file in found.values() for damage in DAMAGES]


def failures(act, at, folder, cases):
    """What went wrong in cases of (file, damage): no failures means that every promise was kept."""
    kept = at.base / "kept"
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(folder, kept)
    expected = act(at)
    assert expected[0] == 0, expected
    wrong, ends = [], Counter()
    for file, damage in cases:
        restore(folder, kept)
        DAMAGES[damage](folder / file)
        try:
            code, output, errors = act(at)
        except Exception as error:
            wrong.append(f"{file}, {damage}: {type(error).__name__}: {error}"[:300])
            continue
        ends[code] += 1
        if code == 0 and output != expected[1]:
            wrong.append(f"{file}, {damage}: another result in silence")
        elif code == 2 and (file.name not in errors or errors.count("error:") != 1):
            wrong.append(f"{file}, {damage}: {file.name} is not named: {errors[:300]}")
        elif code not in (0, 2):
            wrong.append(f"{file}, {damage}: exit code {code}: {errors[:300]}")
    restore(folder, kept)
    print(f"{len(cases)} damages, exit codes {dict(ends)}")
    return wrong


def restore(folder, kept):
    """Make a folder what it was; what has kept its size and time is left alone."""

    def state(path):
        return path.is_file(), path.stat().st_size, path.stat().st_mtime_ns

    for path in sorted(folder.rglob("*"), reverse=True):
        before = kept / path.relative_to(folder)
        if not before.exists() or (before.is_file() and state(path) != state(before)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for before in sorted(kept.rglob("*")):
        path = folder / before.relative_to(kept)
        if not path.exists():
            path.mkdir() if before.is_dir() else shutil.copy2(before, path)


@pytest.mark.parametrize("name", QUICK)
def test_every_file_and_every_damage(pristine, name):
    assert failures(QUICK[name], pristine, pristine.run, cases_of(pristine.run)) == []


@pytest.mark.parametrize("name", SLOW)
def test_some_damages(pristine, name):
    cases = random.sample(cases_of(pristine.run), 6)
    assert failures(SLOW[name], pristine, pristine.run, cases) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", SLOW)
def test_every_damage(pristine, name):
    assert failures(SLOW[name], pristine, pristine.run, cases_of(pristine.run)) == []


def test_every_damage_of_an_export(pristine):
    read = [(file, damage) for file, damage in cases_of(pristine.exported) if file.suffix in EXPORTED]
    assert failures(loaded, pristine, pristine.exported, read) == []
