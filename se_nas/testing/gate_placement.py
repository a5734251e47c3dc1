"""Whether inserted blocks gate what their sites promise, read off a trace of the built model.

Without the nodes inside SE, and with each SE's output taken for its input, the built model's graph must be
the plain backbone's; and what reads an SE's output must be what the position names.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from se_nas.backbones._positions import Place
from se_nas.backbones._survey import Survey
from se_nas.backbones._tracing import Call, Trace
from se_nas.sites import Site


def wiring_faults(
    survey: Survey, sites: Sequence[Site], traced: Trace, blocks: Sequence[nn.Module]
) -> list[str]:
    """What is wrong with a built model, in words; empty if nothing is.

    Args:
        survey: of the plain backbone, at the input size to use.
        sites: inserted sites (native gates stay as they are), in order of execution.
        traced: a trace of the model with SE at these sites.
        blocks: the inserted blocks, one for every site, in any order.
    """
    plain = survey.graph.trace
    calls = [call for call in traced.calls if any(call.module is block for block in blocks)]
    faults = []
    if sorted(id(call.module) for call in calls) != sorted(id(block) for block in blocks):
        faults.append(f"{len(blocks)} blocks were inserted, {len(calls)} block calls were made")
    same, readers = _against(plain, traced, calls)
    if not same:
        return [*faults, "besides SE the model computes something else than the backbone"]
    found = {(call_input, frozenset(gated)) for call_input, gated in readers}
    for site in sites:
        place = _place_of(survey, site)
        if place is None:
            faults.append(f"{site.path} is not a place of position {site.position}")
            continue
        if site.position == "standard" and not _reaches_addition(survey, place):
            faults.append(f"between {site.path} and the addition the branch goes on")
        expected = _expected_readers(survey, place, site.position)
        if (place.node, frozenset(expected)) not in found:
            faults.append(f"the gate at {site.path} does not reach what position {site.position} gates")
    return faults


def _against(plain: Trace, built: Trace, calls: Sequence[Call]) -> tuple[bool, list[tuple[int, set[int]]]]:
    """Whether the graphs agree outside SE, and for each SE (gated node, nodes that read its output)."""
    inside = {index for call in calls for index in range(call.first, call.last)}
    outputs = {call.outputs[0]: call for call in calls}
    of: dict[int, int] = {}
    count = 0
    gated: dict[int, set[int]] = {call.index: set() for call in calls}
    entered: dict[int, int] = {}
    for node in built.nodes:
        if node.index in outputs:
            call = outputs[node.index]
            of[node.index] = of[call.inputs[0]]
            entered[call.index] = of[node.index]
            continue
        if node.index in inside:
            continue
        if count >= len(plain.nodes):
            return False, []
        twin = plain.nodes[count]
        parents = tuple(dict.fromkeys(of[parent] for parent in node.parents))
        if (node.op, node.shape) != (twin.op, twin.shape) or set(parents) != set(twin.parents):
            return False, []
        of[node.index] = count
        for parent in node.parents:
            if parent in outputs:
                gated[outputs[parent].index].add(count)
        count += 1
    if count != len(plain.nodes):
        return False, []
    return True, [(entered[index], readers) for index, readers in gated.items() if index in entered]


def _place_of(survey: Survey, site: Site) -> Place | None:
    for place in survey.places(site.position):
        if site.path == place.call.path and site.anchor == place.anchor:
            return place
    return None


def _reaches_addition(survey: Survey, place: Place) -> bool:
    """Whether only scalings, stochastic depth and the like lie between the gate and the addition."""
    residual = place.unit.residual
    if residual is None:
        return True
    path = survey.graph.between(place.node, residual.end)
    return path.mixers == 0 and path.non_linear == 0


def _expected_readers(survey: Survey, place: Place, position: str) -> set[int]:
    children = set(survey.graph.trace.children[place.node])
    residual = place.unit.residual
    if position == "pre":
        return children & set(place.unit.branch.nodes)
    if position == "identity" and residual is not None and residual.shortcut == residual.fork:
        return {residual.addition}
    return children
