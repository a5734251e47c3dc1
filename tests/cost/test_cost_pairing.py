"""Statistics of paired timings, with clocks and timings that are made up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
import pytest

from se_nas.cost.latency.paired import block_length, look_schedule, measure_pairs, ratio_and_interval, warm_up


class FakeDevice:
    """A clock that only runs move, and the order of the runs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order = ""

    def runner(self, name: str, times: Iterator[float]) -> Callable[[], float]:
        def run() -> float:
            self.order += name
            time = next(times)
            self.now += time / 1000
            return time

        return run


def forever(value: float) -> Iterator[float]:
    while True:
        yield value


def noisy(value: float, spread: float, seed: int) -> Iterator[float]:
    generator = np.random.default_rng(seed)
    while True:
        yield value * float(np.exp(spread * generator.normal()))


def measure(device: FakeDevice, a: Iterator[float], b: Iterator[float], **options: float):
    settings = {"width": 0.01, "max_seconds": 1e9, "min_pairs": 30} | options
    return measure_pairs(device.runner("A", a), device.runner("B", b), clock=lambda: device.now, **settings)


def test_order_is_a_b_b_a() -> None:
    device = FakeDevice()
    pairs = measure(device, forever(10.0), forever(11.0))
    assert device.order == "ABBA" * 15
    assert len(pairs.baseline) == len(pairs.candidate) == 30
    assert pairs.narrow_enough
    assert pairs.ratio == pytest.approx(1.1)
    assert pairs.interval == pytest.approx((1.1, 1.1))


def test_steady_drift_cancels() -> None:
    device = FakeDevice()

    def drifting(factor: float) -> Iterator[float]:
        while True:
            yield factor * (10 + device.now)

    assert measure(device, drifting(1.0), drifting(1.2)).ratio == pytest.approx(1.2, rel=1e-4)


def test_looks_are_fixed_in_advance() -> None:
    assert list(islice(look_schedule(30), 5)) == [30, 46, 70, 106, 160]
    assert next(look_schedule(31)) == 32
    assert next(look_schedule(1)) == 8
    device = FakeDevice()
    pairs = measure(device, noisy(10, 0.02, 0), noisy(10, 0.02, 1))
    assert pairs.narrow_enough
    assert len(pairs.baseline) in list(islice(look_schedule(30), 12))
    assert pairs.interval[1] - pairs.interval[0] <= 0.01


def test_the_time_limit_ends_it_and_is_said() -> None:
    device = FakeDevice()
    pairs = measure(device, noisy(10, 0.3, 0), noisy(10, 0.3, 1), max_seconds=2.0)
    assert not pairs.narrow_enough
    assert 2.0 <= pairs.seconds < 2.1
    assert pairs.interval[1] - pairs.interval[0] > 0.01


@pytest.mark.parametrize(
    ("spread", "least_seconds", "goes_on"),
    [(0.01, 4.0, True), (0.01, 0.5, False), (0.3, 4.0, False)],
)
def test_a_short_limit_gives_way_where_the_interval_is_in_reach(
    spread: float, least_seconds: float, goes_on: bool
) -> None:
    """By hand: 2 · 2.24 · 1.253 · √2 · 0.01 / √n = 0.01 at n = 63 pairs, which take 1.3 s; at 30 %, 19 minutes."""
    pairs = measure(
        FakeDevice(),
        noisy(10, spread, 0),
        noisy(10, spread, 1),
        max_seconds=0.2,
        least_seconds=least_seconds,
    )
    assert pairs.narrow_enough == goes_on
    assert (pairs.seconds > 0.3) == goes_on
    assert pairs.seconds <= least_seconds + 0.1


def test_the_time_that_would_do_is_known_beforehand() -> None:
    """By hand: 2 · 2.24 · 1.253 · √2 · 0.05 / √n = 0.01 at n = 1576 pairs, which take 32 s."""
    for max_seconds in (0.2, 1.0, 8.0):
        found = [
            measure(
                FakeDevice(), noisy(10, 0.05, seed), noisy(10, 0.05, seed + 100), max_seconds=max_seconds
            ).seconds_needed
            for seed in range(8)
        ]
        assert np.median(found) == pytest.approx(32, rel=0.3)
    few = measure(FakeDevice(), forever(10.0), forever(10.0), max_seconds=0.001)
    assert few.seconds_needed == pytest.approx(30 * 0.02, rel=1e-6)


def test_eight_pairs_are_measured_even_if_time_is_up() -> None:
    pairs = measure(FakeDevice(), forever(10.0), forever(10.0), max_seconds=0.001)
    assert len(pairs.baseline) == 8
    assert not pairs.narrow_enough


def autoregression(generator: np.random.Generator, count: int, correlation: float) -> np.ndarray:
    noise = generator.normal(size=count) * np.sqrt(1 - correlation**2)
    series = np.empty(count)
    series[0] = generator.normal()
    for step in range(1, count):
        series[step] = correlation * series[step - 1] + noise[step]
    return series


def disturbances(kind: str, generator: np.random.Generator, count: int) -> np.ndarray:
    """Logarithms of timings in the order taken."""
    if kind == "spikes":
        spikes = (generator.random(count) < 0.1) * generator.exponential(0.5, count)
        return 0.01 * generator.normal(size=count) + spikes
    if kind == "clock states":
        states = np.cumsum(generator.random(count) < 0.02) % 2
        return 0.01 * generator.normal(size=count) + 0.15 * states
    return 0.03 * autoregression(
        generator, count, {"independent": 0.0, "correlated": 0.5, "drifting": 0.95}[kind]
    )


@pytest.mark.parametrize("kind", ["independent", "correlated", "drifting", "spikes", "clock states"])
def test_intervals_cover_after_repeated_looks(kind: str) -> None:
    """250 A/A runs: at a true coverage of 95 %, fewer than 91 % hold 1 with a chance of 0.3 %."""
    generator = np.random.default_rng(0)
    covered = []
    for _ in range(250):
        times = np.exp(disturbances(kind, generator, 900)).reshape(-1, 4)
        pairs = measure(
            FakeDevice(), iter(times[:, [0, 3]].ravel()), iter(times[:, [1, 2]].ravel()), max_seconds=0.4
        )
        covered.append(pairs.interval[0] <= 1 <= pairs.interval[1])
    assert np.mean(covered) >= 0.91


@pytest.mark.parametrize("drawn_anew", [True, False])
def test_what_places_in_memory_are_worth_is_covered_if_they_are_drawn_anew(drawn_anew: bool) -> None:
    """150 A/A runs; at a true coverage of 95 %, fewer than 90 % hold 1 with a chance of 0.5 %."""
    generator = np.random.default_rng(0)
    covered = []
    for _ in range(150):
        places = list(0.007 * generator.normal(size=2))

        def move(places: list[float] = places) -> None:
            if drawn_anew:
                places[:] = 0.007 * generator.normal(size=2)

        def timings(side: int, places: list[float] = places) -> Iterator[float]:
            while True:
                yield float(np.exp(places[side] + 0.01 * generator.normal()))

        pairs = measure(FakeDevice(), timings(0), timings(1), max_seconds=0.2, before_quartet=move)
        covered.append(pairs.interval[0] <= 1 <= pairs.interval[1])
    if drawn_anew:
        assert np.mean(covered) >= 0.9
    else:
        assert np.mean(covered) < 0.5


def test_interval_is_repeatable_and_symmetric_in_logarithms() -> None:
    generator = np.random.default_rng(0)
    a, b = (10 * np.exp(0.05 * generator.normal(size=60)) for _ in range(2))
    ratio, (low, high) = ratio_and_interval(a, b)
    assert ratio_and_interval(a, b) == (ratio, (low, high))
    assert ratio**2 == pytest.approx(low * high)
    swapped, (swapped_low, swapped_high) = ratio_and_interval(b, a)
    assert swapped == pytest.approx(1 / ratio)
    assert (swapped_low, swapped_high) == pytest.approx((1 / high, 1 / low))


def test_blocks_grow_with_autocorrelation() -> None:
    generator = np.random.default_rng(0)
    independent = block_length(generator.normal(size=400))
    correlated = block_length(autoregression(generator, 400, 0.9))
    assert independent <= 4 < correlated <= 400 // 6
    assert block_length(np.zeros(8)) == 1


def test_warm_up_ends_when_times_no_longer_fall() -> None:
    device = FakeDevice()
    falling = iter([50.0] * 5 + [30.0] * 5 + [20.0] * 5 + [19.9] * 5 + [1.0] * 5)
    assert warm_up(device.runner("A", falling), max_seconds=1e9, clock=lambda: device.now) == 19.9
    assert len(device.order) == 20


def test_warm_up_has_a_time_limit() -> None:
    device = FakeDevice()

    def ever_faster() -> Iterator[float]:
        time = 1000.0
        while True:
            time *= 0.99
            yield time

    warm_up(device.runner("A", ever_faster()), max_seconds=9.0, clock=lambda: device.now)
    assert len(device.order) == 10
