"""A backbone that is not timm's, through an entry point, and what a broken plug-in says."""

from __future__ import annotations

import sys
import types
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from se_nas import Architecture, build_model, find_sites, plugins
from se_nas.backbones import adapters
from se_nas.backbones.adapters import BackboneAdapter
from se_nas.errors import BackboneError
from se_nas.testing import BackboneConformance


class CifarBlock(nn.Module):
    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        branch = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(branch + self.shortcut(x))


class CifarResNet(nn.Module):
    """ResNet for 32x32 images, He et al. (arXiv 1512.03385), section 4.2."""

    def __init__(self, num_blocks: int, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        blocks, width = [], 16
        for stage, wide in enumerate((16, 32, 64)):
            for index in range(num_blocks):
                blocks.append(CifarBlock(width, wide, 2 if stage and not index else 1))
                width = wide
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class CifarAdapter(BackboneAdapter):
    DEPTHS: ClassVar[dict[str, int]] = {"resnet20": 3, "resnet32": 5}

    def models(self) -> list[str]:
        return list(self.DEPTHS)

    def create(
        self, name: str, *, pretrained: bool = False, num_classes: int = 10, **kwargs: Any
    ) -> nn.Module:
        if pretrained:
            raise ValueError("there are no pretrained weights")
        return CifarResNet(self.DEPTHS[name], num_classes, **kwargs)

    def input_size(self, name: str) -> tuple[int, int, int]:
        return 3, 32, 32


class Broken:
    def __init__(self) -> None:
        raise RuntimeError("its licence has run out")


@pytest.fixture(autouse=True, scope="module")
def _plugins() -> Any:
    module = types.ModuleType("se_nas_test_plugins")
    module.CifarAdapter = CifarAdapter  # type: ignore[attr-defined]
    module.Broken = Broken  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    points = EntryPoints(
        EntryPoint(name, f"{module.__name__}:{value}", adapters.GROUP)
        for name, value in (("cifar", "CifarAdapter"), ("broken", "Broken"), ("absent", "Missing"))
    )
    patch = pytest.MonkeyPatch()
    patch.setattr(plugins, "entry_points", lambda group: points)
    yield
    patch.undo()
    del sys.modules[module.__name__]


class TestCifarResNet(BackboneConformance):
    backbone = "cifar/resnet20"


class TestCifarResNetPost(BackboneConformance):
    backbone = "cifar/resnet20"
    position = "post"


def test_sites_and_parameters() -> None:
    sites = find_sites("cifar/resnet20")
    assert [(site.stage, site.block) for site in sites] == [(s, b) for s in range(3) for b in range(3)]
    assert [site.path for site in sites[:2]] == ["blocks.0.bn2", "blocks.1.bn2"]
    arch = Architecture.uniform("cifar/resnet20", reduction=16, bias=False, rounding="exact")
    plain = build_model(Architecture.plain("cifar/resnet20"), num_classes=10)
    built = build_model(arch, num_classes=10)
    grown = sum(p.numel() for p in built.parameters()) - sum(p.numel() for p in plain.parameters())
    # Three blocks each of width 16, 32 and 64: 2·C²/16.
    assert grown == 3 * 2 * (16 * 1 + 32 * 2 + 64 * 4)


def test_unknown_names() -> None:
    with pytest.raises(BackboneError, match=r"unknown to its plug-in; it has: resnet20, resnet32\."):
        find_sites("cifar/resnet2O")
    with pytest.raises(
        BackboneError, match=r"plug-in is 'cifra'; allowed: absent, broken, cifar\. Did.*'cifar'"
    ):
        find_sites("cifra/resnet20")


def test_broken_plugins_fail_when_chosen() -> None:
    assert find_sites("cifar/resnet20")
    with pytest.raises(
        BackboneError, match=r"plug-in 'broken' failed with RuntimeError: its licence has run out"
    ):
        find_sites("broken/net")
    with pytest.raises(BackboneError, match=r"'absent'.*cannot be imported: AttributeError"):
        find_sites("absent/net")


def test_what_the_plugin_refuses() -> None:
    with pytest.raises(BackboneError, match="no pretrained weights"):
        build_model(Architecture.plain("cifar/resnet20"), pretrained=True)
