"""The Triton kernels: compiled for a GPU, which takes none, run by Triton's interpreter, and run on CUDA."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from se_nas.architecture import Architecture
from se_nas.inference import optimize_for_inference
from se_nas.model import build_model

triton = pytest.importorskip("triton")
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from se_nas.layers import triton_gate  # noqa: E402

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


_BLOCKS = sorted({triton_gate.block_size(length) for length in range(1, 5000)})


def _compile(kernel: Any, dtype: str, capability: int = 90, **constants: object) -> None:
    """Compile for a GPU of that compute capability (90: an H100).

    Parameters with a value are constants, the others what the launcher passes.

    Triton makes a constant of an integer that is 1 and of an absent bias, too.
    """
    parameters = {
        **dict.fromkeys(("x", "weight", "bias", "out"), f"*{dtype}"),
        **dict.fromkeys(("pooled", "hidden"), "*fp32"),
        **dict.fromkeys(("area", "channels", "width"), "i32"),
        "gate_scale": "fp32",
    }
    signature = {name: "constexpr" if name in constants else parameters[name] for name in kernel.arg_names}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32))
    assert compiled.asm["cubin"]


@pytest.fixture
def _nothing_cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def test_block_sizes() -> None:
    """Powers of two, as ``tl.arange`` needs, that hold a row up to the largest block."""
    assert _BLOCKS == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
    assert [triton_gate.block_size(length) for length in (1, 3, 49, 1024, 12544)] == [1, 4, 64, 1024, 1024]


@pytest.mark.usefixtures("_nothing_cached")
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_kernels_compile_for_a_gpu(dtype: str) -> None:
    """The interpreter does not check types as the compiler does."""
    for block, hidden_block in zip(_BLOCKS, reversed(_BLOCKS), strict=True):
        _compile(triton_gate._pool, dtype, block=block)
        for bias in ({"has_bias": True}, {"has_bias": False, "bias": None}):
            _compile(triton_gate._reduce, dtype, block=block, **bias)
            _compile(triton_gate._scale, dtype, block=block, hidden_block=hidden_block, **bias)


@pytest.mark.usefixtures("_nothing_cached")
@pytest.mark.parametrize("capability", [80, 100])
def test_kernels_compile_for_other_generations(capability: int) -> None:
    """An A100 and a B200; blocks as for maps of 14 pixels and a hidden width of 16."""
    _compile(triton_gate._pool, "bf16", capability, block=256)
    _compile(triton_gate._reduce, "bf16", capability, block=256, has_bias=True)
    _compile(triton_gate._scale, "bf16", capability, block=256, hidden_block=16, has_bias=True)


@pytest.mark.usefixtures("_nothing_cached")
def test_kernels_compile_for_sizes_of_one() -> None:
    sizes = {"area": 1, "channels": 1, "width": 1}
    bias = {"has_bias": True}
    _compile(triton_gate._pool, "fp32", area=1, block=1)
    _compile(triton_gate._reduce, "fp32", channels=1, width=1, block=1, **bias)
    _compile(triton_gate._scale, "fp32", block=1, hidden_block=1, **bias, **sizes)


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
