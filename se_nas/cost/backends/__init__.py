"""What runs an inference that is timed: torch, ONNX Runtime, or an entry point of the group ``se_nas.costs``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from se_nas.cost.backends.base import Backend, Prepared
from se_nas.errors import ConfigError
from se_nas.plugins import Plugins

if TYPE_CHECKING:
    import torch
    from torch import nn

    from se_nas.cost.settings import LatencySettings

__all__ = ["GROUP", "Backend", "Prepared", "backend_names", "resolve_backend"]

GROUP = "se_nas.costs"


def backend_names() -> list[str]:
    """Names of all backends, without loading any."""
    return NAMES.names()


def resolve_backend(name: str) -> Backend:
    """The backend of that name.

    Raises:
        ConfigError: there is no such backend, or the package that adds it cannot be imported.
    """
    backend: Backend = NAMES.load(name)
    if not callable(backend):
        raise ConfigError(f"latency_backend {name!r} is {backend!r}, which cannot be called.")
    return backend


def _torch(model: nn.Module, images: torch.Tensor, settings: LatencySettings) -> Prepared:
    from se_nas.cost.backends.torch import prepare

    return prepare(model, images, settings)


def _onnxruntime(model: nn.Module, images: torch.Tensor, settings: LatencySettings) -> Prepared:
    from se_nas.cost.backends.onnxruntime import prepare

    return prepare(model, images, settings)


NAMES = Plugins(
    option="latency_backend", built_in={"torch": _torch, "onnxruntime": _onnxruntime}, group=GROUP
)
