"""Each position against the paper's formula, written out by hand over the block's own layers."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import Tensor, nn

from se_nas import Architecture, build_model, find_sites
from se_nas.backbones import gate_at, insert, positions, usual_position
from se_nas.errors import BackboneError
from se_nas.layers.squeeze_excite import SqueezeExcite

RESIDUAL = ["standard", "pre", "post", "identity", "conv3x3"]


def by_formula(block: nn.Module, se: nn.Module, position: str, x: Tensor) -> Tensor:
    """Hu et al., figure 5 and table 14, on timm's BasicBlock and Bottleneck."""
    branch = se(x) if position == "pre" else x
    branch = block.act1(block.bn1(block.conv1(branch)))
    if hasattr(block, "conv3"):
        branch = block.act2(block.bn2(block.conv2(branch)))
        branch = se(branch) if position == "conv3x3" else branch
        branch = block.bn3(block.conv3(branch))
        last = block.act3
    else:
        branch = se(branch) if position == "conv3x3" else branch
        branch = block.bn2(block.conv2(branch))
        last = block.act2
    if position == "standard":
        branch = se(branch)
    shortcut = x if block.downsample is None else block.downsample(x)
    if position == "identity":
        shortcut = se(shortcut)
    output = last(branch + shortcut)
    return se(output) if position == "post" else output


@pytest.mark.parametrize("position", RESIDUAL)
@pytest.mark.parametrize("name", ["resnet18", "resnet26"])
def test_formula(name: str, position: str) -> None:
    torch.manual_seed(0)
    plain = timm.create_model(name)
    with torch.no_grad():
        for module in plain.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
    arch = Architecture.uniform(name, reduction=16, position=position)
    built = build_model(arch)
    built.load_state_dict(plain.state_dict(), strict=False)
    gates = [module for module in built.modules() if isinstance(module, SqueezeExcite)]
    blocks = [block for stage in (1, 2, 3, 4) for block in plain.get_submodule(f"layer{stage}")]
    assert len(gates) == len(blocks) == len(arch.sites)
    plain.eval()
    built.eval()
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = plain.maxpool(plain.act1(plain.bn1(plain.conv1(image))))
        for block, gate in zip(blocks, gates, strict=True):
            expected = by_formula(block, gate, position, expected)
        assert torch.equal(built.forward_features(image), expected)


@pytest.mark.parametrize(
    ("name", "usual", "count"),
    [
        ("resnet18", "standard", 8),
        ("efficientnet_b0", "conv3x3", 16),
        ("mobilenetv2_100", "conv3x3", 17),
        ("mobilenetv3_small_050", "conv3x3", 11),
        ("regnetx_002", "conv3x3", 13),
        ("regnety_002", "conv3x3", 13),
        ("resnext26ts", "conv3x3", 8),
        ("darknet21", "slot", 7),
        ("repvgg_a0", "slot", 21),
        ("vgg11_bn", "standard", 8),
        ("inception_v3", "standard", 11),
        ("densenet121", "standard", 58),
        ("convnext_atto", "standard", 12),
        ("seresnet18", "standard", 8),
        ("test_nfnet", "standard", 4),
    ],
)
def test_usual_position(name: str, usual: str, count: int) -> None:
    assert usual_position(name) == usual
    assert len(find_sites(name)) == count


def test_positions_that_a_family_has() -> None:
    assert positions("resnet18") == RESIDUAL
    assert positions("vgg11_bn") == ["standard"]
    assert positions("inception_v3") == ["standard"]
    assert "identity" in positions("mobilenetv2_100")


def test_missing_position_lists_those_there_are() -> None:
    with pytest.raises(BackboneError, match=r"vgg11_bn has no position 'identity'; .*: standard\."):
        find_sites("vgg11_bn", position="identity")
    with pytest.raises(BackboneError, match="'standart'"):
        find_sites("resnet18", position="standart")


def test_vgg_sites_follow_the_activations() -> None:
    model = timm.create_model("vgg11_bn")
    for site in find_sites("vgg11_bn"):
        assert isinstance(model.get_submodule(site.path), nn.ReLU)


def test_densenet_sites_are_layers() -> None:
    assert {site.path.split(".")[1] for site in find_sites("densenet121")} == {
        f"denseblock{index}" for index in (1, 2, 3, 4)
    }
    assert {site.channels for site in find_sites("densenet121")} == {32}


def test_site_fields_of_a_bottleneck() -> None:
    site = find_sites("resnet50", position="pre")[3]
    assert (site.stage, site.block, site.path, site.anchor) == (1, 0, "layer2.0.conv1", "input")
    assert (site.channels, site.reduction_base, site.resolution) == (256, 256, (56, 56))
    site = find_sites("resnet50")[3]
    assert (site.path, site.slot, site.channels, site.resolution) == (
        "layer2.0.bn3",
        "layer2.0.se",
        512,
        (28, 28),
    )


def test_native_gates_are_sites_at_every_position() -> None:
    standard = find_sites("efficientnet_b0", position="standard")
    assert sum(site.native is not None for site in standard) == 16
    assert sum(site.native is None for site in standard) == 16
    usual = find_sites("efficientnet_b0")
    assert all(site.native == "se" for site in usual)
    assert [site.native_rd_channels for site in usual] == [site.rd_channels(4) for site in usual]


@pytest.mark.parametrize(
    "name", ["mobilenetv3_small_050", "mobilenetv3_large_100", "regnety_002", "seresnet18"]
)
def test_conventions_explain_timms_own_widths(name: str) -> None:
    reduction = 16 if name == "seresnet18" else 4
    natives = [site for site in find_sites(name) if site.native]
    assert [site.rd_channels(reduction) for site in natives] == [site.native_rd_channels for site in natives]


def test_eca_has_no_width() -> None:
    assert {(site.native, site.native_rd_channels) for site in find_sites("ecaresnet26t")} == {("eca", None)}


class TwoReaders(nn.Module):
    """Two modules read the block's input: position pre has no module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.right = nn.Conv2d(8, 8, 1)
        self.fuse = nn.Conv2d(16, 8, 1)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.fuse(torch.cat([self.left(x), self.right(x)], 1)) + x)

    def gated(self, x: Tensor, gate: nn.Module) -> Tensor:
        y = gate(x)
        return self.act(self.fuse(torch.cat([self.left(y), self.right(y)], 1)) + x)


class MixedFirst(nn.Module):
    """The shortcut starts from what another module of the block returns (FastViT)."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(8, 8, 3, padding=1)
        self.up = nn.Conv2d(8, 16, 3, padding=1)
        self.act = nn.ReLU()
        self.down = nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(x)
        return x + self.down(self.act(self.up(x)))

    def gated(self, x: Tensor, gate: nn.Module) -> Tensor:
        x = self.mix(x)
        return gate(x) + self.down(self.act(self.up(x)))


class Stack(nn.Module):
    def __init__(self, block: type[nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList([block(), block()])

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return x

    def gated(self, x: Tensor, gates: tuple[nn.Module, ...]) -> Tensor:
        x = self.stem(x)
        for block, gate in zip(self.blocks, gates, strict=True):
            x = block.gated(x, gate)
        return x


@pytest.mark.parametrize(
    ("block", "position", "anchor"), [(TwoReaders, "pre", "branch"), (MixedFirst, "identity", "shortcut")]
)
def test_places_that_no_module_has(block: type[nn.Module], position: str, anchor: str) -> None:
    torch.manual_seed(0)
    plain = Stack(block).eval()
    sites = find_sites(plain, position=position, input_size=(3, 16, 16))
    assert [(site.path, site.anchor) for site in sites] == [(f"blocks.{index}", anchor) for index in (0, 1)]
    gates = tuple(SqueezeExcite(8, 4) for _ in sites)
    built = insert(
        copy.deepcopy(plain), [(site, 4) for site in sites], lambda site, _: gates[sites.index(site)]
    )
    assert [gate_at(built, site) for site in sites] == list(gates)
    image = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(built(image), plain.gated(image, gates))
        assert not torch.equal(built(image), plain(image))
    assert set(plain.state_dict()) == {key for key in built.state_dict() if ".se_shortcut." not in key}


@pytest.mark.parametrize(
    ("name", "position", "module", "channels"),
    [
        # One ReLU for all three activations: the convolution that reads the tensor is the host.
        ("dla46x_c", "conv3x3", "level2.tree1.conv3", 64),
        # The norm permutes its map and back.
        ("test_convnext3", "conv3x3", "stages.0.blocks.0.norm", 32),
        # Activations with a gain.
        ("dm_nfnet_f0", "conv3x3", "stages.0.0.act3", 128),
        # Convolutions side by side, concatenated.
        ("mixnet_s", "conv3x3", "blocks.0.0.bn1.act", 16),
        ("fasternet_t0", "conv3x3", "stages.0.blocks.0.spatial_mixing", 40),
        ("res2next50", "conv3x3", "layer1.0.drop_block", 128),
        # No activation follows.
        ("starnet_s050", "conv3x3", "stages.0.1.dwconv.bn", 16),
        # The sum and the channels that nothing was added to.
        ("rexnet_100", "post", "features.2", 38),
    ],
)
def test_positions_by_hand(name: str, position: str, module: str, channels: int) -> None:
    sites = [site for site in find_sites(name, position=position) if site.position == position]
    assert (sites[0].path, sites[0].channels) == (module, channels)
