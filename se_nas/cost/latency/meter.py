"""Latency measured on the user's device, against the unmodified backbone in the same minutes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from se_nas.architecture import Architecture
from se_nas.arguments import checked
from se_nas.cost.backends import Prepared
from se_nas.cost.latency.paired import Pairs, measure_pairs, warm_up
from se_nas.cost.latency.time_limit import step, time_left
from se_nas.cost.preparation import cpu_threads, infeasible_if_out_of_memory, prepare_inference
from se_nas.cost.settings import AUTO, LatencySettings, conditions, device_lock
from se_nas.errors import ConfigError
from se_nas.sites import ABSENT, image_size, native_width
from se_nas.wording import as_words

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

BUILD, INFERENCE, TIMING = "build", "inference", "timing"
"""Steps of a measurement that cannot be interrupted: a network is built, runs once, is timed once."""
_SAMPLE_MS = 2.0
_MOST_ITERATIONS = 50
_WARM_UP_SHARE = 0.25


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Latency of one inference of a batch, and how certain it is.

    Attributes:
        median_ms: median time of the network in milliseconds.
        ratio: time against the unmodified backbone, measured in turn (from medians over pairs A B and B A).
        interval: 95 % interval of ``ratio``.
        repetitions: pairs of timings.
        baseline_ms: median time of the unmodified backbone in the same minutes, in milliseconds.
        throughput: images per second.
        peak_memory: bytes that one inference holds at most, weights included; None if the backend cannot say.
        conditions: device, clocks, threads, versions and settings, JSON-ready.
        narrow_enough: whether the interval got as narrow as asked before the time was up.
        seconds: how long the measurement took, without building and warming up.
        note: what a reader should know, or None.
    """

    median_ms: float
    ratio: float
    interval: tuple[float, float]
    repetitions: int
    baseline_ms: float
    throughput: float
    peak_memory: int | None
    conditions: dict[str, Any]
    narrow_enough: bool
    seconds: float
    note: str | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self) | {"interval": list(self.interval)}


class LatencyMeter:
    """Measures candidates against the unmodified backbone, under the same conditions.

    Args:
        arch: any architecture of the backbone; candidates are measured against the unmodified backbone.
        settings: the conditions.

    Attributes:
        settings: the conditions, with the device and the mode that were found.
        conditions: everything that the timings depend on, JSON-ready (``settings.conditions``).
        mode_note: why mode "auto" did not take the best mode for this device, or None.

    Raises:
        BackboneError: the backbone cannot take images of this size.
        ConfigError: the backend is unknown or lacks a setting.
        DeviceError: the device does not exist.
        InfeasibleError: the unmodified backbone is too large for the memory.
    """

    def __init__(self, arch: Architecture, settings: LatencySettings | None = None) -> None:
        from se_nas.device import resolve_device

        settings = settings or LatencySettings()
        self._device = resolve_device(settings.device)
        self.plain = replace(arch, widths=tuple(native_width(site) for site in arch.sites))
        self.mode_note: str | None = None
        self._baseline = self._first_that_runs(settings.resolved(self._device))
        with cpu_threads(self.settings.threads):
            self.conditions = conditions(self.settings, self._device, self._baseline.versions)
            with device_lock(self._device, time_left()):
                baseline_ms = warm_up(_timer(self._baseline.run, 1), max_seconds=60.0)
        self._iterations = max(1, min(_MOST_ITERATIONS, round(_SAMPLE_MS / max(baseline_ms, 1e-6))))

    def measure(
        self,
        arch: Architecture,
        *,
        width: float = 0.01,
        max_seconds: float = 60.0,
        min_pairs: int = 30,
        least_seconds: float = 0.0,
    ) -> Latency:
        """Measure ``arch`` against the unmodified backbone. The backbone itself has a ratio of exactly 1.

        Args:
            arch: an architecture of the same backbone.
            width: wanted width of the interval of the ratio; 0.01 is one percent of the backbone's latency.
            max_seconds: time limit of the measurement, of which up to a quarter goes to warming up.
            min_pairs: pairs of timings before the interval is looked at.
            least_seconds: the time limit instead of a shorter ``max_seconds``, if the interval is expected to be
                as narrow as wanted by then.

        Raises:
            ConfigError: another backbone, or a number out of range.
            InfeasibleError: the network is too large for the memory.
        """
        self._check(arch, width, max_seconds, min_pairs)
        if arch.is_plain:
            measured = self._pairs(self._baseline, width, max_seconds, min_pairs, least_seconds)
            return replace(measured, ratio=1.0, interval=(1.0, 1.0), median_ms=measured.baseline_ms)
        with step(BUILD):
            candidate = prepare_inference(arch, self.settings)
        return self._pairs(candidate, width, max_seconds, min_pairs, least_seconds)

    def measure_against_itself(
        self, *, width: float = 0.01, max_seconds: float = 60.0, min_pairs: int = 30
    ) -> Latency:
        """An A/A measurement: the unmodified backbone, built twice. The interval should hold 1."""
        self._check(self.plain, width, max_seconds, min_pairs)
        return self._pairs(prepare_inference(self.plain, self.settings), width, max_seconds, min_pairs)

    @property
    def sees_gates(self) -> bool:
        """Whether gates can be timed inside the network: as modules that run one after the other."""
        settings = self.settings
        return (settings.backend, settings.mode, self._device.type) == ("torch", "eager", "cpu")

    def gate_shares(self, arch: Architecture, *, max_seconds: float) -> np.ndarray:
        """Time of each gate as a share of the inference's time outside of gates; shape (number of sites,).

        Args:
            arch: an architecture of the same backbone.
            max_seconds: time limit, without building; eight inferences are timed in any case.

        Raises:
            ConfigError: another backbone, or conditions under which gates cannot be seen (``sees_gates``).
            InfeasibleError: the network is too large for the memory.
        """
        from se_nas.backbones import gate_at
        from se_nas.cost.latency.gate_timing import gate_shares

        self._check(arch, 1.0, max_seconds, 1)
        if not self.sees_gates:
            raise ConfigError(
                "single gates can only be timed on the CPU, with backend 'torch' and mode 'eager'."
            )
        gates: list[nn.Module | None] = []

        def find_gates(model: nn.Module) -> None:
            chosen = zip(arch.sites, arch.widths, strict=True)
            gates.extend(gate_at(model, site) if width != ABSENT else None for site, width in chosen)

        with cpu_threads(self.settings.threads), infeasible_if_out_of_memory():
            with step(BUILD):
                candidate = prepare_inference(arch, self.settings, find_gates)

            def run() -> None:
                with step(INFERENCE):
                    candidate.run()

            with device_lock(self._device, time_left()):
                return gate_shares(run, gates, max_seconds=max_seconds)

    def _pairs(
        self,
        candidate: Prepared,
        width: float,
        max_seconds: float,
        min_pairs: int,
        least_seconds: float = 0.0,
    ) -> Latency:
        with (
            cpu_threads(self.settings.threads),
            device_lock(self._device, time_left()),
            infeasible_if_out_of_memory(),
        ):
            start = time.monotonic()
            one, other = (_timer(side.run, self._iterations) for side in (self._baseline, candidate))
            for timed in (one, other):
                warm_up(timed, max_seconds=max_seconds * _WARM_UP_SHARE / 2)
            pairs = measure_pairs(
                one,
                other,
                width=width,
                max_seconds=max_seconds - (time.monotonic() - start),
                min_pairs=min_pairs,
                least_seconds=least_seconds,
                before_quartet=_mover(self._baseline, candidate),
            )
            found = conditions(self.settings, self._device, self._baseline.versions)
        median_ms, baseline_ms = _median(pairs.candidate), _median(pairs.baseline)
        note = None if pairs.narrow_enough else _too_wide(pairs, width, found["load"])
        return Latency(
            median_ms=median_ms,
            ratio=pairs.ratio,
            interval=pairs.interval,
            repetitions=len(pairs.candidate),
            baseline_ms=baseline_ms,
            throughput=1000 * self.settings.batch_size / median_ms,
            peak_memory=candidate.peak_memory,
            conditions=found,
            narrow_enough=pairs.narrow_enough,
            seconds=pairs.seconds,
            note=note,
        )

    def _check(self, arch: Architecture, width: float, max_seconds: float, min_pairs: int) -> None:
        if (arch.backbone, arch.timm_kwargs) != (self.plain.backbone, self.plain.timm_kwargs):
            raise ConfigError(
                f"this meter measures {self.plain.backbone} {dict(self.plain.timm_kwargs)},"
                f" not {arch.backbone} {dict(arch.timm_kwargs)}; make a meter for that backbone."
            )
        for name, value in (("width", width), ("max_seconds", max_seconds), ("min_pairs", min_pairs)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ConfigError(f"{name} is {value!r}; it must be a number above 0.")

    def _first_that_runs(self, choices: Sequence[LatencySettings]) -> Prepared:
        """The unmodified backbone under the first of these settings that works; they become the meter's."""
        *others, last = choices
        for self.settings in others:
            try:
                return prepare_inference(self.plain, self.settings)
            except ConfigError as error:
                self.mode_note = f"latency mode is {last.mode!r}, because {error}"
        self.settings = last
        return prepare_inference(self.plain, self.settings)


@checked
def measure_latency(
    arch: Architecture,
    *,
    input_size: int | tuple[int, int, int] = (3, 224, 224),
    batch_size: int = 1,
    device: str = "cpu",
    num_classes: int = 1000,
    precision: str = "fp32",
    channels_last: bool = False,
    mode: str = AUTO,
    threads: int | None = None,
    optimize: bool = False,
    backend: str = "torch",
    width: float = 0.01,
    max_seconds: float = 60.0,
    min_pairs: int = 30,
) -> Latency:
    """Latency of an architecture and its ratio to the unmodified backbone, timed in turn.

    Conditions are described at ``LatencySettings``, the statistics at ``LatencyMeter.measure``; to measure
    several architectures of one backbone, keep a ``LatencyMeter``.

    Raises:
        BackboneError, ConfigError, DeviceError, InfeasibleError: as ``LatencyMeter``.
    """
    settings = LatencySettings(
        input_size=image_size(input_size),
        batch_size=batch_size,
        device=device,
        num_classes=num_classes,
        precision=precision,
        channels_last=channels_last,
        mode=mode,
        threads=threads,
        optimize=optimize,
        backend=backend,
    )
    meter = LatencyMeter(arch, settings)
    return meter.measure(arch, width=width, max_seconds=max_seconds, min_pairs=min_pairs)


def _too_wide(pairs: Pairs, width: float, load: float | None) -> str:
    low, high = pairs.interval
    busy = (
        "" if load is None or load < 1 else f" The machine is busy: {load:g} processes compete for each core."
    )
    return (
        f"after {as_words(pairs.seconds)} the interval of the ratio is {100 * (high - low):.2f} % wide instead of"
        f" {100 * width:.2f} %; about {as_words(pairs.seconds_needed)} per network would be enough.{busy}"
    )


def _timer(run: Callable[[], object], iterations: int) -> Callable[[], float]:
    from se_nas.cost.counting import quiet_fvcore

    with quiet_fvcore():
        from fvcore.common.benchmark import timeit

    timed = timeit(num_iters=iterations)(run)

    def milliseconds() -> float:
        with step(TIMING):
            return float(timed()["median"]) * 1000

    return milliseconds


def _mover(baseline: Prepared, candidate: Prepared) -> Callable[[], None]:
    """Moves both sides elsewhere in memory; each is moved first equally often.

    Each runs once before it is timed again, the baseline last. So in A B B A either side follows itself once and
    the other side once.
    """
    sides = [side.move for side in (baseline, candidate) if side.move is not None]

    def move() -> None:
        for side in sides:
            side()
        sides.reverse()
        if sides:
            candidate.run()
            baseline.run()

    return move


def _median(times: Any) -> float:
    import numpy as np

    return float(np.median(times))
