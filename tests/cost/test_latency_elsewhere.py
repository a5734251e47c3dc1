"""Latency that is measured on another machine: what is asked there, and what comes of the answers. No timings here."""

import json

import numpy as np
import pytest
from edge_device import CONDITIONS, ratio_of, stand_in

from se_nas.architecture import Architecture
from se_nas.cost.axes import Measuring, prepare_axes
from se_nas.cost.latency.elsewhere import LatencyElsewhere, LatencyService
from se_nas.cost.settings import LatencySettings
from se_nas.errors import DeviceError, InfeasibleError, RunError
from se_nas.objectives import LATENCY
from se_nas.space import SearchSpace

PLAIN = Architecture.plain("test_resnet")


class Wire:
    """A `Measurer` that brings JSON to a `LatencyService` in this process."""

    name = "the edge"

    def __init__(self):
        self.asked = []

    def begin(self, question):
        self.service = LatencyService(json.loads(json.dumps(question)))
        return json.loads(json.dumps(self.service.answer()))

    def measure(self, architecture, should_stop):
        if should_stop():
            return None
        self.asked.append(architecture)
        return json.loads(json.dumps(self.service.measure(json.loads(json.dumps(architecture)))))


@pytest.fixture
def device(monkeypatch):
    return stand_in(monkeypatch)


def prepare(wire, frozen=None, said=None):
    def elsewhere(objective, measuring):
        return LatencyElsewhere.prepare(objective, measuring, wire)

    measuring = Measuring(
        space=SearchSpace.load("per_block", backbone="test_resnet"),
        plain=PLAIN,
        settings=LatencySettings(input_size=(3, 32, 32), num_classes=10),
        seconds=None,
        candidates=20,
        width=0.01,
        frozen={} if frozen is None else {"latency": frozen},
        say=(said if said is not None else []).append,
        measured=lambda done, total: None,
        elsewhere={"latency": elsewhere},
    )
    return prepare_axes(["latency"], measuring)["latency"]


def gated(*widths):
    return Architecture.from_widths("test_resnet", widths=widths)


def test_candidates_are_predicted_here_and_finalists_measured_there(device):
    wire, said = Wire(), []
    axis = prepare(wire, said=said)
    assert axis.baseline == device.median_ms
    assert axis.conditions == CONDITIONS
    assert "The latency table passes" in said[0]
    assert wire.asked == []
    arch = gated(8, 0, 16, 0)
    fields = axis.fields(arch)
    assert fields["latency_source"] == "predicted"
    assert fields["latency_ratio"] == pytest.approx(ratio_of(arch), rel=1e-3)
    assert fields["latency_ms"] == pytest.approx(ratio_of(arch) * device.median_ms, rel=1e-3)
    assert wire.asked == []
    [(position, cost)] = axis.by_widths().items()
    assert position == arch.position
    assert cost(np.array([arch.widths]))[0] == pytest.approx(fields["latency_ms"])
    measured = axis.fields(arch, measure=True)
    assert (measured["latency_source"], measured["latency_ratio"]) == ("measured", ratio_of(arch))
    assert measured["latency_interval"] == [ratio_of(arch) - 0.001, ratio_of(arch) + 0.001]
    assert measured["latency_ms"] == ratio_of(arch) * device.median_ms
    assert [Architecture.from_dict(asked) for asked in wire.asked] == [arch]
    assert axis.fields(arch) == axis.fields(arch, measure=True) == measured
    assert len(wire.asked) == 1


def test_a_run_that_goes_on_keeps_its_median_and_refuses_another_device(device):
    axis = prepare(Wire(), frozen={"conditions": CONDITIONS, "baseline": 7.0})
    assert axis.fields(gated(8, 0, 0, 0), measure=True)["latency_ms"] == 7.0 * ratio_of(gated(8, 0, 0, 0))
    with pytest.raises(
        RunError, match=r"the edge measures latency under other conditions than before.*threads"
    ):
        prepare(Wire(), frozen={"conditions": {**CONDITIONS, "threads": 64}, "baseline": 7.0})


def test_another_device_in_mid_run_is_refused(device):
    wire = Wire()
    axis = prepare(wire)
    measure = wire.service.measure
    wire.service.measure = lambda asked: {**measure(asked), "conditions": {**CONDITIONS, "threads": 64}}
    with pytest.raises(RunError, match="under other conditions than before"):
        axis.fields(gated(8, 0, 0, 0), measure=True)


def test_what_cannot_be_measured_there_is_said_here(device):
    wire = Wire()
    axis = prepare(wire)
    device.error = InfeasibleError("it is too large")
    with pytest.raises(InfeasibleError, match="latency cannot be measured on the edge: it is too large"):
        axis.fields(gated(8, 0, 0, 0), measure=True)
    device.error = DeviceError("the device is gone")
    with pytest.raises(RunError, match="on the edge: the device is gone"):
        axis.fields(gated(8, 0, 0, 0), measure=True)
    device.error = None
    axis.should_stop = lambda: True
    with pytest.raises(RunError, match="stopped waiting for a measurement on the edge"):
        axis.fields(gated(8, 0, 0, 0), measure=True)


def test_a_service_that_begins_again_keeps_its_answer(device):
    wire = Wire()
    axis = prepare(wire)
    question = {
        "space": SearchSpace.load("per_block", backbone="test_resnet").to_dict(),
        "plain": PLAIN.to_dict(),
        "settings": {"input_size": [3, 32, 32], "num_classes": 10},
        "seconds": None,
        "candidates": 20,
        "width": 0.01,
    }
    before = {**wire.service.answer(), "baseline": 3.0}
    device.measured.clear()
    again = LatencyService(question, before=before)
    assert device.measured == []
    assert again.answer()["baseline"] == 3.0
    assert again.measure(gated(8, 0, 0, 0).to_dict())["fields"]["latency_ratio"] == ratio_of(
        gated(8, 0, 0, 0)
    )
    with pytest.raises(RunError, match="other conditions than before"):
        LatencyService(question, before={**before, "conditions": {**CONDITIONS, "threads": 64}})
    assert axis.objective is LATENCY
