"""What is said of a Ray cluster before a search begins on it; no Ray runs here."""

import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from small_cases import SEARCH

from se_nas import SearchConfig
from se_nas.errors import ConfigError
from se_nas.study import plan, ray_cluster
from se_nas.study.ray_address import check_answers
from se_nas.study.ray_cluster import actor_needs, as_options, fits, in_one_line, in_words, join


def config(**changes):
    return SearchConfig(**{**SEARCH, "executor": "ray", **changes})


@pytest.mark.parametrize(
    ("text", "device", "needs"),
    [
        (None, "cpu", {"CPU": 1.0}),
        (None, "cuda:0", {"CPU": 1.0, "GPU": 1.0}),
        ("gpu=0.25, edge=1", "cuda:0", {"CPU": 1.0, "GPU": 0.25, "edge": 1.0}),
        ("CPU=4,accelerator_type:T4=.001", "cpu", {"CPU": 4.0, "accelerator_type:T4": 0.001}),
    ],
)
def test_what_an_actor_takes(text, device, needs):
    assert actor_needs(config(ray_resources=text), device) == needs
    if text is not None:
        assert actor_needs(config(ray_resources=in_words(needs)), device) == needs


def test_needs_as_options_of_ray():
    options = as_options({"CPU": 2.0, "GPU": 0.5, "edge": 1.0})
    assert options == {"num_cpus": 2.0, "num_gpus": 0.5, "resources": {"edge": 1.0}}
    assert as_options({"CPU": 1.0})["num_gpus"] == 0


@pytest.mark.parametrize(
    ("has", "needs", "count"),
    [
        ({"CPU": 8.0, "GPU": 2.0}, {"CPU": 1.0, "GPU": 1.0}, 2),
        ({"CPU": 3.0, "GPU": 8.0}, {"CPU": 1.0, "GPU": 1.0}, 3),
        ({"CPU": 8.0}, {"CPU": 1.0, "GPU": 1.0}, 0),
        # Shares of 0.4 leave a rest on each of two GPUs, which together hold no fifth.
        ({"CPU": 8.0, "GPU": 2.0}, {"CPU": 1.0, "GPU": 0.4}, 4),
        ({"CPU": 100.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 0.1}, 10),
        ({"CPU": 2.0, "edge": 0.5}, {"CPU": 1.0, "edge": 0.5}, 1),
        ({"CPU": 1.0}, {"CPU": 2.0}, 0),
    ],
)
def test_actors_that_a_node_can_hold(has, needs, count):
    assert fits(has, needs) == count


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"executor": "rayy"},
            r"executor is 'rayy': it is local, ray or ray://HOST:PORT, .*Did you mean 'ray'",
        ),
        ({"executor": "ray://head"}, "executor is 'ray://head': it is local"),
        ({"ray_resources": "GPU"}, "ray_resources is 'GPU': resources are names and numbers above 0"),
        ({"ray_resources": "GPU=0"}, "numbers above 0"),
        ({"ray_resources": "CPU=1.5"}, "an amount above 1 is a whole number; CPU cannot be 1.5"),
        ({"executor": "local", "ray_resources": "GPU=1"}, "ray_resources needs the executor ray"),
        ({"device": "cuda:0,cuda:1"}, "with Ray each actor has a GPU of its own: give --device cuda"),
    ],
)
def test_settings_that_are_not_allowed(given, message):
    with pytest.raises(ConfigError, match=message):
        config(**given)


def test_ray_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'se-nas\[ray\]'"):
        join(config())


def test_nothing_listens_at_the_address(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"nothing answers at 'ray://{address}'"):
            join(config(executor=f"ray://{address}"))
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ConfigError, match=f"nothing answers at '{address}'"):
            join(config())


def test_a_plan_without_measurements_neither_joins_nor_starts_a_cluster(monkeypatch):
    pytest.importorskip("ray")

    def refused(*_, **__):
        raise AssertionError("a plan without measurements did it")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_cluster, "join", refused)
    described = dict(plan.resolve(config(trials=3), measure=False).describe())
    assert described["executor"] == (
        "ray, in actors with CPU=1; how many fit is asked when the search starts"
    )
    with pytest.raises(ConfigError, match=r"nothing answers at 'ray://127\.0\.0\.1:9'"):
        plan.resolve(config(executor="ray://127.0.0.1:9"), measure=False)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_wrong_token_is_refused_before_ray_tries(monkeypatch, scheme):
    grpc = pytest.importorskip("grpc")
    pytest.importorskip("ray")

    class Guard(grpc.GenericRpcHandler):
        def service(self, _):
            def refuse(_, context):
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")

            return grpc.unary_unary_rpc_method_handler(refuse)

    server = grpc.server(ThreadPoolExecutor(1), handlers=[Guard()])
    address = f"{scheme}127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    monkeypatch.setenv("RAY_ADDRESS", address)
    try:
        with pytest.raises(
            ConfigError, match=r"Ray at '.*': the cluster wants a token, .* RAY_AUTH_MODE=token"
        ):
            check_answers(config(executor=address if scheme else "ray"))
    finally:
        server.stop(None)


def test_an_address_without_a_port(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "head:port")
    with pytest.raises(ConfigError, match="the address 'head:port' of Ray is not HOST:PORT"):
        join(config())


def test_other_versions_on_the_nodes_are_one_sentence(monkeypatch):
    ray = pytest.importorskip("ray")

    def init(**_):
        raise RuntimeError(
            "Version mismatch: The cluster was started with:\n    Ray: 2.50.0\n    Python: 3.12.1\n"
        )

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ConfigError) as caught:
        join(config())
    assert str(caught.value) == (
        "Ray at 'ray': Version mismatch: The cluster was started with: Ray: 2.50.0 Python: 3.12.1"
    )


def test_what_ray_says_in_one_line():
    versions = "Version mismatch: The cluster was started with:\n    Ray: 2.50.0\n    Python: 3.12.1\n"
    assert in_one_line(RuntimeError(versions)) == (
        "Version mismatch: The cluster was started with: Ray: 2.50.0 Python: 3.12.1"
    )
    traced = (
        "Traceback (most recent call last):\n  File x, line 1\nModuleNotFoundError: No module named 'y'\n"
    )
    assert in_one_line(RuntimeError(traced)) == "ModuleNotFoundError: No module named 'y'"


def test_a_token_that_a_cluster_refuses_is_one_sentence(monkeypatch):
    ray = pytest.importorskip("ray")

    def init(**_):
        # As in Ray 2.60.
        traced = "Traceback (most recent call last):\n  File x\nray.exceptions.AuthenticationError: InvalidAuthToken"
        cause = RuntimeError(f"Failed to connect to GCS. Last connection error: {traced}")
        raise ConnectionError("Failed to connect to Ray cluster at 192.0.2.1:6379") from cause

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(
        ConfigError, match=r"Ray at 'ray': the cluster wants a token, .* set RAY_AUTH_MODE=token"
    ):
        join(config())


@pytest.mark.parametrize(
    ("status", "static"),
    [
        # As Ray 2.60 writes it for nodes that were started by hand, for an autoscaler's, and before anything is known.
        ({"autoscaler_report": {"active_nodes": {"node_ab": 1, "node_cd": 1}, "legacy": True}}, True),
        ({"autoscaler_report": {"active_nodes": {"ray.head.default": 1, "small": 2}}}, False),
        ({"autoscaler_report": {"active_nodes": {}}}, False),
        ({"autoscaler_report": None}, False),
        ({"load_metrics_report": {}}, False),
        (None, False),
    ],
)
def test_a_cluster_without_an_autoscaler(monkeypatch, status, static):
    ray = pytest.importorskip("ray")
    kept = pytest.importorskip("ray.experimental.internal_kv")
    monkeypatch.setattr(ray, "nodes", lambda: [{"NodeID": "ab"}, {"NodeID": "cd"}])
    monkeypatch.setattr(kept, "_internal_kv_get", lambda name: status and json.dumps(status).encode())
    assert ray_cluster.is_static() is static
