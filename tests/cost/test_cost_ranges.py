"""Ranges over a space against counting every architecture one by one."""

from __future__ import annotations

import numpy as np
import pytest

from se_nas import SearchSpace, measure_cost
from se_nas.cost import CostModel, WidthCost, ranges, ranges_over

SIZE = (3, 64, 64)


def params_of(space: SearchSpace) -> dict[str, WidthCost]:
    models = {
        position: CostModel.for_backbone(space.backbone, position=position, input_size=SIZE)
        for position in space.sites_by_position
    }
    return {
        position: lambda widths, model=model: model.evaluate(widths)["num_params"]
        for position, model in models.items()
    }


def test_small_spaces_are_counted_one_by_one() -> None:
    space = SearchSpace.load("per_stage", backbone="resnet18")
    reach = ranges_over(space, {"num_params": params_of(space)})["num_params"]
    values = [measure_cost(arch, input_size=SIZE).num_params for arch in space.enumerate()]
    assert reach.exact
    assert (reach.minimum, reach.maximum) == (min(values), max(values))
    assert [reach.lower_quartile, reach.median, reach.upper_quartile] == np.quantile(
        values, [0.25, 0.5, 0.75]
    ).tolist()


@pytest.mark.parametrize("position", [None, ["standard", "pre"]])
def test_sampled_ends_are_the_true_ones(monkeypatch: pytest.MonkeyPatch, position: list[str] | None) -> None:
    space = SearchSpace.load("per_block", backbone="resnet18", position=position)
    costs = {"num_params": params_of(space)}
    counted = ranges_over(space, costs)["num_params"]
    monkeypatch.setattr(ranges, "_MOST_ENUMERATED", 100)
    monkeypatch.setattr(ranges, "_SAMPLES", 200)
    sampled = ranges_over(space, costs)["num_params"]
    assert counted.exact
    assert not sampled.exact
    assert (sampled.minimum, sampled.maximum) == (counted.minimum, counted.maximum)
    assert sampled.median == pytest.approx(counted.median, rel=0.01)


def test_ends_of_a_space_that_cannot_be_counted() -> None:
    space = SearchSpace.load("per_block", backbone="resnet50")
    reach = ranges_over(space, {"num_params": params_of(space)})["num_params"]
    assert reach.minimum == 25_557_032
    widest = {
        name: max(choices, key=lambda choice: (choice is True, -choice))
        for name, choices in space.choices.items()
    }
    widest |= {
        name: min(c for c in choices if c) for name, choices in space.choices.items() if True not in choices
    }
    assert reach.maximum == measure_cost(space.architecture(widest), input_size=SIZE).num_params
