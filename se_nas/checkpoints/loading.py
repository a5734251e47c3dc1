"""Weights of a plain backbone from what trainers write, loaded strictly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor, nn

from se_nas.arguments import checked
from se_nas.checkpoints.files import checkpoint_file, read_file, shortened
from se_nas.checkpoints.matching import Checkpoint, classifier_keys, fitting


@checked
def load_checkpoint(model: nn.Module, path: str | Path) -> Checkpoint:
    """Load a plain backbone's weights; see ``fitting``.

    Raises:
        CheckpointError: the file cannot be read, or keys are missing, left over or of another shape.
    """
    found = read_checkpoint(model, path)
    _load(model, found)
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
    _load(model, fitting(model, weights, source))


def start_new_classifier(model: nn.Module) -> None:
    """Set a classifier that timm's pretrained weights did not fit, for its number of classes, to zero.

    So start ViT's and BiT's fine-tunings (Dosovitskiy et al., arXiv 2010.11929, section 3.2; Kolesnikov et al., arXiv
    1912.11370). A random one sends noise through trained features: EfficientNet's begins 20 classes with a
    cross-entropy of 18 instead of 3, and by the time it has come down the features are spoilt.
    """
    config = getattr(model, "pretrained_cfg", None) or {}
    if config.get("num_classes") != getattr(model, "num_classes", None):
        _zero(model, classifier_keys(model))


def _load(model: nn.Module, found: Checkpoint) -> None:
    model.load_state_dict({**model.state_dict(), **found.weights})
    _zero(model, found.fresh)


def _zero(model: nn.Module, names: Iterable[str]) -> None:
    state = model.state_dict()
    for name in names:
        state[name].zero_()
