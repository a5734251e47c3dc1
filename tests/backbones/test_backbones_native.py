"""Native gates as sites: kept, removed, resized; what the network then computes."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from se_nas import Architecture, build_model
from se_nas.errors import ConfigError


def outputs(*models: nn.Module) -> list[torch.Tensor]:
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return [model.eval()(image) for model in models]


@pytest.mark.parametrize("name", ["efficientnet_b0", "regnety_002", "mobilenetv3_small_050", "ecaresnet26t"])
def test_plain_is_timms_own_model(name: str) -> None:
    torch.manual_seed(0)
    reference = timm.create_model(name)
    built = build_model(Architecture.plain(name))
    built.load_state_dict(reference.state_dict())
    assert list(built.state_dict()) == list(reference.state_dict())
    assert torch.equal(*outputs(built, reference))


def test_removed_everywhere_is_the_network_without_se() -> None:
    arch = Architecture.uniform("seresnet18", reduction=16, native="remove")
    built = build_model(arch)
    reference = timm.create_model("resnet18")
    built.load_state_dict(reference.state_dict())
    assert torch.equal(*outputs(built, reference))
    assert arch.num_gated == 0


def test_removing_from_an_nfnet_takes_timms_gain_out_too() -> None:
    built = build_model(Architecture.uniform("nf_seresnet26", reduction=16, native="remove"))
    reference = timm.create_model("nf_resnet26")
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            if name.endswith("skipinit_gain"):
                parameter.fill_(0.5)
    built.load_state_dict(reference.state_dict())
    assert torch.equal(*outputs(built, reference))


def test_removing_one_gate_leaves_the_others() -> None:
    torch.manual_seed(0)
    reference = timm.create_model("regnety_002")
    built = build_model(Architecture.from_widths("regnety_002", widths={"s3.b2.se": 0}))
    reference.s3.b2.se = nn.Identity()
    built.load_state_dict(reference.state_dict())
    assert torch.equal(*outputs(built, reference))


def test_resized_gates_have_the_widths_asked_for() -> None:
    arch = Architecture.uniform("efficientnet_b0", reduction=8, native="resize")
    built = build_model(arch)
    widths = [built.get_submodule(site.path).conv_reduce.out_channels for site in arch.sites]
    assert widths == list(arch.widths) == [site.rd_channels(8) for site in arch.sites]
    outputs(built)


def test_a_wider_gate_computes_the_same_at_first() -> None:
    torch.manual_seed(0)
    arch = Architecture.from_widths("regnety_002", widths={"s2.b1.se": 64})
    reference = timm.create_model("regnety_002")
    plain = build_model(Architecture.plain("regnety_002"))
    plain.load_state_dict(reference.state_dict())
    from se_nas.model import add_gates

    assert torch.allclose(*outputs(add_gates(plain, arch), reference), atol=1e-5)
    assert plain.s2.b1.se.fc1.out_channels == 64


def test_eca_cannot_be_resized() -> None:
    with pytest.raises(ConfigError, match=r"native eca gate at 'layer1.0.se' has no width"):
        Architecture.from_widths("ecaresnet26t", widths={"layer1.0.se": 8})
    removed = build_model(Architecture.uniform("ecaresnet26t", reduction=16, native="remove"))
    assert isinstance(removed.layer1[0].se, nn.Identity)


def test_native_and_inserted_gates_together() -> None:
    arch = Architecture.uniform("seresnet18", reduction=16, position="pre", native="remove")
    built = build_model(arch)
    names = [name for name, _ in built.named_modules() if name.endswith(".fc1")]
    assert len(names) == 8
    assert all("conv1" in name for name in names)
