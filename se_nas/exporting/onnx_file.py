"""An ONNX file that takes a batch of any size, tried in ONNX Runtime before it is kept."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch
from torch import nn

from se_nas.errors import ConfigError

TOLERANCE = 1e-4
"""Largest difference allowed between ONNX Runtime and PyTorch, as a share of the largest output (float32)."""


def write_onnx(network: nn.Module, path: Path, input_size: tuple[int, ...]) -> float:
    """Write the network and return the largest difference of its outputs, as a share of the largest output.

    Input ``images`` (N, channels, height, width), output ``logits`` (N, classes), one file.

    Raises:
        ConfigError: a package is missing, the weights are not float32, the network cannot be exported, or the
            outputs differ.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  torch's exporter needs it, and says so too late
    except ImportError as error:
        raise ConfigError(
            f"format 'onnx' needs the package {error.name}: pip install 'se-nas[onnx]'."
        ) from error
    if any(parameter.dtype != torch.float32 for parameter in network.parameters()):
        raise ConfigError("format 'onnx' needs float32 weights; convert the network with .float() first.")
    x = torch.randn(2, *input_size, generator=torch.Generator().manual_seed(0))
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network,
                (x,),
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # the exporter raises what any operator of any network raises
        raise ConfigError(f"this network cannot be exported to ONNX: {error}") from error
    assert program is not None
    program.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    largest = 0.0
    for batch in (1, 3):
        x = torch.randn(batch, *input_size, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            expected = network(x)
        got = torch.from_numpy(session.run(["logits"], {"images": x.numpy()})[0])
        difference = (got - expected).abs().max() / expected.abs().max().clamp(min=1e-12)
        largest = max(largest, float(difference))
    if not largest <= TOLERANCE:
        raise ConfigError(
            f"ONNX Runtime's outputs differ from PyTorch's by {largest:.1e} of the largest output"
            f" (allowed: {TOLERANCE:.0e}); the file was not kept."
        )
    return largest
