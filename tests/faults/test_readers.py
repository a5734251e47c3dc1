"""Mutated documents end in one of se-nas's own errors, or in a value that is whole: it is written and read again.

`SE_NAS_DOCUMENTS=11000 pytest tests/faults/test_readers.py` tries 11,000 of each kind, 10^5 in all.
"""

import copy
import json
import os
import random

import pytest
from hypothesis import given, settings
from least_manifest import FACTS, empty_run
from mutations import TRIED, mutated
from small_cases import SITES

import se_nas
from se_nas.architecture import Architecture
from se_nas.cost.latency.table import LatencyTable
from se_nas.documents import parse_json
from se_nas.errors import RunError, SeNasError
from se_nas.report import ParetoReport
from se_nas.run import Manifest, RunFolder, rows_from_json
from se_nas.space import SearchSpace
from se_nas.space._file import read_spec
from se_nas.study.packing import Packing
from se_nas.training import Recipe, Runtime

SITE_LIST = [json.loads(json.dumps(vars(site))) for site in SITES]
ROW = {
    "number": 0,
    "key": "k",
    "description": "no SE",
    "position": "standard",
    "widths": [0, 8],
    "params": {"stage0": 8},
    "seed": 0,
    "phase": "search",
    "epochs": 1,
    "epochs_planned": 1,
    "state": "complete",
    "accuracy": 91.5,
    "loss": 0.5,
    "num_params": 1000,
    "latency_ms": 1.5,
    "latency_ratio": 1.1,
    "latency_interval": [1.0, 1.2],
    "latency_source": "measured",
    "curve": [{"epoch": 1, "accuracy": 91.5}],
    "started": "2026-11-27T20:00:00+00:00",
    "finished": "2026-11-27T20:00:01+00:00",
}
MANIFEST = {**FACTS, "sites": {"standard": SITE_LIST}, "budget": {"trials": 3, "spent": 1.5}}
SPEC = {"granularity": "block", "reduction": [8, 16], "stages": [0, 1], "native": "keep"}
SPACE = {
    "schema": 1,
    "name": "small",
    "backbone": "test_resnet",
    "timm_kwargs": {"in_chans": 3},
    "spec": SPEC,
    "sites": {"standard": SITE_LIST},
}
ARCHITECTURE = {
    "schema": 1,
    "backbone": "test_resnet",
    "timm_kwargs": {"in_chans": 3},
    "position": "standard",
    "gate": "sigmoid",
    "act": None,
    "bias": True,
    "sites": SITE_LIST,
    "widths": [0, 8],
}
LATENCY = {
    "schema": 2,
    "key": "k",
    "plain": [0, 0],
    "baseline_ms": 1.5,
    "gates": {"any_gate": 0.0, "fixed": [0.1, 0.1], "slope": [0.001, 0.001]},
    "conditions": {"threads": 1},
    "check": {"held_out": [{"widths": [0, 8], "measured": 1.1, "interval": [1.0, 1.2], "predicted": 1.1}]},
}
REPORT = {
    "kind": "se-nas report",
    "schema": 2,
    "manifest": MANIFEST,
    "trials": [ROW],
    "config": {},
    "correct": {},
}
CONFIG = {"backbone": "resnet18", "objectives": ["accuracy", "params"], "trials": 3, "recipe": {"lr": 0.1}}
PACKING = {
    "places": 2,
    "devices": ["cpu"],
    "packed": False,
    "masked": False,
    "reason": "",
    "rates": {"2": 10.5},
}


def read_rows(data, folder):
    rows = rows_from_json(data, "the table")
    return [row.to_json() for row in rows]


def read_report(data, folder):
    path = folder / "report.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    report = ParetoReport.load(path)
    return report.to_dict()


def read_space(data, folder):
    path = folder / "space.yaml"
    path.write_text(json.dumps(data), encoding="utf-8")
    return read_spec(path).to_dict()


def read_config(data, folder):
    path = folder / "config.yaml"
    path.write_text(json.dumps(data), encoding="utf-8")
    return se_nas.SearchConfig.load(path).model_dump(mode="json")


READERS = {
    "manifest": (MANIFEST, lambda data, _: Manifest.from_json(data).to_json()),
    "trials": ([ROW], read_rows),
    "report": (REPORT, read_report),
    "architecture": (ARCHITECTURE, lambda data, _: Architecture.from_dict(data).to_dict()),
    "space": (SPACE, lambda data, _: SearchSpace.from_dict(data).to_dict()),
    "space file": (SPEC, read_space),
    "configuration": (CONFIG, read_config),
    "recipe": (Recipe().to_dict(), lambda data, _: Recipe.from_dict(data).to_dict()),
    "runtime": (Runtime().to_dict(), lambda data, _: Runtime.from_dict(data).to_dict()),
    "packing": (PACKING, lambda data, _: Packing.from_dict(data).to_dict()),
    "latency table": (LATENCY, lambda data, _: LatencyTable.from_dict(data).to_dict()),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("documents")


@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", READERS)
def test_mutated_documents(name, folder):
    document, read = READERS[name]
    assert read(copy.deepcopy(document), folder)

    tried, taken = set(), set()

    @settings(**TRIED)
    @given(mutated(document))
    def holds(text):
        tried.add(text)
        try:
            data = parse_json(text)
        except ValueError:
            return
        try:
            value = read(data, folder)
        except SeNasError:
            return
        written = json.dumps(value, allow_nan=False)
        assert json.dumps(read(json.loads(written), folder), allow_nan=False) == written
        taken.add(text)

    holds()
    print(f"{name}: {len(tried)} different documents, of which {len(taken)} were taken")
    assert len(tried) > len(taken) > 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 50 + "]" * 50, "deeper than 40 levels"),
        ("[" * 100_000, "deeper than 40 levels"),
        ("1" * 5000, "integer string conversion"),
        ("1" * 40, "does not fit into 64 bits"),
        ("[1e999]", "not finite"),
        ("-1E+0309", "not finite"),
        ('{"a": 25.5e310}', "not finite"),
        ("[0, -9223372036854775809]", "does not fit into 64 bits"),
        ('{"a":9223372036854775808}', "does not fit into 64 bits"),
        ("[NaN]", "not finite"),
        ('"\\ud800"', "not Unicode"),
        ('{"a": 1,}', "property name"),
    ],
)
def test_what_no_reader_takes(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse_json(text)


def test_numbers_up_to_the_bounds_are_read_to_the_last_digit():
    rng = random.Random(0)
    floats = [rng.uniform(-100, 100) * 10.0 ** rng.randint(-300, 300) for _ in range(2000)]
    values = [*floats, 5e-324, 1.7976931348623157e308, -(2**63), 2**63 - 1, 0, -0.0, True, None]
    values += ["1e999", ", 1e999", ": 12345678901234567890", "4e123", "\N{SNOWMAN}\U0001f600\n"]
    for escaped in (True, False):
        text = json.dumps({"a": values}, ensure_ascii=escaped)
        assert json.dumps(parse_json(text)) == json.dumps({"a": values})
    assert parse_json('{"a": 1, "a": [2.0]}') == {"a": [2.0]}
    assert parse_json(" null ") is None


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "manifest.json"
    path.touch()
    os.truncate(path, 1 << 40)
    with pytest.raises(RunError, match=r"manifest\.json is damaged: it is larger than 1024 MiB"):
        se_nas.run.read_json(path)


def test_yaml_that_names_one_list_a_million_times_is_refused(tmp_path):
    path = tmp_path / "space.yaml"
    lines = ["a0: &a0 [1, 1]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12))]
    path.write_text("\n".join(lines))
    with pytest.raises(SeNasError, match="more than 100,000 values"):
        read_spec(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("accuracy", value) for value in (150, -5, True, "91.5", 1e308)),
        *(("num_params", value) for value in ("1000", -1, True)),
        *(("widths", value) for value in ([-2], ["8"], [True], 8)),
        *(("number", value) for value in (-1, 1.5, True)),
    ],
)
def test_what_cannot_be_is_not_shown_as_a_result(field, value):
    with pytest.raises(RunError, match=rf"row 0 of the table is damaged: (.*{field}|costs.params)"):
        rows_from_json([{**ROW, field: value}], "the table")


@pytest.mark.parametrize("schema", [0, -1, True, None, "1", 1.0])
def test_a_schema_is_a_positive_integer(schema):
    with pytest.raises(RunError, match="its schema is"):
        Manifest.from_json({**MANIFEST, "schema": schema})


def test_a_pipe_in_a_run_folder_is_refused_and_nobody_waits_for_it(tmp_path):
    folder = empty_run(tmp_path / "run")
    os.mkfifo(folder.path / "trials.json")
    with pytest.raises(RunError, match=r"trials\.json is neither a file nor a folder"):
        RunFolder.open(folder.path)
