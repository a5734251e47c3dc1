from pathlib import Path

import pytest
import timm
import yaml

import se_nas
from se_nas.architecture import Architecture
from se_nas.exporting.citation import (
    BACKBONES,
    FVCORE,
    OPTUNA,
    SE,
    TIMM,
    backbone_reference,
    citation_file,
    references,
)

ROOT = Path(__file__).parents[2]
KINDS = {"article", "software"}


def check_cff(content):
    """What the schema 1.2.0 requires of the keys that are used."""
    assert content["cff-version"] == "1.2.0"
    assert all(isinstance(content[name], str) and content[name] for name in ("message", "title"))
    for entry in [content, *content["references"]]:
        assert entry["type"] in KINDS
        assert entry["authors"]
        for author in entry["authors"]:
            assert author.keys() in ({"name"}, {"given-names", "family-names"})
            assert all(author.values())
        assert entry.get("doi", "10.").startswith("10.")
        assert isinstance(entry.get("year", 2000), int)


def test_exported_citation_names_everything_it_stands_on():
    architecture = Architecture.uniform("densenet121", reduction=16)
    content = yaml.safe_load(citation_file(architecture, "a: 'net' # with signs"))
    check_cff(content)
    assert content["title"] == "a: 'net' # with signs"
    titles = [entry["title"] for entry in content["references"]]
    assert titles == [
        "Squeeze-and-Excitation Networks",
        "Densely Connected Convolutional Networks",
        "se-nas",
        "PyTorch Image Models",
        "Optuna: A Next-generation Hyperparameter Optimization Framework",
        "fvcore",
    ]
    assert content["references"][0]["authors"][0] == {"given-names": "Jie", "family-names": "Hu"}
    assert content["references"][1]["authors"][2] == {
        "given-names": "Laurens",
        "family-names": "van der Maaten",
    }
    assert content["references"][2]["version"] == se_nas.__version__


@pytest.mark.parametrize(
    ("backbone", "title"),
    [
        ("resnet50", "Deep Residual"),
        ("resnet18.a1_in1k", "Deep Residual"),
        ("seresnet50", "Deep Residual"),
        ("resnext50_32x4d", "Aggregated"),
        ("wide_resnet50_2", "Wide Residual"),
        ("vgg16_bn", "Very Deep"),
        ("inception_v3", "Rethinking"),
        ("mobilenetv2_100", "MobileNetV2"),
        ("mobilenetv3_small_100", "Searching"),
        ("tf_efficientnet_b0", "EfficientNet:"),
        ("efficientnetv2_rw_s", "EfficientNetV2"),
        ("tf_efficientnetv2_s", "EfficientNetV2"),
        ("regnety_008", "Designing Network"),
        ("convnext_tiny", "A ConvNet"),
        ("convnextv2_atto", "ConvNeXt V2"),
        ("dm_nfnet_f0", "High-Performance"),
    ],
)
def test_backbones_have_their_papers(backbone, title):
    assert backbone_reference(backbone).title.startswith(title)


@pytest.mark.parametrize("backbone", ["test_resnet", "resnetv2_50", "resnest50d", "ghostnetv2_100", "dla34"])
def test_other_backbones_are_models_of_timm(backbone):
    found = backbone_reference(backbone)
    assert found.software
    assert backbone in found.title


def test_every_paper_belongs_to_models_of_timm():
    names = timm.list_models()
    used = {id(backbone_reference(name)) for name in names}
    assert {id(paper) for paper in BACKBONES.values()} <= used


def test_the_programs_own_file():
    content = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    check_cff(content)
    assert content["version"] == se_nas.__version__
    assert content["license"] == "Apache-2.0"
    assert content["references"] == [reference.to_cff() for reference in (SE, TIMM, OPTUNA, FVCORE)]


def test_card_lines():
    lines = [reference.to_markdown() for reference in references(Architecture.plain("resnet18"))]
    assert lines[0] == (
        "Hu et al.: *Squeeze-and-Excitation Networks*, 2018,"
        " [doi:10.48550/arXiv.1709.01507](https://doi.org/10.48550/arXiv.1709.01507)"
    )
    assert lines[2] == f"The se-nas developers: *se-nas* {se_nas.__version__}"
    assert lines[3].startswith("Wightman: *PyTorch Image Models*, 2019")
