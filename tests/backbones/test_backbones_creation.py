"""Names that timm takes for places, and pretrained weights that cannot be had."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants

from se_nas import Architecture, build_model, find_sites
from se_nas.backbones._tracing import trace
from se_nas.backbones.creation import on_meta
from se_nas.errors import BackboneError


@pytest.mark.parametrize(
    "name", ["timm/resnet18.a1_in1k", "hf-hub:timm/resnet18.a1_in1k", "hf_hub:timm/resnet18.a1_in1k"]
)
def test_timms_repositories_name_their_model(name: str) -> None:
    with pytest.raises(
        BackboneError, match=r"is a repository; give the name of its model, 'resnet18\.a1_in1k'"
    ):
        find_sites(name)


@pytest.mark.parametrize("name", ["hf-hub:someone/flowers", "local-dir:/models/flowers"])
def test_other_places(name: str) -> None:
    with pytest.raises(BackboneError, match=r"says where weights are.*--checkpoint"):
        find_sites(name)


def without_network(*arguments: Any, **keywords: Any) -> None:
    raise socket.gaierror(-2, "Name or service not known")


def test_pretrained_weights_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", without_network)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    create_model = timm.create_model

    def create(*arguments: Any, pretrained: bool = False, **keywords: Any) -> Any:
        assert not pretrained, "a download was tried"
        return create_model(*arguments, **keywords)

    monkeypatch.setattr(timm, "create_model", create)
    with pytest.raises(BackboneError, match=r"weights of resnet10t cannot be downloaded.*--checkpoint"):
        build_model(Architecture.uniform("resnet10t", reduction=4), pretrained=True)


def test_pretrained_weights_that_do_not_exist(tmp_path: Path) -> None:
    config = {"file": str(tmp_path / "gone.pth"), "num_classes": 1000}
    with pytest.raises(BackboneError, match=r"weights of resnet10t cannot be loaded: .*--checkpoint"):
        build_model(Architecture.uniform("resnet10t", reduction=4), pretrained=True, pretrained_cfg=config)


def test_a_backbone_without_pretrained_weights() -> None:
    with_weights = {name.partition(".")[0] for name in timm.list_pretrained()}
    name = next(name for name in timm.list_models("resnet*") if name not in with_weights)
    with pytest.raises(
        BackboneError, match=rf"weights of {name} cannot be loaded: No pretrained weights exist"
    ):
        build_model(Architecture.plain(name), pretrained=True)


def test_networks_on_the_meta_device_have_the_shapes_of_real_ones() -> None:
    with on_meta():
        found = timm.create_model("efficientnet_b0", num_classes=7)
        drawn = torch.empty(1000, device="cpu").normal_()
    real = timm.create_model("efficientnet_b0", num_classes=7)
    assert all(weight.is_meta for weight in found.parameters())
    shapes = {name: (value.shape, value.dtype) for name, value in real.state_dict().items()}
    assert {name: (value.shape, value.dtype) for name, value in found.state_dict().items()} == shapes
    # What a constructor draws elsewhere may be read.
    assert 0.8 < drawn.std() < 1.2


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_traces_see_what_batch_norms_give(memory_format: torch.memory_format) -> None:
    class Watched(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = torch.nn.BatchNorm2d(4)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.norm(images.contiguous(memory_format=memory_format))
            seen.append((found.shape, found.stride(), found.dtype, found.device.type))
            return found + 1

    seen: list[tuple[torch.Size, tuple[int, ...], torch.dtype, str]] = []
    model = Watched().eval()
    nodes = trace(model, (4, 5, 6)).nodes
    model(torch.zeros(1, 4, 5, 6))
    assert seen[0][:3] == seen[1][:3]
    assert seen[0][3] == "meta"
    assert [node.op for node in nodes][-2:] == ["native_batch_norm", "add"]
    assert nodes[-1].parents == (nodes[-2].index,)
    assert nodes[-2].shape == (1, 4, 5, 6)
