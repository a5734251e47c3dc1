import pytest

from se_nas.study.candidate import origin, start
from se_nas.study.config import SearchConfig
from se_nas.study.schedule import for_device, norm_notes, recipe_of
from se_nas.training import Recipe

WEIGHTS = [{"pretrained": True}, {"checkpoint": "resnet18.pth"}]


def config(**values):
    return SearchConfig(backbone="resnet18", **values)


def recipe(**values):
    return recipe_of(config(**values))


@pytest.mark.parametrize("weights", WEIGHTS, ids=lambda given: next(iter(given)))
def test_trained_weights_are_fine_tuned_unless_another_recipe_is_named(weights):
    assert recipe(**weights) == Recipe.preset("finetune")
    assert recipe(**weights, recipe={"lr": 1e-4}) == Recipe.preset("finetune", lr=1e-4)
    assert recipe(**weights, recipe="tiny") == Recipe.preset("tiny")
    assert recipe(**weights, recipe={"preset": "tiny", "lr": 1e-4}) == Recipe.preset("tiny", lr=1e-4)
    assert recipe(**weights, batch_size=8) == Recipe.preset("finetune", batch_size=8)


def test_fine_tuning_keeps_the_statistics_of_the_weights_and_moves_them_less():
    finetune, tiny = Recipe.preset("finetune"), Recipe.preset("tiny")
    assert finetune.norm_eval
    assert finetune.backbone_lr_factor * finetune.lr < tiny.lr < finetune.se_lr_factor * finetune.lr


def test_without_weights_it_is_the_recipe_from_scratch():
    assert recipe() == recipe(recipe={}) == Recipe.preset("tiny")
    assert recipe(recipe="finetune") == Recipe.preset("finetune")


def test_norms_that_have_no_statistics_to_keep_are_pointed_out():
    (note,) = norm_notes(recipe(recipe="finetune"), from_weights=False)
    assert "'tiny'" in note
    assert norm_notes(recipe(recipe="finetune"), from_weights=True) == []
    assert norm_notes(recipe(), from_weights=False) == []


@pytest.mark.parametrize("weights", [{}, *WEIGHTS], ids=lambda given: next(iter(given), "scratch"))
def test_only_a_recipe_that_nobody_chose_gets_the_batches_of_a_gpu(weights):
    def size(num_train, **values):
        return for_device(
            recipe(**weights, **values), config(**weights, **values), "cuda", num_train
        ).batch_size

    assert (size(2559), size(2560)) == (32, 128)
    assert size(2560, recipe="tiny") == size(2560, recipe="finetune") == size(2560, batch_size=32) == 32


def test_a_start_is_told_by_the_file_or_by_the_name_of_timms_weights():
    told = {
        "from scratch": config(),
        "fine-tuned from here/resnet18.pth": config(checkpoint="here/resnet18.pth"),
        "fine-tuned from timm's pretrained weights resnet18.a1_in1k": config(pretrained=True),
        "fine-tuned from timm's pretrained weights a:b": SearchConfig(backbone="a:b", pretrained=True),
    }
    assert [start(origin(values)) for values in told.values()] == list(told)
