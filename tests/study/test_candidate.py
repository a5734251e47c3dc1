"""One builder of a candidate's network: what a recipe says of it holds in search and retraining alike."""

import pytest
from small_cases import SEARCH
from timm.layers import DropPath

from se_nas.architecture import Architecture
from se_nas.errors import BackboneError
from se_nas.retraining import retrain
from se_nas.study import search
from se_nas.study.candidate import build_candidate
from se_nas.study.config import SearchConfig
from se_nas.training import Recipe

TRAINER = """
from timm.layers import DropPath

def count(model, context):
    with open({path!r}, "a") as file:
        print(sum(isinstance(module, DropPath) for module in model.modules()), file=file)
    return {{"accuracy": 50.0}}
"""


def test_stochastic_depth_of_a_recipe_is_in_every_candidate(tmp_path, monkeypatch):
    """resnet18 has 8 blocks, of which timm gives the first a rate of 0."""
    (tmp_path / "counting_trainer.py").write_text(TRAINER.format(path=str(tmp_path / "counts")))
    monkeypatch.syspath_prepend(tmp_path)
    given = {**SEARCH, "backbone": "resnet18", "objectives": "accuracy,params", "runs": str(tmp_path)}
    recipe = {"preset": "tiny", "drop_path": 0.5, "batch_size": 128}
    config = SearchConfig(
        **{**given, "recipe": recipe}, trainer="counting_trainer:count", trials=3, final_seeds=0
    )
    search(config)
    assert (tmp_path / "counts").read_text().split() == ["7"] * 3


def test_a_network_that_cannot_drop_paths_is_refused_by_name():
    config = SearchConfig(backbone="vgg11_bn")
    with pytest.raises(BackboneError, match="drop_path_rate"):
        build_candidate(Architecture.plain("vgg11_bn"), config, Recipe(drop_path=0.1), num_classes=10, seed=0)


def test_retraining_builds_the_same_network(tmp_path):
    given = {**SEARCH, "objectives": "accuracy,params", "runs": str(tmp_path)}
    run = search(SearchConfig(**given, trials=1, final_seeds=0))
    recipe = {"preset": "tiny", "drop_path": 0.5, "batch_size": 128, "epochs": 1}
    exported = retrain(run, pick="best", recipe=recipe, out=tmp_path / "out", device="cpu")
    assert exported.path.is_dir()
    config = SearchConfig(**given)
    built = build_candidate(
        Architecture.plain("test_resnet"), config, Recipe.from_dict(recipe), num_classes=10, seed=0
    )
    dropping = [module.drop_prob for module in built.modules() if isinstance(module, DropPath)]
    assert dropping
    assert max(dropping) == pytest.approx(0.5)
