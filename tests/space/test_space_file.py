"""Search-space files: the shipped ones, the schema for editors, and every way to get one wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from se_nas.errors import ConfigError
from se_nas.sites import Site
from se_nas.space import SearchSpace, shipped_spaces
from se_nas.space._file import SpaceFile, parse_spec, read_spec
from se_nas.space._shipped import shipped_folder
from se_nas.space.schema import schema_text

GOOD = {"granularity": "block", "reduction": [4, 8]}
SITES = [
    Site(stage=0, block=0, path="a", channels=64, reduction_base=64, resolution=(4, 4)),
    Site(stage=1, block=0, path="b", channels=512, reduction_base=512, resolution=(2, 2)),
]


def read(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return read_spec(path)


def test_three_spaces_are_shipped_each_with_a_line_of_description():
    spaces = shipped_spaces()
    assert list(spaces) == ["paper", "per_block", "per_stage"]
    assert all(0 < len(line) < 80 and "\n" not in line for line in spaces.values())


@pytest.mark.parametrize(
    ("name", "size"),
    # Site a (64 channels) has widths 16 and 8, and 32 at γ=2; site b (512): 128, 64, 32, 16, and 256 at γ=2.
    [
        ("per_stage", (2 + 1) * (4 + 1)),
        ("per_block", (2 + 1) * (4 + 1)),
        # Nowhere, everywhere, stage 0, stage 1.
        ("paper", 1 + 5 + 3 + 5),
    ],
)
def test_shipped_spaces_on_two_sites(name, size):
    space = SearchSpace.from_sites(read_spec(shipped_folder() / f"{name}.yaml"), SITES, backbone="net")
    assert space.size == size


def test_per_block_says_every_key_with_its_default():
    text = (shipped_folder() / "per_block.yaml").read_text(encoding="utf-8")
    said = yaml.safe_load(text)
    assert list(said) == list(SpaceFile.model_fields)
    for name, field in SpaceFile.model_fields.items():
        if not field.is_required() and name != "description":
            assert said[name] == field.default, name


def test_the_schema_for_editors_is_the_models():
    assert (shipped_folder() / "schema.json").read_text(encoding="utf-8") == schema_text()
    command = [sys.executable, "-m", "se_nas.space.schema"]
    written = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True).stdout
    assert written == schema_text()


def test_every_shipped_file_points_editors_to_the_schema():
    for path in shipped_folder().glob("*.yaml"):
        first = path.read_text(encoding="utf-8").splitlines()[0]
        assert first == "# yaml-language-server: $schema=schema.json"


def test_importing_spaces_is_cheap():
    heavy = ("torch", "timm", "optuna", "pydantic", "yaml", "pandas")
    program = f"import sys, se_nas.space; print([name for name in {heavy} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"reductoin": [4]},
            r"unknown key 'reductoin'\. Did you mean 'reduction'.*Allowed: description, granularity",
        ),
        ({"reduction": None}, r"reduction is None; allowed: a list of 1 to 16"),
        ({"reduction": [4, 0]}, r"reduction is \[4, 0\], where 0 is wrong; allowed: .*above 0"),
        ({"reduction": [-8]}, r"reduction is \[-8\]; allowed: .*above 0"),
        ({"reduction": [float("nan")]}, r"reduction is \[nan\]"),
        ({"reduction": [float("inf")]}, r"reduction is \[inf\]"),
        ({"reduction": [True]}, r"reduction is \[True\]"),
        ({"reduction": ["4"]}, r"reduction is \['4'\]"),
        ({"reduction": []}, r"reduction is \[\]; allowed: a list of 1 to 16"),
        ({"reduction": list(range(1, 18))}, r"reduction is \[1, .*17\]; allowed: a list of 1 to 16"),
        ({"reduction": [4, 8, 4.0]}, r"reduction has 4 twice"),
        ({"reduction": 8}, r"reduction is 8; allowed: a list"),
        ({"granularity": "blocks"}, r"granularity is 'blocks'; allowed: stage .*block .*one_stage"),
        ({"position": "middle"}, r"position is 'middle'; allowed: usual .*standard, pre, post"),
        ({"position": ["pre", "middle"]}, r"position is \['pre', 'middle'\].*'middle' is wrong"),
        ({"position": ["pre", "pre"]}, r"position has 'pre' twice"),
        ({"position": []}, r"position is \[\]"),
        ({"stages": "last"}, r"stages is 'last'; allowed: all, or a list"),
        ({"stages": [1, 1]}, r"stages has 1 twice"),
        ({"stages": [1.5]}, r"stages is \[1.5\]"),
        ({"blocks": 3}, r"blocks is 3; allowed: .*all, first or last"),
        ({"native": "drop"}, r"native is 'drop'; allowed: .*keep, remove, resize"),
        ({"rounding": "up"}, r"rounding is 'up'; allowed: .*timm .*exact"),
        ({"gate": "softmax"}, r"gate is 'softmax'; allowed: .*sigmoid, hard_sigmoid, tanh, relu"),
        ({"act": "mish"}, r"act is 'mish'; allowed: .*null .*relu, relu6"),
        ({"bias": "no way"}, r"bias is 'no way'; allowed: .*true or false"),
    ],
)
def test_wrong_values_name_field_value_and_what_is_allowed(tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        parse_spec({**GOOD, **change})
    with pytest.raises(ConfigError, match=rf"mine.yaml, line \d+: {message}"):
        read(tmp_path, yaml.safe_dump({**GOOD, **change}, sort_keys=False))


@pytest.mark.parametrize("missing", ["granularity", "reduction"])
def test_a_missing_key_is_named(missing):
    with pytest.raises(ConfigError, match=rf"search space: '{missing}' is missing; it is "):
        parse_spec({name: value for name, value in GOOD.items() if name != missing})


def test_the_line_of_a_wrong_value_is_given(tmp_path):
    with pytest.raises(ConfigError, match=r"mine\.yaml, line 4: gate is 'x'"):
        read(
            tmp_path,
            "# comment\ngranularity: block\nreduction: [4,\n  8]\ngate: x\n".replace("[4,\n  8]", "[4, 8]"),
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("granularity: block\nreduction: [4, 8\n", r"mine\.yaml, line 3: this is not YAML"),
        ("granularity: block\n  reduction: [4]\n", r"mine\.yaml, line 2: this is not YAML"),
        ("granularity: block\ngranularity: stage\nreduction: [4]\n", r"line 2: 'granularity' is given twice"),
        ("", r"the file is empty"),
        ("# nothing\n", r"the file is empty"),
        ("- block\n", r"the file is a list"),
        ("block\n", r"the file is a str"),
        ("3: 4\ngranularity: block\nreduction: [4]\n", r"unknown key 3"),
        ("granularity: !!python/name:os.system\nreduction: [4]\n", r"this is not YAML"),
        ("a: 1\n--- \nb: 2\n", r"this is not YAML"),
        ("granularity: \x00\n", r"this is not YAML"),
    ],
)
def test_files_that_are_no_search_space(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, text)


def test_unreadable_files(tmp_path):
    with pytest.raises(ConfigError, match=r"'.*nowhere\.yaml' cannot be read: .*No such file"):
        read_spec(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_spec(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"description: \xe9\n")
    with pytest.raises(ConfigError, match=r"latin\.yaml' cannot be read"):
        read_spec(tmp_path / "latin.yaml")


def test_whole_numbers_are_written_as_such(tmp_path):
    spec = read(tmp_path, "granularity: block\nreduction: [4.0, 8, 2.5]\nbias: no\nact: null\n")
    assert spec.reduction == (4, 8, 2.5)
    assert json.dumps(spec.to_dict()["reduction"]) == "[4, 8, 2.5]"
    assert spec.bias is False
    assert parse_spec(spec.to_dict()) == spec


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(
        ConfigError, match=r"no search space 'per_blok'\. Did you mean 'per_block'.*paper, per_block"
    ):
        SearchSpace.load("per_blok", backbone="resnet18")
    with pytest.raises(ConfigError, match=r"mine/per_blok\.yaml' cannot be read"):
        SearchSpace.load(Path("mine/per_blok.yaml"), backbone="resnet18")
