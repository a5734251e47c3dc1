"""The conformance suite of latency measurements: what must hold for a backend of ``se_nas.costs``.

Subclass ``CostConformance`` in a test module, name the backend, and pytest runs every check::

    class TestMyRuntime(CostConformance):
        backend = "my-runtime"
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import nn

from se_nas.architecture import Architecture
from se_nas.cost import LatencyMeter, LatencySettings, Prepared, conditions_key, resolve_backend
from se_nas.cost.settings import MODES, PRECISIONS
from se_nas.device import resolve_device
from se_nas.errors import SeNasError

_RUNS = 15
_LEAST_RATIO = 2.0
_WAIT_SHARE = 0.25
_LEAST_SECONDS = 1e-5
"""Every inference takes longer; a shorter time is that of calling a function, and a quotient of such times is noise."""
_GPU_SIDE = 512
_GPU_CHANNELS = 256


class CostConformance:
    """Checks of one backend; each ``test_`` method is one, and raises ``AssertionError`` with the reason.

    Attributes:
        backend: its name: a built-in one, or an entry point of ``se_nas.costs``.
        settings: conditions that it can measure under; the input must be at least 32 pixels.
        modes: the values of ``LatencySettings.mode`` that are tried; compiling takes seconds. "auto" is not one:
            a backend is always given the mode that it stands for.
    """

    backend: ClassVar[str] = ""
    settings: ClassVar[LatencySettings] = LatencySettings(input_size=(3, 32, 32))
    modes: ClassVar[tuple[str, ...]] = MODES

    def test_prepares(self) -> None:
        """It returns what ``Prepared`` promises, and the inference can be run repeatedly."""
        prepared = self._prepare(_network(1))
        assert isinstance(prepared, Prepared), f"prepare returned {type(prepared).__name__}, not Prepared"
        for _ in range(3):
            prepared.run()
        peak = prepared.peak_memory
        assert peak is None or (isinstance(peak, int) and peak > 0), f"peak_memory is {peak!r}"
        assert isinstance(prepared.versions, Mapping)
        pairs = prepared.versions.items()
        assert all(isinstance(part, str) for pair in pairs for part in pair), "versions are names and texts"

    def test_peak_memory_holds_the_weights(self) -> None:
        """If a backend knows its memory, a network with more weights needs at least that much more."""
        small, large = _network(1), _network(1)
        large.add_module("extra", nn.Sequential(nn.Flatten(1), nn.Linear(32 * 16 * 16, 64)))
        less, more = (self._prepare(model).peak_memory for model in (small, large))
        if less is not None and more is not None:
            bytes_of_weight = {"fp32": 4, "bf16": 2, "fp16": 2}[self.settings.precision]
            least = 32 * 16 * 16 * 64 * bytes_of_weight
            assert more - less >= least, f"{more - less} bytes more for {least} of weights"

    def test_run_does_the_work(self) -> None:
        """Eight times the layers take at least twice the time: the inference is not skipped, cut or cached.

        On a GPU the layers are so large that computing them takes milliseconds. A batch of one small image only
        shows what launching kernels takes and, if several processes share the GPU, what waiting for a time slice
        takes; both hardly depend on the number of layers.
        """
        one, many = (self._prepare_long(depth) for depth in (8, 64))
        ratio = _seconds(many) / _seconds(one)
        assert ratio >= _LEAST_RATIO, f"eight times the layers took {ratio:.2f} times as long"

    def test_run_returns_when_it_has_ended(self) -> None:
        """On a GPU next to nothing is left to wait for after ``run``."""
        if not self._on_gpu:
            return
        run = self._prepare_long(64)
        seconds = _seconds(run)
        run()
        before = time.perf_counter()
        torch.cuda.synchronize(self.settings.device)
        waited = time.perf_counter() - before
        assert waited < _WAIT_SHARE * seconds, f"run returned {waited:.6f} s before the device had ended"

    def test_settings_are_honoured_or_refused(self) -> None:
        """A precision, memory format or mode that it lacks raises a ``SeNasError`` instead of timing something else."""
        tried: tuple[tuple[str, tuple[Any, ...]], ...] = (
            ("precision", PRECISIONS),
            ("channels_last", (False, True)),
            ("mode", self.modes),
            ("batch_size", (1, 4)),
            ("threads", (1, 2)),
        )
        for name, values in tried:
            for value in values:
                try:
                    settings = replace(self._settings, **{name: value})
                    self._prepare(_network(1), settings).run()
                except SeNasError:
                    continue
                except Exception as error:
                    raise AssertionError(
                        f"{name}={value!r} raised {type(error).__name__}, not a SeNasError: {error}"
                    ) from error

    def test_measurement(self) -> None:
        """A meter measures with it, A/A gives a ratio near 1, and its timings are not mixed with those of others."""
        plain = Architecture.plain("test_resnet")
        meter = LatencyMeter(plain, self._settings)
        again = meter.measure_against_itself(width=0.2, max_seconds=10.0)
        assert 0.5 < again.ratio < 2.0, f"a network takes {again.ratio:.2f} times as long as itself"
        assert again.conditions["backend"] == self.backend
        versions = self._prepare(_network(1)).versions
        assert meter.conditions["versions"].items() >= versions.items(), "versions are not in the conditions"
        other = {**meter.conditions, "backend": f"not {self.backend}"}
        assert conditions_key(other) != conditions_key(meter.conditions)

    @property
    def _settings(self) -> LatencySettings:
        device = resolve_device(self.settings.device)
        return replace(self.settings, backend=self.backend).resolved(device)[0]

    @property
    def _on_gpu(self) -> bool:
        return resolve_device(self.settings.device).type == "cuda"

    def _prepare_long(self, depth: int) -> Callable[[], object]:
        """An inference that takes long enough to be timed; ``depth`` layers of 77 GFLOP per image on a GPU."""
        if not self._on_gpu:
            return self._prepare(_network(depth)).run
        settings = replace(self._settings, input_size=(3, _GPU_SIDE, _GPU_SIDE))
        return self._prepare(_network(depth, _GPU_CHANNELS), settings).run

    def _prepare(self, model: nn.Module, settings: LatencySettings | None = None) -> Prepared:
        settings = settings or self._settings
        with torch.random.fork_rng(devices=[]):
            images = torch.randn(settings.batch_size, *settings.input_size)
        return resolve_backend(self.backend)(model.eval(), images, settings)


def _network(depth: int, channels: int = 32) -> nn.Sequential:
    """A convolution that halves height and width, and ``depth`` more convolutions."""
    layers = [nn.Conv2d(3, channels, 3, stride=2, padding=1)]
    layers += [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(depth)]
    # Images have at least 32 pixels; the last map is 16 x 16 for all of them.
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(16))


def _seconds(run: Callable[[], object]) -> float:
    """The shortest of several runs: other load on the machine only ever adds time."""
    times = []
    for _ in range(_RUNS):
        before = time.perf_counter()
        run()
        times.append(time.perf_counter() - before)
    return max(min(times), _LEAST_SECONDS)
