"""Devices by name: the default choice, and an error that lists what exists."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from se_nas.errors import DeviceError, nearest, not_allowed


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
