"""Discovery on live models that are not timm's, its cache, and what it refuses."""

from __future__ import annotations

import time

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from se_nas import Architecture, SearchSpace, build_model, find_sites, measure_cost
from se_nas.backbones import discovery, positions, usual_position
from se_nas.backbones.discovery import survey
from se_nas.errors import BackboneError, ConfigError, SeNasError

SIZE = (3, 32, 32)


class Block(nn.Module):
    def __init__(self, width: int, act: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), act())
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(self.first(x)))


class Shared(nn.Module):
    """One block, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.block = Block(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.block(self.stem(x)))


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 32 * 32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.head(x.flatten(1)))


class Merged(nn.Module):
    """Two non-linear paths that are added: a merge and no residual; the chains of convolutions remain."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.left = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.right = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.left(x) + self.right(x)


def test_torchvisions_resnet_has_the_sites_of_timms() -> None:
    ours = find_sites(torchvision.models.resnet18(), input_size=(3, 224, 224))
    timms = find_sites("resnet18")
    assert [(s.stage, s.block, s.path, s.channels, s.resolution) for s in ours] == [
        (s.stage, s.block, s.path, s.channels, s.resolution) for s in timms
    ]


def test_torchvisions_mobilenet_is_gated_behind_the_depthwise_convolution() -> None:
    model = torchvision.models.mobilenet_v2()
    sites = find_sites(model, input_size=(3, 224, 224))
    assert len(sites) == 17
    assert {site.position for site in sites} == {"conv3x3"}
    assert all(isinstance(model.get_submodule(site.path), nn.ReLU6) for site in sites)
    # The second block expands 16 channels to 96 and is gated relative to its input.
    assert (sites[1].channels, sites[1].reduction_base, sites[1].act) == (96, 16, "relu6")


def test_nothing_of_a_live_model_changes() -> None:
    model = timm.create_model("resnet10t")
    model.layer1.eval()
    modes = {name: module.training for name, module in model.named_modules()}
    before = {name: (id(value), value.clone()) for name, value in model.state_dict(keep_vars=True).items()}
    names = [name for name, _ in model.named_modules()]
    find_sites(model)
    assert modes == {name: module.training for name, module in model.named_modules()}
    assert names == [name for name, _ in model.named_modules()]
    for name, value in model.state_dict(keep_vars=True).items():
        assert id(value) == before[name][0]
        assert torch.equal(value, before[name][1])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_merge_is_no_residual() -> None:
    sites = find_sites(Merged(), input_size=SIZE)
    assert [site.path for site in sites] == ["stem", "left.1", "right.1"]
    assert positions(Merged(), input_size=SIZE) == ["standard"]


def test_names_are_looked_at_once() -> None:
    first = survey("resnet10t")
    start = time.perf_counter()
    for _ in range(50):
        find_sites("resnet10t", position="pre")
    assert survey("resnet10t") is first
    assert survey("resnet10t", input_size=(3, 64, 64)) is not first
    assert time.perf_counter() - start < 5


def test_discovery_runs_once_a_backbone_and_not_once_a_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Counted(discovery.Survey):
        def __init__(self, model: nn.Module, input_size: tuple[int, ...], name: str) -> None:
            made.append(name)
            super().__init__(model, input_size, name)

    monkeypatch.setattr(discovery, "Survey", Counted)
    monkeypatch.setattr(discovery, "_surveys", discovery.OrderedDict())
    space = SearchSpace.load("per_block", backbone="resnet10t")
    rng = np.random.default_rng(0)
    counts = []
    for arch in (space.sample(rng), space.sample(rng), Architecture.uniform("resnet10t", reduction=8)):
        build_model(Architecture.from_dict(arch.to_dict()))
        measure_cost(arch)
        counts.append(len(made))
    # The second look is at the input size of the cost.
    assert counts == [2, 2, 2]


def test_sites_of_a_name_are_the_same_objects_in_a_list_of_the_callers_own() -> None:
    first = find_sites("test_resnet")
    again = find_sites("test_resnet")
    assert all(site is other for site, other in zip(first, again, strict=True))
    again.clear()
    assert find_sites("test_resnet") == first


def test_resolutions_follow_the_input_size() -> None:
    assert find_sites("resnet10t", input_size=(3, 64, 64))[0].resolution == (16, 16)
    assert find_sites("resnet10t", in_chans=1)[0].channels == find_sites("resnet10t")[0].channels


def test_stages_of_odd_input_sizes() -> None:
    assert [site.stage for site in find_sites("inception_v3")] == [0] * 3 + [1] * 5 + [2] * 3


def test_one_resolution_is_divided_by_depth() -> None:
    stages = [site.stage for site in find_sites("convmixer_768_32")]
    assert [stages.count(stage) for stage in range(4)] == [8, 8, 8, 8]


def test_unknown_name() -> None:
    with pytest.raises(BackboneError, match=r"'resnet5O' is unknown to timm.*'resnet50'"):
        find_sites("resnet5O")


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "mixer_s32_224"])
def test_no_place_for_se(name: str) -> None:
    with pytest.raises(BackboneError, match=f"{name} has no place for SE"):
        find_sites(name)


def test_no_place_in_a_linear_model() -> None:
    with pytest.raises(BackboneError, match="Linear has no place for SE"):
        find_sites(Linear(), input_size=SIZE)


def test_shared_block() -> None:
    with pytest.raises(
        BackboneError, match=r"calls the block 'block' 2 times.*separate block for every place"
    ):
        find_sites(Shared(), input_size=SIZE)


def test_input_size_is_missing() -> None:
    with pytest.raises(BackboneError, match=r"does not say which images.*input_size="):
        find_sites(Linear())


@pytest.mark.parametrize(
    ("size", "error", "reason"),
    [
        ((3, 224), ConfigError, "must be an integer, a list of 3 integers or None"),
        ((3, 32.0, 32), ConfigError, "must be an integer, a list of 3 integers or None"),
        ((3, 0, 32), BackboneError, r"must be \(channels, height, width\)"),
    ],
)
def test_input_size_is_wrong(size: tuple[int, ...], error: type[SeNasError], reason: str) -> None:
    with pytest.raises(error, match=reason):
        find_sites("resnet10t", input_size=size)  # type: ignore[arg-type]


def test_input_size_does_not_fit() -> None:
    with pytest.raises(BackboneError, match=r"cannot run on an image of 3x32x32.*input_size="):
        find_sites("inception_v3", input_size=SIZE)


def test_keyword_that_timm_refuses() -> None:
    with pytest.raises(BackboneError, match=r"resnet10t cannot be built with colour='blue'"):
        usual_position("resnet10t", colour="blue")


def test_keyword_for_a_live_model() -> None:
    with pytest.raises(BackboneError, match="'in_chans' has no effect"):
        find_sites(Merged(), input_size=SIZE, in_chans=1)
