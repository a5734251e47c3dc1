"""A data set and a network small enough to be trained in a fraction of a second."""

from __future__ import annotations

import pytest
import torch
from striped_images import make_data
from torch import nn

from se_nas.data import ImageData
from se_nas.layers.squeeze_excite import SqueezeExcite
from se_nas.training import Context, Recipe, Runtime


class SmallNet(nn.Module):
    """Three blocks, the last two with SE where asked for, batch norm, dropout and a classifier."""

    def __init__(self, num_classes: int = 3, se: bool = True, dropout: float = 0.2) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.body = nn.Sequential(
            nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        )
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(16, num_classes)
        # Made last, so that networks with and without share their other first weights.
        self.se = SqueezeExcite(16, 4, init="identity") if se else nn.Identity()

    def get_classifier(self) -> nn.Module:
        return self.fc

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.drop(self.se(self.body(self.stem(x))).mean((2, 3))))


@pytest.fixture(scope="session")
def stripes() -> ImageData:
    return make_data()


@pytest.fixture
def small_net():
    def build(seed: int = 0, **keywords) -> SmallNet:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return SmallNet(**keywords)

    return build


@pytest.fixture
def make_context(stripes):
    def build(*, data: ImageData = stripes, runtime: Runtime | None = None, **keywords) -> Context:
        fields = {"seed", "checkpoint_dir", "name", "on_epoch", "stop", "loggers"}
        given = {key: keywords.pop(key) for key in list(keywords) if key in fields}
        recipe = Recipe(**{"epochs": 3, "batch_size": 8, "lr": 3e-3, "precision": "fp32", **keywords})
        runtime = runtime or Runtime(device="cpu", precision=recipe.precision)
        return Context(data=data, recipe=recipe, runtime=runtime, **given)

    return build
