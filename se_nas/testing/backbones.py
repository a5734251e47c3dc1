"""The conformance suite: what must hold for SE in any backbone.

Subclass ``BackboneConformance`` in a test module, name the backbone, and pytest runs every check::

    class TestMyNet(BackboneConformance):
        backbone = "mynet/small"

``examine`` runs the same checks outside pytest and returns what failed, in words.
"""

from __future__ import annotations

import copy
import gc
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from se_nas.architecture import Architecture
from se_nas.backbones._survey import Survey
from se_nas.backbones._tracing import Trace, trace
from se_nas.backbones.creation import create
from se_nas.backbones.discovery import survey
from se_nas.layers.native_gates import describe_native
from se_nas.layers.squeeze_excite import SqueezeExcite
from se_nas.model import add_gates
from se_nas.sites import Site
from se_nas.testing.gate_placement import wiring_faults

META_CHECKS = ("sites", "wiring", "params_and_macs", "native_gates")
CHECKS = (*META_CHECKS, "checkpoint_loads", "identity_start", "gradients")


class BackboneConformance:
    """Checks of one backbone; each ``test_`` method is one, and raises ``AssertionError`` with the reason.

    Attributes:
        backbone: name that ``build_model`` takes.
        position: where SE goes; None is the usual position, or another one if that is full of native gates.
        input_size: (channels, height, width) for the passes with numbers; None is the backbone's own.
        reduction: γ of the blocks.
        timm_kwargs: keywords of the constructor.
    """

    backbone: ClassVar[str] = ""
    position: ClassVar[str | None] = None
    input_size: ClassVar[tuple[int, int, int] | None] = None
    reduction: ClassVar[float] = 16
    timm_kwargs: ClassVar[dict[str, Any]] = {}

    _shared: ClassVar[_Subject | None] = None

    @property
    def subject(self) -> _Subject:
        """What the checks look at, made once for a class."""
        cls = type(self)
        if cls._shared is None or cls._shared.owner is not cls:
            cls._shared = _Subject(cls)
        return cls._shared

    @classmethod
    def teardown_class(cls) -> None:
        cls._shared = None
        gc.collect()

    def test_sites(self) -> None:
        """Every site has a unique path, an existing module, and the width of its tensor."""
        arch, found = self.subject.arch, self.subject.survey
        # Empty slots are modules in the built model only, modules inside gated ones in the plain one only.
        models = (self.subject.meta_plain, self.subject.meta)
        modules = {path for model in models for path, _ in model.named_modules()}
        assert arch.sites, "no site"
        assert all(site.slot in modules or site.path in modules for site in arch.sites), (
            "a site has no module"
        )
        assert all(min(site.channels, site.reduction_base, *site.resolution) >= 1 for site in arch.sites)
        # A position may lack a stage, as slots do in test_efficientnet_evos, but no stage is numbered for nothing.
        stages = {site.stage for position in found.positions for site in found.sites(position)}
        assert stages == set(range(len(stages))), f"stages are not numbered from 0: {sorted(stages)}"
        assert arch.position in found.positions

    def test_wiring(self) -> None:
        """Every inserted block runs once, its output reaches its place, and nothing else has changed."""
        subject = self.subject
        blocks = [block for _, block in subject.blocks(subject.meta)]
        faults = wiring_faults(subject.survey, subject.inserted, subject.traced, blocks)
        assert not faults, "; ".join(faults[:3])

    def test_params_and_macs(self) -> None:
        """Parameters and MACs grow by the closed form 2·C·h (+ h + C with bias)."""
        subject = self.subject
        pairs = [(site.channels, width) for site, width in subject.changed]
        params = sum(2 * c * h + c + h for c, h in pairs)
        grown = _num_params(subject.meta) - _num_params(subject.meta_plain)
        assert grown == params, f"{grown} parameters more, the closed form says {params}"
        macs = _macs(subject.traced) - _macs(subject.survey.graph.trace)
        expected = sum(2 * c * h for c, h in pairs)
        assert macs == expected, f"{macs} MACs more, the closed form says {expected}"

    def test_native_gates(self) -> None:
        """The backbone's own gates can be taken out, and those with a bottleneck resized."""
        subject = self.subject
        natives = [site for site in subject.arch.sites if site.native]
        if not natives:
            return
        kept = subject.meta_plain
        removed = subject.native_variant({site.path: 0 for site in natives})
        gates = [kept.get_submodule(site.path) for site in natives]
        less = _num_params(kept) - _num_params(removed)
        assert less == sum(map(_num_params, gates)), "parameters besides those of the gates have gone"
        assert all(isinstance(removed.get_submodule(site.path), nn.Identity) for site in natives)
        assert len(trace(removed, subject.own_size).nodes) < len(subject.survey.graph.nodes)
        widths = {s.path: s.native_rd_channels + 3 for s in natives if s.native_rd_channels is not None}
        resized = subject.native_variant(widths)
        for path, width in widths.items():
            described = describe_native(resized.get_submodule(path))
            assert described == ("se", width), f"{path} is {described} after resizing to {width}"
        trace(resized, subject.own_size)

    def test_checkpoint_loads(self) -> None:
        """The plain backbone's state dict loads with only the SE keys missing, and comes back unchanged."""
        plain, built = self.subject.pair
        state = plain.state_dict()
        result = built.load_state_dict(state, strict=False)
        assert not result.unexpected_keys, f"unexpected keys: {result.unexpected_keys[:3]}"
        # The gate's scale is an entry that may be absent.
        added = [k for k in built.state_dict() if k not in state and not k.endswith(".gate_scale")]
        assert sorted(result.missing_keys) == sorted(added)
        prefixes = tuple(f"{path}." for path, _ in self.subject.blocks(built, by_key=True))
        strange = [key for key in added if not key.startswith(prefixes)]
        assert not strange, f"keys that are neither the backbone's nor SE's: {strange[:3]}"

    def test_identity_start(self) -> None:
        """With ``init="identity"`` the outputs are those of the plain backbone, bit for bit."""
        plain, built = self.subject.pair
        built.load_state_dict(plain.state_dict(), strict=False)
        image = self.subject.image(1)
        with torch.no_grad():
            expected, output = plain.eval()(image), built.eval()(image)
        assert _finite(expected), "the plain backbone's output is not finite on random weights"
        assert _same(expected, output), "the output is not the plain backbone's"

    def test_gradients(self) -> None:
        """Forward and backward pass in training mode: the last layer of every block gets a gradient."""
        _, built = self.subject.pair
        built.train()
        output = built(self.subject.image(2))
        _loss(output).backward()
        for path, block in self.subject.blocks(built):
            gradient = block.fc2.weight.grad
            assert gradient is not None, f"no gradient reaches {path}"
            assert bool(torch.isfinite(gradient).all()), f"the gradient at {path} is not finite"
        built.zero_grad(set_to_none=True)


class _Subject:
    """The models of one conformance class, each made when a check first asks for it."""

    def __init__(self, owner: type[BackboneConformance]) -> None:
        self.owner = owner
        self.survey: Survey = survey(owner.backbone, **owner.timm_kwargs)
        self.arch = self._architecture()
        self.own_size = tuple(self.survey.graph.nodes[0].shape[1:])
        self.size = owner.input_size or self.own_size
        self.changed = list(self.arch.changed())
        self.inserted: list[Site] = [site for site, _ in self.changed]

    def _architecture(self) -> Architecture:
        """SE everywhere at the position; if that is full of native gates, at the first one that is not."""
        usual = self.survey.usual_position
        others = [position for position in self.survey.positions if position != usual]
        positions = [self.owner.position] if self.owner.position else [usual, *others]
        found = [
            Architecture.uniform(
                self.owner.backbone,
                reduction=self.owner.reduction,
                position=position,
                **self.owner.timm_kwargs,
            )
            for position in positions
        ]
        return next((arch for arch in found if not arch.is_plain), found[0])

    @cached_property
    def meta(self) -> nn.Module:
        """The built model; from a copy of the plain one, so that both have the maker's own classifier."""
        with torch.device("meta"):
            return add_gates(copy.deepcopy(self.meta_plain), self.arch).eval()

    @cached_property
    def traced(self) -> Trace:
        return trace(self.meta, self.own_size)

    @cached_property
    def meta_plain(self) -> nn.Module:
        with torch.device("meta"):
            return create(self.arch.backbone, **dict(self.arch.timm_kwargs)).eval()

    def native_variant(self, widths: dict[str, int]) -> nn.Module:
        """The backbone with other widths at native gates and no SE of ours, on the meta device."""
        arch = Architecture.from_widths(
            self.arch.backbone, widths=widths, position=self.arch.position, **dict(self.arch.timm_kwargs)
        )
        with torch.device("meta"):
            return add_gates(copy.deepcopy(self.meta_plain), arch).eval()

    @cached_property
    def pair(self) -> tuple[nn.Module, nn.Module]:
        """The plain backbone with no zero left in its vectors of weights, and the built model."""
        torch.manual_seed(0)
        plain = create(self.arch.backbone, **dict(self.arch.timm_kwargs))
        # Norms that start as zero would hide what their branches compute.
        with torch.no_grad():
            for parameter in plain.parameters():
                if parameter.ndim <= 1 and not parameter.any():
                    parameter.normal_(0.0, 0.1)
        return plain, add_gates(copy.deepcopy(plain), self.arch, init="identity")

    def blocks(self, model: nn.Module, *, by_key: bool = False) -> list[tuple[str, SqueezeExcite]]:
        """The inserted blocks with their paths; ``by_key`` as state dicts name them."""
        found = [(path, m) for path, m in model.named_modules() if isinstance(m, SqueezeExcite)]
        return [(path.replace("gated_host.", ""), m) for path, m in found] if by_key else found

    def image(self, batch_size: int) -> Tensor:
        generator = torch.Generator().manual_seed(batch_size)
        return torch.randn((batch_size, *self.size), generator=generator)


def examine(
    backbone: str,
    *,
    checks: tuple[str, ...] = CHECKS,
    input_size: tuple[int, int, int] | None = None,
    position: str | None = None,
    **timm_kwargs: Any,
) -> dict[str, str | None]:
    """Run checks on a backbone: for each its name and None, or the reason why it failed."""
    case: type[BackboneConformance] = type(
        "Case",
        (BackboneConformance,),
        {
            "backbone": backbone,
            "input_size": input_size,
            "position": position,
            "timm_kwargs": timm_kwargs,
        },
    )
    results: dict[str, str | None] = {}
    for check in checks:
        try:
            getattr(case(), f"test_{check}")()
            results[check] = None
        except Exception as error:
            lines = str(error).splitlines() or [""]
            results[check] = f"{type(error).__name__}: {lines[0]}"
    case.teardown_class()
    return results


def _num_params(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _macs(traced: Trace) -> int:
    return sum(node.macs for node in traced.nodes)


def _outputs(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    items = output.values() if isinstance(output, dict) else output
    return [tensor for item in items for tensor in _outputs(item)]


def _finite(output: Any) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in _outputs(output))


def _same(expected: Any, output: Any) -> bool:
    pairs = zip(_outputs(expected), _outputs(output), strict=True)
    return all(torch.equal(first, second) for first, second in pairs)


def _loss(output: Any) -> Tensor:
    return torch.stack([tensor.float().square().mean() for tensor in _outputs(output)]).sum()
