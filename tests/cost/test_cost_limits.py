"""Limits: what is read, what is refused, what is said of a space."""

from __future__ import annotations

import pytest

from se_nas.cost import Limit, Range, check_limits, format_cost
from se_nas.errors import ConfigError, InfeasibleError
from se_nas.objectives import COSTS


def reach(low: float, high: float, exact: bool = True) -> Range:
    middle = (low + high) / 2
    return Range(
        minimum=low, lower_quartile=middle, median=middle, upper_quartile=middle, maximum=high, exact=exact
    )


@pytest.mark.parametrize(
    ("text", "cost", "limit", "relative"),
    [
        ("27M", "params", 27e6, False), ("4.2G", "macs", 4.2e9, False), ("31000", "params", 31_000, False),
        (" .5 k ", "activations", 500, False), ("1.05x", "latency", 1.05, True), ("2X", "macs", 2, True),
        ("6.5ms", "latency", 6.5, False), ("800us", "latency", 0.8, False), ("800µs", "latency", 0.8, False),
        ("0.1s", "latency", 100, False), ("1e7", "params", 1e7, False),
    ],
)  # fmt: skip
def test_parse(text: str, cost: str, limit: float, relative: bool) -> None:
    found = Limit.parse(text, cost)
    assert (found.value, found.relative) == (pytest.approx(limit), relative)


@pytest.mark.parametrize(
    ("text", "cost", "message"),
    [
        ("27Q", "params", "'Q'; allowed: no unit, K, M, G, x"),
        ("27MB", "params", "'MB'"),
        ("6.5", "latency", "no unit; allowed: us, ms, s, x"),
        ("6.5M", "latency", "'M'"),
        ("5ms", "macs", "'ms'"),
        ("-3M", "macs", "above 0"),
        ("0", "macs", "above 0"),
        ("nan", "macs", "above 0"),
        ("", "macs", "above 0"),
        ("1e999", "macs", "above 0"),
        ("1M", "parms", "Did you mean 'params'"),
    ],
)
def test_mistakes_are_named(text: str, cost: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        Limit.parse(text, cost)


def test_the_limit_itself_is_within() -> None:
    limit = Limit.parse("27M", "params")
    assert limit.allows(27_000_000)
    assert not limit.allows(27_000_001)


def test_relative_limits_need_the_backbone() -> None:
    limit = Limit.parse("1.05x", "latency")
    assert limit.allows(10.5, baseline=10.0)
    assert not limit.allows(10.6, baseline=10.0)
    with pytest.raises(ConfigError, match="unmodified backbone"):
        limit.allows(10.0)


def test_infeasible_names_the_smallest_that_would_do() -> None:
    ranges = {"params": reach(11_689_512, 12_040_072), "latency": reach(5.00011, 6)}
    own = {"params": 11_689_512.0, "latency": 5.0}
    for text, cost, smallest in [
        ("11M", "params", "11689512"),
        ("0.9x", "params", "1x"),
        ("4ms", "latency", "5.0002ms"),
        ("1x", "latency", "1.0001x"),
    ]:
        with pytest.raises(InfeasibleError, match=f"meets is {smallest}") as caught:
            check_limits([Limit.parse(text, cost)], ranges, own)
        named = str(caught.value).split(" meets is ")[1].rstrip(".")
        assert check_limits([Limit.parse(named, cost)], ranges, own) == []


def test_idle_limits_are_said() -> None:
    ranges = {"params": reach(11_689_512, 12_040_072), "macs": reach(1e9, 2e9, exact=False)}
    limits = [Limit.parse("13M", "params"), Limit.parse("12M", "params"), Limit.parse("3G", "macs")]
    idle = check_limits(limits, ranges, {})
    assert len(idle) == 2
    assert "13M" in idle[0]
    assert "12040072" in idle[0]
    assert "as far as is known" in idle[1]


@pytest.mark.parametrize(
    ("cost", "value", "text"),
    [
        ("params", 27e6, "27M"),
        ("macs", 4_111_512_576, "4.112G"),
        ("params", 12, "12"),
        ("latency", 6.5, "6.5 ms"),
    ],
)
def test_costs_for_people(cost: str, value: float, text: str) -> None:
    assert format_cost(COSTS[cost], value) == text
