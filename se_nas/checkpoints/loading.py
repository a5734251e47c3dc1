"""Weights of a plain backbone from what trainers write, loaded strictly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from se_nas.arguments import checked
from se_nas.checkpoints.files import checkpoint_file, read_file, shortened
from se_nas.checkpoints.matching import Checkpoint, fitting


@checked
def load_checkpoint(model: nn.Module, path: str | Path) -> Checkpoint:
    """Load a plain backbone's weights; see ``fitting``.

    Raises:
        CheckpointError: the file cannot be read, or keys are missing, left over or of another shape.
    """
    found = read_checkpoint(model, path)
    model.load_state_dict({**model.state_dict(), **found.weights})
    return found


@checked
def read_checkpoint(model: nn.Module, path: str | Path) -> Checkpoint:
    """What ``load_checkpoint`` would load; the model, which may be on the meta device, stays as it is.

    Raises:
        CheckpointError: as ``load_checkpoint``.
    """
    file = checkpoint_file(path)
    taken, weights = read_file(file)
    return fitting(model, weights, shortened(file), taken=taken)


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load weights that are in memory, as ``load_checkpoint`` does those of a file.

    Raises:
        CheckpointError: keys are missing, left over or of another shape; ``source`` names the weights.
    """
    found = fitting(model, weights, source)
    model.load_state_dict({**model.state_dict(), **found.weights})
