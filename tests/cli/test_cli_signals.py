"""The exit code says which signal ended a command, whatever typer makes of it."""

import signal

import pytest

from se_nas import cli
from se_nas.study.interrupts import Stopped


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_that_ends_a_command_is_its_exit_code(monkeypatch, capsys, number):
    def stop(run):
        raise Stopped(number)

    command = next(found for found in cli.app.registered_commands if found.callback.__name__ == "show")
    stop.__name__ = "show"
    monkeypatch.setattr(command, "callback", stop)
    monkeypatch.setattr("sys.argv", ["se-nas", "show", "runs/x"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 128 + number
    assert capsys.readouterr().err == "interrupted\n"
