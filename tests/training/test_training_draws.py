"""What is drawn and what it does to a batch, against timm's own augmentations under the same seeds and numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from striped_images import make_data
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing

from se_nas.training import Recipe, Runtime
from se_nas.training.augment import Augment, erase_at_once, erase_each
from se_nas.training.batches import MemoryBatches
from se_nas.training.draws import Draws
from se_nas.training.randomness import AUGMENT, seeded

PHOTOS = replace(make_data(), mirror=True)
KEYS = st.tuples(st.integers(0, 2**31), st.integers(0, 9), st.integers(0, 999))


def images(count=8):
    pixels = PHOTOS.train.pixels[:count]
    return pixels.float(), PHOTOS.train.labels[:count]


def normalised(pixels):
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) * 255 for value in (PHOTOS.mean, PHOTOS.std))
    return (pixels - mean).div_(std)


@given(
    key=KEYS,
    alphas=st.sampled_from([(0.3, 0.0), (0.0, 1.0), (0.2, 1.0)]),
    prob=st.sampled_from([0.0, 0.5, 1.0]),
    off=st.integers(0, 5),
    erasing=st.sampled_from([0.0, 0.6]),
    smoothing=st.sampled_from([0.0, 0.1]),
)
def test_erases_and_mixes_as_timm_does(key, alphas, prob, off, erasing, smoothing):
    recipe = Recipe(
        mixup=alphas[0],
        cutmix=alphas[1],
        mixup_prob=prob,
        mixup_off_epoch=off,
        random_erasing=erasing,
        label_smoothing=smoothing,
    )
    pixels, labels = images()
    augment = Augment(recipe, PHOTOS)
    found, targets = augment.finish(pixels, labels, augment.draws.finish(8, *key))

    mixup = Mixup(*alphas, prob=prob, label_smoothing=smoothing, num_classes=3)
    mixup.mixup_enabled = not off or key[1] < off
    with seeded(AUGMENT, *key):
        expected = normalised(pixels)
        if erasing:
            expected = RandomErasing(erasing, mode="pixel", device="cpu")(expected)
        expected, wanted = mixup(expected, labels)
    assert torch.equal(found, expected)
    assert torch.equal(targets, wanted)


@given(key=KEYS, probability=st.sampled_from([0.1, 0.6, 1.0]))
def test_erases_as_timm_does(key, probability):
    pixels, labels = images()
    augment = Augment(Recipe(random_erasing=probability), PHOTOS)
    found, targets = augment.finish(pixels, labels, augment.draws.finish(8, *key))
    with seeded(AUGMENT, *key):
        expected = RandomErasing(probability, mode="pixel", device="cpu")(normalised(pixels))
    assert torch.equal(found, expected)
    assert targets is labels


@given(key=KEYS, count=st.integers(1, 9), size=st.tuples(st.integers(2, 40), st.integers(2, 40)))
def test_erasing_at_once_as_on_a_gpu_fills_the_same_boxes(key, count, size):
    data = replace(PHOTOS, input_size=(3, *size))
    drawn = Draws(Recipe(random_erasing=0.7), data).finish(count, *key)
    images = torch.rand(count, 3, *size)
    expected = erase_each(images.clone(), drawn["boxes"], drawn["noise"])
    sizes = 3 * drawn["boxes"][:, 2] * drawn["boxes"][:, 3]
    shifted = drawn["noise"].roll(-5)
    first = (sizes.cumsum(0) - sizes - 5) % len(shifted)
    assert torch.equal(erase_at_once(images, drawn["boxes"], first, shifted), expected)
    # On a GPU only the noise differs, which comes from a table; candidates of a seed take the same.
    tabled = Draws(Recipe(random_erasing=0.7), data, noise_table=True)
    found, again = tabled.finish(count, *key), tabled.finish(count, *key)
    assert torch.equal(found["boxes"], drawn["boxes"])
    assert torch.equal(found["first"], again["first"])
    assert (found["first"] < len(tabled.table())).all()


def test_the_table_of_noise_is_normal_and_the_same_everywhere():
    table = Draws(Recipe(random_erasing=0.7), PHOTOS).table()
    assert torch.equal(table, Draws(Recipe(random_erasing=0.1), PHOTOS).table())
    assert abs(table.mean()) < 5e-3
    assert abs(table.std() - 1) < 5e-3


@given(key=KEYS, hflip=st.sampled_from([0.0, 0.5, 1.0]), crop=st.sampled_from(["pad", "none"]))
def test_moves_and_mirrors_as_padding_and_slicing_does(key, hflip, crop):
    recipe = Recipe(crop=crop, hflip=hflip)
    augment = Augment(recipe, PHOTOS)
    pixels = PHOTOS.train.pixels[:6]
    draws = augment.draws.geometric(6, *key)
    found = augment.geometric(pixels, draws)
    if not draws:
        assert (crop, hflip) == ("none", 0.0)
        assert torch.equal(found, pixels.float())
        return
    reach = 2 if crop == "pad" else 0
    flips, down, right = (draws[name].flatten().tolist() for name in ("flip", "down", "right"))
    assert max(map(abs, down + right)) <= reach
    padded = np.pad(pixels.numpy(), ((0, 0), (0, 0), (reach, reach), (reach, reach)), mode="edge")
    for index, (flip, dy, dx) in enumerate(zip(flips, down, right, strict=True)):
        part = padded[index][:, reach + dy :][:, :16, reach + dx :][:, :, :16]
        assert np.array_equal(found[index].numpy(), part[:, :, ::-1] if flip else part)


@given(key=KEYS, low=st.floats(0.05, 0.9))
def test_resized_crops_lie_in_the_image_and_have_its_share(key, low):
    theta = Draws(Recipe(crop="random_resized", crop_scale=(low, 1.0)), PHOTOS).geometric(16, *key)["theta"]
    wide, tall = theta[:, 0, 0].abs(), theta[:, 1, 1]
    assert torch.all(theta[:, :, 2].abs() + torch.stack([wide, tall], 1) <= 1 + 1e-6)
    whole = (wide == 1) | (tall == 1)
    assert torch.all((wide * tall)[~whole] >= low - 1e-6)
    assert torch.all((theta[:, 0, 1] == 0) & (theta[:, 1, 0] == 0))


def test_draws_of_a_key_stay_what_they_were():
    """As version 0.1.0 drew them: a training that was begun with it goes on with the same images."""
    crops = Draws(Recipe(crop="random_resized"), PHOTOS).geometric(4, 1, 2, 3)["theta"]
    assert crops[0].tolist() == [
        [0.6786403059959412, 0.0, -0.03031172603368759],
        [0.0, 0.5128663778305054, -0.3076746463775635],
    ]
    moves = Draws(Recipe(), PHOTOS).geometric(6, 1, 2, 3)
    assert moves["flip"].tolist() == [False, False, True, False, True, False]
    assert moves["down"].flatten().tolist() == [1, -1, 0, 1, 1, 2]
    assert moves["right"].flatten().tolist() == [1, 1, 0, 2, -1, -2]


@pytest.mark.parametrize("settings", [{}, {"crop": "random_resized", "mixup": 0.2, "random_erasing": 0.5}])
def test_names_shapes_and_types_never_change(settings):
    """What a graph was captured with serves every batch."""
    draws = Draws(Recipe(**settings), PHOTOS)
    forms = {
        tuple(
            (name, value.shape, value.dtype)
            for part in (draws.geometric(8, 0, epoch, step), draws.finish(8, 0, epoch, step))
            for name, value in part.items()
        )
        for epoch in range(2)
        for step in range(20)
    }
    assert len(forms) == 1


def equal_inputs(found, expected):
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], expected[name]) for name in expected
    )


@settings(deadline=None)
@given(
    room=st.sampled_from([0, 1500, 10**9]),
    turns=st.lists(st.integers(0, 2), min_size=20, max_size=40),
    starts=st.tuples(*[st.integers(0, 5)] * 3),
)
def test_shared_batches_are_those_of_each_alone(room, turns, starts):
    recipe = Recipe(batch_size=8, mixup=0.2)
    shared, alone = (MemoryBatches(PHOTOS, recipe, Runtime(), 3, remember=size) for size in (room, 0))
    going = [(shared.inputs(1, start), alone.inputs(1, start)) for start in starts]
    for turn in turns:
        found, expected = (next(inputs, {}) for inputs in going[turn])
        assert equal_inputs(found, expected)


@pytest.mark.parametrize(("room", "times"), [(10**9, 1), (0, 3)])
def test_trainings_side_by_side_draw_once(monkeypatch, room, times):
    drawn = []
    geometric = Draws.geometric

    def counted(draws, count, *key):
        drawn.append(key)
        return geometric(draws, count, *key)

    monkeypatch.setattr(Draws, "geometric", counted)
    batches = MemoryBatches(PHOTOS, Recipe(batch_size=8), Runtime(), 3, remember=room)
    for _ in zip(*(batches.inputs(2) for _ in range(3)), strict=True):
        pass
    assert sorted(drawn) == sorted([(3, 2, step) for step in range(6)] * times)
