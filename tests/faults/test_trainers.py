"""Trainers that hang, that change the whole process, and a script whose workers would search themselves."""

import contextlib
import json
import os
import subprocess
import sys
import textwrap
import time

import pytest
import torch
from small_cases import SEARCH, table

import se_nas
from se_nas.errors import ConfigError
from se_nas.study import search
from se_nas.study.executors._global_state import kept
from se_nas.study.progress import Progress

TRAINERS = """
import os, random, time
import numpy as np, torch

def hangs_on_gates(model, context):
    if any(name.endswith("fc1.weight") for name, _ in model.named_parameters()):
        while True:
            time.sleep(0.1)
    return {"accuracy": 50.0}

def gives_a_fraction(model, context):
    return {"accuracy": 0.95}

def changes_all(model, context):
    seen = [torch.get_default_dtype(), torch.is_grad_enabled(), os.getcwd(), os.environ.get("SE_NAS_TEST")]
    draws = [random.random(), float(np.random.rand()), float(torch.rand(1))]
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    os.chdir("/")
    os.environ["SE_NAS_TEST"] = "changed"
    with open(os.environ["SEEN"], "a") as file:
        print(*seen, *draws, file=file)
    return {"accuracy": 50.0}
"""


class Heard(Progress):
    def __init__(self):
        self.messages = []

    def message(self, text):
        self.messages.append(text)


@pytest.fixture
def small(tmp_path, monkeypatch):
    (tmp_path / "trainers_of_faults.py").write_text(TRAINERS)
    monkeypatch.syspath_prepend(tmp_path)

    def make(trainer, **changes):
        given = {"runs": str(tmp_path / "runs"), "name": "run", "final_seeds": 0, "keep": "none"}
        return se_nas.SearchConfig(
            **{**SEARCH, **given, "trainer": f"trainers_of_faults:{trainer}", **changes}
        )

    return make


def test_a_trainer_that_hangs_is_ended_at_its_deadline_and_the_search_goes_on(small, tmp_path):
    began = time.monotonic()
    run = search(small("hangs_on_gates", trials=2, candidate_timeout="3s"))
    assert time.monotonic() - began < 200
    plain, hanging = table(run.path)
    assert (plain["baseline"], plain["state"], plain["accuracy"]) == ("plain", "complete", 50.0)
    assert (hanging["baseline"], hanging["state"]) == ("all_se_16", "failed")
    stacks = run.path / "stacks-of-trial-1.txt"
    assert hanging["error"] == (
        f"it took longer than candidate_timeout (3s); {stacks.name} shows where it was"
    )
    assert "hangs_on_gates" in stacks.read_text()
    # Only for the one that hung.
    assert [path.name for path in run.path.glob("stacks-*")] == [stacks.name]


def test_a_deadline_is_a_duration():
    with pytest.raises(ConfigError, match=r"candidate_timeout is 'soon'.*90s, 8m or 2h"):
        se_nas.SearchConfig(backbone="test_resnet", candidate_timeout="soon")


def test_an_accuracy_that_looks_like_a_fraction_is_pointed_out_once(small):
    heard = Heard()
    run = search(small("gives_a_fraction", trials=2), heard)
    assert [row["accuracy"] for row in table(run.path)] == [0.95, 0.95]
    [said] = [text for text in heard.messages if "fraction" in text]
    assert said == "an accuracy of 0.95 % looks like a fraction: trainers return percent, 0 to 100"


def test_what_a_trainer_changes_for_the_process_is_put_back_and_said_once(small, tmp_path, monkeypatch):
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    monkeypatch.delenv("SE_NAS_TEST", raising=False)
    heard = Heard()
    here = os.getcwd()
    search(small("changes_all", trials=3), heard)
    seen = [line.split() for line in (tmp_path / "seen").read_text().splitlines()]
    assert [line[:4] for line in seen] == [["torch.float32", "True", here, "None"]] * 3
    assert (torch.get_default_dtype(), torch.is_grad_enabled(), os.getcwd()) == (torch.float32, True, here)
    assert "SE_NAS_TEST" not in os.environ
    [said] = [text for text in heard.messages if text.startswith("the trainer changes")]
    for name in ("the default dtype", "the gradient mode", "the working directory", "environment variables"):
        assert name in said


def test_random_states_are_put_back_without_a_word():
    changed = []
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with kept(changed):
        torch.rand(5)
    assert torch.equal(torch.rand(2), expected)
    assert changed == []


def test_settings_are_put_back_after_an_error_too():
    changed = []
    threads = torch.get_num_threads()
    with contextlib.suppress(ZeroDivisionError), kept(changed):
        torch.set_num_threads(threads + 1)
        torch.set_float32_matmul_precision("medium")
        raise ZeroDivisionError
    assert torch.get_num_threads() == threads
    assert torch.get_float32_matmul_precision() == "highest"
    assert changed == ["the number of threads", "the precision of float32 products"]


def test_a_script_without_a_guard_ends_at_once_with_one_sentence(small, tmp_path):
    config = small("hangs_on_gates", trials=2, per_gpu=2)
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import json, se_nas
            config = se_nas.SearchConfig(**json.loads({json.dumps(config.model_dump_json())}))
            try:
                se_nas.search(config)
            except se_nas.errors.RunError as error:
                print(error)
            """
        )
    )
    tests = os.path.dirname(os.path.dirname(__file__))
    path = os.pathsep.join([tests, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert 'if __name__ == "__main__":' in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr
