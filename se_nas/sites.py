"""Sites: the tensors in a backbone that an SE block can gate, and the hidden widths that can go there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from se_nas.arguments import checked
from se_nas.errors import ConfigError, not_allowed

ABSENT = 0
"""Width of a site without SE; on a native site: the native block is removed."""
KEEP = -1
"""Width of a native gate that has no bottleneck (ECA, eSE) and stays as timm made it."""
NATIVE_POLICIES = ("keep", "resize", "remove")
ROUNDINGS = ("timm", "exact")
GATES = ("sigmoid", "hard_sigmoid", "tanh", "relu")
_MAX_SIZE = 1 << 20
ACTIVATIONS = ("relu", "relu6", "silu", "gelu", "leaky_relu", "hard_swish")


@checked
@dataclass(frozen=True, kw_only=True)
class Site:
    """A tensor in the backbone that an SE block can gate.

    Attributes:
        stage: index of the resolution at which the block works, from 0.
        block: index of the repeated unit inside its stage, from 0.
        path: dotted name of the module at which SE sits; unique among the sites of a backbone and position.
        channels: width C of the gated tensor.
        reduction_base: width that the reduction ratio γ divides (the block's input in MBConv nets).
        resolution: (height, width) of the gated map at the input size that the sites were found with.
        native: kind of the gate that timm builds here ("se", "ese", "eca", ...), or None.
        native_rd_channels: hidden width of the native gate; None without one, or if it has no bottleneck.
        position: where in the block the tensor is: standard, pre, post, identity, conv3x3 or slot.
        rd_divisor: the family's rounding of the hidden width: to multiples of this, 1 for the nearest integer.
        rd_round_limit: as in timm's ``make_divisible``: round up where less than this share would be left.
        act: inner activation that the family uses at this site.
        anchor: what is gated: the module's "output", its "input" (position pre; or a module that only passes
            the tensor on, such as stochastic depth), or the "shortcut" or "branch" inside the block at path.
        slot: dotted name of the block's own empty slot for a gate, where there is one: SE goes there.
        channel_dim: 1 for (N, C, H, W), -1 for (N, H, W, C).
    """

    stage: int
    block: int
    path: str
    channels: int
    reduction_base: int
    resolution: tuple[int, int]
    native: str | None = None
    native_rd_channels: int | None = None
    position: str = "standard"
    rd_divisor: int = 8
    rd_round_limit: float = 0.0
    act: str = "relu"
    anchor: str = "output"
    slot: str | None = None
    channel_dim: int = 1

    def __post_init__(self) -> None:
        sizes = (self.channels, self.reduction_base, *self.resolution, self.rd_divisor)
        if not all(1 <= size <= _MAX_SIZE for size in sizes) or self.stage < 0 or self.block < 0:
            raise ConfigError(
                f"{self.path!r} is not a site: channels, reduction_base, resolution and rd_divisor are {sizes}, from 1"
                f" to {_MAX_SIZE} each; stage and block are {self.stage} and {self.block}, from 0."
            )

    def rd_channels(self, reduction: float, rounding: str = "timm") -> int:
        """Hidden width at reduction ratio γ: ``reduction_base / γ``, rounded.

        ``rounding="timm"`` is the family's own (timm's ``make_divisible``, or the nearest integer with a
        floor of 1); ``"exact"`` is ``reduction_base // γ`` and refuses a width of 0.
        """
        if rounding not in ROUNDINGS:
            raise ConfigError(not_allowed("rounding", rounding, ROUNDINGS))
        if not reduction > 0 or reduction != reduction:
            raise ConfigError(f"reduction is {reduction!r}; it must be a number above 0.")
        if reduction * _MAX_SIZE < self.reduction_base:
            raise ConfigError(
                f"reduction {reduction:g} makes the hidden width at site {self.path!r} larger than {_MAX_SIZE}."
            )
        if rounding == "exact":
            width = int(self.reduction_base // reduction)
            if width == 0:
                raise ConfigError(
                    f"reduction {reduction:g} is larger than the {self.reduction_base} channels that it"
                    f" divides at site {self.path!r}; the largest allowed there is {self.reduction_base}."
                )
            return width
        # timm multiplies by 1/γ; a division could round the other way at a tie.
        value = self.reduction_base * (1.0 / reduction)
        if self.rd_divisor == 1:
            return max(1, round(value))
        width = max(self.rd_divisor, int(value + self.rd_divisor / 2) // self.rd_divisor * self.rd_divisor)
        return width + self.rd_divisor if width < self.rd_round_limit * value else width


def native_width(site: Site) -> int:
    """Width at a site of the backbone as timm makes it."""
    if site.native is None:
        return ABSENT
    return KEEP if site.native_rd_channels is None else site.native_rd_channels


def width_at(site: Site, reduction: float | None, rounding: str = "timm", native: str = "keep") -> int:
    """Realised width at a site for γ (None: no SE), with the policy for native gates."""
    if native not in NATIVE_POLICIES:
        raise ConfigError(not_allowed("native", native, NATIVE_POLICIES))
    if site.native and (native == "keep" or (native == "resize" and site.native_rd_channels is None)):
        return native_width(site)
    if reduction is None or (site.native and native == "remove"):
        return ABSENT
    return site.rd_channels(reduction, rounding)


def check_reductions(sites: Sequence[Site], reductions: Mapping[int, float | None]) -> None:
    """Refuse a γ that is not above 0 or exceeds the widest channels of its stage, and unknown stages."""
    widest: dict[int, int] = {}
    for site in sites:
        widest[site.stage] = max(widest.get(site.stage, 0), site.reduction_base)
    for stage, reduction in reductions.items():
        if stage not in widest:
            raise ConfigError(f"stage {stage!r} has no site; stages: {', '.join(map(str, sorted(widest)))}.")
        if reduction is None:
            continue
        if isinstance(reduction, bool) or not isinstance(reduction, int | float) or not reduction > 0:
            raise ConfigError(f"reduction is {reduction!r}; it must be a number above 0.")
        if reduction > max(widest.values()):
            raise ConfigError(
                f"reduction {reduction:g} is larger than the channels allow;"
                f" the widest site divides {max(widest.values())} channels."
            )


def check_width(site: Site, width: int) -> None:
    """Refuse a width that cannot be built at a site."""
    if isinstance(width, bool) or not isinstance(width, int) or width < KEEP:
        raise ConfigError(f"width at {site.path!r} is {width!r}; it must be 0 (no SE) or a positive integer.")
    if width > _MAX_SIZE:
        raise ConfigError(f"width at {site.path!r} is {width}; it must be {_MAX_SIZE} at most.")
    no_bottleneck = site.native is not None and site.native_rd_channels is None
    if width == KEEP and not no_bottleneck:
        raise ConfigError(f"width -1 keeps a native gate without a bottleneck; {site.path!r} has none.")
    if width > 0 and no_bottleneck:
        raise ConfigError(
            f"the native {site.native} gate at {site.path!r} has no width: keep (-1) or remove (0)."
        )


def image_size(size: int | Sequence[int]) -> tuple[int, int, int]:
    """(channels, height, width) in pixels, from those or from the side of square images with three channels.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(size, int) and not isinstance(size, bool):
        size = (3, size, size)
    sides = tuple(size) if isinstance(size, Sequence) and not isinstance(size, str) else ()
    whole = all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides)
    if len(sides) != 3 or not whole:
        raise ConfigError(
            f"input_size is {size!r}; it must be (channels, height, width), or the side of square images, all"
            " integers above 0."
        )
    return sides[0], sides[1], sides[2]
