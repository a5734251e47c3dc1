"""How many trainings side by side: a device that is simulated, with a clock that its steps turn."""

from types import SimpleNamespace

import pytest

from se_nas.training import Context, Recipe, Runtime
from se_nas.training.faults import OutOfMemoryError
from se_nas.training.pack_size import fewest_places, measure_rates


class Device:
    """Does a step of one place in ``alone`` seconds and overlaps up to ``overlap`` of them; ``room`` places fit."""

    def __init__(self, overlap, room=99, alone=0.01):
        self.overlap, self.room, self.alone = overlap, room, alone
        self.now, self.places, self.closed = 0.0, 0, 0

    def clock(self):
        return self.now

    def make_place(self):
        if self.places == self.room:
            raise OutOfMemoryError("full")
        self.places += 1
        return self

    def begin(self, architecture, context, *, batches, alone):
        assert context.checkpoint_dir is None
        assert not alone()
        step = SimpleNamespace(updates=0)

        def advance():
            step.updates += 1
            self.now += self.alone / min(self.places, self.overlap)
            return True

        def close():
            self.closed += 1

        return SimpleNamespace(step=step, advance=advance, close=close, batch_size=32)


def rates_of(device):
    context = Context(data=SimpleNamespace(in_memory=False), recipe=Recipe(), runtime=Runtime(device="cpu"))
    return measure_rates(device.make_place, None, context, seconds=5.0, clock=device.clock)


def test_more_places_are_tried_until_they_gain_nothing():
    device = Device(overlap=4)
    rates = rates_of(device)
    # 32 images in 10 ms alone; four at a time overlap whole.
    assert list(rates) == [1, 2, 4, 8]
    assert [rates[size] for size in (1, 2, 4, 8)] == pytest.approx([3200, 6400, 12800, 12800], rel=0.01)
    assert fewest_places(rates) == 4
    assert device.closed == device.places == 8


def test_memory_is_the_limit():
    device = Device(overlap=16, room=5)
    assert list(rates_of(device)) == [1, 2, 4]
    assert device.closed == 5


def test_a_device_without_room_for_one_says_so():
    with pytest.raises(OutOfMemoryError):
        rates_of(Device(overlap=1, room=0))


def test_nearly_the_best_with_fewer_places_is_enough():
    assert fewest_places({1: 100.0, 2: 190.0, 4: 300.0, 8: 305.0}) == 4
    assert fewest_places({1: 100.0}) == 1
