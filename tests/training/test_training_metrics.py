"""Metrics against values by hand and against torchmetrics' definition of the calibration error."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from se_nas.training import score


def test_by_hand():
    # Confidences 0.8, 0.6 and 0.9; right, wrong, right.
    probabilities = torch.tensor([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.05, 0.05, 0.9]])
    result = score(probabilities.log(), torch.tensor([0, 1, 2]), 3)
    assert result.accuracy == pytest.approx(200 / 3)
    assert result.top5 == 100.0
    assert result.loss == pytest.approx(-(math.log(0.8) + math.log(0.3) + math.log(0.9)) / 3, rel=1e-6)
    assert result.ece == pytest.approx((0.2 + 0.6 + 0.1) / 3, rel=1e-6)
    assert result.per_class == (100.0, 0.0, 100.0)


def test_top5_and_absent_classes():
    logits = torch.arange(8.0).flip(0).repeat(3, 1)
    result = score(logits, torch.tensor([0, 4, 5]), 8)
    assert result.accuracy == pytest.approx(100 / 3)
    assert result.top5 == pytest.approx(200 / 3)
    assert result.per_class == (100.0, None, None, None, 0.0, 0.0, None, None)


def test_ties_count_for_the_lowest_class():
    assert score(torch.zeros(2, 4), torch.tensor([0, 3]), 4).accuracy == 50.0


def reference_ece(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Written from the paper's formula, bin by bin."""
    confidence, hit = probabilities.max(1), probabilities.argmax(1) == labels
    total = 0.0
    for index in range(15):
        inside = (confidence > index / 15) & (confidence <= (index + 1) / 15)
        if inside.any():
            total += inside.mean() * abs(hit[inside].mean() - confidence[inside].mean())
    return total


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 12), st.integers(1, 60), st.floats(0.1, 8))
def test_calibration_error_is_the_papers(seed, classes, count, spread):
    draws = np.random.default_rng(seed)
    logits = draws.normal(size=(count, classes)) * spread
    labels = draws.integers(0, classes, count)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    result = score(torch.from_numpy(logits), torch.from_numpy(labels), classes)
    assert result.ece == pytest.approx(reference_ece(probabilities, labels), abs=1e-9)
    assert 0 <= result.ece <= 1
