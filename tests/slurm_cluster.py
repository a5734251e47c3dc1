"""Slurm on this machine alone: one node with more CPUs and GPUs than there are; tests skip where it does not work."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
START_SECONDS, END_SECONDS = 60, 60
CONFIGURATION = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# A job that is requeued waits as long as a credential is valid.
AuthInfo=socket={folder}/munge/socket,cred_expire=20
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
# No control groups: containers have none.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
KillWait=5
GresTypes=gpu
SlurmdParameters=config_overrides
NodeName=node NodeHostname={host} NodeAddr=127.0.0.1 Port={daemon} CPUs=64 Gres=gpu:8 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
    """Controller and node in a temporary folder, with a key of their own.

    Attributes:
        environment: with which Slurm's commands find it.
    """

    def __init__(self):
        missing = [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]
        if missing:
            pytest.skip(
                f"needs Slurm and munge (Debian: slurm-wlm, munge); there is no {' and no '.join(missing)}"
            )
        if os.geteuid() != 0:
            pytest.skip("needs to be root, whose jobs Slurm's node starts")
        self.folder = Path(tempfile.mkdtemp(prefix="se-nas-slurm-"))
        self._daemons = []
        # Munge wants a socket that others reach.
        self.folder.chmod(0o755)
        for name in ("state", "spool", "munge"):
            (self.folder / name).mkdir(mode=0o755)
        controller, daemon = _free_ports(2)
        configuration = self.folder / "slurm.conf"
        host = socket.gethostname().partition(".")[0]
        configuration.write_text(
            CONFIGURATION.format(folder=self.folder, host=host, controller=controller, daemon=daemon)
        )
        for number in range(8):
            (self.folder / f"gpu{number}").symlink_to("/dev/null")
        (self.folder / "gres.conf").write_text(f"Name=gpu File={self.folder}/gpu[0-7]\n")
        self.environment = {**os.environ, "PATH": _PATH, "SLURM_CONF": str(configuration)}
        try:
            self._start()
        except BaseException:
            self.remove()
            raise

    def run(self, *command, **environment):
        """What a command of Slurm's prints."""
        done = subprocess.run(
            list(map(str, command)),
            env=self.environment | environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def jobs(self, name):
        """What the controller knows of the jobs of a name, as dictionaries."""
        records = self.run("scontrol", "show", "job", "--oneliner").splitlines()
        found = [dict(word.partition("=")[::2] for word in record.split()) for record in records]
        return [job for job in found if job.get("JobName") == name]

    def remove(self):
        """End all jobs, then the daemons."""
        if len(self._daemons) == len(PROGRAMS) - 1:
            subprocess.run(["scancel", "--user=root"], env=self.environment, check=False)
            until = time.monotonic() + END_SECONDS
            while time.monotonic() < until and self._output("squeue", "--noheader"):
                time.sleep(0.5)
        for process in reversed(self._daemons):
            process.terminate()
            process.wait()
        shutil.rmtree(self.folder)

    def _start(self):
        munge = self.folder / "munge"
        (munge / "key").write_bytes(os.urandom(128))
        (munge / "key").chmod(0o600)
        files = [f"--{name}-file={munge / name}" for name in ("key", "pid", "seed", "log")]
        self._daemon("munged", "--foreground", "--force", f"--socket={munge / 'socket'}", *files)
        self._wait_until(lambda: (munge / "socket").exists(), "munged")
        self._daemon("slurmctld", "-D")
        self._wait_until(lambda: "UP" in self._output("scontrol", "ping"), "slurmctld")
        self._daemon("slurmd", "-D", "-N", "node")
        self._wait_until(lambda: "idle" in self._output("sinfo", "--noheader"), "slurmd")

    def _daemon(self, name, *arguments):
        with (self.folder / f"{name}.log").open("wb") as log:
            self._daemons.append(
                subprocess.Popen([name, *arguments], env=self.environment, stdout=log, stderr=log)
            )

    def _wait_until(self, works, name):
        until = time.monotonic() + START_SECONDS
        while not works():
            if time.monotonic() > until or self._daemons[-1].poll() is not None:
                said = (self.folder / f"{name}.log").read_text().splitlines()
                pytest.skip(f"{name} does not work on this machine: {' / '.join(said[-3:])}")
            time.sleep(0.2)

    def _output(self, *command):
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False
        ).stdout.strip()


# Daemons are where only root looks, and se-nas is where this Python is.
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def _free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
