"""Parameters, multiply-adds and activations of any architecture, exactly, as base + a sum over its gates.

An SE block with C channels and hidden width h adds, in fvcore's count for one image, 2·C·h multiply-adds,
2·C·h + h + C parameters (2·C·h without biases; Hu et al., arXiv 1709.01507, section 4) and h + C activations.
Gates that timm builds may hold more (norms, pooling modules), so theirs are read off the backbone itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from se_nas.architecture import Architecture
from se_nas.arguments import checked
from se_nas.errors import BackboneError, ConfigError
from se_nas.sites import ABSENT, Site, image_size, native_width

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from se_nas.cost.counting import Counts

INPUT_SIZE = (3, 224, 224)
NUM_CLASSES = 1000


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Exact costs of a network for one image, in eval mode.

    Attributes:
        num_params: parameters, as fvcore's ``parameter_count``.
        macs: multiply-adds, as fvcore's ``FlopCountAnalysis`` (one multiply-add is one).
        activations: elements of convolution and matrix-product outputs, as ``ActivationCountAnalysis``.
        se_elementwise_ops: what ``macs`` leaves out of the gates: the mean (C·H·W), the inner activation (h),
            the gate (C) and the product (C·H·W), one for each element.
    """

    num_params: int
    macs: int
    activations: int
    se_elementwise_ops: int


COST_NAMES = tuple(field.name for field in fields(Cost))


@dataclass(frozen=True, kw_only=True)
class CostModel:
    """Costs of every architecture of a backbone at one position: ``base + Σ (fixed_i + slope_i · width_i)``.

    The sum runs over the sites that have a gate. All numbers are integers and exact.

    Attributes:
        sites: the sites, in the order of the widths.
        base: costs of the backbone with no gate at all.
        fixed: for every site what a gate costs whatever its width, in the order of ``COST_NAMES``.
        slope: for every site what each hidden channel adds, in the order of ``COST_NAMES``.
        plain: costs of the backbone as timm makes it.
        input_size: (channels, height, width) in pixels.
        num_classes: classes of the head.
    """

    sites: tuple[Site, ...]
    base: tuple[int, int, int, int]
    fixed: tuple[tuple[int, int, int, int], ...]
    slope: tuple[tuple[int, int, int, int], ...]
    plain: Cost
    input_size: tuple[int, int, int]
    num_classes: int

    @classmethod
    def for_backbone(
        cls,
        backbone: str,
        *,
        position: str | None = None,
        bias: bool = True,
        input_size: int | tuple[int, int, int] = INPUT_SIZE,
        num_classes: int = NUM_CLASSES,
        **timm_kwargs: Any,
    ) -> CostModel:
        """The cost model of a timm backbone; counted once and kept while the process lives.

        Args:
            backbone: a timm model name.
            position: where SE is inserted; None is the family's usual position.
            bias: whether inserted blocks have biases.
            input_size: (channels, height, width) in pixels, or the side of square images.
            num_classes: classes of the head.
            timm_kwargs: further keywords of ``timm.create_model`` that change the network.

        Raises:
            BackboneError: the backbone is unknown, lacks the position, or cannot take the input size.
        """
        arch = Architecture.plain(backbone, position=position, **timm_kwargs)
        return cls.for_architecture(replace(arch, bias=bias), input_size, num_classes)

    @classmethod
    def for_architecture(
        cls,
        arch: Architecture,
        input_size: int | tuple[int, int, int] = INPUT_SIZE,
        num_classes: int = NUM_CLASSES,
    ) -> CostModel:
        """The cost model of all architectures that share backbone, position, sites and bias with ``arch``."""
        # The sites are compared instead of hashed: equal tuples mostly hold the same objects, and hashing them
        # would take longer than the sum itself.
        if not isinstance(input_size, tuple):
            input_size = image_size(input_size)
        key = (arch.backbone, arch.timm_kwargs, arch.position, arch.bias, input_size, num_classes)
        models = _models.setdefault(key, [])
        for model in models:
            if model.sites is arch.sites or model.sites == arch.sites:
                return model
        models.append(_build(arch, *_checked(input_size, num_classes)))
        return models[-1]

    def cost(self, widths: Sequence[int]) -> Cost:
        """Cost of one architecture given by its widths, one for each site."""
        params, macs, activations, elementwise = self.base
        for width, fixed, slope in zip(widths, self.fixed, self.slope, strict=True):
            if width == ABSENT:
                continue
            hidden = width if width > 0 else 0
            params += fixed[0] + slope[0] * hidden
            macs += fixed[1] + slope[1] * hidden
            activations += fixed[2] + slope[2] * hidden
            elementwise += fixed[3] + slope[3] * hidden
        return Cost(num_params=params, macs=macs, activations=activations, se_elementwise_ops=elementwise)

    def evaluate(self, widths: np.ndarray) -> dict[str, np.ndarray]:
        """Costs of many architectures at once.

        Args:
            widths: integers of shape (n, number of sites), as in ``Architecture.widths``.

        Returns:
            for every name of ``COST_NAMES`` an int64 array of shape (n,).

        Raises:
            ConfigError: the array has another shape, is not an integer array, or holds a width below -1.
        """
        import numpy as np

        widths = checked_widths(widths, len(self.sites))
        base, fixed, slope = self._arrays
        # float64 holds integers exactly up to 2**53 and has a fast matrix product, which int64 does not.
        total = (widths != ABSENT).astype(np.float64) @ fixed + np.maximum(widths, 0).astype(
            np.float64
        ) @ slope
        counts = base + total.astype(np.int64)
        return {name: counts[:, index] for index, name in enumerate(COST_NAMES)}

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        import numpy as np

        shape = (len(self.sites), len(COST_NAMES))
        return (
            np.array(self.base, dtype=np.int64),
            np.array(self.fixed, dtype=np.float64).reshape(shape),
            np.array(self.slope, dtype=np.float64).reshape(shape),
        )


@checked
def measure_cost(
    arch: Architecture,
    *,
    input_size: int | tuple[int, int, int] = INPUT_SIZE,
    num_classes: int = NUM_CLASSES,
) -> Cost:
    """Exact cost of an architecture by closed form; the backbone is counted by fvcore on first use.

    Args:
        arch: the architecture.
        input_size: (channels, height, width) in pixels, or the side of square images.
        num_classes: classes of the head.

    Raises:
        BackboneError: the backbone cannot be built, or cannot take the input size.
        ConfigError: ``input_size`` or ``num_classes`` is not made of positive integers.
    """
    return CostModel.for_architecture(arch, input_size, num_classes).cost(arch.widths)


def checked_widths(widths: np.ndarray, num_sites: int) -> np.ndarray:
    """``widths`` as an int64 array of shape (n, ``num_sites``), or a ConfigError."""
    import numpy as np

    array = np.asarray(widths)
    if array.ndim != 2 or array.shape[1] != num_sites or array.dtype.kind not in "iu":
        raise ConfigError(
            f"widths is an array of {array.dtype} of shape {array.shape};"
            f" it must be an integer array of shape (n, {num_sites})."
        )
    if array.size and array.min() < -1:
        raise ConfigError(f"widths holds {array.min()}; allowed: -1 (kept native gate), 0 (no SE) and above.")
    return array.astype(np.int64, copy=False)


_Vector = tuple[int, int, int, int]
_models: dict[tuple[Any, ...], list[CostModel]] = {}


def _build(arch: Architecture, input_size: tuple[int, int, int], num_classes: int) -> CostModel:
    plain = _plain(arch)
    counts = _count(plain, input_size, num_classes)
    native = [site for site in plain.sites if site.native]
    resized = (
        _count(_with_double_width(plain), input_size, num_classes) if _has_bottleneck(native) else counts
    )
    resolutions = _resolutions(arch, input_size)
    fixed, slope = [], []
    for site in arch.sites:
        area = resolutions[site.path][0] * resolutions[site.path][1]
        parts = _native(site, area, counts, resized) if site.native else _inserted(site, area, arch.bias)
        fixed.append(parts[0])
        slope.append(parts[1])
    total = Cost(
        num_params=counts.num_params[""],
        macs=counts.macs[""],
        activations=counts.activations[""],
        se_elementwise_ops=0,
    )
    unshifted = CostModel(
        sites=arch.sites,
        base=(0, 0, 0, 0),
        fixed=tuple(fixed),
        slope=tuple(slope),
        plain=total,
        input_size=input_size,
        num_classes=num_classes,
    )
    gates = unshifted.cost(plain.widths)
    base = (
        total.num_params - gates.num_params,
        total.macs - gates.macs,
        total.activations - gates.activations,
        0,
    )
    return replace(unshifted, base=base, plain=replace(total, se_elementwise_ops=gates.se_elementwise_ops))


def _inserted(site: Site, area: int, bias: bool) -> tuple[_Vector, _Vector]:
    channels = site.channels
    fixed = (channels * bias, 0, channels, 2 * channels * area + channels)
    return fixed, (2 * channels + bias, 2 * channels, 1, 1)


def _native(site: Site, area: int, counts: Counts, resized: Counts) -> tuple[_Vector, _Vector]:
    """A gate that timm builds: what its module holds now, and what doubling the hidden width adds."""
    tables = ("num_params", "macs", "activations")
    missing = [table for table in tables if site.path not in getattr(counts, table)]
    if missing:
        raise BackboneError(f"the gate {site.path!r} is not a module that fvcore can count.")
    now = [getattr(counts, table)[site.path] for table in tables]
    width = site.native_rd_channels
    if width is None:
        steps = [0, 0, 0]
    else:
        steps = [
            (getattr(resized, table)[site.path] - value) // width
            for table, value in zip(tables, now, strict=True)
        ]
    params, macs, activations = (value - step * (width or 0) for value, step in zip(now, steps, strict=True))
    # A pooling module is in fvcore's multiply-adds already, the method x.mean is not.
    elementwise = 2 * site.channels * area + site.channels - counts.pooling[site.path]
    return (params, macs, activations, elementwise), (*steps, 0 if width is None else 1)  # type: ignore[return-value]


def _plain(arch: Architecture) -> Architecture:
    return replace(arch, widths=tuple(native_width(site) for site in arch.sites))


def _has_bottleneck(sites: Sequence[Site]) -> bool:
    return any(site.native_rd_channels is not None for site in sites)


def _with_double_width(plain: Architecture) -> Architecture:
    # Twice the width stays divisible by whatever a norm or a group inside the gate divides it by.
    widths = [width * 2 if width > 0 else width for width in plain.widths]
    return replace(plain, widths=tuple(widths))


def _count(arch: Architecture, input_size: tuple[int, int, int], num_classes: int) -> Counts:
    from se_nas.cost.counting import count
    from se_nas.model import build_model

    try:
        return count(_with_any_weights(arch, num_classes), input_size)
    except (BackboneError, RuntimeError):
        # Some networks are built, or compute, by the values that they hold; and if it is the size, this says so.
        return count(build_model(arch, num_classes=num_classes), input_size)


def _with_any_weights(arch: Architecture, num_classes: int) -> nn.Module:
    """A network whose weights were never written, so that they take neither time nor memory."""
    from se_nas.backbones.creation import on_meta
    from se_nas.model import build_model

    with on_meta():
        model = build_model(arch, num_classes=num_classes)
    model.to_empty(device="cpu")
    for buffer in model.buffers():
        # It may be used as an index.
        buffer.zero_()
    return model


def _resolutions(arch: Architecture, input_size: tuple[int, int, int]) -> dict[str, tuple[int, int]]:
    from se_nas.backbones import find_sites

    sites = find_sites(arch.backbone, position=arch.position, input_size=input_size, **dict(arch.timm_kwargs))
    return {site.path: site.resolution for site in sites}


def _checked(input_size: int | Sequence[int], num_classes: int) -> tuple[tuple[int, int, int], int]:
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 0:
        raise ConfigError(f"num_classes is {num_classes!r}; it must be an integer of at least 0.")
    return image_size(input_size), num_classes
