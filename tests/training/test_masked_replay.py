"""Modules made from one state of the generator are those that torch makes from it, to the bit."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import SEModule
from torch import nn

from se_nas.layers.gate_resizing import resized
from se_nas.layers.squeeze_excite import SqueezeExcite
from se_nas.training.masked.replay import Replay

torch.manual_seed(11)
STATE = torch.get_rng_state()
REPLAY = Replay(STATE)


def from_state(maker):
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(STATE)
        return maker()


def assert_equal(maker, calls: int = 1) -> None:
    counted = Mock(side_effect=maker)
    made, expected = REPLAY.make(counted), from_state(maker)
    assert counted.call_count == calls
    for one, other in zip(made, expected, strict=True):
        for name, tensor in other.state_dict().items():
            assert torch.equal(one.state_dict()[name], tensor), name


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 65), st.integers(1, 33)), min_size=1, max_size=6),
    bias=st.booleans(),
    init=st.sampled_from(["default", "identity"]),
)
def test_blocks_of_any_widths(shapes: list[tuple[int, int]], bias: bool, init: str) -> None:
    assert_equal(lambda: [SqueezeExcite(c, h, bias=bias, init=init) for c, h in shapes])


def test_other_layers_and_resized_gates() -> None:
    native = SEModule(24, rd_channels=4, norm_layer=nn.BatchNorm2d)
    assert_equal(lambda: [nn.Linear(5, 7), resized(native, 9), resized(native, 2), nn.Conv2d(3, 4, 3)])


@pytest.mark.parametrize(
    "maker",
    [
        lambda: [nn.Embedding(4, 3), nn.Linear(3, 2)],
        lambda: [nn.Linear(3, 2), nn.Linear(3, 2, dtype=torch.float64)],
        lambda: [nn.Linear(3, 2), nn.Embedding(4, 3), nn.Linear(3, 2)],
    ],
)
def test_what_draws_otherwise_is_drawn(maker) -> None:
    assert_equal(maker, calls=2)


def test_the_generator_stays_as_it_is() -> None:
    torch.manual_seed(2)
    before = torch.get_rng_state()
    Replay(STATE).make(lambda: [nn.Linear(30, 20), nn.Embedding(2, 2)])
    assert torch.equal(torch.get_rng_state(), before)


def test_uniform_numbers_are_not_drawn_twice() -> None:
    draws = Replay(STATE)
    draws.make(lambda: nn.Linear(30, 20))
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(STATE)
        expected = torch.empty(620).uniform_()
    assert torch.equal(draws.numbers(0, 620), expected)
    assert torch.equal(draws.numbers(600, 20), expected[600:])
