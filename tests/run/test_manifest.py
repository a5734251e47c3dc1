import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from least_manifest import FACTS

from se_nas.errors import RunError
from se_nas.run import Finals, Manifest, Measured
from se_nas.sites import Site

SITE = {
    "stage": 0,
    "block": 1,
    "path": "layer1.1.bn3",
    "channels": 64,
    "reduction_base": 64,
    "resolution": [8, 8],
}


def test_fields_have_types(facts):
    manifest = Manifest.from_json(facts | {"sites": {"standard": [SITE]}})
    assert manifest.objectives == ("accuracy", "params")
    assert manifest.input_size == (3, 32, 32)
    assert manifest.data.num_val == 50
    assert manifest.device.type == "cpu"
    assert manifest.sites == {
        "standard": (
            Site(stage=0, block=1, path="layer1.1.bn3", channels=64, reduction_base=64, resolution=(8, 8)),
        )
    }


def test_what_is_not_there_has_a_default(facts):
    manifest = Manifest.from_json(facts)
    assert (manifest.status, manifest.provisional, manifest.budget.spent) == ("running", True, 0.0)
    assert (manifest.measured, manifest.finals, manifest.warnings) == ({}, None, ())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "sites": {"standard": [SITE]},
            "warnings": ["one"],
            "paths": {"data": "/images"},
            "epoch_seconds": 1.5,
            "compile": {"compile": False},
        },
        {
            "measured": {
                "latency": {"conditions": {"threads": 2, "versions": {"torch": "2"}}, "baseline": 6.5}
            }
        },
        {
            "finals": {
                "base_seeds": 2,
                "most_seeds": 4,
                "ended": "decided",
                "chosen": [{"key": "k", "reason": "front", "probability": 0.5}],
            },
            "importance": {"objective": {"stage0": 1.0}},
            "effects": [{"group": "stage0", "effect": 0.5}],
        },
    ],
)
def test_json_gives_an_equal_manifest_back(facts, changes):
    manifest = Manifest.from_json(facts | changes)
    written = json.loads(json.dumps(manifest.to_json()))
    assert Manifest.from_json(written) == manifest


@given(size=st.integers(0, 10**40), spent=st.floats(0, 1e9), name=st.text())
def test_numbers_and_text_survive(size, spent, name):
    facts = Manifest.from_json(FACTS).to_json() | {"name": name, "budget": {"spent": spent}}
    facts["space"] |= {"size": size}
    manifest = Manifest.from_json(json.loads(json.dumps(facts)))
    assert (manifest.name, manifest.budget.spent, manifest.space.size) == (name, spent, size)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"input_size": [3, 0, 32]}, "input_size.1 is 0, but input should be greater than 0"),
        ({"input_size": [3, 32]}, "it lacks input_size.2"),
        ({"objectives": "accuracy"}, "objectives is 'accuracy', but"),
        ({"data": None}, "data is None, but"),
        ({"data": {"name": "digits"}}, "it lacks data.fingerprint, data.num_classes, data.num_train"),
        ({"measured": {"latency": {"conditions": {}}}}, "it lacks measured.latency.baseline"),
        ({"measured": {"latency": {"conditions": {}, "baseline": 0}}}, "measured.latency.baseline is 0, but"),
        ({"budget": {"spent": -1}}, "budget.spent is -1, but"),
        ({"sites": {"standard": [{"stage": 0}]}}, "it lacks sites.standard.0.block"),
        ({"seed": "many"}, "seed is 'many', but"),
    ],
)
def test_damage_names_file_and_field(facts, changes, words):
    with pytest.raises(RunError) as caught:
        Manifest.from_json(facts | changes, "runs/a/manifest.json")
    assert str(caught.value).startswith(f"runs/a/manifest.json is damaged: {words}")


def test_schema_1_kept_latency_in_two_keys(facts):
    old = facts | {"schema": 1, "latency": {"threads": 1}, "baseline_latency_ms": 6.5}
    assert Manifest.from_json(old).measured == {"latency": Measured(conditions={"threads": 1}, baseline=6.5)}
    unmeasured = facts | {"schema": 1, "latency": None, "baseline_latency_ms": None}
    assert Manifest.from_json(unmeasured).measured == {}
    with pytest.raises(RunError, match=r"measured\.latency\.baseline is None"):
        Manifest.from_json(old | {"baseline_latency_ms": None})


def test_fields_are_replaced_by_values_or_their_json(facts):
    manifest = Manifest.from_json(facts)
    finals = Finals(base_seeds=2, most_seeds=4)
    assert manifest.updated(finals=finals).finals == finals
    assert manifest.updated(finals={"base_seeds": 2, "most_seeds": 4}).finals == finals
    with pytest.raises(RunError, match=r"x\.json is damaged: it lacks finals\.most_seeds"):
        manifest.updated("x.json", finals={"base_seeds": 2})


def test_a_graph_has_its_present_name_in_old_manifests(facts):
    old = {**facts, "schema": 1, "latency": {"mode": "cudagraph", "threads": 1}, "baseline_latency_ms": 2.0}
    assert Manifest.from_json(old).measured["latency"].conditions == {"mode": "graph", "threads": 1}
