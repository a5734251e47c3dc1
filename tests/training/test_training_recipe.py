"""Recipes: presets, files that people write, and every wrong value."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from timm.optim import list_optimizers

from se_nas.errors import ConfigError
from se_nas.training import PRESETS, Recipe
from se_nas.training.optim import make_optimizer


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_a_round_trip(name):
    recipe = Recipe.preset(name)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert recipe.optimizer in list_optimizers()


def test_a3_is_the_papers():
    """ResNet strikes back, table 2, column A3."""
    recipe = Recipe.preset("imagenet-a3")
    got = (recipe.optimizer, recipe.epochs, recipe.batch_size, recipe.lr, recipe.weight_decay)
    assert got == ("lamb", 100, 2048, 8e-3, 0.02)
    assert (recipe.loss, recipe.mixup, recipe.cutmix, recipe.label_smoothing) == ("bce", 0.1, 1.0, 0.0)
    assert (recipe.auto_augment, recipe.warmup_epochs) == ("rand-m6-mstd0.5-inc1", 5)


def test_file_may_change_a_preset():
    recipe = Recipe.from_dict({"preset": "finetune", "lr": 0.01})
    assert recipe == replace(Recipe.preset("finetune"), lr=0.01)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"learning_rate": 0.1}, "unknown key 'learning_rate'"),
        ({"batchsize": 8}, "Did you mean 'batch_size'"),
        ({"preset": "finetunes"}, "Did you mean 'finetune'"),
        ({"lr": 0}, "lr is 0"),
        ({"lr": "fast"}, "lr is 'fast'"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"epochs": 0}, "epochs is 0"),
        ({"epochs": 2.5}, "epochs is 2.5"),
        ({"epochs": "2"}, "epochs is '2'"),
        ({"preset": ["tiny"]}, r"recipe is \['tiny'\]; allowed: tiny"),
        ({"crop_scale": 0.5}, "this is not a recipe"),
        ({"batch_size": True}, "batch_size is True"),
        ({"schedule": "cosin"}, "schedule is 'cosin'; allowed: cosine"),
        ({"precision": "fp8"}, "precision is 'fp8'"),
        ({"crop": "center"}, "crop is 'center'"),
        ({"crop_scale": [0.5]}, "crop_scale is"),
        ({"crop_scale": [0.9, 0.1]}, "crop_scale is"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
        ({"warmup_epochs": 3, "epochs": 3}, "warmup_epochs is 3; it must be below epochs, 3"),
        ({"hflip": 2}, "hflip is 2"),
        ({"norm_eval": 1}, "norm_eval is 1; it must be true or false"),
        ({"mixup": 0.2, "batch_size": 33}, "batch_size is 33; mixup and cutmix need an even one"),
    ],
)
def test_wrong_values_are_named(given, message):
    with pytest.raises(ConfigError, match=message):
        Recipe.from_dict(given)


@pytest.mark.parametrize("epochs", [1, 2, 10])
@pytest.mark.parametrize("name", PRESETS)
def test_warm_up_and_freezing_keep_their_share_whatever_the_epochs(name, epochs):
    given = Recipe.preset(name, freeze_epochs=0.25)
    for recipe in (given.with_(epochs=epochs), Recipe.preset(name, freeze_epochs=0.25, epochs=epochs)):
        assert recipe.warmup_epochs / epochs == pytest.approx(given.warmup_epochs / given.epochs)
    assert given.with_(epochs=epochs).freeze_epochs / epochs == pytest.approx(0.25 / given.epochs)


def test_what_is_given_with_the_epochs_is_taken_as_it_is():
    recipe = Recipe(warmup_epochs=1, epochs=5).with_(epochs=10, warmup_epochs=1.5)
    assert (recipe.epochs, recipe.warmup_epochs) == (10, 1.5)


def test_unknown_optimizer_names_the_nearest(small_net):
    with pytest.raises(ConfigError, match=r"'adamww'.*Did you mean 'adamw'"):
        make_optimizer(small_net(), Recipe(optimizer="adamww"))


def test_unreadable_augmentation(make_context):
    from se_nas.training.loop import make_batches

    with pytest.raises(ConfigError, match="auto_augment is 'foo-m9'"):
        make_batches(make_context(auto_augment="foo-m9"))
