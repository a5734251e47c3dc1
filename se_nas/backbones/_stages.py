"""Numbers of stages and blocks. Stages are the resolutions at which units work, numbered from 0, finest first."""

from __future__ import annotations

import math
from collections.abc import Sequence

from se_nas.backbones._blocks import Unit
from se_nas.backbones._graph import Graph, resolution

_DEPTH_STAGES = 4


def stages_of(graph: Graph, units: Sequence[Unit]) -> list[tuple[int, int]]:
    """(stage, block) for each unit; units of the same block share both numbers.

    The ratio of input to map resolution is rounded to a power of two, so that odd sizes (299, 35, 17, 8 in
    Inception) fall into the right stage. A net with a single resolution (ConvMixer) is divided by depth into four
    stages of equal length.
    """
    height = resolution(graph.nodes[0])[0]
    levels = [round(math.log2(height / max(1, resolution(graph.nodes[unit.output])[0]))) for unit in units]
    order = sorted(set(levels))
    stages = [order.index(level) for level in levels]
    if len(order) == 1 and len(units) >= 2 * _DEPTH_STAGES:
        stages = [index * _DEPTH_STAGES // len(units) for index in range(len(units))]
    numbers: list[tuple[int, int]] = []
    blocks: dict[int, dict[int, int]] = {}
    for stage, unit in zip(stages, units, strict=True):
        members = blocks.setdefault(stage, {})
        numbers.append((stage, members.setdefault(unit.block.index, len(members))))
    return numbers
