"""A ``torch.export`` program: one file that PyTorch runs without se_nas and timm."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn

from se_nas.errors import ConfigError


def write_program(network: nn.Module, path: Path, input_size: tuple[int, ...]) -> float:
    """Write the program and return the largest difference of its outputs, as a share of the largest output.

    ``torch.export.load(path).module()`` takes (N, channels, height, width) with any N.

    Raises:
        ConfigError: ``torch.export`` cannot take the network.
    """
    # A batch of 2: the exporter treats sizes 0 and 1 as constants.
    dtype = next(network.parameters()).dtype
    x = torch.randn(2, *input_size, generator=torch.Generator().manual_seed(0)).to(dtype)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(
                network, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)
            )
    except Exception as error:  # the exporter raises what any operator of any network raises
        raise ConfigError(f"torch.export cannot export this network: {error}") from error
    torch.export.save(program, path)
    largest = 0.0
    for batch in (1, 3):
        x = torch.randn(batch, *input_size, generator=torch.Generator().manual_seed(batch)).to(dtype)
        with torch.no_grad():
            expected = network(x)
            got = torch.export.load(path).module()(x)
        largest = max(largest, float((got - expected).abs().max() / expected.abs().max().clamp(min=1e-12)))
    return largest
