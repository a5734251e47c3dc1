"""Spaces of real backbones, by name, by path and by position."""

import numpy as np
import pytest

from se_nas import Architecture, SearchSpace, find_sites
from se_nas.errors import BackboneError, ConfigError


def test_per_block_on_resnet18():
    space = SearchSpace.load("per_block", backbone="resnet18")
    # Two blocks a stage. 64 channels: widths 16 and 8 (γ = 8, 16, 32). 128: 32, 16, 8. 256 and 512: four.
    assert space.size == (2 * 3 + 1) * (3 * 3 + 1) * (4 * 3 + 1) ** 2
    assert space.num_points == (4 * 2**2) ** 4
    assert list(space.sites) == list(find_sites("resnet18"))
    assert (space.name, space.position) == ("per_block", "standard")


@pytest.mark.parametrize("space", ["per_block", "per_stage", "paper"])
@pytest.mark.parametrize("backbone", ["resnet18", "mobilenetv3_small_050", "regnety_002"])
def test_baselines_and_samples_are_in_the_shipped_spaces(space, backbone):
    space = SearchSpace.load(space, backbone=backbone)
    plain = Architecture.plain(backbone, position=space.position)
    assert space.architecture(space.params(plain)) == plain
    everywhere = Architecture.uniform(backbone, reduction=16, position=space.position)
    assert space.architecture(space.params(everywhere)) == everywhere
    for arch in (space.sample(np.random.default_rng(seed)) for seed in range(5)):
        assert space.architecture(space.params(arch)) == arch


def test_native_gates_can_be_resized_and_removed_by_default():
    space = SearchSpace.load("per_stage", backbone="mobilenetv3_small_050")
    position = space.position
    resized = Architecture.uniform("mobilenetv3_small_050", reduction=8, position=position, native="resize")
    assert space.params(resized) is not None
    removed = Architecture.from_widths(
        "mobilenetv3_small_050", widths=[0] * len(space.sites), position=position
    )
    assert set(space.params(removed).values()) == {"none"}


def test_every_position_of_the_paper():
    space = SearchSpace.load("paper", backbone="resnet18")
    assert space.choices["position"] == ("standard", "pre", "post", "identity", "conv3x3")
    keys = [arch.key for arch in space.enumerate()]
    assert len(set(keys)) == len(keys) == space.size


def test_a_position_given_overrides_the_files():
    assert SearchSpace.load("paper", backbone="resnet18", position="post").position == "post"
    several = SearchSpace.load("per_stage", backbone="resnet18", position=["standard", "pre"])
    assert several.choices["position"] == ("standard", "pre")
    with pytest.raises(
        ConfigError, match=r"position is 'pots'\. Did you mean 'post'.* Allowed: usual, all, standard"
    ):
        SearchSpace.load("per_stage", backbone="resnet18", position="pots")
    with pytest.raises(BackboneError, match="vgg11_bn"):
        SearchSpace.load("per_stage", backbone="vgg11_bn", position="pre")


def test_keywords_of_timm_reach_the_sites_and_the_architectures():
    space = SearchSpace.load("per_block", backbone="resnet18", block_args={"attn_layer": "eca"})
    assert {site.native for site in space.sites} == {"eca"}
    arch = space.sample(np.random.default_rng(0))
    assert dict(arch.timm_kwargs) == dict(
        Architecture.plain("resnet18", block_args={"attn_layer": "eca"}).timm_kwargs
    )


def test_a_file_by_its_path(tmp_path):
    path = tmp_path / "last.yaml"
    path.write_text(
        "granularity: stage\nreduction: [4, 16]\nstages: [-1]\nposition: post\n", encoding="utf-8"
    )
    space = SearchSpace.load(path, backbone="resnet18")
    assert (space.name, space.size, list(space.choices)) == ("last", 3, ["stage3.reduction"])
    assert SearchSpace.load(str(path), backbone="resnet18").fingerprint == space.fingerprint


def test_an_unknown_backbone_is_the_backbones_error():
    with pytest.raises(BackboneError, match="resnet81"):
        SearchSpace.load("per_block", backbone="resnet81")
