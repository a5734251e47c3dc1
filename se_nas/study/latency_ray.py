"""Latency measured on a node of a Ray cluster that has a certain resource."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from se_nas.cost.latency.elsewhere import ERROR, LatencyService
from se_nas.errors import ConfigError
from se_nas.study.config import SearchConfig
from se_nas.study.ray_cluster import in_one_line, join

SHARE = 0.001
"""Of the resource, which only says where latency is measured."""
POLL_SECONDS = 1.0


class RayMeasurer:
    """A `Measurer` that has an actor on a node with a resource; the actor takes nothing else of the node.

    Args:
        config: what the user asked; ``latency_on`` is the resource.

    Raises:
        ConfigError: no node has it, or the cluster cannot be joined.
    """

    def __init__(self, config: SearchConfig) -> None:
        assert config.latency_on is not None
        self.name = config.latency_on
        self._ray = join(config)
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not any(self.name in resources for resources in nodes):
            known = sorted({name for resources in nodes for name in resources if ":" not in name})
            raise ConfigError(
                f"latency_on is {self.name!r}, which no node of the Ray cluster has as a resource; its nodes have"
                f" {', '.join(known)}."
            )

    def begin(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        made = self._ray.remote(LatencyService).options(
            num_cpus=0, num_gpus=0, resources={self.name: SHARE}, max_restarts=-1, max_task_retries=-1
        )
        self._actor = made.remote(question)
        answer = self._ask(self._actor.answer.remote(), lambda: False)
        assert answer is not None
        return answer

    def measure(
        self, architecture: Mapping[str, Any], should_stop: Callable[[], bool]
    ) -> Mapping[str, Any] | None:
        return self._ask(self._actor.measure.remote(architecture), should_stop)

    def _ask(self, call: Any, should_stop: Callable[[], bool]) -> Mapping[str, Any] | None:
        while not should_stop():
            ready, _ = self._ray.wait([call], timeout=POLL_SECONDS)
            if ready:
                try:
                    answer: Mapping[str, Any] = self._ray.get(call)
                except self._ray.exceptions.RayError as error:
                    return {ERROR: in_one_line(error)}
                return answer
        return None
