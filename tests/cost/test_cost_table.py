"""The latency table on devices that are made up, so that the truth is known."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_meter import PLAIN, SETTINGS, FakeMeter
from typer.testing import CliRunner

from se_nas import Architecture, SearchSpace
from se_nas.cli import app
from se_nas.cost import (
    CostModel,
    Latency,
    LatencySettings,
    LatencyTable,
    latency_table,
    profile,
    profiling,
    ranges_over,
)
from se_nas.cost.latency.additive import fit
from se_nas.cost.latency.meter import TIMING, LatencyMeter
from se_nas.cost.latency.table import random_sampler, table_key
from se_nas.cost.latency.time_limit import TimeLimit, TimeUpError, step
from se_nas.cost.ranges import Range
from se_nas.errors import ConfigError, DeviceError, RunError
from se_nas.sites import native_width

QUARTILES = ("minimum", "lower_quartile", "median", "upper_quartile", "maximum")
NATIVE = Architecture.plain("mobilenetv3_small_050")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SE_NAS_CACHE", str(tmp_path))


def _stopped() -> float:
    """A clock that stands still, so that no time limit passes however busy this machine is."""
    return 0.0


class UnevenMeter(FakeMeter):
    """A device on which no rule says what a gate costs, but gates can be timed; a network costs 9 % more."""

    def times(self, arch: Architecture) -> np.ndarray:
        own = np.random.default_rng(7).uniform(0.001, 0.02, (2, len(arch.sites)))
        widths = np.array(arch.widths)
        return np.where(widths == 0, 0.0, own[0] + own[1] * np.maximum(widths, 0) / 64)

    def truth(self, arch: Architecture) -> float:
        plain = replace(arch, widths=tuple(native_width(site) for site in arch.sites))
        one, other = (1 + 1.09 * float(self.times(which).sum()) for which in (arch, plain))
        return one / other

    def gate_shares(self, arch: Architecture, *, max_seconds: float) -> np.ndarray:
        # Timed by a clock that sees 1 / 1.09 of what a gate costs.
        return self.times(arch)


@pytest.mark.parametrize(("noise", "error"), [(0.0, 1e-6), (0.003, 0.004)])
def test_gates_timed_in_place_say_what_rules_do_not(noise: float, error: float) -> None:
    errors = []
    for sees_gates in (True, False):
        meter = UnevenMeter(noise=noise, sees_gates=sees_gates)
        table = LatencyTable.measure(meter, random_sampler(PLAIN))
        sample, generator = random_sampler(PLAIN), np.random.default_rng(9)
        fresh = [sample(generator) for _ in range(50)]
        predicted = table.ratio(np.array([one.widths for one in fresh]), even_if_failed=True)
        errors.append(np.abs(predicted - [meter.truth(one) for one in fresh]).max())
    assert errors[0] < error
    assert errors[1] > 4 * errors[0]


def test_native_gates_timed_in_place() -> None:
    """Shares are of what is no gate, predictions of the backbone with its own gates."""
    meter = UnevenMeter(NATIVE, sees_gates=True)
    table = LatencyTable.measure(meter, random_sampler(NATIVE))
    assert table.check.total_error < 0.01
    bare = replace(NATIVE, widths=(0,) * len(NATIVE.sites))
    assert table.ratio(np.array([bare.widths]))[0] == pytest.approx(meter.truth(bare), abs=0.01)


@pytest.mark.parametrize("any_gate", [0.0, 0.02])
@pytest.mark.parametrize("arch", [PLAIN, NATIVE], ids=lambda arch: arch.backbone)
def test_the_truth_is_found(arch: Architecture, any_gate: float) -> None:
    meter = FakeMeter(arch, any_gate=any_gate)
    table = LatencyTable.measure(meter, random_sampler(arch))
    assert table.passed
    assert table.check.total_error < 1e-6
    sample = random_sampler(arch)
    generator = np.random.default_rng(9)
    fresh = [sample(generator) for _ in range(20)]
    predicted = table.predict(np.array([one.widths for one in fresh]))
    assert predicted == pytest.approx([20 * meter.truth(one) for one in fresh], rel=1e-6)
    assert table.ratio(np.array([arch.widths])) == pytest.approx([1.0])


def test_noise_averages_out() -> None:
    meter = FakeMeter(noise=0.002)
    table = LatencyTable.measure(meter, random_sampler(PLAIN))
    full = replace(PLAIN, widths=tuple(site.channels // 16 for site in PLAIN.sites))
    assert table.ratio(np.array([full.widths]))[0] == pytest.approx(meter.truth(full), abs=0.004)
    assert (np.array(table.gates.fixed) >= 0).all()
    assert (np.array(table.gates.slope) >= 0).all()


def test_held_out_networks_take_no_part_in_the_fit() -> None:
    meter = FakeMeter()
    table = LatencyTable.measure(meter, random_sampler(PLAIN))
    # The first is measured once more, to learn how long a measurement takes at least.
    keys = [arch.key for arch in meter.measured[1:]]
    assert len(set(keys)) == len(keys)
    held = {row.widths for row in table.check.held_out}
    fitted = [arch for arch in meter.measured if arch.widths not in held]
    assert len(held) == 8
    assert len(fitted) == len(keys) - 8
    expected = fit(
        CostModel.for_architecture(PLAIN, SETTINGS.input_size),
        np.array(PLAIN.widths),
        np.array([arch.widths for arch in fitted]),
        np.array([meter.truth(arch) for arch in fitted]),
        np.full(len(fitted), 0.005),
    )
    assert table.gates == expected


def test_a_table_that_fails_is_not_used_silently() -> None:
    table = LatencyTable.measure(FakeMeter(noise=0.1), random_sampler(PLAIN))
    widths = np.array([PLAIN.widths])
    assert not table.passed
    with pytest.raises(DeviceError, match=r"FAILS: on 8 held-out networks.*idle device"):
        table.predict(widths)
    assert table.predict(widths, even_if_failed=True) == pytest.approx([20.0])


def test_too_few_architectures() -> None:
    space = SearchSpace.load("per_stage", backbone="resnet18")
    few = list(space.enumerate())[:9]
    with pytest.raises(ConfigError, match="needs 15 different architectures, but only"):
        LatencyTable.measure(FakeMeter(), lambda generator: few[generator.integers(9)])


def test_round_trip_and_cache() -> None:
    meter = FakeMeter()
    table = LatencyTable.measure(meter, random_sampler(PLAIN))
    assert LatencyTable.from_dict(json.loads(json.dumps(table.to_dict()))) == table
    assert LatencyTable.load(meter, PLAIN) is None
    path = table.save()
    assert LatencyTable.load(meter, replace(PLAIN, widths=(8,) * 8)) == table
    assert LatencyTable.load(FakeMeter(noise=0.5), PLAIN) is None
    path.write_text("{")
    assert LatencyTable.load(meter, PLAIN) is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({}, "the latency table is damaged: its schema is None"),
        ({"schema": 99}, "the latency table has schema 99; this version of se-nas reads up to"),
        ({"schema": 1}, "not a latency table"),
        ({"schema": 1, "check": {"held_out": []}}, "not a latency table"),
    ],
)
def test_what_is_no_table_is_refused(data: dict[str, object], reason: str) -> None:
    with pytest.raises(RunError, match=reason):
        LatencyTable.from_dict(data)


def test_key_depends_on_the_block_and_the_conditions() -> None:
    keys = {
        table_key(arch, conditions)
        for arch in (PLAIN, replace(PLAIN, bias=False), replace(PLAIN, gate="hard_sigmoid"), NATIVE)
        for conditions in ({"threads": 1}, {"threads": 2})
    }
    assert len(keys) == 8
    assert table_key(PLAIN, {}) == table_key(replace(PLAIN, widths=(8,) * 8), {})


def test_a_kept_table_is_used_and_a_failed_one_measured_again() -> None:
    space = SearchSpace.load("per_block", backbone="resnet18")
    meter = FakeMeter()
    first = latency_table(meter, space, "standard")
    count = len(meter.measured)
    assert latency_table(meter, space, "standard") == first
    assert len(meter.measured) == count
    latency_table(meter, space, "standard", refresh=True)
    assert len(meter.measured) > count
    noisy = FakeMeter(noise=0.1)
    latency_table(noisy, space, "standard")
    count = len(noisy.measured)
    latency_table(noisy, space, "standard")
    assert len(noisy.measured) == 2 * count


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_profile(monkeypatch: pytest.MonkeyPatch, noise: float) -> None:
    monkeypatch.setattr(profiling, "LatencyMeter", lambda arch, settings: FakeMeter(arch, settings, noise))
    said: list[tuple[int, int]] = []
    result = profile(
        "resnet18", settings=SETTINGS, clock=_stopped, progress=lambda *measured: said.append(measured)
    )
    assert said == [(number, len(said)) for number in range(1, len(said) + 1)]
    assert ("latency_ms" in result.ranges) == result.passed == (noise == 0)
    assert ("FAILS" in result.summary()) == (noise > 0)
    assert result.baseline_ms == 20.0
    titles = [title for title, _ in result.tables()]
    assert titles[0] == "what SE adds by site, position 'standard'"
    assert len(result.tables()[0][1]) == 8
    saved = json.loads(json.dumps(result.to_dict()))
    assert saved["tables"]["standard"]["passed"] == (noise == 0)
    assert saved["ranges"]["num_params"]["minimum"] == 11_689_512
    if noise == 0:
        reach = result.ranges["latency_ms"]
        assert reach.minimum == pytest.approx(20.0)
        assert reach.maximum > reach.median > reach.minimum


class SlowMeter(FakeMeter):
    """A device on which building a network takes ``build`` seconds, and a measurement the time that it is given."""

    def __init__(self, build: float, **options: object) -> None:
        super().__init__(**options)
        self.build, self.now = build, 0.0

    def clock(self) -> float:
        return self.now

    def measure(self, arch: Architecture, **options: float) -> Latency:
        self.now += self.build + options["max_seconds"]
        return super().measure(arch, **options)

    def gate_shares(self, arch: Architecture, *, max_seconds: float) -> np.ndarray:
        self.now += self.build + max_seconds
        return np.where(np.array(arch.widths) == 0, 0.0, 0.01)


@pytest.mark.parametrize("sees_gates", [False, True])
@pytest.mark.parametrize(("build", "seconds"), [(0.0, 60.0), (0.2, 60.0), (1.0, 60.0), (2.0, 300.0)])
def test_a_table_keeps_its_time_limit(build: float, seconds: float, sees_gates: bool) -> None:
    meter = SlowMeter(build, sees_gates=sees_gates)
    LatencyTable.measure(meter, random_sampler(PLAIN), max_seconds=seconds, clock=meter.clock)
    assert 0.9 * seconds < meter.now <= seconds * 1.01


def test_with_little_time_fewer_networks_are_measured_and_all_are_checked() -> None:
    many, few = SlowMeter(0.0), SlowMeter(1.0)
    for meter in (many, few):
        table = LatencyTable.measure(meter, random_sampler(PLAIN), max_seconds=60, clock=meter.clock)
        assert len(table.check.held_out) == 8
    assert len(few.measured) < len(many.measured)


def test_a_time_limit_that_is_too_short_is_refused_at_once_with_one_that_is_not() -> None:
    meter = SlowMeter(3.0)
    with pytest.raises(ConfigError, match=r"too short .* 3\.\d s here.* so allow \d+ s or more") as refusal:
        LatencyTable.measure(meter, random_sampler(PLAIN), max_seconds=20, clock=meter.clock)
    assert meter.now < 5
    with pytest.raises(ConfigError, match="it had passed before a network could be measured"):
        LatencyTable.measure(meter, random_sampler(PLAIN), max_seconds=-1, clock=meter.clock)
    enough = float(str(refusal.value).split("so allow ")[1].split()[0])
    LatencyTable.measure(meter, random_sampler(PLAIN), max_seconds=enough, clock=meter.clock)


class BusyMeter(SlowMeter):
    """A device that gets ``slower`` times as slow after so many measurements, each of 50 timings of 0.01 s."""

    def __init__(self, after: int, slower: float) -> None:
        super().__init__(0.0)
        self.after, self.slower = after, slower

    def measure(self, arch: Architecture, **options: float) -> Latency:
        for _ in range(50):
            with step(TIMING):
                self.now += 0.01 * (self.slower if len(self.measured) >= self.after else 1.0)
        return FakeMeter.measure(self, arch, **options)


def test_a_device_that_gets_busy_ends_the_table_in_time(caplog: pytest.LogCaptureFixture) -> None:
    meter = BusyMeter(after=14, slower=100.0)
    table = LatencyTable.measure(meter, random_sampler(PLAIN), max_seconds=20, clock=meter.clock)
    # No timing begins that would outlast the limit.
    assert 20 - 1.0 <= meter.now <= 20
    assert 4 <= len(table.check.held_out) < 8
    # The first was measured twice.
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    wanted = int(re.findall(r"of (\d+) networks", said)[0])
    assert f"{wanted - (len(meter.measured) - 1)} were not measured" in said
    assert table.passed


def test_a_table_of_too_few_networks_is_refused_in_time_with_what_is_missing() -> None:
    meter = BusyMeter(after=4, slower=100.0)
    with pytest.raises(
        TimeUpError, match=r"of \d+ networks .* resnet18, \d+ were not measured, and \d+ are needed"
    ):
        LatencyTable.measure(meter, random_sampler(PLAIN), max_seconds=20, clock=meter.clock)
    assert meter.now <= 20
    busy = BusyMeter(after=0, slower=1000.0)
    with pytest.raises(TimeUpError, match="had passed before a network could be measured"):
        LatencyTable.measure(busy, random_sampler(PLAIN), max_seconds=20, clock=busy.clock)
    assert busy.now <= 20 + 10.0


def test_a_step_that_would_outlast_a_limit_is_not_begun() -> None:
    now = [0.0]
    outer, inner = (TimeLimit(seconds, lambda: now[0]) for seconds in (100.0, 10.0))

    def work(kind: str, seconds: float) -> None:
        with step(kind):
            now[0] += seconds

    with outer.enforced():
        work("build", 5.0)
        with inner.enforced():
            # This limit has not seen one yet, so it is only judged by what is left.
            work("build", 4.0)
            work("timing", 0.5)
            assert (inner.left, outer.longest("build"), inner.longest("build")) == (0.5, 5.0, 4.0)
            for kind in ("build", "timing"):
                with pytest.raises(TimeUpError):
                    work(kind, 1.0)
            work("another", 0.25)
        now[0] = 95.0
        with pytest.raises(TimeUpError):
            work("build", 1.0)
        work("timing", 1.0)
        # A single delay is forgotten after 20 steps without one.
        for _ in range(20):
            outer.note("build", 0.1)
        work("build", 1.0)
    now[0] = 1000.0
    work("timing", 1.0)


@pytest.mark.parametrize("seconds", [30.0, 47.0, 60.0])
def test_a_profile_ends_before_its_time_limit(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """All that cannot be interrupted takes its time: a network's building, an inference, a look at a cost."""
    meters: list[BusyMeter] = []

    def meter(arch: Architecture, settings: LatencySettings) -> BusyMeter:
        meters.append(BusyMeter(after=20, slower=30.0))
        meters[0].now = now[0]
        return meters[0]

    def slow_ranges(space: SearchSpace, costs: dict[str, object]) -> dict[str, Range]:
        for _ in costs:
            with step("costs"):
                now[0] += 0.7
                if meters:
                    meters[0].now += 0.7
        return {name: Range(**dict.fromkeys(QUARTILES, 1.0), exact=True) for name in costs}

    now = [0.0]
    monkeypatch.setattr(profiling, "LatencyMeter", meter)
    monkeypatch.setattr(profiling, "ranges_over", slow_ranges)
    result = profile(
        "resnet18",
        settings=SETTINGS,
        max_seconds=seconds,
        clock=lambda: meters[0].now if meters else now[0],
    )
    assert 0.75 * seconds < meters[0].now <= seconds
    assert result.tables_by_position


def test_a_range_of_latency_that_the_time_was_too_short_for_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_late(space: SearchSpace, costs: dict[str, object]) -> dict[str, Range]:
        if "latency_ms" in costs:
            raise TimeUpError("the time limit has passed.")
        return ranges_over(space, costs)  # type: ignore[arg-type]

    monkeypatch.setattr(profiling, "LatencyMeter", lambda arch, settings: FakeMeter(arch, settings))
    monkeypatch.setattr(profiling, "ranges_over", too_late)
    result = profile("resnet18", settings=SETTINGS, clock=_stopped)
    assert all(table.passed for table in result.tables_by_position.values())
    assert not result.passed
    assert "The range of latency is missing, because time ran out." in result.summary()
    assert [name for name, _ in result.tables()][-1].startswith("costs over the space per_block")


def test_a_real_measurement_ends_with_an_enforced_limit() -> None:
    settings = LatencySettings(input_size=(3, 64, 64))
    meter = LatencyMeter(PLAIN, settings)
    arch = random_sampler(PLAIN)(np.random.default_rng(1))
    with TimeLimit(-1.0).enforced():
        for measure in (
            lambda: LatencyMeter(PLAIN, settings),
            lambda: meter.measure(arch, max_seconds=1e6, width=1e-9),
            lambda: meter.measure(meter.plain, max_seconds=1e6, width=1e-9),
            lambda: meter.gate_shares(arch, max_seconds=1e6),
        ):
            with pytest.raises(TimeUpError):
                measure()
    # Within a measurement that would take days.
    with TimeLimit(0.5).enforced(), pytest.raises(TimeUpError):
        meter.measure(arch, max_seconds=1e6, width=1e-9)
    meter.measure(arch, max_seconds=0.01, width=1.0)


def test_what_the_time_was_too_short_for_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def table(*given: object, **options: object) -> LatencyTable:
        if given[2] != "standard":
            raise TimeUpError("too little was left.")
        return latency_table(*given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(profiling, "LatencyMeter", lambda arch, settings: FakeMeter(arch, settings))
    monkeypatch.setattr(profiling, "latency_table", table)
    result = profile("resnet18", space="paper", settings=SETTINGS, clock=_stopped)
    assert set(result.tables_by_position) == {"standard"}
    assert not result.passed
    assert "latency_ms" not in result.ranges
    assert "Not measured, because time ran out: position pre, " in result.summary()
    assert result.to_dict()["not_measured"] == list(result.not_measured)
    assert result.tables()[0][0] == "what SE adds by site, position 'standard'"


def test_a_batch_size_that_was_not_measured_does_not_lose_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def meter(arch: Architecture, settings: LatencySettings) -> FakeMeter:
        if settings.batch_size == 64:
            raise TimeUpError("too little was left.")
        return FakeMeter(arch, settings)

    monkeypatch.setattr(profiling, "LatencyMeter", meter)
    command = [
        "profile",
        "resnet18",
        "--input-size",
        "64",
        "--device",
        "cpu",
        "--batch",
        "1",
        "--batch",
        "64",
    ]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 5
    assert "resnet18 takes 20.000 ms" in shown.stdout
    assert "batch size 64 was not measured: the time limit had passed before resnet18" in shown.stderr


@pytest.mark.parametrize("json_too", [False, True])
def test_a_table_that_fails_has_an_exit_code_of_its_own(
    monkeypatch: pytest.MonkeyPatch, json_too: bool
) -> None:
    monkeypatch.setattr(profiling, "LatencyMeter", lambda arch, settings: FakeMeter(arch, settings, 0.1))
    options = ["--json"] if json_too else []
    shown = CliRunner().invoke(
        app, ["profile", "resnet18", "--input-size", "64", "--device", "cpu", *options]
    )
    assert shown.exit_code == 5
    assert ("FAILS" in shown.stdout) != json_too


def test_a_mode_that_could_not_be_taken_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def meter(arch: Architecture, settings: LatencySettings) -> FakeMeter:
        made = FakeMeter(arch, settings)
        made.mode_note = "latency mode is 'eager', because no capture here."
        return made

    monkeypatch.setattr(profiling, "LatencyMeter", meter)
    result = profile("resnet18", space="per_block", settings=SETTINGS, clock=_stopped)
    assert "The latency mode is 'eager', because no capture here." in result.summary()
    assert ", mode eager, torch backend," in result.summary()
    assert result.to_dict()["mode_note"] == "latency mode is 'eager', because no capture here."


def test_the_command_measures_every_batch_size_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[LatencySettings] = []

    def meter(arch: Architecture, settings: LatencySettings) -> FakeMeter:
        asked.append(settings)
        return FakeMeter(arch, settings)

    monkeypatch.setattr(profiling, "LatencyMeter", meter)
    command = ["profile", "resnet18", "--input-size", "64", "--device", "cpu"]
    shown = CliRunner().invoke(app, [*command, "--batch", "1", "--batch", "64"])
    assert shown.exit_code == 0, shown.output
    assert [settings.batch_size for settings in asked] == [1, 64]
    assert [line for line in shown.stdout.splitlines() if "batch 1," in line or "batch 64," in line] == [
        f"resnet18 takes 20.000 ms on made up (cpu, 1 CPU thread, batch {size}, fp32, mode eager, torch backend,"
        " torch 2)."
        for size in (1, 64)
    ]
    several = CliRunner().invoke(app, [*command, "--batch", "1", "--batch", "64", "--json"])
    found = [row["tables"]["standard"]["conditions"]["batch_size"] for row in json.loads(several.stdout)]
    assert found == [1, 64]
    one = CliRunner().invoke(app, [*command, "--json"])
    assert json.loads(one.stdout)["tables"]["standard"]["conditions"]["batch_size"] == 1
