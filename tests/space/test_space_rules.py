"""What each rule of a space means, on sites made by hand."""

import json

import numpy as np
import optuna
import pytest

from se_nas.architecture import Architecture
from se_nas.errors import ConfigError
from se_nas.sites import ABSENT, KEEP, Site
from se_nas.space import SearchSpace


def site(stage, block, channels=64, *, position="standard", native=None, rd=None):
    return Site(
        stage=stage,
        block=block,
        path=f"s{stage}.b{block}.{'native' if native else position}",
        channels=channels,
        reduction_base=channels,
        resolution=(4, 4),
        position=position,
        native=native,
        native_rd_channels=rd,
    )


SITES = [site(0, 0), site(0, 1), site(1, 0, 256), site(1, 1, 256), site(1, 2, 256)]
SE_SITES = [site(0, 0, 64, native="se", rd=4), site(0, 1, 64), site(1, 0, 256, native="eca")]


def space_of(sites=SITES, **rules):
    rules = {"granularity": "block", "reduction": [4, 16], **rules}
    return SearchSpace.from_sites(rules, sites, backbone="net")


def widths_of(space):
    return {arch.widths for arch in space.enumerate()}


def test_parameters_of_a_space_by_block():
    assert space_of().choices == {
        "stage0.reduction": (4, 16),
        "stage0.block0": (False, True),
        "stage0.block1": (False, True),
        "stage1.reduction": (4, 16),
        "stage1.block0": (False, True),
        "stage1.block1": (False, True),
        "stage1.block2": (False, True),
    }


def test_parameters_of_a_space_by_stage():
    space = space_of(granularity="stage")
    assert space.choices == {"stage0.reduction": ("none", 4, 16), "stage1.reduction": ("none", 4, 16)}
    arch = space.architecture({"stage0.reduction": "none", "stage1.reduction": 16})
    assert arch.widths == (0, 0, 16, 16, 16)
    assert space.size == 9


def test_parameters_of_the_papers_kind():
    space = space_of(granularity="one_stage")
    assert space.choices == {"reduction": (4, 16), "stages": ("none", "all", "stage0", "stage1")}
    assert space.architecture({"reduction": 4, "stages": "stage0"}).widths == (16, 16, 0, 0, 0)
    assert space.architecture({"reduction": 4, "stages": "all"}).widths == (16, 16, 64, 64, 64)
    assert space.architecture({"reduction": 4, "stages": "none"}).is_plain
    assert space.size == 7


def test_names_sort_by_number_and_ten_follows_nine():
    space = space_of([site(stage, block) for stage in (2, 10) for block in range(12)], reduction=[4, 8])
    names = list(space.choices)
    assert names[:3] == ["stage2.reduction", "stage2.block0", "stage2.block1"]
    assert names[10:13] == ["stage2.block9", "stage2.block10", "stage2.block11"]
    assert names[13] == "stage10.reduction"


def test_a_parameter_with_one_choice_is_none():
    assert list(space_of(SITES[:2], reduction=[8]).choices) == ["stage0.block0", "stage0.block1"]
    assert list(space_of(SITES[:2], reduction=[8], granularity="stage").choices) == ["stage0.reduction"]


def test_sites_of_one_block_are_switched_together():
    sites = [site(0, 0), Site(**{**vars(site(0, 0)), "path": "s0.b0.second"}), site(0, 1)]
    space = space_of(sites, reduction=[4])
    assert widths_of(space) == {(0, 0, 0), (16, 16, 0), (0, 0, 16), (16, 16, 16)}


@pytest.mark.parametrize(
    ("native", "expected"),
    [
        # The site between the two native gates is switched in every case.
        ("keep", {(4, 0, KEEP), (4, 16, KEEP)}),
        ("remove", {(0, 0, 0), (0, 16, 0)}),
        # Native gates go with the switch; ECA has no width to set.
        ("resize", {(0, 0, 0), (0, 0, KEEP), (16, 16, 0), (16, 16, KEEP)}),
        ("free", {(0, 0, 0), (0, 0, KEEP), (16, 16, 0), (16, 16, KEEP), (4, 0, 0), (4, 0, KEEP)}),
    ],
)
def test_native_gates_by_stage(native, expected):
    space = space_of(SE_SITES, granularity="stage", reduction=[4], native=native)
    assert widths_of(space) == expected
    assert space.size == len(expected)


def test_free_offers_native_only_where_there_is_a_native_gate():
    space = space_of(SE_SITES, reduction=[4])
    assert space.choices["stage0.reduction"] == ("native", 4)
    assert space_of(SE_SITES[1:2], reduction=[4]).choices == {"stage0.block1": (False, True)}
    assert space_of(SITES).choices["stage0.reduction"] == (4, 16)


def test_the_backbone_as_timm_makes_it_is_in_every_free_space():
    for granularity in ("stage", "block"):
        space = space_of(SE_SITES, granularity=granularity)
        plain = Architecture(
            backbone="net", position="standard", sites=tuple(SE_SITES), widths=(4, ABSENT, KEEP)
        )
        assert space.params(plain) is not None
        assert space.architecture(space.params(plain)).is_plain


def test_stages_and_blocks_that_may_not_change_stay_as_they_are():
    assert next(iter(space_of(stages=[-1]).choices)) == "stage1.reduction"
    assert space_of(stages=[-1]).choices == space_of(stages=[1]).choices
    assert widths_of(space_of(blocks="last", reduction=[4])) == {
        (0, a, 0, 0, b) for a in (0, 16) for b in (0, 64)
    }
    assert widths_of(space_of(blocks="first", stages=[1], reduction=[4])) == {
        (0, 0, 0, 0, 0),
        (0, 0, 64, 0, 0),
    }
    # A native gate outside the scope stays, even where native gates are removed.
    assert widths_of(space_of(SE_SITES, native="remove", stages=[0], reduction=[4])) == {
        (0, 0, KEEP),
        (0, 16, KEEP),
    }


def test_several_positions_choose_their_own_sites():
    pre = [site(0, 0, 24, position="pre"), site(1, 0, 64, position="pre")]
    space = space_of({"standard": SITES, "pre": pre}, granularity="stage", reduction=[4])
    assert list(space.choices) == ["position", "stage0.reduction", "stage1.reduction"]
    arch = space.architecture({"position": "pre", "stage0.reduction": 4, "stage1.reduction": "none"})
    assert (arch.position, arch.sites, arch.widths) == ("pre", tuple(pre), (8, 0))
    # Each 4, sharing the plain network.
    assert space.size == 4 + 4 - 1
    assert space.position is None
    assert space.sites == (*SITES, *pre)
    assert space.columns("pre").tolist() == [5, 6]
    row = space.widths(space.encode(space.params(arch))[None])[0]
    assert row.tolist() == [0] * 5 + [8, 0]


def test_a_native_gate_is_one_column_whatever_the_position():
    gate = site(0, 0, native="se", rd=4)
    positions = {"standard": [site(0, 1), gate], "pre": [gate, site(0, 1, position="pre")]}
    space = space_of(positions, native="remove", reduction=[4])
    assert len(space.sites) == 3
    assert space.size == 3
    assert {arch.widths for arch in space.enumerate()} == {(0, 0), (16, 0), (0, 16)}


def test_several_positions_and_movable_native_gates_are_refused():
    gate = site(0, 0, native="se", rd=4)
    positions = {"standard": [gate, site(0, 1)], "pre": [gate, site(0, 1, position="pre")]}
    with pytest.raises(
        ConfigError, match=r"native is 'free' with the positions standard, pre; allowed .*keep, remove"
    ):
        space_of(positions, native="free")


def test_rounding_gate_activation_and_biases_reach_the_architecture():
    space = space_of([site(0, 0, 40)], reduction=[4], rounding="exact", gate="tanh", act="silu", bias=False)
    arch = space.architecture({"stage0.block0": True})
    assert (arch.widths, arch.gate, arch.act, arch.bias) == ((10,), "tanh", "silu", False)
    assert space_of([site(0, 0, 40)], reduction=[4]).architecture({"stage0.block0": True}).widths == (8,)


def test_params_of_an_architecture_that_the_space_does_not_hold():
    space = space_of()

    def arch(widths, **other):
        return Architecture(
            **{"backbone": "net", "position": "standard", "sites": tuple(SITES), "widths": widths, **other}
        )

    assert space.params(arch((16, 0, 0, 0, 0))) == {
        "stage0.reduction": 4,
        "stage0.block0": True,
        "stage0.block1": False,
        "stage1.reduction": 4,
        "stage1.block0": False,
        "stage1.block1": False,
        "stage1.block2": False,
    }
    assert space.params(arch((12, 0, 0, 0, 0))) is None
    assert space.params(arch((16, 8, 0, 0, 0))) is None
    assert space.params(arch((16, 0, 0, 0, 0), gate="tanh")) is None
    assert space.params(arch((16, 0, 0, 0, 0), backbone="other")) is None
    assert space.params(arch((16, 0, 0, 0, 0), bias=False)) is None
    # No block has a gate, so the gate does not matter.
    assert space.params(arch((0, 0, 0, 0, 0), gate="tanh", bias=False)) is not None
    elsewhere = tuple(Site(**{**vars(s), "position": "pre", "path": s.path + ".pre"}) for s in SITES)
    assert space.params(arch((16, 0, 0, 0, 0), sites=elsewhere, position="pre")) is None


def test_params_find_the_family_activation_given_by_name():
    explicit = Architecture(
        backbone="net", position="standard", sites=tuple(SITES), widths=(16, 0, 0, 0, 0), act="relu"
    )
    assert space_of().params(explicit) is not None


def test_suggest_asks_optuna_for_a_static_space():
    space = space_of(granularity="block")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = []

    def objective(trial):
        arch = space.suggest(trial)
        seen.append(arch)
        assert space.architecture(trial.params) == arch
        trial.suggest_float("lr", 0.1, 1.0)
        return float(sum(arch.widths))

    study.optimize(objective, n_trials=20)
    assert {frozenset(trial.distributions) for trial in study.trials} == {frozenset([*space.choices, "lr"])}
    for name, values in space.choices.items():
        assert study.trials[0].distributions[name] == optuna.distributions.CategoricalDistribution(values)
    # A study's own parameters are left alone.
    assert space.architecture(study.best_trial.params) == seen[study.best_trial.number]


def test_choices_are_json_scalars():
    space = space_of(SE_SITES, granularity="stage", reduction=[4, 2.5])
    assert json.loads(json.dumps(space.choices)) == {
        name: list(values) for name, values in space.choices.items()
    }


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"stage1.reduction": 4}, r"parameter 'stage0.reduction' of space 'custom' is missing"),
        ({"stage0.reductoin": 4, "stage1.reduction": 4}, r"missing\. Did you mean 'stage0.reductoin'"),
        ({"stage0.reduction": 8, "stage1.reduction": 4}, r"'stage0.reduction' is 8; allowed: 'none', 4, 16"),
        ({"stage0.reduction": True, "stage1.reduction": 4}, r"'stage0.reduction' is True; allowed"),
    ],
)
def test_wrong_parameters_are_named(params, message):
    with pytest.raises(ConfigError, match=message):
        space_of(granularity="stage").architecture(params)


def test_encode_and_decode_are_inverse():
    space = space_of()
    for row in space.sample_indices(np.random.default_rng(0), 20):
        assert (space.encode(space.decode(row)) == row).all()


@pytest.mark.parametrize("reduction", [257, 1000])
def test_a_ratio_larger_than_the_channels_is_refused(reduction):
    with pytest.raises(ConfigError, match=rf"reduction {reduction} is larger than the channels allow.* 256"):
        space_of(reduction=[4, reduction])


def test_exact_rounding_refuses_a_ratio_above_the_channels_of_a_site():
    with pytest.raises(ConfigError, match=r"reduction 128 is larger than the 64 channels .*s0\.b0"):
        space_of(reduction=[128], rounding="exact")


def test_stages_without_sites_are_refused():
    with pytest.raises(ConfigError, match=r"stages has 7, .*allowed: 0, 1, or -1 to -2 from the last"):
        space_of(stages=[0, 7])
    with pytest.raises(ConfigError, match=r"stages has -3"):
        space_of(stages=[-3])


def test_no_sites_are_refused():
    with pytest.raises(ConfigError, match="net has no site"):
        space_of([])
    with pytest.raises(ConfigError, match="net has no site at position 'pre'"):
        space_of({"standard": SITES, "pre": []})


def test_round_trip_and_fingerprint():
    space = space_of(SE_SITES, reduction=[4, 2.5], description="mine")
    copy = SearchSpace.from_dict(json.loads(json.dumps(space.to_dict())))
    assert copy.choices == space.choices
    assert copy.to_dict() == space.to_dict()
    assert copy.fingerprint == space.fingerprint
    assert [a.key for a in copy.enumerate()] == [a.key for a in space.enumerate()]
    # The name and the description are for people; whatever changes the networks counts.
    assert space_of(SE_SITES, reduction=[4, 2.5], description="yours").fingerprint == space.fingerprint
    for other in (
        {"reduction": [2.5, 4]},
        {"reduction": [4, 2.5], "native": "keep"},
        {"reduction": [4, 2.5], "bias": False},
    ):
        assert space_of(SE_SITES, **other).fingerprint != space.fingerprint


def test_a_damaged_or_newer_space_is_refused():
    data = space_of().to_dict()
    with pytest.raises(ConfigError, match="schema 99; this version of se-nas reads up to 1"):
        SearchSpace.from_dict({**data, "schema": 99})
    with pytest.raises(ConfigError, match="it lacks spec"):
        SearchSpace.from_dict({name: value for name, value in data.items() if name != "spec"})


@pytest.mark.parametrize("granularity", ["block", "stage", "one_stage"])
@pytest.mark.parametrize("native", ["keep", "remove", "resize", "free"])
@pytest.mark.parametrize("sites", [SITES, SE_SITES])
def test_widths_of_a_site_are_those_that_some_architecture_has(granularity, native, sites):
    space = space_of(sites, granularity=granularity, native=native, stages=[-1, 0])
    seen = [{arch.widths[i] for arch in space.enumerate()} for i in range(len(sites))]
    assert [set(widths) for widths in space.site_widths()] == seen


def test_widths_of_a_site_at_each_position():
    other = [site(0, 0, position="pre"), site(1, 0, 128, position="pre")]
    space = space_of({"standard": SITES, "pre": other})
    assert space.site_widths("pre") == (frozenset({0, 8, 16}), frozenset({0, 8, 32}))
    assert len(space.site_widths("standard")) == len(SITES)
