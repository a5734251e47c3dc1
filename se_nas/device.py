"""Devices by name: the default choice, and an error that lists what exists."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import torch

from se_nas.errors import DeviceError, nearest, not_allowed

BUSY = 1.5
"""Processes per core from which on threads that spin while they wait cost several times the time of a training."""


def resolve_device(name: str = "auto") -> torch.device:
    """The device of that name; ``"auto"`` is cuda, else mps, else cpu.

    Raises:
        DeviceError: torch does not know the device, or this machine does not have it.
    """
    available = available_devices()
    if name == "auto":
        return torch.device(available[-1])
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(not_allowed("device", name, ["auto", *available])) from None
    wanted = f"{device.type}:{device.index or 0}" if device.type == "cuda" else device.type
    if wanted not in available or (device.type != "cuda" and device.index not in (None, 0)):
        raise DeviceError(
            f"device {name!r} does not exist on this machine; it has: {', '.join(available)}.{nearest(name, available)}"
        )
    return torch.device(wanted)


def resolve_devices(names: str) -> list[torch.device]:
    """The devices of a list such as ``"cuda:0,cuda:1"``, of ``"cuda:all"``, or the one that ``resolve_device`` gives.

    Raises:
        DeviceError: one does not exist here, is named twice, or they are of different kinds.
    """
    if names == "cuda:all":
        found = [name for name in reversed(available_devices()) if name.startswith("cuda")]
        if not found:
            raise DeviceError("device is 'cuda:all', but this machine has no CUDA device.")
        return [torch.device(name) for name in found]
    devices = [resolve_device(name.strip()) for name in names.split(",")]
    if len(devices) > 1 and any(device.type != "cuda" for device in devices):
        raise DeviceError(
            f"device is {names!r}; several devices must all be CUDA devices, such as cuda:0,cuda:1."
        )
    if len(set(devices)) < len(devices):
        raise DeviceError(f"device is {names!r}, which names a device twice.")
    return devices


def available_devices() -> list[str]:
    """Names of this machine's devices, the preferred one last."""
    names = ["cpu"]
    if torch.backends.mps.is_available():
        names.append("mps")
    if torch.cuda.is_available():
        names += [f"cuda:{index}" for index in reversed(range(torch.cuda.device_count()))]
    return names


def device_name(device: torch.device | str) -> str:
    """The name of the hardware, such as "NVIDIA H100 80GB HBM3" or the processor's model."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def load_per_core() -> float | None:
    """Processes per core that ran or waited to, over the last minute; None if the system does not say."""
    try:
        return round(os.getloadavg()[0] / (os.cpu_count() or 1), 2)
    except OSError:
        return None


def advice_if_busy(device: torch.device | str) -> str | None:
    """What helps trainings on a processor that other programs keep busy, or None if it is not busy.

    Threads of GNU's OpenMP, which PyTorch uses on Linux, spin while they wait for each other. Where one of them has to
    wait for a core, the others use theirs up, unless the environment says otherwise.
    """
    load = load_per_core()
    chosen = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys()
    if sys.platform != "linux" or torch.device(device).type != "cpu" or torch.get_num_threads() == 1:
        return None
    if chosen or load is None or load < BUSY:
        return None
    return (
        f"the machine is busy ({load:g} processes per core): training can be several times as fast with"
        " OMP_WAIT_POLICY=passive in the environment"
    )
