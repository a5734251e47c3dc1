"""How much room a run takes on its disk, so that one on which it would end too early is named before it begins."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import nn

from se_nas.run import CHECKPOINTS
from se_nas.training import Recipe, disk_used
from se_nas.training.optim import make_optimizer
from se_nas.wording import counted

WEIGHT_BYTES = 4
OTHER_BYTES = 20 * 2**20
"""For the study, the tables and the report."""


def disk_notes(path: Path, recipe: Recipe, num_weights: int, trainings: int, at_a_time: int) -> list[str]:
    """A note if the disk has less room than the run is going to take, else nothing.

    The weights of all trainings are kept until the search has ended. A training state is written beside the one before.

    Args:
        path: the run folder, which need not exist; what a run that goes on has written already is counted.
        recipe: decides what a training state holds.
        num_weights: of the largest candidate.
        trainings: of the search and with final seeds.
        at_a_time: trainings under way together.
    """
    weights = WEIGHT_BYTES * num_weights
    state = round(weights * copies_in_state(recipe))
    needed = trainings * weights + 2 * at_a_time * state + OTHER_BYTES - disk_used(path / CHECKPOINTS)
    place = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if free >= needed:
        return []
    return [
        f"the disk of {path} has {_words(free)} free and the run takes about {_words(needed)}: weights of"
        f" {_words(weights)} for each of {counted(trainings, 'training')}, kept until the search ends, and"
        f" {counted(at_a_time, 'training state')} of {_words(state)}. Make room, or choose another disk with --runs."
    ]


def copies_in_state(recipe: Recipe) -> float:
    """Size of a training state, in copies of the weights: these, what the optimiser keeps, and their average."""
    layer = nn.Linear(64, 64, bias=False)
    optimizer = make_optimizer(layer, recipe, 1.0)
    layer.weight.grad = torch.zeros_like(layer.weight)
    optimizer.step()
    kept = sum(
        value.numel() for value in optimizer.state[layer.weight].values() if isinstance(value, torch.Tensor)
    )
    return 1 + kept / layer.weight.numel() + (recipe.ema_decay is not None)


def _words(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
