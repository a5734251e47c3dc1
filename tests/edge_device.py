"""A device whose latencies are known, in the place of this machine's: no timings, so that tests are exact."""

import threading
from types import SimpleNamespace

from se_nas.cost.latency import axis
from se_nas.cost.latency.table import LatencyTable

CONDITIONS = {"device": "cpu", "device_name": "an edge box", "threads": 2, "versions": {"torch": "2"}}


def ratio_of(arch):
    """Latency against the unmodified backbone: each gate adds one percent, and a little with its width."""
    return 1 + sum(0.01 + 0.0001 * width for width in arch.widths if width > 0)


class Device:
    """What stands in for ``LatencyMeter``.

    Attributes:
        measured: architectures, in order.
        threads: names of the threads that measured.
        error: raised by the next measurements, if there is one.
    """

    median_ms = 11.0
    mode_note = None
    sees_gates = False
    conditions = CONDITIONS

    def __init__(self):
        self.measured, self.threads, self.error = [], set(), None

    def __call__(self, plain, settings):
        self.plain, self.settings = plain, settings
        return self

    def measure(self, arch, *, width, max_seconds, least_seconds=0.0):
        if self.error is not None:
            raise self.error
        self.measured.append(arch)
        self.threads.add(threading.current_thread().name)
        ratio = ratio_of(arch)
        return SimpleNamespace(
            ratio=ratio,
            median_ms=self.median_ms * ratio,
            baseline_ms=self.median_ms,
            interval=(ratio - 0.001, ratio + 0.001),
            note=None,
        )


def stand_in(monkeypatch):
    """The device, which measures from now on in all threads of this process; tables are not kept."""
    device = Device()
    monkeypatch.setattr(axis, "LatencyMeter", device)
    monkeypatch.setattr(LatencyTable, "load", classmethod(lambda cls, meter, arch: None))
    monkeypatch.setattr(LatencyTable, "save", lambda self: None)
    return device
