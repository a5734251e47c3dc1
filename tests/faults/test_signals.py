"""Signals in every phase of a search: it stops with its state kept, says so in its exit code, and goes on."""

import signal

import command
import pytest

from se_nas.run import RunFolder

PHASES = {
    "preparation": lambda line: line.startswith("folder"),
    "search": lambda line: line.startswith("search"),
    "final": lambda line: line.startswith("final seeds"),
    "report": lambda line: "candidates have been evaluated" in line,
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert command.Forked(folder, *command.search_arguments(), seconds=0.0).ended() == 0
    return command.results(folder)


def signalled(folder, number, phase, times=1):
    """Exit code and remaining standard error of a search that was sent a signal as a phase began."""
    with command.search(folder, 0.5) as process:
        for line in process.stderr:
            if PHASES[phase](line):
                break
        for _ in range(times):
            process.send_signal(number)
        errors = process.stderr.read()
    return process.returncode, errors


CASES = [
    (signal.SIGTERM, "search"),
    (signal.SIGHUP, "report"),
    *(
        pytest.param(number, phase, marks=pytest.mark.slow)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
        for phase in PHASES
    ),
]


@pytest.mark.parametrize(("number", "phase"), CASES)
def test_a_signal_stops_the_search_which_goes_on(undisturbed, tmp_path, number, phase):
    code, errors = signalled(tmp_path, number, phase)
    assert code == 128 + number, errors
    assert "Traceback" not in errors
    path = tmp_path / "runs" / "run"
    if not (path / "manifest.json").exists():
        assert phase == "preparation"
        return
    status = RunFolder.open(path).manifest.status
    assert status == ("finished" if phase == "report" else "interrupted")
    assert (path / "report.html").exists() or phase == "preparation"
    command.finish(tmp_path)
    assert command.results(tmp_path) == undisturbed


@pytest.mark.slow
def test_a_signal_that_is_ignored_stays_ignored(undisturbed, tmp_path):
    """As nohup has SIGHUP ignored."""
    with command.search(tmp_path, 0.5, ignored=[signal.SIGHUP]) as process:
        for line in process.stderr:
            if any(begins(line) for begins in PHASES.values()):
                process.send_signal(signal.SIGHUP)
    assert process.returncode == 0
    assert command.results(tmp_path) == undisturbed


def test_a_second_signal_ends_it_at_once_without_a_traceback(undisturbed, tmp_path):
    with command.search(tmp_path, 600, deaf=True) as process:
        for line in process.stderr:
            if PHASES["search"](line):
                break
        process.send_signal(signal.SIGINT)
        for line in process.stderr:
            if "Ctrl-C: stopping" in line:
                break
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read()
    assert process.returncode == 130
    assert "Traceback" not in errors
    command.finish(tmp_path)
    assert command.results(tmp_path) == undisturbed
