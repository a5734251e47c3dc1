"""The latency axis of a run."""

from __future__ import annotations


class LatencyAxis:
    @classmethod
    def prepare(cls, plan, folder, progress):
        return None
