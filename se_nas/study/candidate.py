"""The network of a candidate, built one way for search, schedule and retraining."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import timm

from se_nas.model import add_gates, build_plain
from se_nas.training import Recipe, initial_weights

if TYPE_CHECKING:
    from torch import nn

    from se_nas.architecture import Architecture
    from se_nas.study.config import SearchConfig


SCRATCH = "scratch"


def origin(config: SearchConfig) -> str:
    """Where the first weights of candidates come from: "scratch", a file, or timm's pretrained weights by name."""
    if config.checkpoint is not None:
        return config.checkpoint
    if not config.pretrained:
        return SCRATCH
    known = timm.get_pretrained_cfg(config.backbone)
    name = config.backbone if known is None else ".".join(filter(None, (known.architecture, known.tag)))
    return f"timm's pretrained weights {name}"


def start(origin: str) -> str:
    """How trainings begin that take their first weights from there: "from scratch", or "fine-tuned from ..."."""
    return "from scratch" if origin == SCRATCH else f"fine-tuned from {origin}"


def build_candidate(
    architecture: Architecture,
    config: SearchConfig,
    recipe: Recipe,
    *,
    num_classes: int,
    seed: int,
    weights: bool = True,
) -> nn.Module:
    """The network that is trained: its first weights come from the seed or from the configuration's weights.

    The plain layers start equal for all candidates of a seed, because SE is inserted after them.

    Args:
        architecture: what to build.
        config: says where first weights come from, and how inserted blocks start.
        recipe: its ``drop_path`` is the network's rate of stochastic depth.
        num_classes: width of the classifier.
        seed: of the first weights.
        weights: whether the configuration's weights are loaded, if it names any.

    Raises:
        BackboneError: timm refuses a keyword, such as a drop path rate for a network without residual branches.
        CheckpointError: the weights cannot be read or do not fit.
    """
    with initial_weights(seed):
        model = build_plain_candidate(architecture, config, recipe, num_classes=num_classes, weights=weights)
        return add_gates(model, architecture, init=config.init)


def build_plain_candidate(
    architecture: Architecture,
    config: SearchConfig,
    recipe: Recipe,
    *,
    num_classes: int,
    weights: bool = True,
) -> nn.Module:
    """The backbone of a candidate before its gates change; the global generators draw what no weights give.

    Arguments and errors are those of ``build_candidate``.
    """
    rate: dict[str, Any] = {"drop_path_rate": recipe.drop_path} if recipe.drop_path else {}
    return build_plain(
        architecture,
        pretrained=config.pretrained and weights,
        num_classes=num_classes,
        checkpoint=config.checkpoint if weights else None,
        **rate,
    )
