"""A PostgreSQL server of the tests' own, on this machine alone; tests skip with the reason where there is none."""

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

USER, PASSWORD = "searcher", "correct-horse"


def _programs():
    """The folder of the newest installed server's programs; None without one."""
    found = [Path(path).parent for path in [shutil.which("initdb")] if path]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    return found[-1] if found else None


class Server:
    """A server in a temporary folder. It refuses to run as root, so root runs it as the user postgres.

    Args:
        address: of this machine, at which it listens.
    """

    def __init__(self, address="127.0.0.1"):
        programs = _programs()
        if programs is None:
            pytest.skip("needs a PostgreSQL server (Debian: postgresql), and this machine has none")
        pytest.importorskip("psycopg", reason="needs the extra postgresql")
        self._programs, self._as, self.address = programs, [], address
        self.folder = Path(tempfile.mkdtemp(prefix="se-nas-postgres-"))
        if os.geteuid() == 0:
            self._as = ["runuser", "-u", "postgres", "--"]
            shutil.chown(self.folder, "postgres")
        with socket.socket() as free:
            free.bind((address, 0))
            self.port = free.getsockname()[1]
        secret = self.folder / "secret"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self._run(
            "initdb",
            "-U",
            USER,
            "--pwfile",
            secret,
            "-A",
            "scram-sha-256",
            "-E",
            "UTF8",
            "--locale",
            "C",
            "--no-sync",
        )
        with (self.folder / "data" / "pg_hba.conf").open("a") as access:
            access.write("host all all samenet scram-sha-256\n")
        self.start()

    @property
    def host(self):
        return f"{self.address}:{self.port}"

    def url(self, database="postgres"):
        """Without the password, which is in the environment (`PGPASSWORD`)."""
        return f"postgresql+psycopg://{USER}@{self.host}/{database}"

    def sql(self, command, database="postgres"):
        """What a statement returns."""
        import psycopg

        address = f"postgresql://{USER}:{PASSWORD}@{self.host}/{database}"
        with psycopg.connect(address, autocommit=True) as connection:
            cursor = connection.execute(command)
            return cursor.fetchall() if cursor.description else None

    def new_database(self, name):
        """An empty one; returns its URL."""
        self.sql(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def start(self):
        options = f"-p {self.port} -c listen_addresses={self.address} -k {self.folder} -c fsync=off"
        self._run("pg_ctl", "-w", "-l", self.folder / "log", "-o", options, "start")

    def stop(self, mode="fast"):
        self._run("pg_ctl", "-w", "-m", mode, "stop")

    def remove(self):
        self.stop("immediate")
        shutil.rmtree(self.folder)

    def _run(self, program, *arguments):
        command = [*self._as, self._programs / program, "-D", self.folder / "data", *arguments]
        # What pg_ctl starts inherits its output, which must not be a pipe that someone reads to its end.
        with (self.folder / "output").open("ab") as output:
            subprocess.run(command, check=True, stdout=output, stderr=output, cwd="/")
