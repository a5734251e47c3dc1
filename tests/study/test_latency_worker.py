"""A search on a PostgreSQL server whose latency is that of a worker which only measures."""

import socket
import threading
import time
from contextlib import suppress

import pytest
from edge_device import CONDITIONS, ratio_of, stand_in
from small_cases import SEARCH
from typer.testing import CliRunner

import se_nas
from se_nas.cli import app
from se_nas.cost.latency.elsewhere import ERROR
from se_nas.errors import ConfigError, DeviceError, RunError
from se_nas.exporting.selection import architecture_of
from se_nas.run import FINAL, RunFolder
from se_nas.study import search
from se_nas.study.latency_mail import BEGIN, Mail, MailMeasurer
from se_nas.study.latency_worker import measure_for
from se_nas.study.patience import Patience
from se_nas.study.progress import Progress

HERE = socket.gethostname()


@pytest.fixture
def config(tmp_path):
    def make(**changes):
        given = {
            "objectives": "accuracy,latency",
            "sampler": "random",
            "trials": 5,
            "final_seeds": 2,
            "trainer": "golden_trainer:train",
            "keep": "none",
            "name": "run",
            "runs": str(tmp_path / "runs"),
            "study": "one",
            "latency_on": HERE,
        }
        return se_nas.SearchConfig(**{**SEARCH, **given, **changes})

    return make


@pytest.fixture
def device(monkeypatch):
    return stand_in(monkeypatch)


@pytest.fixture
def edge(database_url):
    """A worker in a thread named edge that only measures; joined, it returns how many networks it has measured."""
    counts, stop = [], threading.Event()

    def work():
        counts.append(measure_for(database_url, "one", wait=300.0, should_stop=stop.is_set))

    thread = threading.Thread(target=work, name="edge")
    thread.start()

    def join():
        thread.join(120)
        assert not thread.is_alive()
        return counts[0]

    yield join
    stop.set()
    thread.join()


class Listening(Progress):
    def __init__(self):
        self.said = []

    def message(self, text):
        self.said.append(text)


@pytest.mark.cluster
def test_the_front_is_for_the_device_of_the_worker_that_measures(config, device, edge, database_url):
    listening = Listening()
    run = search(config(storage=database_url), listening)
    assert edge() > 0
    assert device.threads == {"edge"}
    manifest = RunFolder.open(run.path).manifest
    assert manifest.measured["latency"].conditions == CONDITIONS
    assert manifest.measured["latency"].baseline == device.median_ms
    rows = RunFolder.open(run.path).rows()
    assert {row.phase for row in rows} == {"search", FINAL}
    for row in rows:
        reading, ratio = row.costs["latency"], ratio_of(architecture_of(row, manifest))
        assert reading.measured == (row.phase == FINAL)
        assert reading.ratio == pytest.approx(ratio, rel=1e-3)
        assert reading.value == pytest.approx(ratio * device.median_ms, rel=1e-3)
    assert run.front
    assert any("se-nas worker --latency-only must be running there" in text for text in listening.said)


class Killed(BaseException):
    """What nothing catches."""


@pytest.mark.cluster
def test_a_worker_that_is_killed_while_it_measures_is_followed_by_another(
    config, device, database_url, monkeypatch
):
    measure, dies_at = device.measure, 2

    def killed_once(*given, **options):
        if threading.current_thread().name == "first" and len(device.measured) == dies_at:
            raise Killed
        return measure(*given, **options)

    monkeypatch.setattr(device, "measure", killed_once)

    def work():
        with suppress(Killed):
            measure_for(database_url, "one", wait=300.0)
            return
        threading.current_thread().name = "second"
        measure_for(database_url, "one")

    thread = threading.Thread(target=work, name="first")
    thread.start()
    run = search(config(storage=database_url))
    thread.join()
    assert device.threads == {"first", "second"}
    manifest = RunFolder.open(run.path).manifest
    rows = RunFolder.open(run.path).rows()
    finals = [row for row in rows if row.phase == FINAL]
    assert finals
    for row in finals:
        assert row.costs["latency"].ratio == pytest.approx(ratio_of(architecture_of(row, manifest)), rel=1e-3)


@pytest.mark.cluster
def test_what_cannot_be_measured_ends_the_search_with_the_reason(config, device, database_url):
    device.error = DeviceError("the device is gone")
    failed = []

    def work():
        try:
            measure_for(database_url, "one", wait=300.0)
        except DeviceError as error:
            failed.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    with pytest.raises(RunError, match=f"latency cannot be measured on {HERE}: the device is gone"):
        search(config(storage=database_url))
    thread.join()
    assert failed == ["the device is gone"]


@pytest.mark.cluster
def test_questions_wait_for_their_answers_and_are_asked_once(database_url, device):
    mail = Mail(database_url, "one", Patience())
    arch = se_nas.Architecture.plain("test_resnet")
    waits = [time.monotonic()]
    measurer = MailMeasurer(mail, "edge", fresh=True, say=lambda text: None)

    def soon():
        return time.monotonic() > waits[0] + 0.5

    assert measurer.measure(arch.to_dict(), soon) is None
    assert measurer.measure(arch.to_dict(), soon) is None
    [(key, question)] = mail.open_questions()
    assert se_nas.Architecture.from_dict(question) == arch
    mail.answer(key, {ERROR: "no"})
    assert measurer.measure(arch.to_dict(), lambda: False) == {ERROR: "no"}
    assert mail.open_questions() == []
    # Another study of the database has questions of its own, and a search that begins forgets those of its name.
    assert Mail(database_url, "other", Patience()).find(key) is None
    mail.forget()
    assert mail.find(key) is None


@pytest.mark.cluster
def test_a_worker_for_another_machine_or_without_a_search_is_refused(database_url):
    with pytest.raises(RunError, match=f"no search asks for latency of study 'one'.*--latency-on {HERE}"):
        measure_for(database_url, "one")
    Mail(database_url, "one", Patience()).ask(BEGIN, "jetson", {})
    with pytest.raises(
        RunError, match=f"study 'one' asks for the latency of jetson, but this machine is {HERE}"
    ):
        measure_for(database_url, "one")
    result = CliRunner().invoke(
        app, ["worker", "--latency-only", "--storage", database_url, "--study", "two"]
    )
    assert isinstance(result.exception, RunError)


def test_another_machine_needs_a_way_to_it(config):
    with pytest.raises(ConfigError, match="latency_on needs a way to reach the other machine: a storage"):
        config(study=None)
