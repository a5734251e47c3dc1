from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from small_cases import SITES

from se_nas.architecture import Architecture
from se_nas.cost.axes import Measuring
from se_nas.cost.latency import axis as module
from se_nas.cost.latency.axis import LatencyAxis
from se_nas.errors import RunError
from se_nas.objectives import LATENCY

CONDITIONS = {"device": "cpu", "threads": 2}


def architecture(*widths):
    return Architecture(backbone="net", position="standard", sites=SITES, widths=widths)


class Meter:
    """Measures 10 ms for the backbone, and 1 % more for each gate."""

    mode_note = None

    def __init__(self, plain, settings):
        self.conditions = CONDITIONS
        self.measured = []
        self.note = None

    def measure(self, arch, *, width, max_seconds, least_seconds):
        assert least_seconds == module.LEAST
        self.measured.append((arch, max_seconds))
        self.width = width
        ratio = 1 + 0.01 * arch.num_gated
        return SimpleNamespace(
            ratio=ratio, median_ms=11.0 * ratio, interval=(ratio - 0.002, ratio + 0.002), note=self.note
        )


class Table:
    """Predicts 2 % for each gate, so that a prediction can be told from a measurement."""

    def __init__(self, passed=True):
        self.passed = passed
        self.check = SimpleNamespace(describe=lambda: "the check")

    def ratio(self, widths):
        return 1 + 0.02 * (np.asarray(widths) != 0).sum(1)

    def save(self):
        pass


@pytest.fixture
def prepare(monkeypatch):
    def make(table=None, seconds=None, frozen=None, position="standard", width=0.01, packed=False):
        monkeypatch.setattr(module, "LatencyMeter", Meter)
        monkeypatch.setattr(module.LatencyTable, "load", lambda meter, arch: table)
        said = []
        measuring = Measuring(
            space=SimpleNamespace(position=position, sample=lambda rng: architecture(8, 8)),
            plain=architecture(0, 0),
            settings=None,
            seconds=seconds,
            candidates=20,
            width=width,
            frozen={} if frozen is None else {"latency": frozen},
            say=said.append,
            measured=lambda done, total: None,
            packed=packed,
        )
        return LatencyAxis.prepare(LATENCY, measuring), said

    return make


def test_without_a_table_candidates_are_measured_once(prepare):
    axis, _ = prepare()
    assert axis.baseline == 11.0
    first = axis.fields(architecture(8, 0))
    # The axis is the ratio times the common median, not the median of the same minute.
    assert first["latency_ms"] == pytest.approx(1.01 * 11.0)
    assert first["latency_interval"] == [pytest.approx(1.008), pytest.approx(1.012)]
    assert first["latency_source"] == "measured"
    assert axis.fields(architecture(8, 0)) == first
    assert len(axis.meter.measured) == 2
    assert axis.by_widths() is None


def test_a_table_that_passed_predicts_candidates_and_finalists_are_measured(prepare):
    axis, said = prepare(table=Table())
    assert "the check" in said
    fields = axis.fields(architecture(8, 8))
    assert fields["latency_source"] == "predicted"
    assert fields["latency_ms"] == pytest.approx(1.04 * 11.0)
    assert axis.by_widths()["standard"](np.array([[8, 8], [0, 0]])).tolist() == pytest.approx(
        [1.04 * 11.0, 11.0]
    )
    final = axis.fields(architecture(8, 8), measure=True)
    assert (final["latency_source"], final["latency_ratio"]) == ("measured", pytest.approx(1.02))
    assert axis.fields(architecture(8, 8)) == final


def test_a_table_that_failed_its_check_is_not_used(prepare):
    axis, _ = prepare(table=Table(passed=False))
    assert axis.table is None
    assert axis.fields(architecture(8, 8))["latency_source"] == "measured"


def test_the_interval_is_as_wide_as_asked(prepare):
    axis, _ = prepare()
    assert axis.meter.width == 0.01
    axis, _ = prepare(width=0.003, position=None)
    assert axis.meter.width == 0.003
    axis.meter.width = None
    axis.fields(architecture(8, 0))
    assert axis.meter.width == 0.003


def test_a_mode_that_does_not_work_here_is_said(prepare, monkeypatch):
    assert prepare()[1] == ["timing the unmodified backbone"]
    monkeypatch.setattr(Meter, "mode_note", "latency mode is 'eager', because no capture here.")
    assert prepare()[1][0] == "latency mode is 'eager', because no capture here."


def test_a_busy_device_is_said_once(prepare):
    axis, said = prepare()
    axis.meter.note = "the interval is 9.00% wide after 20 s, not 1.00%."
    before = len(said)
    for widths in ((8, 0), (0, 8), (8, 8)):
        axis.fields(architecture(*widths))
    assert len(said) == before + 1
    assert "the interval is 9.00% wide" in said[-1]


def test_nothing_else_runs_while_a_candidate_is_measured(prepare):
    axis, _ = prepare()
    order = []

    @contextmanager
    def quiet():
        order.append("begin")
        yield
        order.append("end")

    measure = axis.meter.measure
    axis.meter.measure = lambda arch, **limits: order.append("measure") or measure(arch, **limits)
    axis.quiet = quiet
    axis.fields(architecture(8, 0))
    axis.fields(architecture(8, 0))
    assert order == ["begin", "measure", "end"]


def test_candidates_share_the_time(prepare):
    axis, _ = prepare(seconds=48)
    assert axis.max_seconds == pytest.approx(48 / 20)
    axis, _ = prepare(seconds=3_600, table=Table())
    assert axis.max_seconds == module.LONGEST


def test_a_table_is_measured_where_time_allows(prepare, monkeypatch):
    asked = []

    def measure(meter, sample, max_seconds, progress):
        asked.append(max_seconds)
        return Table()

    monkeypatch.setattr(module.LatencyTable, "measure", measure)
    axis, _ = prepare(seconds=360)
    assert asked == [180]
    assert axis.table is not None
    prepare(seconds=48)
    prepare(seconds=360, position=None)
    assert len(asked) == 1


def test_a_run_that_goes_on_keeps_its_median_and_refuses_other_conditions(prepare):
    axis, _ = prepare(frozen={"conditions": CONDITIONS, "baseline": 7.5})
    assert axis.baseline == 7.5
    assert axis.meter.measured == []
    with pytest.raises(RunError, match=r"other conditions than before.*threads: 8 against 2"):
        prepare(frozen={"conditions": {**CONDITIONS, "threads": 8}, "baseline": 7.5})


def test_latencies_of_earlier_trials_are_taken_over(prepare):
    axis, _ = prepare()
    row = {"key": architecture(8, 8).key, "latency_ms": 9.0, "latency_ratio": 1.2}
    row |= {"latency_interval": [1.1, 1.3], "latency_source": "measured"}
    axis.remember(row)
    assert axis.fields(architecture(8, 8))["latency_ms"] == 9.0


@pytest.mark.parametrize(
    ("seconds", "packed", "expected"),
    [
        (None, False, None),
        (None, True, 300.0),
        (100.0, True, None),
        (200.0, False, 100.0),
        (900.0, True, 300.0),
    ],
)
def test_a_pack_without_a_time_budget_measures_a_table_too(prepare, monkeypatch, seconds, packed, expected):
    given = []
    monkeypatch.setattr(
        module.LatencyTable,
        "measure",
        lambda meter, sample, max_seconds, progress: given.append(max_seconds) or Table(),
    )
    axis, _ = prepare(seconds=seconds, packed=packed)
    assert given == ([] if expected is None else [expected])
    assert (axis.table is None) == (expected is None)
