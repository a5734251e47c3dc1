"""How many candidates train at a time, on which devices, and whether in one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from se_nas.architecture import Architecture
from se_nas.documents.typed import Positive, PositiveCount, parse
from se_nas.errors import ConfigError
from se_nas.space import SearchSpace
from se_nas.study.candidate import build_plain_candidate
from se_nas.study.config import SearchConfig
from se_nas.training import DEFAULT_TRAINER, Context, StepTime
from se_nas.training.masked import Capacity, FirstWeights, Place, why_padding_breaks
from se_nas.training.pack_size import SIZES, fewest_places, measure_rates
from se_nas.wording import counted

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Packing:
    """The decision; JSON-ready by ``to_dict``.

    Attributes:
        places: candidates that train at a time on each device.
        devices: as in torch; the first is the one that costs are measured on.
        packed: whether they train in one process, in turns of one step.
        masked: whether one network that holds every candidate is used again for each.
        reason: in words.
        rates: images per second over all places, by their number, as far as it was measured.
        actors: of Ray's, when the run was planned, each with one device; None if Ray does not train.
    """

    places: PositiveCount
    devices: Annotated[tuple[str, ...], Field(min_length=1)]
    packed: bool
    masked: bool
    reason: str
    rates: Mapping[int, Positive] = field(default_factory=dict)
    actors: PositiveCount | None = None

    @property
    def num_devices(self) -> int:
        """Devices that train, those of Ray's actors included."""
        return len(self.devices) if self.actors is None else self.actors

    @property
    def at_a_time(self) -> int:
        """Candidates that train at a time on all devices."""
        return self.places * self.num_devices

    def trained_by(self, actors: int | None) -> Packing:
        """The same with so many actors of Ray's, which train one candidate each outside of a pack; None without Ray."""
        if actors is None:
            return replace(self, actors=None)
        places = self.places if self.packed else 1
        return replace(self, actors=actors, places=places, devices=self.devices[:1])

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Packing:
        """Inverse of ``to_dict``, from JSON.

        Raises:
            ConfigError: it is something else.
        """
        try:
            return parse(cls, values)
        except ValueError as error:
            raise ConfigError(f"this does not say how many candidates train at a time: {error}.") from error


def capacities(space: SearchSpace, baselines: Sequence[Architecture]) -> list[Capacity]:
    """What masked networks can be: one for each position of the space, the first with room for the baselines."""
    return [
        Capacity.of_space(space, position, also=baselines if number == 0 else ())
        for number, position in enumerate(space.sites_by_position)
    ]


def unpacked(config: SearchConfig, devices: Sequence[str], reason: str) -> Packing:
    """Candidates in processes of their own, or one after the other in this one."""
    return Packing(
        places=config.per_gpu or 1, devices=tuple(devices[:1]), packed=False, masked=False, reason=reason
    )


def decide_packing(
    config: SearchConfig,
    space: SearchSpace,
    baselines: Mapping[str, Architecture],
    model: nn.Module,
    context: Context,
    devices: Sequence[str],
    say: Callable[[str], object],
    measure_built: Callable[[nn.Module, Context], StepTime],
) -> Packing:
    """Decide for a new run; on a GPU by measuring.

    Args:
        config: what the user asked.
        space: what is searched.
        baselines: by name.
        model: the most expensive baseline, built.
        context: what candidates are trained with, compiling decided.
        devices: on which candidates train.
        say: is given what takes time.
        measure_built: times steps of a built network.
    """
    if config.trainer != DEFAULT_TRAINER:
        return unpacked(
            config, devices, "only the built-in training loop can train candidates in one process"
        )
    if not devices[0].startswith("cuda"):
        return unpacked(config, devices, "candidates are packed on a GPU")
    # One capture serves all candidates, so it pays even if it would not for each.
    context = replace(context, runtime=replace(context.runtime, graphs=True))
    broken = why_padding_breaks(context.recipe)
    if broken is not None:
        return _packed(config, devices, masked=False, reason=broken)
    rooms = capacities(space, list(baselines.values()))
    most_gated = max(baselines.values(), key=lambda architecture: architecture.num_gated)

    def plain() -> nn.Module:
        return build_plain_candidate(most_gated, config, context.recipe, num_classes=context.data.num_classes)

    first = FirstWeights(plain, init=config.init)
    say("measuring how many candidates to train at a time")
    sizes = SIZES if config.per_gpu is None else (1,)
    rates = measure_rates(lambda: Place(rooms[0], first, context.runtime), most_gated, context, sizes=sizes)
    if not context.runtime.graphs:
        return unpacked(
            config, devices, f"training steps cannot be CUDA graphs: {context.runtime.graphs_error}"
        )
    built = measure_built(model, context)
    masked, reason = _masked_pays(rates[1], built, context)
    return _packed(config, devices, masked=masked, reason=reason, rates=rates)


def _masked_pays(rate: float, built: StepTime, context: Context) -> tuple[bool, str]:
    """Whether a network for all candidates costs less than building and capturing each; with the measurement."""
    steps = context.epochs * built.steps
    batch = min(context.recipe.batch_size, len(context.data.train))
    masked_seconds = steps * batch / rate
    built_seconds = steps * built.step + built.preparation
    pays = masked_seconds <= built_seconds
    return pays, (
        f"{'one network for all' if pays else 'each rebuilt'}: a training takes {masked_seconds:.1f} s of steps"
        f" with masked gates, {built_seconds:.1f} s rebuilt and recaptured"
    )


def _packed(
    config: SearchConfig,
    devices: Sequence[str],
    *,
    masked: bool,
    reason: str,
    rates: Mapping[int, float] | None = None,
) -> Packing:
    rates = dict(rates or {})
    places = config.per_gpu or (fewest_places(rates) if rates else 1)
    measured = ", ".join(f"{size}: {rate:,.0f}" for size, rate in rates.items())
    words = f"{counted(places, 'candidate')} at a time on each device, {reason}"
    return Packing(
        places=places,
        devices=tuple(devices),
        packed=True,
        masked=masked,
        reason=f"{words}; images per second by number of candidates: {measured}" if measured else words,
        rates=rates,
    )
