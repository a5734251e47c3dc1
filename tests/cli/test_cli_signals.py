"""The exit code says which signal ended a command, whatever typer makes of it."""

import signal

import pytest
import typer

from se_nas import cli
from se_nas.study.interrupts import Stopped


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_that_ends_a_command_is_its_exit_code(monkeypatch, capsys, number):
    app = typer.Typer()

    @app.command()
    def stop():
        raise Stopped(number)

    monkeypatch.setattr(cli, "app", app)
    monkeypatch.setattr("sys.argv", ["se-nas"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 128 + number
    assert capsys.readouterr().err == "interrupted\n"
