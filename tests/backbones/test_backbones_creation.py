"""Names that timm takes for places, and pretrained weights that cannot be had."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import timm
from huggingface_hub import constants

from se_nas import Architecture, build_model, find_sites
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
