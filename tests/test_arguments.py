"""Wrong arguments of public functions: one sentence that names the argument, and no traceback of ours or others'."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from least_manifest import FACTS

import se_nas
from se_nas import checkpoints, data, report
from se_nas.arguments import checked
from se_nas.cost import profile
from se_nas.errors import ConfigError, SeNasError
from se_nas.run import Manifest

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit")  # deprecated, and still used
ARCH = se_nas.Architecture.plain("test_resnet")
SITE = ARCH.sites[0]
SPACE = se_nas.SearchSpace.load("per_stage", backbone="test_resnet")
REPORT = se_nas.ParetoReport(manifest=Manifest.from_json(FACTS), rows=())


def fields(instance: Any) -> dict[str, Any]:
    return {f.name: getattr(instance, f.name) for f in dataclasses.fields(instance) if f.init}


PUBLIC: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    (se_nas.Architecture, fields(ARCH)),
    (se_nas.Architecture.plain, {"backbone": "test_resnet"}),
    (se_nas.Architecture.uniform, {"backbone": "test_resnet", "reduction": 8}),
    (se_nas.Architecture.from_widths, {"backbone": "test_resnet", "widths": ARCH.widths}),
    (se_nas.Architecture.from_dict, {"data": ARCH.to_dict()}),
    (se_nas.Site, fields(SITE)),
    (se_nas.SearchSpace.load, {"name_or_path": "per_stage", "backbone": "test_resnet"}),
    (se_nas.SearchSpace.from_dict, {"data": SPACE.to_dict()}),
    (SPACE.architecture, {"params": SPACE.params(ARCH)}),
    (se_nas.ParetoReport, {"manifest": REPORT.manifest, "rows": ()}),
    (se_nas.ParetoReport.load, {"path": "no-run"}),
    (se_nas.ParetoReport.from_run, {"path": "no-run"}),
    (REPORT.save, {"path": "report.json"}),
    (se_nas.ParetoSampler, {}),
    (se_nas.SearchConfig.load, {"path": "no-file.yaml"}),
    (se_nas.build_model, {"arch": ARCH}),
    (se_nas.compare, {"reports": [REPORT, REPORT]}),
    (se_nas.export, {"run": "no-run"}),
    (se_nas.retrain, {"run": "no-run", "out": "out"}),
    (se_nas.search, {"config": se_nas.SearchConfig(backbone="test_resnet")}),
    (se_nas.find_sites, {"model_or_name": "test_resnet"}),
    (se_nas.load_exported, {"path": "no-folder"}),
    (se_nas.measure_cost, {"arch": ARCH}),
    (se_nas.measure_latency, {"arch": ARCH}),
    (se_nas.open_run, {"path": "no-run"}),
    (se_nas.optimize_for_inference, {"model": torch.nn.Identity()}),
    (profile, {}),
    (data.load_data, {"name": "no-folder"}),
    (report.pick, {"report": REPORT}),
    (report.write_html, {"report": REPORT, "path": "report.html"}),
    (report.write_figures, {"report": REPORT, "folder": "figures"}),
    (report.write_comparison, {"comparison": object.__new__(report.Comparison), "path": "page.html"}),
    (checkpoints.load_checkpoint, {"model": torch.nn.Identity(), "path": "no-file"}),
    (checkpoints.read_checkpoint, {"model": torch.nn.Identity(), "path": "no-file"}),
]
WRONG: list[Any] = [None, 3.5, object(), b"x", [object()], {1: 2}]


def name_of(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", type(function).__name__)


def arguments() -> list[Any]:
    return [
        pytest.param(function, valid, parameter, id=f"{name_of(function)}-{parameter.name}")
        for function, valid in PUBLIC
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and parameter.annotation not in ("Any", "_Job")
    ]


@pytest.mark.parametrize(("function", "valid", "parameter"), arguments())
def test_an_argument_of_a_wrong_type_is_named(
    function: Callable[..., Any],
    valid: dict[str, Any],
    parameter: inspect.Parameter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    words = str(parameter.annotation).replace("'", "")
    refused = 0
    for wrong in WRONG:
        allowed = (
            (wrong is None and "None" in words)
            or (wrong == 3.5 and "float" in words)
            or (isinstance(wrong, dict) and any(kind in words for kind in ("Mapping", "dict")))
        )
        if allowed:
            continue
        with pytest.raises(SeNasError, match=rf"\b{parameter.name}\b") as caught:
            function(**{**valid, parameter.name: wrong})
        assert "\n" not in str(caught.value)
        refused += 1
    assert refused >= 3
    assert not list(tmp_path.iterdir())


def test_every_public_function_is_among_them() -> None:
    tried = {getattr(function, "__self__", function) for function, _ in PUBLIC} | {f for f, _ in PUBLIC}
    exempt = {se_nas.SearchConfig, se_nas.SeNasError}  # below, and an exception
    for name in se_nas.__all__:
        found = getattr(se_nas, name)
        assert not callable(found) or found in tried | exempt, name


@pytest.mark.parametrize("field", se_nas.SearchConfig.model_fields)
def test_a_field_of_a_configuration_of_a_wrong_type_is_named(field: str) -> None:
    info = se_nas.SearchConfig.model_fields[field]
    empty = [""] if "str" in str(info.annotation) or "Literal" in str(info.annotation) else []
    nothing = [] if info.default is None else [None]
    for wrong in [object(), b"x", [object()], *empty, *nothing]:
        with pytest.raises(ConfigError, match=rf"\b{field}\b") as caught:
            se_nas.SearchConfig(**{"backbone": "test_resnet", field: wrong})
        assert "\n" not in str(caught.value)


def test_paths_may_be_path_objects(tmp_path: Path) -> None:
    given = se_nas.SearchConfig(backbone="test_resnet", data=tmp_path, checkpoint=tmp_path, runs=tmp_path)
    assert (given.data, given.checkpoint, given.runs) == (str(tmp_path),) * 3


@pytest.mark.parametrize("path", ["", "a\0b"])
@pytest.mark.parametrize("function", [se_nas.open_run, se_nas.load_exported, se_nas.ParetoReport.load])
def test_a_path_that_is_empty_or_cannot_be_one_is_refused(function: Callable[..., Any], path: str) -> None:
    with pytest.raises(ConfigError, match="path is"):
        function(path)


@pytest.mark.parametrize("part", ["data", "cost", "report", "pareto", "training", "testing", "study"])
def test_parts_are_there_after_import(part: str) -> None:
    assert getattr(se_nas, part).__name__ == f"se_nas.{part}"


def test_square_images_are_given_by_their_side() -> None:
    assert se_nas.measure_cost(ARCH, input_size=64) == se_nas.measure_cost(ARCH, input_size=(3, 64, 64))
    assert se_nas.find_sites("test_resnet", input_size=64) == se_nas.find_sites(
        "test_resnet", input_size=(3, 64, 64)
    )
    network = se_nas.build_model(se_nas.Architecture.uniform("test_resnet", reduction=8)).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        fast = se_nas.optimize_for_inference(network, input_size=64)
        torch.testing.assert_close(fast(images), network(images))


@pytest.mark.parametrize(
    "backbone", ["test_resnet", "efficientnet_b0", "mobilenetv3_small_050", "regnety_002"]
)
@pytest.mark.parametrize("init", ["identity", "default"])
def test_torchscript_of_a_built_model_is_the_model(backbone: str, init: str) -> None:
    position = None if backbone != "mobilenetv3_small_050" else "conv3x3"
    arch = se_nas.Architecture.uniform(backbone, reduction=8, position=position)
    network, images = se_nas.build_model(arch, init=init).eval(), torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        for compiled in (torch.jit.script(network), torch.jit.trace(network, images)):
            torch.testing.assert_close(compiled(images), network(images))


def test_what_torchscript_cannot_compile_is_refused_and_stays_as_it_was() -> None:
    network = se_nas.build_model(se_nas.Architecture.uniform("vgg11", reduction=8)).eval()
    names = list(network.state_dict())
    with pytest.raises(SeNasError, match=r"torch\.jit\.trace"):
        torch.jit.script(network)
    assert list(network.state_dict()) == names


# --- the decorator itself ---


@checked
def example(
    count: int,
    share: float = 0.5,
    *,
    name: str | None = None,
    path: str | Path = "x",
    size: int | tuple[int, int] = 1,
    items: Sequence[int] = (),
    table: Mapping[str, int] | None = None,
    call: Callable[..., Any] = len,
    kind: Literal["a", "b"] = "a",
    unknown: NotImported | None = None,  # type: ignore[name-defined]  # noqa: F821
) -> int:
    """As it was."""
    return count


def test_what_the_annotations_allow_is_passed_on() -> None:
    assert example(3) == 3
    assert example(np.int64(3), np.float32(1.0)) == 3
    assert example(3, 1, name="n", path=Path("x"), size=[1, 2], items=range(3), table={}, kind="b") == 3
    assert example(count=3, unknown=object()) == 3
    assert example.__doc__ == "As it was."


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": True}, "count is True; it must be an integer."),
        ({"share": "1"}, "share is '1'; it must be a number."),
        ({"name": 1}, "name is 1; it must be a string or None."),
        ({"path": ""}, "path is empty; give a path."),
        ({"size": (1, 2, 3)}, "size is (1, 2, 3); it must be an integer or a list of 2 integers."),
        ({"items": "12"}, "items is '12'; it must be a list of integers."),
        ({"items": [1, "2"]}, "items is [1, '2']; it must be a list of integers."),
        ({"table": []}, "table is []; it must be a mapping or None."),
        ({"call": 1}, "call is 1; it must be a function."),
        ({"kind": "c"}, "kind is 'c'; it must be 'a' or 'b'."),
        ({"name": 10**100}, "it must be a string or None."),
    ],
)
def test_messages_say_what_was_given_and_what_is_allowed(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        example(**{"count": 1, **given})
    assert str(caught.value).endswith(message)
    assert len(str(caught.value)) < 120
