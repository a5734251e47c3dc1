"""One step, against a loop written with torch and timm alone; starting again; trainings that take turns."""

from __future__ import annotations

import copy
import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing
from timm.optim import list_optimizers
from timm.utils import ModelEmaV3
from torch import nn

from se_nas.training import Recipe, Training, train
from se_nas.training.buffers import Buffers
from se_nas.training.loop import make_batches
from se_nas.training.optim import can_be_captured, make_loss, make_optimizer, make_scheduler
from se_nas.training.optimizer_state import FixedState
from se_nas.training.randomness import AUGMENT, DROPOUT, ORDER, derived_seed, generator, seeded
from se_nas.training.step import Step

# Those of other packages need a GPU to be made; adahessian needs gradients of gradients.
OPTIMIZERS = [str(name) for name in list_optimizers(exclude_filters=["bnb*", "fused*", "adahessian"]) if name]


def assert_same(model, other):
    left, right = model.state_dict(), other.state_dict()
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


def written_out(model, context):
    """A training without validation: timm's pieces on whole batches, one after the other."""
    recipe, data, seed = context.recipe, context.data, context.seed
    torch.manual_seed(0)
    optimizer = make_optimizer(model, recipe)
    steps = len(data.train) // recipe.batch_size
    schedule = make_scheduler(optimizer, recipe, steps)
    mixes = bool(recipe.mixup or recipe.cutmix)
    loss_of = make_loss(recipe, mixes)
    mixup = Mixup(recipe.mixup, recipe.cutmix, label_smoothing=recipe.label_smoothing, num_classes=3)
    average = recipe.ema_decay and ModelEmaV3(model, decay=recipe.ema_decay, use_warmup=True)
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) * 255 for value in (data.mean, data.std))
    model.train()
    for epoch in range(recipe.epochs):
        torch.manual_seed(derived_seed(DROPOUT, seed, epoch))
        order = generator(ORDER, seed, epoch).permutation(len(data.train))
        for step in range(steps):
            chosen = torch.from_numpy(order[step * recipe.batch_size :][: recipe.batch_size])
            images, targets = data.train.pixels[chosen].float(), data.train.labels[chosen]
            if recipe.hflip:
                flip = generator(AUGMENT, seed, epoch, step).random(len(chosen)) < recipe.hflip
                images[flip] = images[flip].flip(3)
            images = (images - mean) / std
            with seeded(AUGMENT, seed, epoch, step):
                if recipe.random_erasing:
                    images = RandomErasing(recipe.random_erasing, mode="pixel", device="cpu")(images)
                if mixes:
                    images, targets = mixup(images, targets)
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16"):
                loss = loss_of(model(images).float(), targets)
            loss.backward()
            if recipe.clip_grad:
                nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_grad)
            optimizer.step()
            optimizer.zero_grad()
            updates = epoch * steps + step + 1
            schedule.step_update(updates)
            if average:
                average.update(model, step=updates)
    return average.module if average else model


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"mixup": 0.2, "cutmix": 1.0, "random_erasing": 0.5, "hflip": 0.5, "crop": "none"},
        {"ema_decay": 0.9, "clip_grad": 0.5, "optimizer": "sgd", "backbone_lr_factor": 0.1},
        {"precision": "bf16", "mixup": 0.3, "loss": "bce"},
        {"optimizer": "lamb", "warmup_epochs": 0, "schedule": "poly", "min_lr": 0.01, "ema_decay": 0.999},
    ],
    ids=["tiny", "mixed", "average", "bf16", "lamb"],
)
def test_trains_as_the_same_training_written_out(small_net, make_context, settings):
    model = small_net()
    train(model, make_context(**settings))
    assert_same(model, written_out(small_net(), make_context(**settings)))


def gradients(model, seed):
    draws = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        weight.grad = torch.randn(weight.shape, generator=draws)


def some_steps(model, optimizer, count=3):
    for index in range(count):
        gradients(model, index)
        optimizer.step()
        optimizer.zero_grad()


@pytest.fixture
def step_of(make_context):
    def make(model, **settings):
        context = make_context(crop="pad", **settings)
        return Step(model, context, make_batches(context)), context

    return make


def run_steps(step, context, count=4):
    with step.active():
        torch.manual_seed(1)
        step.set_mode(frozen=False)
        for inputs, _ in zip(make_batches(context).inputs(0), range(count), strict=False):
            step.load(inputs)
            step.run()


VARIED = (
    "adafactor", "adamw", "adan", "adopt", "lamb", "laprop", "lars", "lion", "madgrad", "mars", "muon", "nadamw",
    "novograd", "radam", "rmsproptf", "sgd", "sgdp",
)  # fmt: skip


@pytest.mark.parametrize("name", VARIED)
def test_begun_again_a_step_is_a_new_one(small_net, step_of, name):
    """Weights, optimiser, rates and average start over, whatever was trained in between."""
    step, context = step_of(small_net(seed=5), optimizer=name, ema_decay=0.9, lr=1e-2)
    run_steps(step, context)
    with step.active():
        step.model.load_state_dict(small_net(seed=0).state_dict())
        step.begin()
    run_steps(step, context)
    fresh, context = step_of(small_net(seed=0), optimizer=name, ema_decay=0.9, lr=1e-2)
    run_steps(fresh, context)
    assert_same(step.model, fresh.model)
    assert_same(step.evaluated, fresh.evaluated)
    assert (step.updates, step.lr, step.loss_sum) == (fresh.updates, fresh.lr, fresh.loss_sum)


CAPTURED = [name for name in OPTIMIZERS if can_be_captured(Recipe(optimizer=name), "fp32")]


def test_which_optimisers_a_graph_holds():
    assert {"adam", "adamw", "sgd", "momentum", "nadamw", "radam", "rmsprop", "muon"} <= set(CAPTURED)
    assert {"lion", "lars", "larc", "rmsproptf"} <= set(CAPTURED)
    assert not {"lamb", "adopt", "adoptw", "adafactor"} & set(CAPTURED)
    # Loss scaling waits for the device, unless the optimiser is fused.
    scaled = [name for name in OPTIMIZERS if can_be_captured(Recipe(optimizer=name), "fp16")]
    assert scaled == ["adam", "adamw", "momentum", "nesterov", "sgd"]


@pytest.mark.parametrize("name", CAPTURED)
def test_fixed_state_starts_as_a_new_optimiser_and_stays_where_it_is(small_net, name):
    recipe = Recipe(optimizer=name, weight_decay=0.1)
    expected = small_net()
    some_steps(expected, make_optimizer(expected, recipe))

    model = small_net()
    optimizer = make_optimizer(model, recipe)
    state = FixedState(optimizer)
    assert_same(model, small_net())
    places = [tensor.data_ptr() for tensor in state.tensors()]
    some_steps(model, optimizer)
    assert_same(model, expected)

    model.load_state_dict(small_net().state_dict())
    state.reset()
    some_steps(model, optimizer)
    assert_same(model, expected)
    assert places == [tensor.data_ptr() for tensor in state.tensors()]


@pytest.mark.parametrize("name", CAPTURED)
def test_fixed_state_goes_on_from_a_checkpoint(small_net, name):
    recipe = Recipe(optimizer=name)
    expected = small_net()
    optimizer = make_optimizer(expected, recipe)
    some_steps(expected, optimizer)
    model = copy.deepcopy(expected)
    saved = copy.deepcopy(optimizer.state_dict())
    some_steps(expected, optimizer)

    other = make_optimizer(model, recipe)
    state = FixedState(other)
    some_steps(copy.deepcopy(model), other)
    state.load(saved)
    some_steps(model, other)
    assert_same(model, expected)


def test_fixed_state_of_another_network(small_net):
    recipe = Recipe()
    model, other = small_net(), small_net(se=False)
    optimizer = make_optimizer(other, recipe)
    some_steps(other, optimizer)
    with pytest.raises(ValueError, match="of 8 parameters; the optimiser has 12"):
        FixedState(make_optimizer(model, recipe)).load(optimizer.state_dict())


def test_trainings_that_take_turns_are_those_done_alone(small_net, make_context):
    """Each has its own dropout, whoever draws in between."""
    contexts = [{"seed": 0}, {"seed": 1, "mixup": 0.2}, {"seed": 0, "epochs": 2, "ema_decay": 0.9}]
    models = [small_net() for _ in contexts]
    trainings = [
        Training(model, make_context(**given)) for model, given in zip(models, contexts, strict=True)
    ]
    torch.manual_seed(3)
    before = torch.get_rng_state()
    waiting = list(trainings)
    while waiting:
        waiting = [training for training in waiting if training.advance()]
    assert torch.equal(torch.get_rng_state(), before)
    for model, training, settings in zip(models, trainings, contexts, strict=True):
        alone = small_net()
        expected = train(alone, make_context(**settings))
        assert_same(model, alone)
        assert training.result().loss == expected.loss


@pytest.mark.parametrize("settings", [{}, {"freeze_epochs": 1, "ema_decay": 0.9}, {"optimizer": "lamb"}])
def test_one_step_serves_one_training_after_the_other(small_net, make_context, settings):
    first = Training(small_net(seed=4), make_context(seed=1, **settings))
    while first.advance():
        pass
    model = first.step.model
    model.load_state_dict(small_net().state_dict())
    second = Training(model, make_context(**settings), first.step)
    while second.advance():
        pass
    alone = small_net()
    expected = train(alone, make_context(**settings))
    assert second.step is first.step
    assert_same(model, alone)
    assert (second.result().loss, second.result().train_loss) == (expected.loss, expected.train_loss)


def test_one_advance_is_one_step_and_a_training_may_be_given_up(small_net, make_context, tmp_path):
    context = make_context(checkpoint_dir=tmp_path)
    training = Training(small_net(), context)
    counts = []
    while not context.curve:
        assert training.advance()
        counts.append(training.step.updates)
    # The first prepares; the last two begin and end the validation.
    assert counts == [0, 1, 2, 3, 4, 5, 6, 6, 6]
    training.close()
    resumed = small_net(seed=2)
    result = train(resumed, make_context(checkpoint_dir=tmp_path))
    straight = small_net()
    train(straight, make_context())
    assert result.epochs == 3
    assert_same(resumed, straight)


def test_a_training_that_has_ended_is_freed_at_once(small_net, make_context):
    """What it holds on a GPU is needed by the next, and a collection of cycles may come late."""
    training = Training(small_net(), make_context(epochs=1, ema_decay=0.9))
    while training.advance():
        pass
    held = [weakref.ref(training.step), weakref.ref(training.step.evaluated), weakref.ref(training.model)]
    gc.disable()
    try:
        del training
        assert [reference() for reference in held] == [None] * 3
    finally:
        gc.enable()


DTYPES = (torch.float32, torch.float64, torch.int64, torch.bool, torch.uint8)


@given(
    forms=st.lists(
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 5), max_size=3)), min_size=1, max_size=6
    ),
    seed=st.integers(0, 1000),
)
def test_buffers_hold_what_was_loaded_last(forms, seed):
    def values(rng):
        return {
            str(index): torch.from_numpy(np.asarray(rng.integers(0, 2, shape))).to(dtype)
            for index, (dtype, shape) in enumerate(forms)
        }

    rng = np.random.default_rng(seed)
    buffers = Buffers(values(rng), torch.device("cpu"))
    places = {name: tensor.data_ptr() for name, tensor in buffers.items()}
    for _ in range(2):
        wanted = values(rng)
        buffers.load(wanted)
        assert all(torch.equal(buffers[name], value) for name, value in wanted.items())
    assert places == {name: tensor.data_ptr() for name, tensor in buffers.items()}


@pytest.mark.parametrize("value", [torch.zeros(3), torch.zeros(2, dtype=torch.int32)])
def test_buffers_refuse_another_form(value):
    buffers = Buffers({"chosen": torch.zeros(2)}, torch.device("cpu"))
    with pytest.raises(ValueError, match="made for"):
        buffers.load({"chosen": value})
    with pytest.raises(ValueError, match="made for"):
        buffers.load({})


def test_pixels_on_a_device_are_copied_once(stripes):
    from se_nas.training.batches import on_device

    pixels, labels = on_device(stripes.train, "cpu")
    assert on_device(stripes.train, "cpu")[0] is pixels
    assert torch.equal(labels, stripes.train.labels)
    assert on_device(replace(stripes.train), "cpu")[0] is stripes.train.pixels
