"""``CITATION.cff`` of an exported folder: the works that a network found by a search builds on.

The Citation File Format, version 1.2.0 (Druskat et al., doi:10.5281/zenodo.5171937), which GitHub, Zenodo and
reference managers read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from se_nas import __version__
from se_nas.architecture import Architecture


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A work to cite; ``authors`` as "Given Family, Given Family", or a group's name in ``group``."""

    title: str
    year: int | None = None
    authors: str = ""
    group: str = ""
    doi: str = ""
    url: str = ""
    version: str = ""
    software: bool = False

    def to_cff(self) -> dict[str, Any]:
        """An entry of ``references``."""
        people = [
            dict(zip(("given-names", "family-names"), _split(name), strict=True)) for name in self._names
        ]
        known = {"year": self.year, "doi": self.doi, "url": self.url, "version": self.version}
        return {
            "type": "software" if self.software else "article",
            "title": self.title,
            "authors": people or [{"name": self.group}],
            **{name: value for name, value in known.items() if value},
        }

    def to_markdown(self) -> str:
        """One line of a model card."""
        people = self.group or (
            f"{_split(self._names[0])[1]} et al." if len(self._names) > 2 else " and ".join(self._family)
        )
        link = f", [doi:{self.doi}](https://doi.org/{self.doi})" if self.doi else ""
        link = link or (f", <{self.url}>" if self.url else "")
        year = f", {self.year}" if self.year else ""
        version = f" {self.version}" if self.version else ""
        return f"{people}: *{self.title}*{version}{year}{link}"

    @property
    def _names(self) -> list[str]:
        return [name.strip() for name in self.authors.split(",") if name.strip()]

    @property
    def _family(self) -> list[str]:
        return [_split(name)[1] for name in self._names]


def _split(name: str) -> tuple[str, str]:
    """Given and family names; particles ("van der") belong to the family name."""
    words = name.split()
    first = next((i for i, word in enumerate(words[1:], 1) if word in ("van", "de", "De")), len(words) - 1)
    return " ".join(words[:first]), " ".join(words[first:])


SE = Reference(
    title="Squeeze-and-Excitation Networks",
    authors="Jie Hu, Li Shen, Gang Sun",
    year=2018,
    doi="10.48550/arXiv.1709.01507",
)
TIMM = Reference(
    title="PyTorch Image Models",
    authors="Ross Wightman",
    year=2019,
    doi="10.5281/zenodo.4414861",
    software=True,
)
OPTUNA = Reference(
    title="Optuna: A Next-generation Hyperparameter Optimization Framework",
    authors="Takuya Akiba, Shotaro Sano, Toshihiko Yanase, Takeru Ohta, Masanori Koyama",
    year=2019,
    doi="10.48550/arXiv.1907.10902",
)
FVCORE = Reference(
    title="fvcore",
    group="Meta AI Research, computer vision team",
    url="https://github.com/facebookresearch/fvcore",
    software=True,
)
SE_NAS = Reference(title="se-nas", group="The se-nas developers", version=__version__, software=True)


def _paper(title: str, authors: str, year: int, arxiv: str) -> Reference:
    return Reference(title=title, authors=authors, year=year, doi=f"10.48550/arXiv.{arxiv}")


_RESNET = _paper(
    "Deep Residual Learning for Image Recognition",
    "Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun",
    2016,
    "1512.03385",
)
_RESNEXT = _paper(
    "Aggregated Residual Transformations for Deep Neural Networks",
    "Saining Xie, Ross Girshick, Piotr Dollár, Zhuowen Tu, Kaiming He",
    2017,
    "1611.05431",
)
_EFFICIENTNET = _paper(
    "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
    "Mingxing Tan, Quoc V. Le",
    2019,
    "1905.11946",
)
_INCEPTION_4 = _paper(
    "Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning",
    "Christian Szegedy, Sergey Ioffe, Vincent Vanhoucke, Alexander Alemi",
    2017,
    "1602.07261",
)
_REGNET = _paper(
    "Designing Network Design Spaces",
    "Ilija Radosavovic, Raj Prateek Kosaraju, Ross Girshick, Kaiming He, Piotr Dollár",
    2020,
    "2003.13678",
)
BACKBONES = {
    "resnet": _RESNET,
    "seresnet": _RESNET,
    "resnext": _RESNEXT,
    "seresnext": _RESNEXT,
    "wide_resnet": _paper("Wide Residual Networks", "Sergey Zagoruyko, Nikos Komodakis", 2016, "1605.07146"),
    "densenet": _paper(
        "Densely Connected Convolutional Networks",
        "Gao Huang, Zhuang Liu, Laurens van der Maaten, Kilian Q. Weinberger",
        2017,
        "1608.06993",
    ),
    "vgg": _paper(
        "Very Deep Convolutional Networks for Large-Scale Image Recognition",
        "Karen Simonyan, Andrew Zisserman",
        2015,
        "1409.1556",
    ),
    "inception_v3": _paper(
        "Rethinking the Inception Architecture for Computer Vision",
        "Christian Szegedy, Vincent Vanhoucke, Sergey Ioffe, Jonathon Shlens, Zbigniew Wojna",
        2016,
        "1512.00567",
    ),
    "inception_v4": _INCEPTION_4,
    "inception_resnet_v2": _INCEPTION_4,
    "mobilenetv2": _paper(
        "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
        "Mark Sandler, Andrew Howard, Menglong Zhu, Andrey Zhmoginov, Liang-Chieh Chen",
        2018,
        "1801.04381",
    ),
    "mobilenetv3": _paper(
        "Searching for MobileNetV3",
        "Andrew Howard, Mark Sandler, Grace Chu, Liang-Chieh Chen, Bo Chen, Mingxing Tan, Weijun Wang,"
        " Yukun Zhu, Ruoming Pang, Vijay Vasudevan, Quoc V. Le, Hartwig Adam",
        2019,
        "1905.02244",
    ),
    "efficientnet": _EFFICIENTNET,
    "efficientnetv2": _paper(
        "EfficientNetV2: Smaller Models and Faster Training", "Mingxing Tan, Quoc V. Le", 2021, "2104.00298"
    ),
    "mnasnet": _paper(
        "MnasNet: Platform-Aware Neural Architecture Search for Mobile",
        "Mingxing Tan, Bo Chen, Ruoming Pang, Vijay Vasudevan, Mark Sandler, Andrew Howard, Quoc V. Le",
        2019,
        "1807.11626",
    ),
    "regnetx": _REGNET,
    "regnety": _REGNET,
    "convnext": _paper(
        "A ConvNet for the 2020s",
        "Zhuang Liu, Hanzi Mao, Chao-Yuan Wu, Christoph Feichtenhofer, Trevor Darrell, Saining Xie",
        2022,
        "2201.03545",
    ),
    "convnextv2": _paper(
        "ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders",
        "Sanghyun Woo, Shoubhik Debnath, Ronghang Hu, Xinlei Chen, Zhuang Liu, In So Kweon, Saining Xie",
        2023,
        "2301.00808",
    ),
    "nfnet": _paper(
        "High-Performance Large-Scale Image Recognition Without Normalization",
        "Andrew Brock, Soham De, Samuel L. Smith, Karen Simonyan",
        2021,
        "2102.06171",
    ),
    "ghostnet": _paper(
        "GhostNet: More Features from Cheap Operations",
        "Kai Han, Yunhe Wang, Qi Tian, Jianyuan Guo, Chunjing Xu, Chang Xu",
        2020,
        "1911.11907",
    ),
    "repvgg": _paper(
        "RepVGG: Making VGG-style ConvNets Great Again",
        "Xiaohan Ding, Xiangyu Zhang, Ningning Ma, Jungong Han, Guiguang Ding, Jian Sun",
        2021,
        "2101.03697",
    ),
}
"""Papers of backbones by the beginning of timm's model names; other backbones are cited as models of timm."""
_PREFIXES = ("tf_", "tv_", "dm_")


def backbone_reference(backbone: str) -> Reference:
    """The backbone's paper if it is in ``BACKBONES``, otherwise the model as a part of timm."""
    name = backbone.partition(".")[0]
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    known = [
        key for key in BACKBONES if name == key or (name.startswith(key) and not name[len(key)].islower())
    ]
    if known:
        return BACKBONES[max(known, key=len)]
    title = f"{backbone}, a model of PyTorch Image Models"
    return Reference(title=title, authors="Ross Wightman", software=True)


def references(architecture: Architecture) -> list[Reference]:
    """What a network found by a search builds on: method, backbone, and programs."""
    return [SE, backbone_reference(architecture.backbone), SE_NAS, TIMM, OPTUNA, FVCORE]


def citation_file(architecture: Architecture, name: str) -> str:
    """Text of ``CITATION.cff``; the authors of the network are left for its owner to fill in."""
    content = {
        "cff-version": "1.2.0",
        "message": "If you use this network, please cite the works listed under references.",
        "type": "software",
        "title": name,
        "abstract": f"{architecture.backbone} with squeeze-and-excitation: {architecture.describe()}.",
        "authors": [{"name": "To be filled in: the authors of this network"}],
        "references": [reference.to_cff() for reference in references(architecture)],
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)
