"""Which optimisers a masked network can be trained by, and that it then trains like the built one."""

from __future__ import annotations

import pytest
import torch
from masked_cases import assert_cut_of, built, images, make_network, make_space, shaken
from timm.utils import ModelEmaV3
from torch import nn

from se_nas.errors import ConfigError
from se_nas.sites import ABSENT
from se_nas.space import SearchSpace
from se_nas.training import Recipe
from se_nas.training.masked import keeps_padding, why_padding_breaks
from se_nas.training.optim import make_optimizer

VALUE_BY_VALUE = [
    "sgd",
    "momentum",
    "adam",
    "adamw",
    "nadamw",
    "radam",
    "adamax",
    "rmsprop",
    "rmsproptf",
    "adagrad",
    "adadelta",
    "lion",
    "adan",
    "adopt",
    "laprop",
    "madgrad",
    "adabelief",
]
BY_NORMS = ["lamb", "lambc", "lars", "larc", "novograd", "mars"]
# Factored moments; products of matrices; thresholds that depend on the shape; means over a weight's values.
BY_SHAPE = ["adafactor", "adafactorbv", "muon", "adamuon", "adamp", "sgdp", "cadamw", "clion"]


@pytest.mark.parametrize("name", VALUE_BY_VALUE + BY_NORMS)
def test_padding_makes_no_difference(name: str) -> None:
    assert why_padding_breaks(Recipe(optimizer=name)) is None
    assert keeps_padding(Recipe(optimizer=name, clip_grad=0.5, weight_decay=0.3))


@pytest.mark.parametrize("name", BY_SHAPE)
def test_optimisers_that_look_at_shapes_are_found_out(name: str) -> None:
    assert not keeps_padding(Recipe(optimizer=name))
    assert (why_padding_breaks(Recipe(optimizer=name)) or "").startswith(
        f"optimizer {name!r} updates a weight differently when it is padded with zeros"
    )


def test_an_optimiser_that_wants_more_than_gradients_is_refused_with_its_reason() -> None:
    reason = why_padding_breaks(Recipe(optimizer="adahessian"))
    assert reason is not None
    assert reason.startswith("optimizer 'adahessian' cannot be tried out for a masked network: ")


def test_an_unknown_optimiser_is_an_error() -> None:
    with pytest.raises(ConfigError, match="optimizer is 'adamm', which timm does not know"):
        keeps_padding(Recipe(optimizer="adamm"))


def test_trying_out_leaves_the_generators_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    keeps_padding(Recipe(optimizer="adamw", lr=0.0123))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture(scope="module")
def network():
    made = make_network(_space(), "identity")
    made.model.double()
    return made


def _space() -> SearchSpace:
    """Without batch norm: the gradient of a bias before one is zero but for rounding, of which Lion makes a step."""
    return make_space("test_nfnet", "pre")


@pytest.mark.parametrize("name", VALUE_BY_VALUE + BY_NORMS)
def test_masked_training_is_the_built_networks(name: str, network) -> None:
    """Weights after some steps, and their average, are the built network's, and what is masked stays zero."""
    space = _space()
    rows = space.site_widths()
    # Every kind at once: absent and present, narrow and wide, inserted and native.
    widths = [sorted(row)[index % len(row)] for index, row in enumerate(rows)]
    arch = space.build("pre", widths)
    assert ABSENT in widths
    recipe = Recipe(optimizer=name, lr=1e-3, weight_decay=0.1, clip_grad=1.0, se_lr_factor=3.0)
    model = shaken(built(arch, 0, "identity").double())
    network.load_state(arch, model.state_dict())
    trained = [_train(net, recipe) for net in (network.model, model)]
    for masked, real in zip(*trained, strict=True):
        whole, parts = ({n: t for n, t in net.state_dict().items() if t.ndim} for net in (masked, real))
        assert_cut_of(whole, parts, rtol=1e-6, atol=1e-8)


def _train(model: nn.Module, recipe: Recipe) -> tuple[nn.Module, nn.Module]:
    model.train()
    optimizer = make_optimizer(model, recipe)
    average = ModelEmaV3(model, decay=0.9)
    for step in range(7):
        targets = torch.arange(4) % 5
        nn.functional.cross_entropy(model(images(step)), targets).backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_grad or 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update(model)
    return model, average.module
