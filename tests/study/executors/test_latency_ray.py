"""Latency measured on a node of a Ray cluster that has a certain resource."""

import pytest
from small_cases import SEARCH

import se_nas
from se_nas.errors import ConfigError
from se_nas.run import RunFolder
from se_nas.study import search
from se_nas.study.latency_ray import SHARE, RayMeasurer

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.fixture
def config(tmp_path):
    def make(**changes):
        given = {
            "objectives": "accuracy,latency",
            "sampler": "random",
            "trials": 3,
            "budget": "20m",
            "final_seeds": 0,
            "executor": "ray",
            "latency_on": "edge",
            # Nothing here depends on how narrow an interval gets.
            "latency_width": 1.0,
            "runs": str(tmp_path / "runs"),
        }
        return se_nas.SearchConfig(**{**SEARCH, **given, **changes})

    return make


def test_a_search_has_latency_measured_on_a_node_with_the_resource(config, cluster, monkeypatch):
    import ray

    cluster.add_node(num_cpus=1, resources={"edge": 1}, object_store_memory=100 * 2**20)
    taken = []
    measure = RayMeasurer.measure

    def watched(self, architecture, should_stop):
        taken.append(1 - ray.available_resources()["edge"])
        return measure(self, architecture, should_stop)

    monkeypatch.setattr(RayMeasurer, "measure", watched)
    run = search(config())
    assert taken == pytest.approx([SHARE] * len(taken))
    rows = RunFolder.open(run.path).rows()
    assert len(rows) == len(taken) == 3
    for row in rows:
        reading = row.costs["latency"]
        assert reading.measured
        assert reading.interval[0] <= reading.ratio <= reading.interval[1]
    assert rows[0].baseline == "plain"
    assert rows[0].costs["latency"].ratio == 1.0


def test_a_resource_that_no_node_has_is_named(config, cluster):
    with pytest.raises(ConfigError, match=r"latency_on is 'moon', which no node .* its nodes have CPU"):
        RayMeasurer(config(latency_on="moon"))
