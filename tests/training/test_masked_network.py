"""A masked network against the built ones, in double precision and in training mode."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from masked_cases import (
    KEYWORDS,
    assert_cut_of,
    built,
    gradients,
    images,
    make_first,
    make_network,
    make_space,
    shaken,
    some_architectures,
)
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from se_nas.architecture import Architecture
from se_nas.errors import BackboneError, CheckpointError, ConfigError
from se_nas.layers.native_gates import describe_native
from se_nas.layers.squeeze_excite import SqueezeExcite
from se_nas.model import build_model
from se_nas.sites import ABSENT
from se_nas.training.masked import Capacity, MaskedNetwork, mask_group
from se_nas.training.optim import parameter_parts

FAMILIES = [
    ("test_resnet", "standard"),
    ("test_resnet", "identity"),
    ("test_efficientnet", "standard"),
    ("test_nfnet", "standard"),
    ("test_convnext", "conv3x3"),
    ("test_mambaout", "identity"),
    ("mobilenetv3_small_050", "pre"),
    ("regnety_002", "standard"),
    ("rexnet_100", "standard"),
    ("ese_vovnet19b_dw", "standard"),
    ("test_byobnet", "slot"),
]


@pytest.mark.parametrize(
    ("backbone", "position", "init"),
    [(*family, ("default", "identity")[number % 2]) for number, family in enumerate(FAMILIES)],
)
def test_first_weights_are_those_of_the_build_to_the_bit(backbone: str, position: str, init: str) -> None:
    space = make_space(backbone, position)
    network = make_network(space, init)
    for seed, arch in enumerate(some_architectures(space, 2)):
        network.load(arch, seed)
        expected, cut = built(arch, seed, init).state_dict(), network.cut()
        assert cut.keys() == expected.keys()
        different = [name for name in expected if not torch.equal(cut[name], expected[name])]
        assert not different


@pytest.mark.parametrize(("backbone", "position"), FAMILIES)
def test_outputs_gradients_and_buffers_are_those_of_the_build(backbone: str, position: str) -> None:
    space = make_space(backbone, position)
    everywhere = space.build(position, [max(row, key=abs) for row in space.site_widths()])
    network = make_network(space)
    network.model.double().train()
    for seed, arch in enumerate([*some_architectures(space, 2), everywhere]):
        model = shaken(built(arch, seed).double().train(), seed)
        network.load_state(arch, model.state_dict())
        network.model.zero_grad(set_to_none=True)
        # The second pass sees the statistics that the first one has left.
        for step in range(2):
            x = images(step)
            expected, output = model(x), network.model(x)
            torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-10)
        expected.square().mean().backward()
        output.square().mean().backward()
        scale = max(float(g.abs().max()) for g in gradients(model).values())
        assert_cut_of(gradients(network.model), gradients(model), rtol=1e-7, atol=1e-11 * scale)
        # Norms inside absent gates count batches, of which nothing follows.
        whole, parts = (
            {name: tensor for name, tensor in state.items() if tensor.ndim}
            for state in (network.model.state_dict(), model.state_dict())
        )
        assert_cut_of(whole, parts, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet", "ese_vovnet19b_dw"])
def test_without_any_gate_it_is_the_bare_network_to_the_bit(backbone: str) -> None:
    space = make_space(backbone)
    arch = space.build("standard", [ABSENT] * len(space.sites))
    network = make_network(space, also=(Architecture.plain(backbone),))
    network.load(arch, 3)
    model = built(arch, 3)
    x = images(dtype=torch.float32)
    assert torch.equal(network.model(x), model(x))
    network.model(x).sum().backward()
    for gate in (m for m in network.model.modules() if isinstance(m, SqueezeExcite)):
        assert all(p.grad is not None and not p.grad.any() for p in gate.parameters())


def test_plain_backbone_with_native_gates_and_back() -> None:
    space = make_space("test_efficientnet")
    plain = Architecture.plain("test_efficientnet")
    network = make_network(space, also=(plain,))
    for arch in (plain, *some_architectures(space, 1), plain):
        network.load(arch, 0)
        model = built(arch, 0)
        assert all(torch.equal(network.cut()[name], t) for name, t in model.state_dict().items())
        torch.testing.assert_close(
            network.model.eval()(images(dtype=torch.float32)), model.eval()(images(dtype=torch.float32))
        )


def test_untouched_native_gates_stay_as_timm_made_them() -> None:
    space = make_space("test_efficientnet", native="keep")
    network = make_network(space)
    natives = [site for site in space.sites if site.native]
    assert natives
    assert not any(site.native for site, _ in network.capacity.masked)
    for site in natives:
        gate = network.model.get_submodule(site.path)
        assert describe_native(gate) == ("se", site.native_rd_channels)
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in gate.modules())


def test_native_gates_that_nobody_wants_are_removed() -> None:
    space = make_space("test_efficientnet", native="remove")
    network = make_network(space)
    arch = some_architectures(space, 1)[0]
    network.load(arch, 0)
    paths = [site.path for site in space.sites if site.native]
    assert all(isinstance(network.model.get_submodule(path), nn.Identity) for path in paths)
    with pytest.raises(ConfigError, match=r"but in the masked network there is room for 0"):
        network.load(Architecture.plain("test_efficientnet"), 0)


@pytest.mark.parametrize("gate", ["sigmoid", "hard_sigmoid", "tanh", "relu"])
@pytest.mark.parametrize("bias", [True, False])
def test_every_gate_with_and_without_biases(gate: str, bias: bool) -> None:
    init = "identity" if bias else "default"
    space = make_space("test_resnet", gate=gate, bias=bias, act="silu")
    network = make_network(space, init)
    network.model.double()
    arch = space.build("standard", [max(space.site_widths()[0]), ABSENT, 8, 16])
    network.load(arch, 1)
    model = built(arch, 1, init).double()
    torch.testing.assert_close(network.model(images()), model(images()), rtol=1e-9, atol=1e-10)
    assert network.cut().keys() == model.state_dict().keys()


def test_checkpoint_weights_are_first_weights(tmp_path) -> None:
    space = make_space("test_resnet")
    donor = shaken(built(Architecture.plain("test_resnet"), 9))
    torch.save(donor.state_dict(), tmp_path / "plain.pt")
    network = make_network(space, checkpoint=tmp_path / "plain.pt")
    arch = some_architectures(space, 1)[0]
    network.load(arch, 2)
    expected = built(arch, 2, checkpoint=tmp_path / "plain.pt").state_dict()
    assert all(torch.equal(network.cut()[name], tensor) for name, tensor in expected.items())


def test_loading_leaves_the_generators_alone() -> None:
    space = make_space("test_efficientnet")
    network = make_network(space)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for arch in some_architectures(space, 3):
        network.load(arch, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_cut_loads_strictly_and_comes_back() -> None:
    space = make_space("test_efficientnet")
    network, other = make_network(space, "identity"), make_network(space, "identity")
    arch = some_architectures(space, 1)[0]
    network.load(arch, 0)
    shaken(network.model)  # also what is masked
    model = build_model(arch, init="default", **KEYWORDS)
    model.load_state_dict(network.cut(), strict=True)
    x = images(dtype=torch.float32)
    torch.testing.assert_close(network.model.eval()(x), model.eval()(x), rtol=1e-4, atol=1e-4)
    other.load_state(arch, network.cut())
    torch.testing.assert_close(other.model.eval()(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet"])
def test_masks_alone_choose_a_part_of_shared_weights(backbone: str) -> None:
    space = make_space(backbone)
    network = make_network(space)
    wide = space.build("standard", [max(row) for row in space.site_widths()])
    network.load(wide, 0)
    network.model.double()
    shaken(network.model)
    for arch in some_architectures(space, 3):
        network.set_masks(arch)
        model = build_model(arch, **KEYWORDS).double()
        model.load_state_dict(network.cut())
        torch.testing.assert_close(
            network.model.eval()(images()), model.eval()(images()), rtol=1e-9, atol=1e-10
        )


def test_padded_state_dict_round_trip() -> None:
    space = make_space("test_resnet")
    network, other = make_network(space, "identity"), make_network(space)
    arch = some_architectures(space, 1)[0]
    network.load(arch, 0)
    other.model.load_state_dict(network.model.state_dict(), strict=True)
    other.set_masks(arch)
    x = images(dtype=torch.float32)
    assert torch.equal(other.model(x), network.model(x))


def test_a_copy_has_masks_of_its_own() -> None:
    space = make_space("test_efficientnet")
    network = make_network(space)
    first, second = some_architectures(space, 2)
    network.load(first, 0)
    twin = network.around(copy.deepcopy(network.model))
    x = images(dtype=torch.float32)
    expected = network.model.eval()(x)
    twin.load(second, 1)
    assert torch.equal(network.model.eval()(x), expected)
    assert twin.arch == second
    assert network.arch == first
    torch.testing.assert_close(twin.model.eval()(x), built(second, 1).eval()(x), rtol=1e-4, atol=1e-5)


def test_parameter_parts_are_those_of_the_build() -> None:
    space = make_space("test_efficientnet")
    network = make_network(space)
    arch = some_architectures(space, 1)[0]
    parts = parameter_parts(network.model)
    for name, part in parameter_parts(built(arch, 0)).items():
        assert parts[name] == part
    assert set(parts.values()) == {"se", "head", "backbone"}


def test_compiled_code_serves_every_candidate(quiet_compiler) -> None:
    space = make_space("test_efficientnet")
    network = make_network(space)
    compiled = torch.compile(network.model.eval(), backend="aot_eager", fullgraph=True)
    x = images(dtype=torch.float32)
    first, *others = some_architectures(space, 2)
    network.load(first, 0)
    compiled(x)
    with torch.compiler.set_stance("fail_on_recompile"):
        for arch in others:
            network.load(arch, 0)
            expected = built(arch, 0).eval()(x)
            torch.testing.assert_close(compiled(x), expected, rtol=1e-4, atol=1e-5)


def test_autocast_keeps_the_lower_precision() -> None:
    space = make_space("test_resnet")
    network = make_network(space, "identity")
    arch = some_architectures(space, 1)[0]
    network.load(arch, 0)
    seen = set()
    for gate in (m for m in network.model.modules() if isinstance(m, SqueezeExcite)):
        gate.register_forward_hook(lambda module, args, output: seen.add((args[0].dtype, output.dtype)))
    with torch.autocast("cpu", torch.bfloat16):
        network.model(images(dtype=torch.float32))
    assert seen == {(torch.bfloat16, torch.bfloat16)}


class Touches(TorchDispatchMode):
    """The operations on tensors of a network, views of them excepted: what a device would be asked to do."""

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.storages = {tensor.untyped_storage().data_ptr() for tensor in tensors}
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = (leaf for leaf in tree_leaves(args) if isinstance(leaf, torch.Tensor))
        if not func.is_view and any(t.untyped_storage().data_ptr() in self.storages for t in given):
            self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_a_candidate_begins_with_a_handful_of_operations_on_the_network() -> None:
    """Each would be a launch, or a wait, on a GPU; those on the CPU, where values are put together, are none."""
    space = make_space("resnet18")
    network = make_network(space)
    network.model.to(memory_format=torch.channels_last)
    first, second = some_architectures(space, 2)
    network.load(first, 0)
    tensors = [*network.model.parameters(), *network.model.buffers()]
    assert len(tensors) > 150
    with Touches(tensors) as seen:
        network.load(second, 0)
    # Of the backbone: weights and counters. Of the gates: weights and masks.
    assert seen.names == ["_foreach_copy_"] * 4
    expected = built(second, 0).state_dict()
    for name, tensor in network.cut().items():
        assert torch.equal(tensor, expected[name])


def test_a_network_that_has_moved_gets_its_weights_where_it_is() -> None:
    space = make_space("test_resnet")
    network = make_network(space)
    first, second = some_architectures(space, 2)
    network.load(first, 0)
    network.model.double()
    network.load(second, 0)
    for name, tensor in built(second, 0).double().state_dict().items():
        assert torch.equal(network.cut()[name], tensor)


def test_what_is_not_cut_out_is_a_view() -> None:
    space = make_space("test_resnet")
    network = make_network(space)
    network.load(some_architectures(space, 1)[0], 0)
    views, copies = network.uncut(), network.cut()
    assert views.keys() == copies.keys()
    with torch.no_grad():
        for parameter in network.model.parameters():
            parameter.add_(1.0)
    changed = [name for name, view in views.items() if not torch.equal(view, copies[name])]
    assert "conv1.0.weight" in changed
    assert any(".se." in name for name in changed)


@pytest.mark.gpu
def test_gpu_one_captured_graph_serves_every_candidate() -> None:
    space = make_space("test_efficientnet")
    network = make_network(space)
    network.model.cuda().to(memory_format=torch.channels_last).train()
    x = images(dtype=torch.float32).cuda()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            network.model(x).square().mean().backward()
            network.model.zero_grad(set_to_none=True)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = network.model(x)
        output.square().mean().backward()
    for seed, arch in enumerate(some_architectures(space, 3)):
        network.load(arch, seed)
        graph.replay()
        model = built(arch, seed).cuda().train()
        expected = model(x)
        torch.testing.assert_close(output, expected, rtol=1e-2, atol=1e-2)
        for name, tensor in model.state_dict().items():
            torch.testing.assert_close(network.cut()[name], tensor, rtol=1e-3, atol=1e-3)


class TestCapacity:
    def test_groups_are_equal_for_architectures_that_differ_in_widths(self) -> None:
        space = make_space("test_resnet")
        archs = [arch for arch in some_architectures(space, 6) if not arch.is_plain]
        assert len({mask_group(arch) for arch in archs}) == 1
        plain = mask_group(Architecture.plain("test_resnet"))
        assert plain.position is None
        assert mask_group(Architecture.plain("test_resnet", position="pre")) == plain

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"gate": "tanh"}, "gate is 'tanh', but in the masked network 'sigmoid'"),
            ({"bias": False}, "bias is False, but in the masked network True"),
            ({"act": "gelu"}, "acts is .*'gelu'.*, but in the masked network .*'relu'"),
            ({"position": "pre"}, "position is 'pre', but in the masked network 'standard'"),
        ],
    )
    def test_what_cannot_be_masked_is_named(self, change: dict[str, object], message: str) -> None:
        base = Architecture.uniform("test_resnet", reduction=4)
        other = Architecture.uniform("test_resnet", **{"reduction": 4, **change})
        capacity = Capacity.of([base])
        assert mask_group(base) != mask_group(other)
        assert not capacity.holds(other)
        with pytest.raises(ConfigError, match=message):
            capacity.widths(other)
        with pytest.raises(ConfigError, match=message):
            Capacity.of([base, other])

    def test_another_backbone_is_refused(self) -> None:
        capacity = Capacity.of([Architecture.uniform("test_resnet", reduction=4)])
        assert "another backbone or other keywords" in (
            capacity.why_not(Architecture.uniform("test_efficientnet", reduction=4)) or ""
        )

    def test_a_wider_gate_has_no_room(self) -> None:
        capacity = Capacity.of([Architecture.uniform("test_resnet", reduction=8)])
        wider = Architecture.uniform("test_resnet", reduction=2)
        reason = capacity.why_not(wider)
        assert reason == (
            f"width at {wider.sites[0].path!r} is {wider.widths[0]}, but in the masked network"
            f" there is room for {capacity.widest.widths[0]}."
        )

    def test_a_plain_network_fits_any_position(self) -> None:
        capacity = Capacity.of([Architecture.uniform("test_resnet", reduction=8, position="pre")])
        assert capacity.holds(Architecture.plain("test_resnet"))

    def test_no_architectures(self) -> None:
        with pytest.raises(ConfigError, match="needs at least one architecture"):
            Capacity.of([])

    @pytest.mark.parametrize("native", ["free", "keep", "remove", "resize"])
    @pytest.mark.parametrize("granularity", ["block", "stage", "one_stage"])
    def test_a_space_has_room_for_all_that_it_samples(self, native: str, granularity: str) -> None:
        space = make_space("test_efficientnet", native=native, granularity=granularity)
        capacity = Capacity.of_space(space)
        archs = some_architectures(space, 30)
        assert all(capacity.holds(arch) for arch in archs)
        drawn = np.array([arch.widths for arch in archs])
        largest = np.array([max(row, key=abs) for row in capacity.choices])
        assert (np.abs(drawn).max(0) <= np.abs(largest)).all()


def test_weights_of_another_network_are_refused() -> None:
    space = make_space("test_resnet")
    network = make_network(space)
    first, second = (space.build("standard", widths) for widths in ([8, 8, 8, 8], [8, 8, ABSENT, 8]))
    state = built(second, 0).state_dict()
    with pytest.raises(CheckpointError, match=r"se\.fc1\.weight has shape None in the weights, but \(8,"):
        network.load_state(first, state)
    with pytest.raises(ConfigError, match="load one before cutting it out"):
        network.cut()


def test_a_gate_with_a_norm_across_hidden_units_cannot_be_masked() -> None:
    from functools import partial

    from timm.layers import LayerNorm2d, SEModule

    from se_nas.layers.masked_gates import mask_native

    with pytest.raises(BackboneError, match="SEModule cannot be masked"):
        mask_native(SEModule(12, rd_channels=6, norm_layer=LayerNorm2d))
    mask_native(SEModule(12, rd_channels=6, norm_layer=partial(nn.BatchNorm2d, affine=False)))


def test_networks_share_first_weights() -> None:
    space = make_space("test_resnet")
    first = make_first(space)
    capacity = Capacity.of_space(space)
    one, two = MaskedNetwork(capacity, first), MaskedNetwork(capacity, first)
    arch = some_architectures(space, 1)[0]
    for network in (one, two):
        network.load(arch, 4)
    assert all(torch.equal(one.cut()[name], tensor) for name, tensor in two.cut().items())
    # What one network does to its weights is not seen by the other, nor by the next candidate.
    shaken(one.model)
    two.load(arch, 4)
    expected = built(arch, 4).state_dict()
    assert all(torch.equal(two.cut()[name], tensor) for name, tensor in expected.items())
