"""Under which conditions a latency is measured, and when two latencies may be compared."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from se_nas.errors import ConfigError, DeviceError, not_allowed
from se_nas.sites import image_size
from se_nas.wording import as_words

if TYPE_CHECKING:
    import torch

PRECISIONS = ("fp32", "bf16", "fp16")
AUTO = "auto"
MODES = ("eager", "compile", "graph")
"""How an inference can run; ``AUTO`` stands for one of them until the device and the network are known."""
_OLD_MODES = {"cudagraph": "graph"}
VOLATILE = ("clock_mhz", "load")
"""Conditions that are recorded but do not decide whether two timings may be compared."""
_LOCK_SECONDS = 1800


@dataclass(frozen=True, kw_only=True)
class LatencySettings:
    """What is measured, and how.

    Attributes:
        input_size: (channels, height, width) in pixels.
        batch_size: images at a time.
        device: cpu, cuda, cuda:1, mps or auto.
        num_classes: classes of the head.
        precision: fp32, bf16 or fp16; weights and images are cast, autocast is not used.
        channels_last: memory format of weights and images.
        mode: eager; compile (``torch.compile``); graph (the whole inference as one CUDA graph, so that launching
            kernels from Python takes no time); auto (graph on CUDA with the torch backend if the network can be
            captured, else eager). "cudagraph" is the former name of graph.
        threads: CPU threads of one inference; None is what torch uses now.
        optimize: first rewrite both networks with ``optimize_for_inference``.
        backend: torch, onnxruntime, or the name of an entry point of the group ``se_nas.costs``.

    Raises:
        ConfigError: a value is not one of those listed here.
    """

    input_size: tuple[int, int, int] = (3, 224, 224)
    batch_size: int = 1
    device: str = "cpu"
    num_classes: int = 1000
    precision: str = "fp32"
    channels_last: bool = False
    mode: str = AUTO
    threads: int | None = None
    optimize: bool = False
    backend: str = "torch"

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_size", image_size(self.input_size))
        object.__setattr__(self, "mode", _OLD_MODES.get(self.mode, self.mode))
        for name, allowed in (("precision", PRECISIONS), ("mode", (AUTO, *MODES))):
            value = getattr(self, name)
            if value not in allowed:
                raise ConfigError(not_allowed(name, value, allowed))
        sizes = {"batch_size": self.batch_size, "threads": self.threads}
        for name, value in sizes.items():
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ConfigError(f"{name} is {value!r}; it must be an integer of at least 1.")
        if self.mode == "graph" and not self.device.startswith(("cuda", "auto")):
            raise ConfigError(
                f"mode is 'graph', which needs a CUDA device and not {self.device!r}; allowed: auto, eager, compile."
            )

    def resolved(self, device: torch.device) -> tuple[LatencySettings, ...]:
        """These settings on the device that was found; with mode auto, one for every mode to try, best first.

        Raises:
            ConfigError: the mode needs another device.
        """
        modes: tuple[str, ...] = (self.mode,)
        if self.mode == AUTO:
            capturable = device.type == "cuda" and self.backend == "torch"
            modes = ("graph", "eager") if capturable else ("eager",)
        return tuple(replace(self, device=str(device), mode=mode) for mode in modes)


def conditions(
    settings: LatencySettings, device: torch.device, versions: Mapping[str, str]
) -> dict[str, Any]:
    """Everything that a timing depends on besides the network; JSON-ready.

    ``clock_mhz`` and ``load`` (runnable processes per core, over the last minute) describe the
    moment; None if they cannot be read.
    """
    import torch

    from se_nas.device import device_name, load_per_core

    return {
        "device": device.type,
        "device_name": device_name(device),
        "cpu_count": os.cpu_count(),
        "threads": settings.threads or torch.get_num_threads(),
        "input_size": list(settings.input_size),
        "batch_size": settings.batch_size,
        "num_classes": settings.num_classes,
        "precision": settings.precision,
        "channels_last": settings.channels_last,
        "mode": settings.mode,
        "optimize": settings.optimize,
        "backend": settings.backend,
        "versions": {
            "torch": torch.__version__,
            "timm": version("timm"),
            "cuda": torch.version.cuda if device.type == "cuda" else None,
            **versions,
        },
        "platform": f"{platform.system()} {platform.machine()}",
        "clock_mhz": _clock_mhz(device),
        "load": load_per_core(),
    }


def conditions_key(conditions: Mapping[str, Any]) -> str:
    """16 hex digits, equal for timings that may be compared and different for others."""
    fixed = {name: value for name, value in _current(conditions).items() if name not in VOLATILE}
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:16]


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """What prevents comparing two timings, one line per condition; empty if they may be compared."""
    first, second = _current(first), _current(second)
    names = [name for name in (*first, *(set(second) - set(first))) if name not in VOLATILE]
    return [
        f"{name}: {first.get(name)!r} against {second.get(name)!r}"
        for name in names
        if first.get(name) != second.get(name)
    ]


def _current(conditions: Mapping[str, Any]) -> dict[str, Any]:
    """Conditions, perhaps of an earlier version, in today's words."""
    mode = conditions.get("mode")
    return {**conditions, "mode": _OLD_MODES.get(str(mode), mode)} if mode is not None else dict(conditions)


def cache_folder() -> Path:
    """Where latency tables and device locks are kept: ``SE_NAS_CACHE``, else the platform's cache folder."""
    import platformdirs

    chosen = os.environ.get("SE_NAS_CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("se-nas", appauthor=False))


@contextmanager
def device_lock(device: torch.device | str, seconds: float = math.inf) -> Iterator[None]:
    """Keep the device from all other se-nas processes of this user on this machine.

    The operating system frees the lock when its holder ends, however it ends. Taking it again in the thread
    that holds it is allowed.

    Args:
        device: for example "cpu".
        seconds: to wait for another process, at most half an hour.

    Raises:
        DeviceError: another process held it for as long.
    """
    from filelock import FileLock, Timeout

    folder = cache_folder() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{platform.node()}-{_hardware_id(device)}.lock"
    lock = FileLock(path, timeout=_LOCK_SECONDS, is_singleton=True)
    patience = max(0.0, min(seconds, _LOCK_SECONDS))
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        raise DeviceError(
            f"device {str(device)!r} has been in use by another measurement for {as_words(patience)}"
            f" ({path}); stop that process, or measure later."
        ) from None
    try:
        yield
    finally:
        lock.release()


def _hardware_id(device: torch.device | str) -> str:
    import torch

    device = torch.device(device)
    if device.type != "cuda":
        return device.type
    # The index depends on CUDA_VISIBLE_DEVICES, the id of the hardware does not.
    return f"cuda-{torch.cuda.get_device_properties(device).uuid}"


def _clock_mhz(device: torch.device) -> float | None:
    import torch

    if device.type == "cuda":
        try:
            return float(torch.cuda.clock_rate(device))
        except (ModuleNotFoundError, RuntimeError):
            return None
    frequency = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
    if frequency.exists():
        return int(frequency.read_text()) / 1000
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("cpu MHz"):
                return float(line.partition(":")[2])
    return None
