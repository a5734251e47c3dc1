"""The Ray cluster on which candidates train: joining it, and what its nodes have room for."""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Callable, Collection, Mapping
from types import ModuleType
from typing import Any

from se_nas.errors import ConfigError
from se_nas.study.amounts import parse_resources
from se_nas.study.config import SearchConfig
from se_nas.study.ray_address import WRONG_TOKEN, check_answers, given_address
from se_nas.wording import counted

GROW_SECONDS, JOIN_SECONDS, LOOK_SECONDS = 600.0, 15.0, 1.0
"""How long a cluster without room is waited for: one that its autoscaler may enlarge, and one that has none, of which
nodes may still be joining; and the time between two looks at its nodes."""
_AUTOSCALER_STATUS = "__autoscaling_status"
"""Where Ray keeps what ``ray status`` shows."""
_OURS = ("CPU", "GPU")
_PRIVATE = ("node:", "accelerator_type:", "memory", "object_store_memory")
"""Beginnings of the names of resources that Ray gives to every node, which no message needs to list."""


def join(config: SearchConfig) -> ModuleType:
    """Connect this process to the configured cluster and return ``ray``; a connection that it has is kept.

    Raises:
        ConfigError: Ray is not installed, does not answer, or has another version there.
    """
    ray, address = check_answers(config), given_address(config)
    if ray.is_initialized():
        return ray
    try:
        with warnings.catch_warnings(action="ignore"):
            ray.init(
                address=address, log_to_driver=False, logging_level=logging.ERROR, **_of_its_own(address)
            )
    except Exception as error:
        # Ray raises many kinds, Exception itself among them, with messages of several lines.
        raise ConfigError(f"Ray at {config.executor!r}: {_refusal(error)}") from None
    return ray


def actor_needs(config: SearchConfig, device: str) -> dict[str, float]:
    """What an actor takes of a node: a CPU, a GPU if it trains on one, and what the user says instead or besides.

    Args:
        config: what the user asked.
        device: on which candidates train, as in torch.
    """
    gpu = {"GPU": 1.0} if device.startswith("cuda") else {}
    return {"CPU": 1.0, **gpu, **parse_resources(config.ray_resources or "")}


def as_options(needs: Mapping[str, float]) -> dict[str, Any]:
    """The needs of an actor as Ray's options."""
    others = {name: amount for name, amount in needs.items() if name not in _OURS}
    return {"num_cpus": needs["CPU"], "num_gpus": needs.get("GPU", 0), "resources": others}


def room(needs: Mapping[str, float], without: Collection[str] = ()) -> int:
    """How many actors the living nodes can hold, whatever else uses them.

    Args:
        needs: of one actor.
        without: ids of nodes that do not count.
    """
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in without]
    return sum(fits(node["Resources"], needs) for node in nodes)


def fits(resources: Mapping[str, float], needs: Mapping[str, float]) -> int:
    """How many actors one node with these resources can hold; an actor's share of a GPU lies on one GPU."""

    def times(has: float, amount: float) -> int:
        whole = int(has) * int(1 / amount + 1e-9) if amount < 1 and has >= 1 else 0
        return whole or int(has / amount + 1e-9)

    return min(times(resources.get(name, 0.0), amount) for name, amount in needs.items())


def actors_of(config: SearchConfig, device: str, say: Callable[[str], object]) -> int | None:
    """How many actors the configured cluster, which is joined, has room for now; None for a search without Ray.

    Without room, a node is waited for, for which Ray's autoscaler is asked if the cluster has one.

    Args:
        config: what the user asked.
        device: on which candidates train, as in torch.
        say: is given a line if that takes time.

    Raises:
        ConfigError: no such node has come, or the cluster cannot be joined.
    """
    if not config.on_ray:
        return None
    ray, needs = join(config), actor_needs(config, device)
    found, minutes = room(needs), f"{GROW_SECONDS / 60:g} minutes"
    if not found:
        if is_static():
            say(f"{_too_small(needs)} Waiting {JOIN_SECONDS:g} seconds for one that is joining")
        else:
            say(f"{_too_small(needs)} Waiting up to {minutes} for one, which Ray's autoscaler is asked for")
        found = _wait_for_room(ray, needs)
        if not found and is_static():
            raise ConfigError(
                f"{_too_small(needs)} This cluster has no autoscaler: join such a node to it (ray start"
                " --address HOST:PORT) and start again."
            )
        if not found:
            raise ConfigError(f"{_too_small(needs)} None has joined within {minutes}.")
    return found


def is_static() -> bool:
    """Whether the joined cluster was put together by hand, so that nobody brings a node that it lacks.

    Ray describes such a cluster as one where every node has a type of its own, named after its id. False while it
    has not described the cluster yet, and if it does so in another way than Ray 2.60.
    """
    import ray
    from ray.experimental.internal_kv import _internal_kv_get

    try:
        kinds = json.loads(_internal_kv_get(_AUTOSCALER_STATUS) or "{}")["autoscaler_report"]["active_nodes"]
        return bool(kinds) and kinds.keys() <= {f"node_{node['NodeID']}" for node in ray.nodes()}
    except (ValueError, LookupError, TypeError, AttributeError):
        return False


def _wait_for_room(ray: ModuleType, needs: Mapping[str, float]) -> int:
    """As ``room``, as soon as there is any or the time is over."""

    class Demand:
        """Waits for its place like a candidate, which is what autoscalers look at."""

    demand = ray.remote(Demand).options(**as_options(needs)).remote()
    began = time.monotonic()
    try:
        while not (found := room(needs)):
            passed = time.monotonic() - began
            if passed >= GROW_SECONDS or (passed >= JOIN_SECONDS and is_static()):
                break
            time.sleep(LOOK_SECONDS)
        return found
    finally:
        ray.kill(demand)


def _too_small(needs: Mapping[str, float]) -> str:
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    have = "; ".join(
        in_words({name: has for name, has in node.items() if not name.startswith(_PRIVATE)}) or "nothing"
        for node in nodes
    )
    return (
        f"no node of the Ray cluster has {in_words(needs)} for a candidate; its"
        f" {counted(len(nodes), 'node')} {'has' if len(nodes) == 1 else 'have'} {have}."
    )


def describe(config: SearchConfig, device: str, actors: int | None) -> str:
    """Where candidates train, for the plan; without ``actors``, nobody has asked the cluster for its room."""
    needs = in_words(actor_needs(config, device))
    if actors is None:
        return f"{config.executor}, in actors with {needs}; how many fit is asked when the search starts"
    return f"{config.executor}, which now has room for {counted(actors, 'actor')} with {needs}"


def idle_per_gpu(config: SearchConfig, *, packed: bool) -> list[str]:
    """A note on an option that changes nothing."""
    if not config.on_ray or config.per_gpu is None or packed:
        return []
    return [
        "per_gpu has no effect: outside of a pack, ray_resources decides how many candidates share a node."
    ]


def in_words(needs: Mapping[str, float]) -> str:
    """As in ``--ray-resources``."""
    return ",".join(f"{name}={amount:g}" for name, amount in needs.items())


def in_one_line(error: Exception) -> str:
    """What Ray says in many lines; of a traceback, the last one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (
        lines[-1] if any("Traceback (most recent call last)" in line for line in lines) else " ".join(lines)
    )


def _refusal(error: Exception) -> str:
    """Why Ray could not be joined, in one line; it says of a wrong token only that it could not connect."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    # The cause is this error, or one in whose text is its traceback.
    if any("AuthenticationError" in f"{type(cause).__name__}: {cause}" for cause in causes):
        return WRONG_TOKEN
    return in_one_line(error)


def _of_its_own(address: str | None) -> dict[str, Any]:
    """What a cluster that may be started here is started with."""
    return {} if address else {"include_dashboard": False}
