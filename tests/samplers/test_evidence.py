"""`ParetoSampler(evidence=...)`: a user attribute of the trials that tells more about an objective."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState, create_trial

from se_nas.errors import ConfigError
from se_nas.samplers.pareto_sampler import DUPLICATE, MODEL, PARTIAL, ParetoSampler

NAMES = ("a", "b", "c", "d")
SPACE = dict.fromkeys(NAMES, (0, 1, 2))
GAINS = dict(zip(NAMES, (0.8, 0.5, -0.3, 0.1), strict=True))
Attribute = Callable[[float, int], Any]


def cost(params: dict[str, Any]) -> float:
    return float(sum((i + 1) * params[name] for i, name in enumerate(NAMES)))


def truth(params: dict[str, Any]) -> float:
    return 70.0 + sum(GAINS[name] * params[name] for name in NAMES)


def study_of(
    sampler: ParetoSampler, count: int, attribute: Attribute | None, *, seed: int = 0, ask: int = 0
) -> optuna.Study:
    """A study of ``count`` noisy readings of random points, then ``ask`` of what the sampler proposes.

    ``attribute`` gives a trial's from its true value and number.
    """
    rng = np.random.default_rng(seed)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    space = {name: CategoricalDistribution(values) for name, values in SPACE.items()}
    for number in range(count):
        params = {name: int(rng.integers(3)) for name in NAMES}
        value = truth(params)
        attributes = {} if attribute is None else {"loss": attribute(value, number)}
        study.add_trial(
            create_trial(
                params=params,
                distributions=space,
                values=[value + 0.8 * rng.standard_normal(), cost(params)],
                user_attrs={name: given for name, given in attributes.items() if given is not None},
            )
        )
    for number in range(count, count + ask):
        trial = study.ask(space)
        value = truth(trial.params)
        if attribute is not None:
            trial.set_user_attr("loss", attribute(value, number))
        study.tell(trial, (value + 0.8 * rng.standard_normal(), cost(trial.params)))
    return study


def loss(value: float, number: int) -> float:
    return 1.0 - 0.02 * value + 0.004 * math.sin(37.0 * number)


EVERYWHERE = [
    {"a": a, "b": b, "c": c, "d": d} for a in range(3) for b in range(3) for c in range(3) for d in range(3)
]


def made(**options: Any) -> ParetoSampler:
    return ParetoSampler(known={1: cost}, seed=0, **options)


def believed(study: optuna.Study) -> list[list[float]]:
    return [column.tolist() for column in study.sampler.predict(study, EVERYWHERE)]


def test_a_second_output_tells_of_the_truth_and_what_it_told_can_be_asked() -> None:
    """Over twelve studies: the prediction is nearer to the truth, and the correlation has the right sign."""
    expected = np.array([truth(point) for point in EVERYWHERE])
    gains = []
    for seed in range(12):
        alone, both = (
            study_of(made(**options), 18, loss, seed=seed) for options in ({}, {"evidence": {0: "loss"}})
        )
        agreement = [
            np.corrcoef(study.sampler.predict(study, EVERYWHERE)[0][:, 0], expected)[0, 1]
            for study in (alone, both)
        ]
        gains.append(agreement[1] - agreement[0])
        learned = both.sampler.learned(both)[0]
        assert learned.readings == 18
        assert learned.correlation is not None
        assert learned.correlation < -0.2
        assert learned.noise_correlation is not None
        assert learned.equivalent_readings > 1
    assert np.mean(gains) > 0.03
    assert alone.sampler.learned(alone) == {}


@pytest.mark.parametrize(
    "attribute",
    [
        None,
        lambda value, number: 0.5,
        lambda value, number: math.nan,
        lambda value, number: [math.inf, -math.inf, math.nan][number % 3],
        lambda value, number: 10**400,
        lambda value, number: 0.7 if number in (3, 4) else None,
    ],
    ids=["absent", "constant", "nan", "infinite", "too large", "two readings"],
)
def test_an_attribute_that_says_nothing_changes_nothing_to_the_bit(attribute: Attribute | None) -> None:
    """Proposals and predictions are those of a sampler that is not told of it."""
    studies = [study_of(made(**options), 12, attribute, ask=4) for options in ({}, {"evidence": {0: "loss"}})]
    alone, told = ([trial.params for trial in study.trials] for study in studies)
    assert told == alone
    assert believed(studies[1]) == believed(studies[0])
    learned = studies[1].sampler.learned(studies[1])[0]
    assert (learned.correlation, learned.noise_correlation) == (None, None)


@pytest.mark.parametrize("factor", [1.0, -1.0, 0.01])
def test_a_copy_of_the_objective_is_no_second_reading(factor: float) -> None:
    """A linear function of the readings, such as the error rate, changes nothing to the bit."""
    studies = []
    for options in ({}, {"evidence": {0: "loss"}}):
        study = study_of(made(**options), 0, None)
        for trial in study_of(made(), 12, None).trials:
            trial.user_attrs["loss"] = factor * trial.values[0] + 3.0
            study.add_trial(trial)
        studies.append(study)
    assert believed(studies[1]) == believed(studies[0])
    assert studies[1].sampler.learned(studies[1])[0].correlation is None


def test_the_sign_of_the_attribute_is_learned() -> None:
    down, up = (
        study_of(made(evidence={0: "loss"}), 16, lambda value, number, sign=sign: sign * loss(value, number))
        for sign in (1, -1)
    )
    assert np.array(believed(up)) == pytest.approx(np.array(believed(down)), rel=1e-4)
    one, other = (study.sampler.learned(study)[0].correlation for study in (down, up))
    assert one is not None
    assert one < -0.3
    assert other == pytest.approx(-one, abs=1e-3)


def test_of_a_minimised_objective_the_correlation_has_its_own_sign() -> None:
    study = optuna.create_study(
        directions=["minimize", "minimize"],
        sampler=ParetoSampler(known={1: cost}, evidence={0: "loss"}, seed=0),
    )
    for trial in study_of(made(), 16, loss).trials:
        trial.values = [100 - trial.values[0], trial.values[1]]
        study.add_trial(trial)
    found = study.sampler.learned(study)[0].correlation
    assert found is not None
    assert found > 0.3


@pytest.mark.parametrize("given", ["0.5", True, [0.5], {"value": 0.5}])
def test_an_attribute_of_another_type_is_named(given: Any) -> None:
    study = study_of(made(evidence={0: "loss"}), 5, lambda value, number: given if number == 3 else 0.5)
    with pytest.raises(
        ConfigError, match=r"trial 3 has the user attribute 'loss'.*objective 0.*must be a number"
    ):
        study.ask({name: CategoricalDistribution(values) for name, values in SPACE.items()})


@pytest.mark.parametrize(
    ("evidence", "message"),
    [
        ({1: "loss"}, "evidence has the key 1; .* an objective that is not known"),
        ({-1: "loss"}, "evidence has the key -1"),
        ({True: "loss"}, "evidence has the key True"),
        ({0: ""}, r"evidence\[0\] is ''; it must be the name of a user attribute"),
        ({0: 3}, "evidence"),
        ("loss", "evidence is 'loss'"),
    ],
)
def test_evidence_that_is_none_is_refused(evidence: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        made(evidence=evidence)


def test_evidence_about_an_objective_that_the_study_lacks_shows_before_anything_runs() -> None:
    study = optuna.create_study(sampler=ParetoSampler(evidence={1: "loss"}, seed=0))
    with pytest.raises(ConfigError, match="evidence has the objective 1; the study has objectives 0 to 0"):
        study.ask({"a": CategoricalDistribution((0, 1))})


def test_some_trials_may_lack_the_attribute_and_stopped_ones_never_have_it() -> None:
    """What a stopped trial shows is not what it would have shown: any value of its attribute is the same."""
    found = []
    for shown in (0.1, 50.0):
        study = study_of(
            made(evidence={0: "loss"}), 14, lambda value, number: loss(value, number) if number % 3 else None
        )
        for _ in range(3):
            trial = study.ask({name: CategoricalDistribution(values) for name, values in SPACE.items()})
            trial.set_user_attr("loss", shown)
            trial.set_user_attr(PARTIAL, {"mean": [truth(trial.params), None], "sd": [0.4, None]})
            study.tell(trial, state=TrialState.PRUNED)
        found.append(believed(study))
    assert found[0] == found[1]
    learned = study.sampler.learned(study)[0]
    assert learned.readings == 9
    assert learned.correlation is not None
    assert learned.correlation < 0


def test_repeats_pending_trials_and_duplicates_count_as_they_do_without_evidence() -> None:
    study = study_of(made(evidence={0: "loss"}, repeats=True), 10, loss, ask=10)
    space = {name: CategoricalDistribution(values) for name, values in SPACE.items()}
    pending = [study.ask(space) for _ in range(6)]
    assert len({tuple(trial.params.items()) for trial in pending}) == 6
    before = believed(study)
    study.tell(pending[0], state=TrialState.FAIL)
    again = study.ask(space)
    again.set_user_attr(DUPLICATE, "another")
    again.set_user_attr("loss", 99.0)
    study.tell(again, (99.0, cost(again.params)))
    assert believed(study) == before
    sources = {trial.system_attrs[MODEL]["source"] for trial in study.trials if MODEL in trial.system_attrs}
    assert sources <= {"model", "repeat", "initial", "spread"}
    assert "model" in sources


def test_a_resumed_study_proposes_what_it_would_have_proposed() -> None:
    whole = study_of(made(evidence={0: "loss"}), 10, loss, ask=4)
    half = study_of(made(evidence={0: "loss"}), 10, loss)
    for trial in whole.trials[10:12]:
        half.add_trial(trial)
    half.sampler = made(evidence={0: "loss"})
    trial = half.ask({name: CategoricalDistribution(values) for name, values in SPACE.items()})
    assert trial.params == whole.trials[12].params


def test_a_misspelt_attribute_is_named_once() -> None:
    def study_with(evidence: str, *attributes: str) -> list[str]:
        sampler = ParetoSampler(seed=0, space={"x": tuple(range(20))}, evidence={0: evidence})
        study = optuna.create_study(directions=["maximize"], sampler=sampler)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(8):
                trial = study.ask()
                value = trial.suggest_categorical("x", tuple(range(20)))
                trial.set_user_attr("note", "text")
                for name in attributes:
                    trial.set_user_attr(name, 1.0 - 0.01 * value)
                study.tell(trial, float(value % 7))
        return [str(one.message) for one in caught if "evidence" in str(one.message)]

    (said,) = study_with("los", "loss", "seconds")
    assert said == (
        "evidence[0] is 'los', a user attribute that none of 5 complete trials has: it says nothing. They have 'loss',"
        " 'seconds'. Did you mean 'loss'?"
    )
    assert study_with("loss", "loss") == []
    # A trainer that has no loss is not told so.
    assert study_with("loss") == []
