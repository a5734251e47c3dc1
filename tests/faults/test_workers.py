"""Workers of one study are killed and leave, others join, and the server restarts; the study ends as if nothing had."""

import json
import random
import signal
import socket
import time

import command
import pytest
from golden_trainer import accuracy_of
from postgres_server import PASSWORD, Server
from second_host import SecondHost
from small_cases import table

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
TRIALS, SECONDS, GRACE = 12, 1.0, 5.0
IMPATIENT = (
    f"import se_nas.study.server as server; server.GRACE = {GRACE}; "
    "import se_nas.study.signs_of_life as signs; signs.INTERVAL = 0.5"
)
SQL_NUMBER_AND_WORKER = """
    SELECT number, attribute.value_json FROM trials
    LEFT JOIN trial_system_attributes AS attribute
        ON attribute.trial_id = trials.trial_id AND attribute.key = 'se_nas:worker'
    ORDER BY number
"""


class Fleet:
    """Workers of one study, each with a log of its own."""

    def __init__(self, folder, postgres, url):
        self.folder, self.postgres, self.url = folder, postgres, url
        self.processes = []

    def search(self, before=IMPATIENT, **changes):
        given = {"trials": TRIALS, "storage": self.url, "study": "one", **changes}
        return self._start(*command.search_arguments(**given), before=before)

    def join(self, before=IMPATIENT, under=(), **options):
        given = {"storage": self.url, "study": "one", "device": "cpu", "wait": "5m", **options}
        return self._start("worker", *command.words(given), before=before, under=under)

    def _start(self, *arguments, before=IMPATIENT, under=()):
        process = command.start(
            self.folder,
            *arguments,
            seconds=SECONDS,
            before=before,
            under=under,
            GATE=str(self.folder / "gate"),
        )
        self.processes.append(process)
        return process

    def running(self):
        """Workers that have a trial in training now, by process id."""
        found = self._sql("SELECT count(*) FROM information_schema.tables WHERE table_name = 'trials'")
        if not found[0][0]:
            return {}
        rows = self._sql(SQL_NUMBER_AND_WORKER.replace("ORDER", "WHERE state = 'RUNNING' ORDER"))
        return {int(json.loads(worker).split(":")[1]): number for number, worker in rows if worker != "null"}

    def wait_until_running(self, count, also=None):
        """Processes that train at the same time; no training ends before there are so many, and ``also`` that one."""
        until = time.monotonic() + 300
        while len(found := self.running()) < count or (also is not None and also.pid not in found):
            assert time.monotonic() < until
            time.sleep(0.2)
        (self.folder / "gate").touch()
        return found

    def end(self):
        """Exit codes and what was said, of all processes."""
        errors = [process.communicate(timeout=600)[1] for process in self.processes]
        return [process.returncode for process in self.processes], errors

    def kill(self):
        for process in self.processes:
            process.kill()
            process.stderr.close()
            process.wait()

    def _sql(self, statement):
        return self.postgres.sql(statement, self.url.rpartition("/")[2])


@pytest.fixture
def fleet(tmp_path, postgres, database_url):
    made = Fleet(tmp_path, postgres, database_url)
    yield made
    made.kill()


def check(fleet, run="run"):
    """Every candidate was evaluated exactly once, with the reading of an undisturbed run."""
    rows = table(fleet.folder / "runs" / run)
    command.check(rows, TRIALS)
    assert {row["accuracy"] for row in rows} == {
        accuracy_of(row["key"], row["seed"], sum(width != 0 for width in row["widths"])) for row in rows
    }
    return rows


def test_four_workers_of_which_two_die_one_leaves_and_the_server_restarts(fleet):
    fleet.search()
    for _ in range(3):
        fleet.join()
    victims = list(fleet.wait_until_running(3))
    by_pid = {process.pid: process for process in fleet.processes}
    killed, leaves = by_pid[victims[0]], by_pid[victims[1]]
    killed.kill()
    leaves.send_signal(signal.SIGTERM)
    time.sleep(random.uniform(0.0, 1.0))
    fleet.postgres.stop(random.choice(["fast", "immediate"]))
    time.sleep(2.0)
    fleet.postgres.start()
    (fleet.folder / "gate").unlink()
    fleet.wait_until_running(1, also=fleet.join())
    codes, errors = fleet.end()
    assert not any("Traceback" in said for said in errors), errors
    ended = {process.pid: code for process, code in zip(fleet.processes, codes, strict=True)}
    assert ended.pop(killed.pid) == -signal.SIGKILL
    assert ended.pop(leaves.pid) == 128 + signal.SIGTERM
    assert set(ended.values()) == {0}, (ended, errors)
    check(fleet)
    workers = {json.loads(worker) for _, worker in fleet._sql(SQL_NUMBER_AND_WORKER) if worker}
    assert len(workers) >= 3
    manifest = json.loads((fleet.folder / "runs" / "run" / "manifest.json").read_text())
    assert (manifest["status"], manifest["provisional"]) == ("finished", False)
    assert (fleet.folder / "runs" / "run" / "report.html").is_file()
    # The password was in the environment of every process, and is in nothing that any of them wrote.
    secret = PASSWORD.encode()
    assert not any(secret in path.read_bytes() for path in fleet.folder.rglob("*") if path.is_file())
    assert not any(PASSWORD in said for said in errors)
    dump = fleet._sql("SELECT value_json FROM study_user_attributes")
    assert not any(PASSWORD in value for [value] in dump)


SLOW_TO_BEGIN = f"""{IMPATIENT}
import pathlib, time
from se_nas.study import peers
run_folder = peers.run_folder
def slowly(*given):
    pathlib.Path("has read the study").touch()
    while not pathlib.Path("may go on").exists():
        time.sleep(0.1)
    return run_folder(*given)
peers.run_folder = slowly
pass"""


def test_a_server_that_is_away_while_a_worker_begins_is_waited_for(fleet):
    fleet.search(trials=4)
    fleet.wait_until_running(1)
    begins = fleet.join(before=SLOW_TO_BEGIN)
    until = time.monotonic() + 120
    while not (fleet.folder / "has read the study").exists():
        assert time.monotonic() < until
        assert begins.poll() is None
        time.sleep(0.1)
    fleet.postgres.stop()
    comes = fleet.join()
    for process in (begins, comes):
        (fleet.folder / "may go on").touch()
        assert any("Waiting for it." in line for line in process.stderr)
    fleet.postgres.start()
    codes, errors = fleet.end()
    assert codes == [0, 0, 0], errors
    assert all("the database is back" in said for said in errors[1:])


def test_a_study_that_all_workers_have_left_goes_on_from_its_folder_or_another(fleet):
    first = fleet.search()
    fleet.wait_until_running(1)
    first.send_signal(signal.SIGTERM)
    assert first.wait(120) == 128 + signal.SIGTERM
    with command.start(
        fleet.folder, "resume", "runs/run", "--trials", TRIALS - 2, before=IMPATIENT
    ) as resumed:
        errors = resumed.stderr.read()
    assert resumed.returncode == 0, errors
    rows = table(fleet.folder / "runs" / "run")
    command.check(rows, TRIALS - 2)
    again = fleet.join(runs="elsewhere")
    errors = again.communicate(timeout=300)[1]
    assert again.returncode == 0, errors
    assert table(fleet.folder / "elsewhere" / "run") == rows


@pytest.fixture(params=[0, 5])
def second_host(request):
    host = SecondHost(loss=request.param)
    host.loss = request.param
    yield host
    host.remove()


def test_a_worker_on_another_host_works_over_a_network_that_loses_packets(second_host, tmp_path):
    server = Server(second_host.address)
    fleet = Fleet(tmp_path, server, server.new_database("hosts"))
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PGPASSWORD", PASSWORD)
            # Signs of life as in use: the network may hold them up for seconds.
            fleet.search(before="pass")
            fleet.join(before="pass", under=second_host.under, runs="elsewhere")
        fleet.wait_until_running(2)
        codes, errors = fleet.end()
        assert codes == [0, 0], errors
        check(fleet)
        workers = {json.loads(worker).split(":")[0] for _, worker in fleet._sql(SQL_NUMBER_AND_WORKER)}
        assert workers == {socket.gethostname(), second_host.name}
        # Each host has a folder of its own with the whole table.
        rows = [table(tmp_path / runs / "run") for runs in ("runs", "elsewhere")]
        assert [row["accuracy"] for row in rows[0]] == [row["accuracy"] for row in rows[1]]
        assert (second_host.lost > 0) == (second_host.loss > 0)
    finally:
        fleet.kill()
        server.remove()
