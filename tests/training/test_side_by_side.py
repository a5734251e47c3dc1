"""Tensors in one block: values and memory formats stay, and a copy is one transfer for each type."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from se_nas.training import side_by_side
from se_nas.training.checkpoint import Snapshot
from se_nas.training.side_by_side import Staging, by_type, copies_on_cpu, parts_of, room_for


def some():
    torch.manual_seed(0)
    return [
        torch.randn(5, 3, 2, 2).to(memory_format=torch.channels_last),
        torch.randn(7),
        torch.tensor(3),
        torch.randn(()),
        torch.randn(4, 6)[:, ::2],
        torch.randn(2, 2).t(),
        torch.arange(70),
    ]


class Operations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_parts_have_the_forms_of_the_tensors_and_do_not_overlap():
    floats = [tensor for tensor in some() if tensor.is_floating_point()]
    block = room_for(floats)
    parts = parts_of(block, floats)
    for index, (part, tensor) in enumerate(zip(parts, floats, strict=True)):
        part.fill_(index + 1)
        assert part.shape == tensor.shape
    assert [part.unique().tolist() for part in parts] == [[index + 1] for index in range(len(parts))]
    assert parts[0].is_contiguous(memory_format=torch.channels_last)
    assert all(part.storage_offset() % 64 == 0 for part in parts)


def test_copies_are_equal_and_of_their_own_and_take_few_operations():
    tensors = some()
    assert sorted(map(len, by_type(tensors))) == [2, 5]
    with Operations() as seen:
        copies = copies_on_cpu(tensors)
    # One for each of two types; two tensors have gaps, or another order.
    assert sorted(name for name in seen.names if "copy" in name) == ["_foreach_copy_"] * 2 + ["copy_"] * 2
    for copy, tensor in zip(copies, tensors, strict=True):
        assert copy.dtype == tensor.dtype
        assert torch.equal(copy, tensor)
        assert copy.untyped_storage().data_ptr() != tensor.untyped_storage().data_ptr()


def test_without_room_for_a_block_tensors_come_one_by_one(monkeypatch):
    def full(*args, **keywords):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(side_by_side, "room_for", full)
    tensors = some()
    copies = copies_on_cpu(tensors)
    assert all(torch.equal(copy, tensor) for copy, tensor in zip(copies, tensors, strict=True))
    assert {copy.data_ptr() for copy in copies}.isdisjoint(tensor.data_ptr() for tensor in tensors)


def test_staged_values_are_sent_together_and_kept():
    targets = [torch.zeros(3), torch.zeros(2, 2), torch.zeros(4, dtype=torch.bool)]
    staging = Staging(targets)
    for value in staging.values:
        value.fill_(1)
    assert not any(target.any() for target in targets)
    with Operations() as seen:
        staging.send()
    assert seen.names == ["_foreach_copy_"] * 2
    assert all(target.all() for target in targets)
    for target in targets:
        target.zero_()
    staging.send()
    assert all(target.all() for target in targets)
    assert staging.fits(targets)
    targets[0].data = torch.zeros(3)
    assert not staging.fits(targets)


def test_a_snapshot_is_the_state_as_it_was():
    weight = torch.ones(3, requires_grad=True)
    state = {"model": {"w": weight}, "groups": [{"lr": 0.1, "params": [0]}], "none": None, "text": "a"}
    snapshot = Snapshot(state)
    with torch.no_grad():
        weight.zero_()
    found = snapshot.get()
    assert found["model"]["w"].tolist() == [1.0, 1.0, 1.0]
    assert not found["model"]["w"].requires_grad
    assert {key: found[key] for key in ("groups", "none", "text")} == {
        key: state[key] for key in ("groups", "none", "text")
    }


@pytest.mark.gpu
def test_gpu_a_snapshot_does_not_wait_for_the_device_and_is_complete():
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        tensors = [tensor.cuda() for tensor in some()]
        torch.cuda._sleep(200_000_000)
        tensors[1].fill_(2.0)
        snapshot = Snapshot(tensors)
        # The device has not got there yet.
        assert not stream.query()
        tensors[1].fill_(3.0)
    found = snapshot.get()
    assert found[1].tolist() == [2.0] * 7
    for copy, tensor in zip([*found[:1], *found[2:]], [*tensors[:1], *tensors[2:]], strict=True):
        assert torch.equal(copy, tensor.cpu())
