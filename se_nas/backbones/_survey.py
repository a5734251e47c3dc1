"""Everything found in one model: units, places, native gates and slots, and from these the list of sites."""

from __future__ import annotations

from collections import Counter
from functools import cached_property

from torch import nn

from se_nas.backbones import _conventions, _native_sites, _stages
from se_nas.backbones._attachment import SLOTS, scaled_from
from se_nas.backbones._blocks import Unit, find_units
from se_nas.backbones._graph import Graph, channels, resolution
from se_nas.backbones._native_sites import NativeGate
from se_nas.backbones._positions import POSITIONS, Place, available, place_at
from se_nas.backbones._tracing import Call, Trace, trace
from se_nas.errors import BackboneError, nearest
from se_nas.sites import Site


class Survey:
    """Where SE can go in a backbone, at one input size."""

    def __init__(self, model: nn.Module, input_size: tuple[int, ...], name: str) -> None:
        self.name = name
        self.graph = Graph(_trace_with_slots(model, input_size))
        self.gates = _native_sites.find_native_gates(self.graph)
        self.units = find_units(self.graph)
        self._refuse_shared_blocks()
        if not self.units and not self.gates:
            raise BackboneError(
                f"{name} has no place for SE: its forward pass has no residual block, concatenation or chain of"
                " convolutions on feature maps (transformers and MLPs work on tokens)."
            )
        self._gate_of_start = {gate.start: gate for gate in self.gates}
        self._gate_of_end = {gate.end: gate for gate in self.gates}
        self._sites: dict[str, list[Site]] = {}
        self._slots: dict[int, list[Call]] = {}
        for call in self.graph.trace.calls:
            if isinstance(call.module, nn.Identity) and call.path.rpartition(".")[2] in SLOTS and call.inputs:
                self._slots.setdefault(call.inputs[0], []).append(call)

    @cached_property
    def positions(self) -> list[str]:
        """The positions that the backbone has."""
        slots = len(self.places("slot"))
        return [*self._named_positions, *available({"slot": slots}, self.units)]

    @cached_property
    def _named_positions(self) -> list[str]:
        """The paper's positions, without slots that are at none of them."""
        counts = {position: len(self.places(position)) for position in POSITIONS if position != "slot"}
        if all(node in self._tensors("standard") for node in self._nodes("conv3x3")):
            counts["conv3x3"] = 0
        return available(counts, self.units)

    @cached_property
    def usual_position(self) -> str:
        """The position of the native gates or empty slots; without these standard, or conv3x3 in MBConv nets.

        Slots that leave a third of the blocks or more without a site do not count (LCNetV2 has slots only in its
        last two stages).
        """
        votes: Counter[str] = Counter()
        for unit in self.units:
            owned = self._owned(unit)
            if owned is not None:
                votes[owned] += 1
        widest = max(map(self._num_blocks, self.positions)) if votes else 0
        for position, _ in votes.most_common():
            if position in self.positions and 3 * self._num_blocks(position) > 2 * widest:
                return position
        like_mbconv = sum(_conventions.is_mbconv(self.graph, unit) for unit in self.units)
        if "conv3x3" in self.positions and 2 * like_mbconv > len(self.units):
            return "conv3x3"
        return "standard" if "standard" in self.positions else self.positions[0]

    def _num_blocks(self, position: str) -> int:
        """Number of blocks with a site at a position or a native gate elsewhere."""
        return len({(site.stage, site.block) for site in self.sites(position)})

    def _owned(self, unit: Unit) -> str | None:
        """The position of the unit's native gate, or of the first of its empty slots."""
        owned = self._own_nodes(unit)
        if not owned:
            return None
        for position in ("conv3x3", "standard", "post", "pre"):
            place = self._place(unit, position)
            if place is not None and owned[0] in self._same_tensor(place.node):
                return position
        return "slot"

    def _own_nodes(self, unit: Unit) -> list[int]:
        gates = [g.start for g in self.gates if unit.block.first <= g.call.first < unit.block.last]
        slots = [
            (SLOTS.index(call.path.rpartition(".")[2]), node)
            for node, calls in self._slots.items()
            for call in calls
            if unit.block.first <= call.first < unit.block.last and call.parent == unit.block.index
        ]
        return gates + [node for _, node in sorted(slots)]

    def _same_tensor(self, node: int) -> set[int]:
        gate = self._gate_at(node)
        return {node} | ({gate.start, gate.end} if gate else set())

    def _place(self, unit: Unit, position: str) -> Place | None:
        if position != "slot":
            return place_at(self.graph, unit, position)
        others = [
            place_at(self.graph, unit, other)
            for other in ("standard", "conv3x3", "post", "pre")
            if other in self._named_positions
        ]
        elsewhere = {place.node for place in others if place is not None}
        for node in self._own_nodes(unit):
            if node in elsewhere:
                continue
            gate = self._gate_of_start.get(node)
            call = gate.call if gate is not None else self._slots[node][0]
            return Place(unit=unit, node=node, call=call, anchor="output")
        return None

    def places(self, position: str) -> list[Place]:
        """The places of a position, one per tensor, in order of execution."""
        found: dict[int, Place] = {}
        for unit in self.units:
            place = self._place(unit, position)
            if place is not None:
                found.setdefault(place.node, place)
        return [found[node] for node in sorted(found)]

    def _nodes(self, position: str) -> set[int]:
        return {place.node for place in self.places(position)}

    def _tensors(self, position: str) -> set[int]:
        """The tensors of a position; if there is a native gate, those on both sides of it."""
        return {node for place in self.places(position) for node in self._same_tensor(place.node)}

    def _gate_at(self, node: int) -> NativeGate | None:
        if node in self._gate_of_start:
            return self._gate_of_start[node]
        for index in scaled_from(self.graph, node):
            if index in self._gate_of_end:
                return self._gate_of_end[index]
        return None

    def sites(self, position: str | None = None) -> list[Site]:
        """Sites at a position, and native gates elsewhere, in order of execution.

        Raises:
            BackboneError: the backbone does not have the position.
        """
        position = position or self.usual_position
        if position not in self.positions:
            raise BackboneError(
                f"{self.name} has no position {position!r}; positions it has: {', '.join(self.positions)}."
                f"{nearest(position, self.positions)}"
            )
        # Every architecture that is made by name asks.
        if position not in self._sites:
            self._sites[position] = self._sites_at(position)
        return list(self._sites[position])

    def _sites_at(self, position: str) -> list[Site]:
        ordered: list[tuple[int, Site]] = []
        used: set[str] = set()
        for place in self.places(position):
            gate = self._gate_at(place.node)
            site = self._native_site(gate, position) if gate else self._site(place, position)
            if site.path not in used:
                used.add(site.path)
                ordered.append((gate.start if gate else place.node, site))
        for gate in self.gates:
            if gate.call.path not in used:
                unit = self._unit_of(gate)
                label = self._owned(unit) if unit is not None else None
                ordered.append((gate.start, self._native_site(gate, label or "slot")))
        ordered.sort(key=lambda pair: pair[0])
        return [site for _, site in ordered]

    def _refuse_shared_blocks(self) -> None:
        for unit in self.units:
            path, calls = unit.block.path, self.graph.trace.module_calls
            if unit.kind in ("residual", "sibling") and path and calls[path] > 1:
                raise BackboneError(
                    f"{self.name} calls the block {path!r} {calls[path]} times in one forward pass, so SE in it"
                    " would gate several places at once. Use a separate block for every place."
                )

    def _site(self, place: Place, position: str) -> Site:
        node = self.graph.nodes[place.node]
        slot, path = None, place.call.path
        calls = [
            call
            for call in self._slots.get(place.node, ())
            if place.anchor == "output" and place.unit.block.first <= call.first <= place.unit.block.last
        ]
        if calls:
            slot = min(calls, key=lambda call: SLOTS.index(call.path.rpartition(".")[2])).path
        if position == "slot" and slot:
            path = slot
        stage, block = self._numbers[id(place.unit)]
        convention = self._convention
        act = convention.act
        if act is None or position == "slot":
            act = _conventions.activation(self.graph, place.unit.branch.nodes)
        entry = channels(self.graph.nodes[place.unit.start])
        return Site(
            stage=stage,
            block=block,
            path=path,
            channels=channels(node),
            reduction_base=entry if convention.base == "input" else channels(node),
            resolution=resolution(node),
            position=position,
            rd_divisor=convention.rd_divisor,
            rd_round_limit=convention.rd_round_limit,
            act=act,
            anchor=place.anchor,
            slot=slot,
            channel_dim=1 if node.axis == 1 else -1,
        )

    def _native_site(self, gate: NativeGate, position: str) -> Site:
        node = self.graph.nodes[gate.start]
        unit = self._unit_of(gate)
        stage, block = self._numbers[id(unit) if unit is not None else id(gate)]
        convention = self._convention
        entry = channels(self.graph.nodes[unit.start]) if unit is not None else channels(node)
        return Site(
            stage=stage,
            block=block,
            path=gate.call.path,
            channels=channels(node),
            reduction_base=entry if convention.base == "input" else channels(node),
            resolution=resolution(node),
            native=gate.kind,
            native_rd_channels=gate.rd_channels,
            position=position,
            rd_divisor=convention.rd_divisor,
            rd_round_limit=convention.rd_round_limit,
            act=_conventions.activation(self.graph, range(gate.call.first, gate.call.last)),
            channel_dim=1 if node.axis == 1 else -1,
        )

    def _unit_of(self, gate: NativeGate) -> Unit | None:
        inside = [u for u in self.units if u.block.first <= gate.call.first < u.block.last]
        return min(
            inside,
            key=lambda unit: (unit.block.last - unit.block.first, abs(unit.end - gate.end)),
            default=None,
        )

    @cached_property
    def _convention(self) -> _conventions.Convention:
        return _conventions.infer(
            self.graph,
            [(gate, self._unit_of(gate)) for gate in self.gates],
            self.units,
            slots=[(self._first_slot(unit), self._owned(unit)) for unit in self.units],
        )

    def _first_slot(self, unit: Unit) -> str | None:
        names = [
            call.path.rpartition(".")[2]
            for calls in self._slots.values()
            for call in calls
            if call.parent == unit.block.index
        ]
        return min(names, key=SLOTS.index, default=None)

    @cached_property
    def _numbers(self) -> dict[int, tuple[int, int]]:
        """(stage, block) by the id of the unit, or of a gate that is in no unit."""
        lone = {}
        for gate in self.gates:
            if self._unit_of(gate) is None:
                branch = self.graph.between(gate.start, gate.end)
                lone[id(gate)] = Unit(
                    kind="gate",
                    block=gate.call,
                    start=gate.start,
                    end=gate.end,
                    output=gate.end,
                    branch=branch,
                )
        members = sorted([*self.units, *lone.values()], key=lambda unit: unit.end)
        numbers = dict(zip(map(id, members), _stages.stages_of(self.graph, members), strict=True))
        return numbers | {key: numbers[id(unit)] for key, unit in lone.items()}


def _trace_with_slots(model: nn.Module, input_size: tuple[int, ...]) -> Trace:
    """A trace in which slots that are None appear as calls of ``Identity``, if filling them changes nothing."""
    plain = trace(model, input_size)
    empty = _native_sites.empty_slots(model, SLOTS)
    if not empty:
        return plain
    try:
        for path, name in empty:
            setattr(model.get_submodule(path), name, nn.Identity())
        probed = trace(model, input_size)
    except BackboneError:
        return plain
    finally:
        for path, name in empty:
            block = model.get_submodule(path)
            if isinstance(getattr(block, name), nn.Identity):
                delattr(block, name)
                setattr(block, name, None)
    same = [(node.op, node.parents) for node in plain.nodes] == [
        (node.op, node.parents) for node in probed.nodes
    ]
    return probed if same else plain
