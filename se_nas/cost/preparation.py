"""From an architecture to an inference that is ready to be measured, under the conditions of ``LatencySettings``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from se_nas.architecture import Architecture
from se_nas.cost.backends import Prepared, resolve_backend
from se_nas.cost.settings import LatencySettings
from se_nas.errors import InfeasibleError

if TYPE_CHECKING:
    from torch import nn


def prepare_inference(
    arch: Architecture,
    settings: LatencySettings,
    visit: Callable[[nn.Module], object] = lambda model: None,
) -> Prepared:
    """Build the network with random weights and give it to the backend; torch's random numbers stay as they were.

    Args:
        arch: the architecture.
        settings: as ``LatencySettings.resolved`` returns them: a device that exists, and a mode that is not auto.
        visit: is given the network before the backend takes it.

    Raises:
        BackboneError: the backbone cannot take images of this size.
        ConfigError: the backend is unknown or lacks a setting.
        InfeasibleError: the network is too large for the memory.
    """
    import torch

    from se_nas.cost.counting import check_input_size
    from se_nas.cost.memory import check_batch_fits
    from se_nas.model import build_model

    backend = resolve_backend(settings.backend)
    # Measuring must not move the random numbers of a training that goes on in the same process.
    with cpu_threads(settings.threads), torch.random.fork_rng(devices=[]), infeasible_if_out_of_memory():
        model = build_model(arch, num_classes=settings.num_classes).eval()
        image = torch.randn(1, *settings.input_size)
        with torch.inference_mode():
            check_input_size(model, image)
        if settings.optimize:
            model = _optimized(model)
        visit(model)
        if settings.device == "cpu":
            check_batch_fits(model, image, settings.batch_size)
        images = torch.randn(settings.batch_size, *settings.input_size)
        return backend(model, images, settings)


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """torch with that many CPU threads; None changes nothing."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def infeasible_if_out_of_memory() -> Iterator[None]:
    """Turn a lack of memory, on any device, into an ``InfeasibleError``."""
    from se_nas.cost.counting import is_out_of_memory

    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = (str(error).strip().splitlines() or ["out of memory"])[0]
        raise InfeasibleError(f"the network does not fit into the device's memory: {reason}") from error


def _optimized(model: nn.Module) -> nn.Module:
    from se_nas.inference import optimize_for_inference

    optimized: nn.Module = optimize_for_inference(model)
    return optimized
