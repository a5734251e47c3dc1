"""Batches that several trainings of a seed share: each image is decoded once, and nobody gets another batch."""

import numpy as np
import pytest
import torch
from PIL import Image

from se_nas.data import load_data
from se_nas.training import Recipe, Runtime
from se_nas.training.loader import LoaderBatches, _Decoded
from se_nas.training.shared_batches import SharedBatches


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two classes of 24 random images of 160 pixels, read from disk on each use."""
    folder = tmp_path_factory.mktemp("images")
    draws = np.random.default_rng(0)
    for label in range(2):
        (folder / f"class{label}").mkdir()
        for index in range(24):
            pixels = draws.integers(0, 256, (160, 160, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"class{label}" / f"{index}.png")
    found = load_data(str(folder), input_size=160)
    assert not found.in_memory
    return found


@pytest.fixture
def decoded(monkeypatch):
    """Keys of the images that were decoded, in this process: without workers there is no other."""
    keys, original = [], _Decoded.__getitem__

    def counted(self, key):
        keys.append(key)
        return original(self, key)

    monkeypatch.setattr(_Decoded, "__getitem__", counted)
    return keys


def batches_of(data, seed=3):
    return LoaderBatches(data, Recipe(batch_size=8, hflip=0.5), Runtime(device="cpu", workers=0), seed)


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_trainings_in_step_decode_each_image_once(data, decoded):
    alone = [list(batches_of(data).inputs(epoch)) for epoch in range(2)]
    decoded.clear()
    shared = SharedBatches(batches_of(data))
    for epoch in range(2):
        three = [shared.inputs(epoch) for _ in range(3)]
        for expected in alone[epoch]:
            for one in three:
                assert_equal(next(one), expected)
        assert [next(one, None) for one in three] == [None] * 3
    images = 2 * shared.steps * shared.batch_size
    assert len(decoded) == len(set(decoded)) == images


def test_one_that_went_on_from_a_checkpoint_gets_its_own_batches(data):
    alone = {epoch: list(batches_of(data).inputs(epoch)) for epoch in (0, 1)}
    shared = SharedBatches(batches_of(data))
    first, second = shared.inputs(0), shared.inputs(1, start=2)
    for step in range(shared.steps - 2):
        assert_equal(next(first), alone[0][step])
        assert_equal(next(second), alone[1][step + 2])


def test_the_loader_is_left_to_the_others_when_one_ends_in_mid_epoch(data, decoded):
    alone = list(batches_of(data).inputs(0))
    shared = SharedBatches(batches_of(data))
    first, second = shared.inputs(0), shared.inputs(0)
    assert_equal(next(first), alone[0])
    assert_equal(next(second), alone[0])
    first.close()
    decoded.clear()
    for expected in alone[1:]:
        assert_equal(next(second), expected)
    assert len(decoded) == len(set(decoded)) == (len(alone) - 1) * shared.batch_size
