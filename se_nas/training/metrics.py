"""Validation: top-1, top-5, cross-entropy, calibration error and the accuracy of each class."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

ECE_BINS = 15


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Percentages for accuracies, natural logarithm for the loss, [0, 1] for ``ece``; see ``TrainResult``.

    ``correct`` says for each image, in order, whether it was classified correctly; None if unknown.
    """

    accuracy: float
    top5: float
    loss: float
    ece: float
    per_class: tuple[float | None, ...]
    correct: NDArray[np.bool_] | None = field(default=None, compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("accuracy", "top5", "loss", "ece")}


def score(logits: torch.Tensor, labels: torch.Tensor, num_classes: int) -> Metrics:
    """Metrics of logits (N, K) against class indices (N,). ``top5`` is 100 for up to five classes.

    The calibration error is that of Guo et al., "On Calibration of Modern Neural Networks", 2017, equation 3:
    fifteen equal bins of confidence (0, 1], the gap between accuracy and confidence in each weighted by its
    share. If several logits tie for the top, the lowest class index counts.
    """
    logits = logits.double()
    log_probs = logits.log_softmax(dim=1)
    loss = -log_probs.gather(1, labels[:, None]).mean()
    confidence, predicted = log_probs.exp().max(dim=1)
    hits = predicted == labels
    top = logits.topk(min(5, logits.shape[1]), dim=1).indices
    bins = (confidence * ECE_BINS).ceil().long().clamp(1, ECE_BINS) - 1
    gap = torch.zeros(ECE_BINS, dtype=torch.double).index_add_(0, bins, hits.double() - confidence)
    total = torch.bincount(labels, minlength=num_classes)
    right = torch.bincount(labels[hits], minlength=num_classes)
    return Metrics(
        accuracy=100 * hits.double().mean().item(),
        top5=100 * (top == labels[:, None]).any(dim=1).double().mean().item(),
        loss=loss.item(),
        ece=(gap.abs().sum() / len(labels)).item(),
        per_class=tuple(100 * int(r) / int(t) if t else None for r, t in zip(right, total, strict=True)),
        correct=hits.numpy(),
    )
