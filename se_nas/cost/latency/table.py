"""A latency table: what SE costs on this device at every site and width, fitted to networks that ran here.

Random architectures are measured in turn with the unmodified backbone, and the latency that they add is fitted as a
sum over gates (``additive.fit``). Measuring networks with half of the sites gated determines each site's share with
far less noise than measuring one site at a time (a weighing design), and with each gate among the layers where it
will run. Networks that were held out of the fit then check the sum. Each of these is measured for longer, since the
check can be no more precise than its measurements.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from se_nas.architecture import Architecture
from se_nas.cost.closed_form import CostModel, checked_widths
from se_nas.cost.latency.additive import AddedLatency, fit, unknowns
from se_nas.cost.latency.meter import TIMING, LatencyMeter
from se_nas.cost.latency.time_limit import TimeLimit, TimeUpError
from se_nas.cost.settings import cache_folder, conditions_key
from se_nas.documents.typed import Positive, Real, check_schema, parse
from se_nas.errors import ConfigError, DeviceError, RunError
from se_nas.run import read_json, write_json
from se_nas.sites import ABSENT, native_width

_log = logging.getLogger(__name__)

SCHEMA = 2
MAX_TOTAL_ERROR = 0.01
"""Largest median error of a held-out prediction that passes, as a share of the latency."""
MAX_ADDED_ERROR = 0.15
"""Largest median error of a held-out prediction that passes, as a share of the latency that SE adds."""
_DESIGNS_PER_UNKNOWN = 4
_HELD_OUT = 8
_HELD_OUT_AT_LEAST = 4
"""If the time is up."""
_WIDTH = 0.005
_HELD_OUT_SHARE = 0.4
"""Share of the time for the networks that are held out."""
_BUILD_SHARE = 0.5
"""Most of the time that building may take before fewer networks are measured than are wanted."""
_MOMENT = 0.01
"""Seconds of a measurement that is as short as can be."""
_RESERVED_TIMINGS = 8
"""Timings' worth of the time left at the end: a round of them that has begun, and the statistics."""
_IN_PLACE_SHARE = 0.2
"""Share of the others' time for timing their gates separately."""

Sampler = Callable[[np.random.Generator], Architecture]


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """A network that was held out of the fit.

    Attributes:
        widths: its hidden widths, one for each site.
        measured: ratio to the unmodified backbone.
        interval: 95 % interval of ``measured``.
        predicted: the table's ratio.
    """

    widths: tuple[int, ...]
    measured: Positive
    interval: tuple[Real, Real]
    predicted: Real


@dataclass(frozen=True, kw_only=True)
class TableCheck:
    """How well the table predicts networks that were held out of the fit."""

    held_out: tuple[HeldOut, ...]

    @property
    def total_error(self) -> float:
        """Median of |predicted - measured| / measured."""
        return float(np.median([abs(row.predicted / row.measured - 1) for row in self.held_out]))

    @property
    def added_error(self) -> float:
        """Median of |predicted - measured| / |what SE adds|; infinite if nothing is added."""
        with np.errstate(divide="ignore"):
            errors = [
                np.float64(abs(row.predicted - row.measured)) / abs(row.measured - 1) for row in self.held_out
            ]
        return float(np.median(errors))

    @property
    def passed(self) -> bool:
        """Whether both errors are within ``MAX_TOTAL_ERROR`` and ``MAX_ADDED_ERROR``."""
        return self.total_error < MAX_TOTAL_ERROR and self.added_error < MAX_ADDED_ERROR

    @property
    def noise(self) -> float:
        """Median half width of the intervals of the measured ratios."""
        return float(np.median([(row.interval[1] - row.interval[0]) / 2 for row in self.held_out]))

    def describe(self) -> str:
        """The check in a sentence."""
        verdict = "passes" if self.passed else "FAILS"
        return (
            f"The latency table {verdict}: on {len(self.held_out)} held-out networks, the median error is"
            f" {100 * self.total_error:.2f} % of the latency (limit {100 * MAX_TOTAL_ERROR:.0f} %) and"
            f" {100 * self.added_error:.1f} % of what SE adds (limit {100 * MAX_ADDED_ERROR:.0f} %); they were"
            f" measured to ±{100 * self.noise:.2f} %."
        )


@dataclass(frozen=True, kw_only=True)
class LatencyTable:
    """Predicted latency of every architecture of a backbone at one position.

    Attributes:
        key: what the table is for: backbone, position, sites, block and conditions.
        plain: the widths of the unmodified backbone.
        baseline_ms: its latency in milliseconds.
        gates: what gates add.
        conditions: under which everything was measured.
        check: how well it predicts.
    """

    key: str
    plain: tuple[int, ...]
    baseline_ms: Positive
    gates: AddedLatency
    conditions: Mapping[str, Any]
    check: TableCheck

    @classmethod
    def measure(
        cls,
        meter: LatencyMeter,
        sample: Sampler,
        *,
        max_seconds: float = 300.0,
        seed: int = 0,
        progress: Callable[[int, int], object] = lambda done, total: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> LatencyTable:
        """Measure, fit and check a table.

        Args:
            meter: keeps the unmodified backbone and the conditions.
            sample: draws an architecture of one position, such as ``SearchSpace.sample``.
            max_seconds: time limit, building the networks included. With little time, fewer are measured.
            seed: of the draws.
            progress: is called with the number of networks measured so far and of all.
            clock: seconds that pass.

        If the machine gets so busy that the time is up before all are measured, the table is fitted to those that
        were, as long as they suffice; a warning in the log says how many were not.

        Raises:
            ConfigError: ``sample`` draws too few different architectures to fit and to check a table.
            TimeUpError: the time is too short for as many.
        """
        limit = TimeLimit(max_seconds, clock)
        with limit.enforced():
            return cls._measured_within(limit, meter, sample, seed, progress)

    @classmethod
    def _measured_within(
        cls,
        limit: TimeLimit,
        meter: LatencyMeter,
        sample: Sampler,
        seed: int,
        progress: Callable[[int, int], object],
    ) -> LatencyTable:
        generator = np.random.default_rng(seed)
        first = sample(generator)
        model = CostModel.for_architecture(first, meter.settings.input_size, meter.settings.num_classes)
        plain = np.array([native_width(site) for site in first.sites])
        fewest = unknowns(model) + _HELD_OUT
        wanted = _DESIGNS_PER_UNKNOWN * unknowns(model) + _HELD_OUT
        designs = _distinct(sample, first, wanted, generator)
        if len(designs) < fewest:
            raise ConfigError(
                f"a latency table of {meter.plain.backbone} needs {fewest} different"
                f" architectures, but only {len(designs)} were found; measure the candidates themselves instead."
            )
        try:
            if limit.left <= 0:
                raise TimeUpError
            # What one takes in any case: building, warming up, and a few timings.
            whole = limit.timed(lambda: meter.measure(designs[0], width=1.0, max_seconds=_MOMENT))
            gates = (
                limit.timed(lambda: meter.gate_shares(designs[0], max_seconds=_MOMENT))
                if meter.sees_gates
                else 0.0
            )
        except TimeUpError:
            raise TimeUpError(
                f"the time limit is too short for a latency table of {meter.plain.backbone}: it had passed before a"
                " network could be measured; allow more time, or measure on an idle machine."
            ) from None
        if limit.left < fewest * whole + unknowns(model) * gates:
            raise TimeUpError(
                f"the time limit is too short for a latency table of {meter.plain.backbone}: measuring a network takes"
                f" at least {whole + gates:.1f} s here, and {fewest} are needed, so allow"
                f" {2 * (fewest + 1) * (whole + gates):.0f} s or more."
            )
        fitting = (_BUILD_SHARE * limit.left - _HELD_OUT * whole) / max(whole + gates, 1e-9)
        designs = designs[: max(fewest, _HELD_OUT + int(min(fitting, len(designs))))]
        # Spread over the whole time, so that a drift of the device is in the fit and in the check alike.
        held = np.isin(np.arange(len(designs)), np.linspace(0, len(designs) - 1, _HELD_OUT).round())
        least = np.where(held, whole, whole + gates)
        weights = np.where(
            held, _HELD_OUT_SHARE / _HELD_OUT, (1 - _HELD_OUT_SHARE) / (len(designs) - _HELD_OUT)
        )
        rows, shares = [], []
        try:
            for index, arch in enumerate(designs):
                reserve = _RESERVED_TIMINGS * limit.longest(TIMING)
                seconds = max(_MOMENT, limit.share(least[index:], weights[index:], reserve))
                if meter.sees_gates and not held[index]:
                    shares.append(meter.gate_shares(arch, max_seconds=seconds * _IN_PLACE_SHARE))
                    seconds *= 1 - _IN_PLACE_SHARE
                rows.append(meter.measure(arch, width=_WIDTH, max_seconds=seconds))
                _log.debug(
                    "network %d: %.4f of the backbone's latency, %s", index, rows[-1].ratio, rows[-1].interval
                )
                progress(index + 1, len(designs))
        except TimeUpError:
            total, count = len(designs), len(rows)
            designs, held = designs[:count], held[:count]
            shares = shares[: int((~held).sum())]
            if held.sum() < _HELD_OUT_AT_LEAST or (~held).sum() < unknowns(model):
                raise TimeUpError(
                    f"the time limit has passed: of {total} networks for a latency table of {meter.plain.backbone},"
                    f" {total - count} were not measured, and {fewest} are needed; allow more time, or measure on"
                    " an idle machine."
                ) from None
            _log.warning(
                "the time limit has passed: of %d networks for the latency table, %d were not measured; the table"
                " is made from the rest",
                total,
                total - count,
            )
        ratios = np.array([row.ratio for row in rows])
        spreads = np.array([row.interval[1] - row.interval[0] for row in rows])
        widths = np.array([arch.widths for arch in designs])
        added = fit(
            model,
            plain,
            widths[~held],
            ratios[~held],
            np.maximum(spreads[~held], _WIDTH),
            np.array(shares) if shares else None,
        )
        predicted = 1 + added.added(widths[held], plain)
        check = TableCheck(
            held_out=tuple(
                HeldOut(
                    widths=designs[i].widths,
                    measured=rows[i].ratio,
                    interval=rows[i].interval,
                    predicted=float(ratio),
                )
                for i, ratio in zip(np.flatnonzero(held).tolist(), predicted, strict=True)
            )
        )
        return cls(
            key=table_key(first, meter.conditions),
            plain=tuple(plain.tolist()),
            baseline_ms=float(np.median([row.baseline_ms for row in rows])),
            gates=added,
            conditions=meter.conditions,
            check=check,
        )

    @property
    def passed(self) -> bool:
        """Whether the held-out check passed."""
        return self.check.passed

    def ratio(self, widths: np.ndarray, *, even_if_failed: bool = False) -> np.ndarray:
        """Predicted latency against the unmodified backbone's.

        Args:
            widths: integers of shape (n, number of sites), as in ``Architecture.widths``.
            even_if_failed: predict with a table that failed its check.

        Returns:
            float64 of shape (n,).

        Raises:
            DeviceError: the table failed its check.
            ConfigError: the array has another shape or type.
        """
        if not (self.passed or even_if_failed):
            raise DeviceError(
                f"{self.check.describe()} Measure again on an idle device, or measure each candidate."
            )
        checked = checked_widths(widths, len(self.plain))
        return 1 + self.gates.added(checked, np.array(self.plain))

    def predict(self, widths: np.ndarray, *, even_if_failed: bool = False) -> np.ndarray:
        """Predicted latency in milliseconds, float64 of shape (n,); arguments and errors as ``ratio``."""
        return self.baseline_ms * self.ratio(widths, even_if_failed=even_if_failed)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; ``from_dict`` gives an equal table back."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LatencyTable:
        """Inverse of ``to_dict``.

        Raises:
            RunError: this is not a table, or one of another schema.
        """
        check_schema(data, SCHEMA, "the latency table", RunError)
        if data["schema"] != SCHEMA:
            raise RunError(f"this is not a latency table of schema {SCHEMA}; measure it again.")
        try:
            table = parse(cls, data)
        except ValueError as error:
            raise RunError(f"this is not a latency table: {error}.") from error
        sites = len(table.plain)
        lists = (
            table.gates.fixed,
            table.gates.slope,
            *(row.widths for row in table.check.held_out),
        )
        if any(len(one) != sites for one in lists):
            raise RunError(f"this is not a latency table: its lists are not all of {sites} sites.")
        return table

    def save(self) -> Path:
        """Save the table for later searches on this device and return the path."""
        path = _path(self.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, self.to_dict())
        return path

    @classmethod
    def load(cls, meter: LatencyMeter, arch: Architecture) -> LatencyTable | None:
        """The saved table for the position and sites of ``arch`` under the meter's conditions, or None.

        A file that cannot be read counts as missing; the next measurement overwrites it.
        """
        path = _path(table_key(arch, meter.conditions))
        try:
            return cls.from_dict(read_json(path))
        except RunError:
            return None


def table_key(arch: Architecture, conditions: Mapping[str, Any]) -> str:
    """16 hex digits for what a table depends on: backbone, sites, kind of block, conditions."""
    about = replace(arch, widths=tuple(native_width(site) for site in arch.sites)).to_dict()
    text = json.dumps(
        {"schema": SCHEMA, "about": about, "conditions": conditions_key(conditions)}, sort_keys=True
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def random_sampler(arch: Architecture) -> Sampler:
    """Draws architectures of ``arch``'s position: a gate at each site with chance one half, γ from 2 to 32."""

    def sample(generator: np.random.Generator) -> Architecture:
        widths = []
        for site in arch.sites:
            if not generator.integers(2):
                widths.append(ABSENT)
            elif site.native and site.native_rd_channels is None:
                widths.append(native_width(site))
            else:
                widths.append(site.rd_channels(float(generator.choice([2, 4, 8, 16, 32]))))
        return replace(arch, widths=tuple(widths))

    return sample


def _distinct(
    sample: Sampler, first: Architecture, wanted: int, generator: np.random.Generator
) -> Sequence[Architecture]:
    found = {} if first.is_plain else {first.key: first}
    for _ in range(wanted * 50):
        if len(found) >= wanted:
            break
        arch = sample(generator)
        if arch.position == first.position and not arch.is_plain:
            found.setdefault(arch.key, arch)
    return list(found.values())


def _path(key: str) -> Path:
    return cache_folder() / "latency" / f"{key}.json"
