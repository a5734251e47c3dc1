"""The average against timm's, and what one kernel for all weights does against one for each."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.utils import ModelEmaV3

from se_nas.training.average import Average


@pytest.fixture(params=[torch.contiguous_format, torch.channels_last])
def model(request):
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=7).to(memory_format=request.param)


@torch.no_grad()
def train(model):
    for weight in model.parameters():
        weight.add_(torch.randn_like(weight), alpha=0.01)
    for buffer in model.buffers():
        buffer.add_(1)


def same(model, other):
    pairs = zip(model.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(one, two) for one, two in pairs)


@pytest.mark.parametrize("at_once", [False, True])
def test_the_average_is_timms_to_the_bit(model, at_once):
    average, theirs = Average(model, 0.95), ModelEmaV3(model, decay=0.95, use_warmup=True)
    if at_once:
        for block in average._blocks:
            block.move = block.move_at_once
    for updates in range(40):
        train(model)
        average.update(torch.tensor(average.share(updates)))
        theirs.update(model, step=updates + 1)
        assert same(average.model, theirs.module)
    average.begin()
    assert same(average.model, model)
    # It is a copy, in the network's memory format.
    train(model)
    assert not same(average.model, model)
    for one, two in zip(average.model.parameters(), model.parameters(), strict=True):
        assert one.stride() == two.stride()


def test_averages_of_one_type_lie_side_by_side(model):
    average = Average(model, 0.9)
    memory = {
        tensor.untyped_storage().data_ptr()
        for tensor in average.model.state_dict().values()
        if tensor.is_floating_point()
    }
    assert len(memory) == 1
    copy = Average(model, 0.9).model
    copy.load_state_dict(average.model.state_dict())
    assert same(copy, average.model)
