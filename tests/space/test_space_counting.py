"""Counting, enumerating and sampling agree with each other and with brute force over all points."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from se_nas.errors import ConfigError
from se_nas.sites import Site
from se_nas.space import SearchSpace


def site(stage, block, channels, *, base=None, position="standard", native=None, rd=None, name="", divisor=8):
    return Site(
        stage=stage,
        block=block,
        path=f"s{stage}.b{block}.{name or (native and 'native') or position}",
        channels=channels,
        reduction_base=base or channels,
        resolution=(4, 4),
        position=position,
        native=native,
        native_rd_channels=rd,
        rd_divisor=divisor,
    )


def chain(blocks, channels, position="standard"):
    return [
        site(stage, block, width, position=position)
        for stage, (count, width) in enumerate(zip(blocks, channels, strict=True))
        for block in range(count)
    ]


def space_of(sites, **rules):
    rules = {"granularity": "block", "reduction": [4, 8, 16, 32], **rules}
    return SearchSpace.from_sites(rules, sites, backbone="net")


def brute_force(space):
    """Keys over all points, each built as an object by its parameters."""
    points = itertools.product(*space.choices.values())
    return {space.architecture(dict(zip(space.choices, point, strict=True))).key for point in points}


@st.composite
def spaces(draw):
    """Small spaces of every kind: mixed widths in a stage, native gates, several positions, odd rounding."""
    widths = st.sampled_from([8, 16, 24, 40, 64, 96, 256])
    several = draw(st.booleans())
    natives = draw(
        st.lists(st.sampled_from([None, None, ("se", 12), ("se", 8), ("eca", None)]), min_size=1, max_size=4)
    )
    positions = ["standard", "pre"] if several else ["standard"]
    sites = {position: [] for position in positions}
    stages = draw(st.lists(st.integers(0, 1), min_size=len(natives), max_size=len(natives)))
    for block, (native, stage) in enumerate(zip(natives, sorted(stages), strict=True)):
        channels, divisor = draw(widths), draw(st.sampled_from([1, 8]))
        if native:
            gate = site(stage, block, channels, native=native[0], rd=native[1], divisor=divisor)
        for position in positions:
            if native:
                sites[position].append(gate)
            if not native or draw(st.booleans()):
                sites[position].append(
                    site(stage, block, channels, base=draw(widths), position=position, divisor=divisor)
                )
    return SearchSpace.from_sites(
        {
            "granularity": draw(st.sampled_from(["stage", "block", "one_stage"])),
            "reduction": draw(
                st.lists(st.sampled_from([2, 3.5, 4, 7, 8]), min_size=1, max_size=3, unique=True)
            ),
            "native": draw(
                st.sampled_from(["keep", "remove"] if several else ["keep", "remove", "resize", "free"])
            ),
            "blocks": draw(st.sampled_from(["all", "all", "first", "last"])),
        },
        sites,
        backbone="net",
    )


@settings(max_examples=120, deadline=None)
@given(spaces())
def test_every_way_of_listing_a_space_gives_the_same_architectures(space):
    expected = brute_force(space)
    listed = [arch.key for arch in space.enumerate()]
    assert space.size == len(expected) == len(listed)
    assert set(listed) == expected
    assert [row.tolist() for row in space.enumerate_indices()] == space.table().tolist()


@settings(max_examples=120, deadline=None)
@given(spaces(), st.randoms(use_true_random=False))
def test_equal_width_rows_are_equal_networks(space, random):
    points = list(itertools.product(*(range(len(values)) for values in space.choices.values())))
    sampled = random.sample(points, min(len(points), 40))
    chosen = np.array(sampled, dtype=np.int16).reshape(len(sampled), len(space.choices))
    widths = space.widths(chosen)
    keys = [space.at(row).key for row in chosen]
    canonical = space.canonical(chosen)
    for i, j in itertools.combinations(range(len(chosen)), 2):
        same = keys[i] == keys[j]
        assert same == (widths[i] == widths[j]).all()
        assert same == (canonical[i] == canonical[j]).all()
    assert (space.widths(canonical) == widths).all()


@settings(max_examples=60, deadline=None)
@given(spaces())
def test_params_inverts_architecture_for_every_member(space):
    for arch in space.enumerate():
        params = space.params(arch)
        assert params is not None
        assert space.architecture(params).key == arch.key


def test_resnet50_per_block_counted_by_hand():
    space = space_of(chain((3, 4, 6, 3), (256, 512, 1024, 2048)))
    assert space.num_points == 2**16 * 4**4 == 16_777_216
    # A stage of b blocks: nothing on, or one of 4 ratios with one of 2^b - 1 sets; no two γ round alike.
    assert space.size == (4 * 7 + 1) * (4 * 15 + 1) * (4 * 63 + 1) * (4 * 7 + 1) == 12_979_153


def test_ratios_that_round_alike_are_counted_once():
    # 64 channels: 64/4 = 16, and 64/8, 64/16, 64/32 all round to 8.
    assert space_of(chain((3,), (64,))).size == 2 * 7 + 1
    # A 64-channel and a 256-channel block. γ=4: (16, 64), γ=8: (8, 32), γ=16: (8, 16), γ=32: (8, 8).
    # Both on: 4; only the first: 2 (16, 8); only the second: 4; none: 1.
    assert space_of([site(0, 0, 64), site(0, 1, 256)]).size == 4 + 2 + 4 + 1


def test_deep_spaces_are_counted_and_sampled_at_once():
    space = space_of(chain((3, 8, 36, 3), (256, 512, 1024, 2048)))
    assert space.size == (4 * 7 + 1) ** 2 * (4 * 255 + 1) * (4 * (2**36 - 1) + 1)
    rows = space.sample_indices(np.random.default_rng(0), 100)
    assert len(np.unique(rows, axis=0)) == 100
    assert next(iter(space.enumerate())).is_plain


def test_many_ratios_and_many_different_blocks_are_counted_in_closed_form():
    ratios = [2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 64]
    space = space_of([site(0, block, 64 + 24 * block) for block in range(10)], reduction=ratios)
    rows = np.array(list(itertools.product(range(16), *[(0, 1)] * 10)), dtype=np.int16)
    assert space.size == len(np.unique(space.widths(rows), axis=0))


def test_samples_are_uniform_over_architectures_not_points():
    # 15 architectures out of 4 * 8 points; plain is built by 4 of 32 points but must come once in 15.
    space = space_of(chain((3,), (64,)))
    rows = space.sample_indices(np.random.default_rng(0), 30_000)
    _, counts = np.unique(space.widths(rows), axis=0, return_counts=True)
    assert len(counts) == 15
    # Chi-squared with 14 degrees of freedom: 36.1 is its 0.999 quantile.
    assert ((counts - 2000) ** 2 / 2000).sum() < 36.1


def test_samples_over_positions_hold_the_plain_network_once():
    sites = {position: chain((1, 1), (64, 128), position) for position in ("standard", "pre", "post")}
    space = space_of(sites, granularity="one_stage", reduction=[2, 8])
    # A position: 2 ratios x (all, stage0, stage1); and the plain network, once.
    assert space.size == 3 * 6 + 1
    rows = space.sample_indices(np.random.default_rng(1), 38_000)
    found, counts = np.unique(space.widths(rows), axis=0, return_counts=True)
    assert len(found) == 19
    # 42.3: 0.999 quantile with 18 degrees of freedom.
    assert ((counts - 2000) ** 2 / 2000).sum() < 42.3


def test_sampling_is_repeatable():
    space = space_of(chain((3, 4), (64, 128)))
    first = [space.sample(np.random.default_rng(5)).key for _ in range(2)]
    assert first[0] == first[1]
    assert first[0] != space.sample(np.random.default_rng(6)).key


def test_a_space_of_one_architecture():
    space = space_of([site(0, 0, 96, native="se", rd=4)], native="keep")
    assert (space.size, space.num_points, space.choices) == (1, 1, {})
    only = space.sample(np.random.default_rng(0))
    assert only.is_plain
    assert [arch.key for arch in space.enumerate()] == [only.key]
    assert space.params(only) == {}
    assert space.table().shape == (1, 0)


def test_a_table_of_a_large_space_is_refused_with_the_numbers():
    space = space_of(chain((3, 4, 6, 3), (256, 512, 1024, 2048)))
    with pytest.raises(ConfigError, match=r"12979153 architectures; a table may have at most 1000000"):
        space.table()
