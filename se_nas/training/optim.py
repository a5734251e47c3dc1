"""Optimiser, schedule and loss of a recipe, from timm by name."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any, cast

import torch
from timm.loss import BinaryCrossEntropy, SoftTargetCrossEntropy
from timm.optim import (
    Adopt,
    Lars,
    Lion,
    RMSpropTF,
    create_optimizer_v2,
    get_optimizer_class,
    get_optimizer_info,
    list_optimizers,
)
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import nn

from se_nas.compilation import import_dynamo
from se_nas.errors import ConfigError, nearest
from se_nas.layers.squeeze_excite import SqueezeExcite
from se_nas.training.recipe import Recipe

_FUSED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
_WITHOUT_STEPS: dict[Any, dict[str, Any]] = {Lion: {}, Lars: {"foreach": True}, RMSpropTF: {"foreach": True}}
"""Optimisers without ``capturable`` in which no number depends on the step (a graph would keep it as it was), with what
makes them take a learning rate on the device as it is."""


def make_optimizer(
    model: nn.Module, recipe: Recipe, lr_factor: float = 1.0, *, capturable: bool = False
) -> torch.optim.Optimizer:
    """timm's optimiser with groups for SE blocks, classifier and backbone, decayed and not.

    Args:
        lr_factor: share of the recipe's learning rate.
        capturable: keep everything that a step changes on the device, as a CUDA graph needs it.

    Raises:
        ConfigError: timm knows no such optimiser.
    """
    known = [str(name) for name in list_optimizers()]
    if recipe.optimizer not in known:
        raise ConfigError(
            f"optimizer is {recipe.optimizer!r}, which timm does not know.{nearest(recipe.optimizer, known)}"
            f" Known: {', '.join(known)}."
        )
    info = get_optimizer_info(recipe.optimizer)
    extra: dict[str, Any] = {"fused": True} if info.opt_class in _FUSED else {}
    if capturable:
        extra |= {"capturable": True} if _has_capturable(recipe) else _WITHOUT_STEPS.get(info.opt_class, {})
    import_dynamo()
    return create_optimizer_v2(
        model,
        opt=recipe.optimizer,
        lr=recipe.lr * lr_factor,
        weight_decay=recipe.weight_decay,
        momentum=recipe.momentum,
        param_group_fn=lambda net: parameter_groups(net, recipe),
        **extra,
    )


def can_be_captured(recipe: Recipe, precision: str) -> bool:
    """Whether a CUDA graph can hold the steps of the recipe's optimiser.

    Loss scaling (fp16) makes all but the fused ones wait for the device.
    """
    optimizer = get_optimizer_class(recipe.optimizer, bind_defaults=False)
    if optimizer in _FUSED:
        return True
    if precision == "fp16":
        return False
    # ADOPT's first step is another program than those that follow, and each start would need it again.
    return optimizer in _WITHOUT_STEPS or (_has_capturable(recipe) and optimizer is not Adopt)


def _has_capturable(recipe: Recipe) -> bool:
    optimizer = get_optimizer_class(recipe.optimizer, bind_defaults=False)
    return "capturable" in inspect.signature(cast(Any, optimizer)).parameters


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Groups by part (SE, head, backbone) and by decay; ``lr_scale`` is the part's share of the rate.

    As in timm, biases, one-dimensional parameters and those that the model names are not decayed.
    """
    undecayed = set(_called(model, "no_weight_decay") or ())
    scales = {
        "se": recipe.se_lr_factor,
        "head": recipe.head_lr_factor,
        "backbone": recipe.backbone_lr_factor,
    }
    parts = parameter_parts(model)
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        part = parts[name]
        decays = parameter.ndim > 1 and not name.endswith(".bias") and name not in undecayed
        group = groups.setdefault(
            (part, decays),
            {
                "params": [],
                "weight_decay": recipe.weight_decay if decays else 0.0,
                "lr_scale": scales[part],
                "part": part,
            },
        )
        group["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]


def parameter_parts(model: nn.Module) -> dict[str, str]:
    """For each parameter's name "se" (inside an inserted block), "head" (the classifier) or "backbone"."""
    owners: dict[str, str] = {}
    head = classifier(model)
    heads = head if isinstance(head, tuple | list) else (head,)
    for path, module in model.named_modules():
        part = "se" if isinstance(module, SqueezeExcite) else "head" if module in heads else None
        if part:
            owners |= {f"{path}.{name}" if path else name: part for name, _ in module.named_parameters()}
    return {name: owners.get(name, "backbone") for name, _ in model.named_parameters()}


def classifier(model: nn.Module) -> Any:
    """The last layer, as timm's models name it; None if a model does not."""
    return _called(model, "get_classifier")


def make_scheduler(
    optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int, lr_factor: float = 1.0
) -> Scheduler:
    """timm's schedule, stepped on every update; the number of updates is its only state."""
    lr = recipe.lr * lr_factor
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched=recipe.schedule,
        num_epochs=recipe.epochs,
        warmup_epochs=recipe.warmup_epochs,  # type: ignore[arg-type]
        warmup_lr=recipe.warmup_lr * lr,
        min_lr=recipe.min_lr * lr,
        step_on_epochs=False,
        updates_per_epoch=steps,
    )
    return scheduler


class Schedule:
    """The learning rate of each group of an optimiser, by the number of updates so far; writes to none of them."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int, lr_factor: float = 1.0
    ) -> None:
        lr = recipe.lr * lr_factor
        self._groups = [{"lr": lr, "lr_scale": group["lr_scale"]} for group in optimizer.param_groups]
        # All that timm's schedulers know of an optimiser is its groups.
        stand_in = cast(torch.optim.Optimizer, SimpleNamespace(param_groups=self._groups))
        self._scheduler = make_scheduler(stand_in, recipe, steps, lr_factor)
        self._first = [group["lr"] for group in self._groups]

    def rates(self, updates: int) -> list[float]:
        """One rate for each group, for the step that follows ``updates`` others."""
        if updates == 0:
            return self._first
        self._scheduler.step_update(updates)
        return [group["lr"] for group in self._groups]


def make_loss(recipe: Recipe, mixes: bool) -> nn.Module:
    """Loss on logits (B, K) and indices (B,), or probabilities (B, K) if mixup or cutmix makes them."""
    if recipe.loss == "bce":
        # Mixup has smoothed the targets already.
        return BinaryCrossEntropy(smoothing=0.0 if mixes else recipe.label_smoothing)
    return SoftTargetCrossEntropy() if mixes else nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)


def _called(model: nn.Module, method: str) -> Any:
    """What a method of timm's models returns; None if the model has no such method."""
    function = getattr(model, method, None)
    return function() if callable(function) else None
