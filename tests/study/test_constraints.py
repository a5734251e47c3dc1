from types import SimpleNamespace

import pytest
from small_cases import SEARCH, table

from se_nas.cost import Limit
from se_nas.errors import ConfigError, InfeasibleError
from se_nas.objectives import LATENCY
from se_nas.run import RunFolder
from se_nas.study import search
from se_nas.study.config import SearchConfig
from se_nas.study.constraints import Constraints
from se_nas.study.plan import resolve


def config(tmp_path, **changes):
    given = {"objectives": "accuracy,params", "final_seeds": 0, "runs": str(tmp_path / "runs"), **changes}
    return SearchConfig(**{**SEARCH, **given})


def limited(plan, latency, limit):
    """The constraints of a plan whose latency is another one and limited."""
    limits = [Limit.parse(limit, "latency")]
    return Constraints(plan.space, {**plan.axes, "latency": latency}, limits, plan.baselines)


def plain_params():
    import se_nas

    model = se_nas.build_model(se_nas.Architecture.plain("test_resnet"), num_classes=10)
    return sum(parameter.numel() for parameter in model.parameters())


def test_a_limit_that_nothing_meets_is_refused_with_the_smallest_that_would_do(tmp_path):
    with pytest.raises(InfeasibleError, match=rf"lowest limit that one meets is {plain_params()}"):
        search(config(tmp_path, max_params="10K", trials=3))
    assert not (tmp_path / "runs").exists()


def test_a_limit_holds_for_every_candidate_and_baseline(tmp_path):
    limit = plain_params() + 6_000
    run = search(config(tmp_path, max_params=str(limit), trials=5, sampler="random"))
    rows = table(run.path)
    assert len(rows) == 5
    assert all(row["num_params"] <= limit for row in rows)


def test_a_limit_that_everything_meets_is_named(tmp_path):
    run = search(config(tmp_path, max_params="1.9x", trials=1))
    assert any("has no effect" in warning for warning in RunFolder.open(run.path).manifest.warnings)


@pytest.mark.parametrize("text", ["27Q", "-3M", "many", "5ms"])
def test_a_limit_in_an_unknown_unit(tmp_path, text):
    with pytest.raises(ConfigError, match=f"{text}"):
        search(config(tmp_path, max_params=text, trials=1))
    assert not (tmp_path / "runs").exists()


def test_a_candidate_too_large_to_be_measured_is_not_allowed(tmp_path):
    """As any other that is over the limit; the search goes on."""

    def fields(architecture):
        if architecture.num_gated:
            raise InfeasibleError("the network does not fit into the device's memory")
        return {"latency_ms": 1.0}

    plan = resolve(config(tmp_path, trials=1))
    axis = SimpleNamespace(fields=fields, baseline=1.0, objective=LATENCY)
    constraints = limited(plan, axis, "2x")
    assert constraints.allow(plan.baselines["plain"])
    assert not constraints.allow(plan.baselines["all_se_16"])


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (
            "0.9x",
            "no architecture of the space has latency within 0.9x; the lowest limit that one meets is 1x",
        ),
        ("9.9ms", "within 9.9 ms; the lowest limit that one meets is 10ms"),
        ("3x", None),
        ("1.2x", ""),
    ],
)
def test_a_latency_limit_is_judged_over_the_whole_space_where_a_table_predicts(tmp_path, limit, message):
    plan = resolve(config(tmp_path, trials=1))

    def by_widths():
        return {plan.space.position: lambda widths: 10.0 * (1 + 0.2 * (widths > 0).sum(axis=1))}

    constraints = limited(plan, SimpleNamespace(baseline=10.0, by_widths=by_widths), limit)
    if message:
        with pytest.raises(InfeasibleError, match=message):
            constraints.check()
    else:
        notes = constraints.check()
        assert ["has no effect" in note for note in notes] == ([True] if message is None else [])
