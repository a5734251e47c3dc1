"""The files in docs/examples that launch workers: they parse, and the commands and options in them exist."""

import re
import shlex
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import typer
import yaml

from se_nas.cli import app

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
COMMANDS = typer.main.get_command(app).commands


def check_commands(script):
    """Every call of se-nas in a shell script; returns the names of the commands."""
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    calls = re.findall(r"se-nas (\w.*?)(?:;|>|$)", script.replace("\\\n", " "), re.MULTILINE)
    for call in calls:
        name, *words = shlex.split(call)
        options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
        given = {word for word in words if word.startswith("--")}
        assert given <= options, call
        assert {"--storage", "--study"} <= given
    return [call.split()[0] for call in calls]


def test_slurm():
    script = (EXAMPLES / "workers.sbatch").read_text()
    assert check_commands(script) == ["show", "search", "worker"]
    [words] = re.findall(r'^search=\$\{SEARCH:-"(.*)"\}$', script, re.MULTILINE)
    check_commands(f"se-nas search {words} --storage x --study x")
    given = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", script, re.MULTILINE))
    assert given["signal"] == "USR1@120"
    assert "requeue" in given


@pytest.mark.parametrize(("status", "again"), [(0, False), (2, False), (138, True)])
@pytest.mark.parametrize(
    ("task", "begun", "command"), [(0, False, "search"), (0, True, "worker"), (3, False, "worker")]
)
def test_the_slurm_script_begins_joins_and_is_requeued(tmp_path, status, again, task, begun, command):
    """Run with stand-ins for se-nas and Slurm that write down how they are called."""
    log = tmp_path / "log"
    for name, body in {
        "se-nas": f'echo "se-nas $1" >>{log}; if [ "$1" = show ]; then exit {0 if begun else 2}; fi; exit {status}',
        "srun": '"$@"',
        "scontrol": f'echo "scontrol $*" >>{log}',
    }.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/bash\n{body}\n")
        program.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "SLURM_ARRAY_TASK_ID": str(task),
        "SLURM_ARRAY_JOB_ID": "77",
    }
    done = subprocess.run(["bash", EXAMPLES / "workers.sbatch"], env=environment)
    assert done.returncode == status
    called = log.read_text().splitlines()
    assert f"se-nas {command}" in called
    assert (f"scontrol requeue 77_{task}" in called) == again


def test_kubernetes():
    job = yaml.safe_load((EXAMPLES / "workers.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    # podFailurePolicy is stable since 1.31.
    for version in ("1.31", kubernetes_validate.latest_version()):
        kubernetes_validate.validate(job, version, strict=True)
    spec = job["spec"]["template"]["spec"]
    # What podFailurePolicy and Indexed need.
    assert spec["restartPolicy"] == "Never"
    assert job["spec"]["completions"] == job["spec"]["parallelism"]
    [container] = spec["containers"]
    [script] = container["args"]
    assert check_commands(script) == ["show", "search", "worker"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in spec["volumes"]}
    variables = {variable["name"] for variable in container["env"]}
    assert set(re.findall(r"\$(\w+)", script)) <= {*variables, "JOB_COMPLETION_INDEX"}
