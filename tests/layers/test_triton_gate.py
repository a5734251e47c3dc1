"""The Triton kernels: on the CPU by Triton's interpreter, on CUDA as they are."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from se_nas.architecture import Architecture
from se_nas.inference import optimize_for_inference
from se_nas.model import build_model

pytest.importorskip("triton")

# A process of its own: Triton reads the variable when the kernels are defined.
_COMPARE = """
import itertools, sys
import torch
from torch import nn
from se_nas.inference import LinearSqueezeExcite
from se_nas.layers.triton_gate import TritonSqueezeExcite

device = sys.argv[1]
torch.manual_seed(0)
torch.backends.cuda.matmul.allow_tf32 = False
cases = [*itertools.product([(2, 6, 7, 5), (1, 3, 33, 1)], (True, False), (1.0, 2.0), (True, False))]
cases += [((1, 1030, 2, 2), True, 1.0, False)]
for (images, channels, side, width), bias, scale, in_place in cases:
    layers = nn.Linear(channels, width, bias), nn.Linear(width, channels, bias)
    plain = LinearSqueezeExcite(layers[0], nn.ReLU(), layers[1], nn.Sigmoid(), gate_scale=scale).to(device)
    own = LinearSqueezeExcite(layers[0], nn.ReLU(), layers[1], nn.Sigmoid(), gate_scale=scale, in_place=in_place)
    fast = TritonSqueezeExcite(own).to(device)
    x = torch.randn(images, channels, side, side, device=device)
    with torch.inference_mode():
        expected = plain(x.clone())
        given = x.clone()
        found = fast(given)
        assert (found.data_ptr() == given.data_ptr()) == in_place
        assert in_place or torch.equal(given, x)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        found = fast(x.to(memory_format=torch.channels_last))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
x = torch.randn(1, channels, 3, 3, device=device)
assert fast(x).requires_grad, "autograd goes through the block"
print("equal")
"""


def _compare(device: str, **variables: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _COMPARE, device],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.strip() == "equal", done.stderr


def test_kernels_compute_the_block() -> None:
    _compare("cpu", TRITON_INTERPRET="1")


@pytest.mark.gpu
def test_kernels_compute_the_block_on_cuda() -> None:
    assert torch.cuda.is_available()
    _compare("cuda")


@pytest.mark.gpu
def test_optimising_on_cuda_keeps_the_function() -> None:
    model = build_model(Architecture.uniform("resnet18", reduction=16)).eval().cuda()
    images = torch.randn(2, 3, 224, 224, device="cuda")
    with torch.inference_mode():
        torch.testing.assert_close(optimize_for_inference(model)(images), model(images), rtol=1e-2, atol=1e-2)
