"""What a search-space file says, once it has been checked."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

GRANULARITIES = ("stage", "block", "one_stage")
POSITIONS = ("standard", "pre", "post", "identity", "conv3x3", "slot")
PAPER_POSITIONS = POSITIONS[:5]
NATIVE = ("keep", "resize", "remove", "free")
BLOCKS = ("all", "first", "last")
MAX_REDUCTIONS = 16
"""Counting distinct architectures visits subsets of the reductions, so their number is bounded."""


@dataclass(frozen=True, kw_only=True)
class SpaceSpec:
    """The rules of a search space, independent of a backbone.

    Attributes:
        description: one line of description.
        granularity: "stage": one γ or none for each stage; "block": SE on or off in each block and one γ for
            each stage; "one_stage": SE in one stage, everywhere or nowhere, and one γ for the network.
        reduction: the ratios γ to choose from, each above 0.
        position: "usual" (the family's), "all" (each of the paper's five that the backbone has), or names.
        stages: stages that may change; negative numbers count from the last one. "all" for every stage.
        blocks: blocks of a stage that may change.
        native: what happens to gates that timm builds: "keep"; "remove"; "resize": they are switched and
            sized like inserted blocks; "free": the same, and a stage may also keep them as they are.
        rounding: of hidden widths, "timm" (the family's own) or "exact" (C // γ).
        gate: gate of inserted blocks.
        act: inner activation of inserted blocks; None is the family's own.
        bias: whether the layers of inserted blocks have biases.
    """

    description: str = ""
    granularity: str
    reduction: tuple[float, ...]
    position: str | tuple[str, ...] = "usual"
    stages: str | tuple[int, ...] = "all"
    blocks: str = "all"
    native: str = "free"
    rounding: str = "timm"
    gate: str = "sigmoid"
    act: str | None = None
    bias: bool = True

    def to_dict(self) -> dict[str, Any]:
        """As a search-space file would say it; JSON-ready."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
        }
