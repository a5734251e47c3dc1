import pytest
from hypothesis import given
from hypothesis import strategies as st

from se_nas.early_stopping import RULES
from se_nas.errors import ConfigError
from se_nas.objectives import COSTS
from se_nas.samplers.registry import SAMPLERS
from se_nas.study.amounts import parse_duration
from se_nas.study.config import SearchConfig


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("3m", 180), ("1.5h", 5400), ("1d", 86400), (45, 45), ("45", 45), (" 2 M ", 120)],
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["0m", "-3m", "3 weeks", "m", "nan", "inf", "1e5s"])
def test_durations_that_are_none(text):
    with pytest.raises(ConfigError, match=rf"budget is '{text}'.*90s, 8m or 2h"):
        SearchConfig(backbone="resnet18", budget=text)


@given(st.floats(0.01, 1e4), st.sampled_from("smhd"))
def test_duration_scales_with_its_unit(number, unit):
    text = f"{number:.4f}"
    if float(text) > 0:
        assert parse_duration(text + unit) == pytest.approx(
            float(text) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit]
        )


def test_default_budget_only_without_trials():
    assert SearchConfig(backbone="resnet18").budget_seconds == 480
    assert SearchConfig(backbone="resnet18", trials=5).budget_seconds is None
    assert SearchConfig(backbone="resnet18", trials=5, budget="1m").budget_seconds == 60


def test_unknown_key_names_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown key 'epoch'\. Did you mean 'epochs'"):
        SearchConfig(backbone="resnet18", epoch=3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trials": 0}, "trials is 0.*greater than or equal to 1"),
        ({"epochs": -1}, "epochs is -1"),
        ({"objectives": "accuracy"}, "objectives is 'accuracy'.*one or two different costs"),
        (
            {"objectives": "accuracy,mac"},
            r"'mac' is unknown; allowed: accuracy, latency, macs, .*Did you mean 'macs'\?$",
        ),
        (
            {"objectives": "accuracy,speed"},
            r"'speed' is unknown; allowed: accuracy, latency, macs, .*memory\.$",
        ),
        (
            {"early_stopping": "curve"},
            r"'curve' is unknown; allowed: off, curves, moasha\. Did you mean 'curves'\?$",
        ),
        ({"objectives": "latency,macs"}, "name accuracy"),
        ({"keep": "some"}, "keep is 'some'.*front"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"latency_precision": "int8"}, r"latency_precision is 'int8'; allowed: fp32, bf16, fp16\.$"),
        ({"latency_mode": "jit"}, "latency_mode is 'jit'; allowed: auto, eager, compile, graph"),
        ({"latency_threads": 0}, "latency_threads is 0"),
        ({"latency_width": 0}, "latency_width is 0.*greater than 0"),
        ({"latency_width": 2}, "latency_width is 2.*less than or equal to 1"),
    ],
)
def test_values_that_are_not_allowed(values, message):
    with pytest.raises(ConfigError, match=message):
        SearchConfig(backbone="resnet18", **values)


def test_every_cost_may_be_limited():
    limits = {name: objective.limit_example.split()[0] for name, objective in COSTS.items()}
    config = SearchConfig(backbone="x", **{f"max_{name}": text for name, text in limits.items()})
    assert config.limits() == limits
    assert SearchConfig(backbone="x").limits() == {}
    with pytest.raises(ConfigError, match=r"unknown key 'max_accuracy'"):
        SearchConfig(backbone="x", max_accuracy="90")


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_of_early_stopping_has_its_name_in_the_help(rule):
    assert SearchConfig(backbone="x", early_stopping=rule).early_stopping == rule
    assert rule in SearchConfig.model_fields["early_stopping"].description


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_has_its_name_in_the_help(sampler):
    assert sampler in SearchConfig.model_fields["sampler"].description


def test_settling_needs_the_sampler_whose_expectations_it_reads():
    with pytest.raises(ConfigError, match="works with the sampler 'pareto' only; the sampler is 'tpe'"):
        SearchConfig(backbone="x", sampler="tpe", stop_when_settled=True)
    assert SearchConfig(backbone="x", stop_when_settled=True).stop_when_settled


def test_accuracy_comes_first():
    assert SearchConfig(backbone="x", objectives="macs, accuracy,params").objectives == (
        "accuracy",
        "macs",
        "params",
    )


def test_missing_backbone():
    with pytest.raises(ConfigError, match="backbone is missing"):
        SearchConfig()


def test_file_and_overrides(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("backbone: resnet18\nepochs: 3\nbudget: 3m\n")
    config = SearchConfig.load(file, epochs=5, trials=None)
    assert (config.backbone, config.epochs, config.budget_seconds) == ("resnet18", 5, 180)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "must hold keys"),
        ("a: [", "is not valid YAML"),
        ("backbones: resnet18", "unknown key 'backbones'"),
    ],
)
def test_bad_files(tmp_path, text, message):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        SearchConfig.load(file)


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.yaml cannot be read"):
        SearchConfig.load(tmp_path / "nothing.yaml")


def test_round_trip_through_json():
    config = SearchConfig(backbone="resnet18", trials=3, recipe={"lr": 0.1})
    assert SearchConfig(**config.model_dump(mode="json")) == config
