"""Spaces on small backbones, with every kind of gate that can be masked, and comparisons with built networks."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor, nn

from se_nas.architecture import Architecture
from se_nas.backbones import find_sites
from se_nas.backbones.insertion import state_name
from se_nas.model import build_model, build_plain
from se_nas.space import SearchSpace
from se_nas.training import initial_weights
from se_nas.training.masked import Capacity, FirstWeights, MaskedNetwork

CLASSES = 5
# No dropout: it would draw otherwise in two networks that are run one after the other.
KEYWORDS = {"num_classes": CLASSES, "drop_rate": 0.0}


def make_space(backbone: str, position: str = "standard", **rules: object) -> SearchSpace:
    spec = {"granularity": "block", "reduction": [2, 8], "native": "free", **rules}
    return SearchSpace.from_sites(
        spec, {position: find_sites(backbone, position=position)}, backbone=backbone
    )


def make_first(space: SearchSpace, init: str = "default", **keywords: object) -> FirstWeights:
    plain = Architecture.plain(space.backbone, position=space.position)
    make_plain = functools.partial(build_plain, plain, **{**KEYWORDS, **keywords})
    return FirstWeights(make_plain, init=init)


def make_network(space: SearchSpace, init: str = "default", also: tuple = (), **keywords) -> MaskedNetwork:
    first = make_first(space, init, **keywords)
    return MaskedNetwork(Capacity.of_space(space, also=also), first)


def built(arch: Architecture, seed: int, init: str = "default", **keywords) -> nn.Module:
    with initial_weights(seed):
        return build_model(arch, init=init, **{**KEYWORDS, **keywords})


def some_architectures(space: SearchSpace, count: int, seed: int = 0) -> list[Architecture]:
    rng = np.random.default_rng(seed)
    return [space.sample(rng) for _ in range(count)]


@torch.no_grad()
def shaken(model: nn.Module, seed: int = 0) -> nn.Module:
    """With no weight left at zero or one, where a branch or a gate might count for nothing."""
    draws = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=draws, dtype=parameter.dtype)
        spread = 0.3 if parameter.ndim <= 1 else 0.3 * parameter.std(correction=0) + 0.01
        parameter.add_(spread * noise)
    return model


def images(seed: int = 0, count: int = 4, side: int = 32, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def assert_cut_of(whole: dict[str, Tensor], parts: dict[str, Tensor], **tolerances: float) -> None:
    """Every part is the leading corner of the whole of its name, and all else in there is exactly zero."""
    names = {state_name(name): tensor for name, tensor in parts.items()}
    assert names.keys() <= {state_name(name) for name in whole}
    for name, tensor in whole.items():
        part = names.get(state_name(name))
        rest = tensor.clone()
        if part is not None:
            corner = tuple(slice(size) for size in part.shape)
            torch.testing.assert_close(tensor[corner], part, **tolerances, msg=lambda m, n=name: f"{n}: {m}")
            rest[corner] = 0
        assert not rest.any(), f"{name} is not zero beyond what exists"


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in model.named_parameters()}
