"""Statistics of a paired timing: A B B A in turn, and an interval of the ratio.

The unit is the quartet A B B A: a pair A B and a pair B A. The estimate is the geometric mean of two medians of
B / A, one over the pairs of each order, so that steady drift cancels. On a shared machine it scatters a quarter less
than the median over quartets, each of which is disturbed whenever one of its four timings is, and far less than the
ratio of the two sides' medians, in which disturbances of both sides do not cancel. Timings of one process are
autocorrelated (clocks, caches, neighbours), so the spread comes from a circular block bootstrap over quartets
(Politis & Romano 1992) with Andrews' plug-in block length for a first-order autoregression (Econometrica 59:817,
1991). The interval uses Student's quantile with one degree of freedom less than there are blocks.

Stopping as soon as an interval looks narrow favours intervals that are narrow by luck, and these contain the truth
too rarely. So there is a minimum number of pairs, looks follow a fixed schedule that grows by half, and the quantile
is that of 97.5 %, which covers 95 % after such looks (tests/cost/test_cost_pairing.py on simulated series,
``benchmarks/costs.py`` on real A/A runs).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

_NOMINAL = 0.975
_RESAMPLES = 1000
_LOOK_GROWTH = 1.5
_FEWEST_PAIRS = 8
_WARM_UP_WINDOW = 5
_WARM_UP_TOLERANCE = 0.02


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Timings of two functions taken in turn.

    Attributes:
        baseline: milliseconds of A, in the order measured.
        candidate: milliseconds of B, as many.
        ratio: candidate against baseline, from the medians over pairs of either order.
        interval: the 95 % interval of ``ratio``.
        seconds: how long it took.
        narrow_enough: whether the interval got as narrow as asked before the time was up.
        seconds_needed: about how long a measurement takes until the interval is as narrow as asked: widths fall
            with the square root of the time, and the fewest pairs allowed take their time.
    """

    baseline: np.ndarray
    candidate: np.ndarray
    ratio: float
    interval: tuple[float, float]
    seconds: float
    narrow_enough: bool
    seconds_needed: float


def measure_pairs(
    baseline: Callable[[], float],
    candidate: Callable[[], float],
    *,
    width: float,
    max_seconds: float,
    min_pairs: int,
    least_seconds: float = 0.0,
    before_quartet: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
) -> Pairs:
    """Time A B B A, A B B A, … until the interval of the ratio is narrow or the time is up.

    Args:
        baseline: runs A once and gives its time in milliseconds.
        candidate: runs B once and gives its time in milliseconds.
        width: wanted width of the interval, above 0; 0.01 is one percent of the ratio's unit.
        max_seconds: time limit; eight pairs are measured in any case.
        min_pairs: pairs before the first look.
        least_seconds: the time limit instead of a shorter ``max_seconds``, if the interval is expected to be as
            narrow as asked by then.
        before_quartet: draws anew what timings of the same two functions have in common, such as their places
            in memory, so that the interval covers it.
        clock: seconds that pass.
    """
    start = clock()
    limit = max_seconds
    a_times: list[float] = []
    b_times: list[float] = []
    looks = look_schedule(min_pairs)
    next_look = next(looks)
    while True:
        before_quartet()
        a_first, b_first, b_second, a_second = baseline(), candidate(), candidate(), baseline()
        a_times += (a_first, a_second)
        b_times += (b_first, b_second)
        pairs = len(a_times)
        out_of_time = clock() - start >= limit and pairs >= _FEWEST_PAIRS
        if pairs < next_look and not out_of_time:
            continue
        ratio, interval = ratio_and_interval(np.array(a_times), np.array(b_times))
        reached = interval[1] - interval[0]
        narrow = pairs >= min_pairs and reached <= width
        seconds = clock() - start
        needed = seconds * max(_share_needed(a_times, b_times, reached / width), min_pairs / pairs)
        if out_of_time and not narrow and limit < least_seconds and needed <= least_seconds:
            limit, out_of_time = least_seconds, False
        if narrow or out_of_time:
            return Pairs(
                baseline=np.array(a_times),
                candidate=np.array(b_times),
                ratio=ratio,
                interval=interval,
                seconds=seconds,
                narrow_enough=narrow,
                seconds_needed=needed,
            )
        while next_look <= pairs:
            next_look = next(looks)


def look_schedule(min_pairs: int) -> Iterator[int]:
    """Numbers of pairs at which the interval is looked at: even, growing by half each time."""
    pairs = max(min_pairs + min_pairs % 2, _FEWEST_PAIRS)
    while True:
        yield pairs
        pairs = math.ceil(pairs * _LOOK_GROWTH / 2) * 2


def ratio_and_interval(
    baseline: np.ndarray, candidate: np.ndarray, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """Ratio of candidate to baseline and its 95 % interval, symmetric on the logarithmic scale.

    Args:
        baseline: times of A in the order measured, two of each quartet; an even number of at least 4.
        candidate: times of B, as many.
        seed: of the resampling; equal series and seeds give equal intervals.
    """
    quartets = np.log(candidate / baseline).reshape(-1, 2)
    count = len(quartets)
    length = block_length(quartets.mean(axis=1))
    starts = np.random.default_rng(seed).integers(0, count, (_RESAMPLES, -(-count // length)))
    index = ((starts[:, :, None] + np.arange(length)) % count).reshape(_RESAMPLES, -1)[:, :count]
    spread = float(np.median(quartets[index], axis=1).mean(axis=1).std(ddof=1))
    middle = float(np.median(quartets, axis=0).mean())
    reach = spread * _student(count / length)
    return math.exp(middle), (math.exp(middle - reach), math.exp(middle + reach))


def _student(blocks: float) -> float:
    # The quantile function of `scipy.stats.t`, which takes 60 MB to import. Runs without latencies need neither.
    from scipy.special import stdtrit

    return float(stdtrit(max(1.0, blocks - 1), (1 + _NOMINAL) / 2))


def _share_needed(baseline: list[float], candidate: list[float], excess: float) -> float:
    """How many times the pairs so far make an interval narrow that is ``excess`` times too wide.

    With more pairs, Student's quantile shrinks, too.
    """
    quartets = np.log(np.array(candidate) / np.array(baseline)).reshape(-1, 2).mean(axis=1)
    shrinking = _student(len(quartets) / block_length(quartets)) / _student(math.inf)
    return (excess / shrinking) ** 2


def block_length(series: np.ndarray) -> int:
    """Number of successive values that are resampled together: 1 without autocorrelation, at most a sixth.

    The autocorrelation is that of what moves a median: on which side of it each value lies.
    """
    count = len(series)
    sides = np.sign(series - np.median(series))
    sides = sides - sides.mean()
    energy = float(sides @ sides)
    correlation = float(sides[1:] @ sides[:-1]) / energy if energy > 0 else 0.0
    correlation = min(max(correlation, 0.0), 0.97)
    length = (math.sqrt(6) * correlation / (1 - correlation**2)) ** (2 / 3) * count ** (1 / 3)
    return max(1, min(math.ceil(length), count // 6))


def warm_up(
    run: Callable[[], float], *, max_seconds: float, clock: Callable[[], float] = time.monotonic
) -> float:
    """Run until the time no longer falls: two successive windows of five whose medians agree within 2 %.

    Returns:
        the last window's median in milliseconds.
    """
    start = clock()
    before = math.inf
    while True:
        now = float(np.median([run() for _ in range(_WARM_UP_WINDOW)]))
        if now >= before * (1 - _WARM_UP_TOLERANCE) or clock() - start >= max_seconds:
            return now
        before = now
