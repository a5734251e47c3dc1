"""What people do with a model next: compile, export, half precision, checkpointing, EMA, DDP, reparameterise.

docs/zoo-usage.csv has one small model for every family of docs/zoo-coverage.csv. Six of them run by default, the rest
is slow. A cell of that table that is not empty is an exception with its reason: there timm's plain model must fail
in the same way, and the built one too, so that an exception that no longer holds fails. Reasons that begin with
"with SE" are those where the plain model must pass.
"""

from __future__ import annotations

import copy
import csv
import importlib.util
import io
import warnings
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models import FeatureHookNet
from timm.utils import ModelEmaV3
from timm.utils.model import reparameterize_model
from torch import nn

from se_nas import Architecture, build_model
from se_nas.layers.squeeze_excite import SqueezeExcite

DOCS = Path(__file__).resolve().parents[1] / "docs"
DEFAULT = {
    "test_byobnet",
    "test_convnext",
    "test_efficientnet",
    "test_mambaout",
    "test_nfnet",
    "test_resnet",
}
WITH_SE = "with SE"
pytestmark = pytest.mark.usefixtures("quiet_compiler")


def read(name: str) -> list[dict[str, str]]:
    with (DOCS / name).open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


FAMILIES = read("zoo-usage.csv")


class Case:
    """A plain and a built model with the same weights besides SE, and an image that they take."""

    def __init__(self, name: str, side: int, position: str | None, exceptions: dict[str, str]) -> None:
        self.name, self.side, self.position, self.exceptions = name, side, position, exceptions

    @cached_property
    def built(self) -> nn.Module:
        torch.manual_seed(0)
        arch = Architecture.uniform(self.name, reduction=8, position=self.position)
        return _with_weights_that_show(build_model(arch, num_classes=10))

    @cached_property
    def plain(self) -> nn.Module:
        torch.manual_seed(0)
        return _with_weights_that_show(timm.create_model(self.name, num_classes=10))

    def images(self, batch_size: int = 1) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(batch_size, 3, self.side, self.side, generator=generator)

    def program(self, model: nn.Module) -> torch.export.ExportedProgram:
        if model is not self.built:
            return self._exported(model)
        return self._program

    @cached_property
    def _program(self) -> torch.export.ExportedProgram:
        return self._exported(self.built)

    def _exported(self, model: nn.Module) -> torch.export.ExportedProgram:
        with warnings.catch_warnings():
            # Attention biases that timm's modules keep between calls.
            warnings.filterwarnings("ignore", "The tensor attributes .* were assigned during export")
            return torch.export.export(model, (self.images(),))


def _with_weights_that_show(model: nn.Module) -> nn.Module:
    """Gates that are far from one half, and branches that are not zero."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, SqueezeExcite):
                module.fc2.bias.uniform_(-2, 2)
            elif isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
    return model.eval()


def _params() -> Iterator[Any]:
    for row in FAMILIES:
        arguments = (row["model"], int(row["side"]), None, {use: row[use] for use in USES})
        marks = () if row["model"] in DEFAULT else pytest.mark.slow
        yield pytest.param(arguments, id=row["model"], marks=marks)
    # The other ways of inserting: before a module, and on an identity shortcut.
    for position in ("pre", "identity"):
        yield pytest.param(("test_resnet", 64, position, dict.fromkeys(USES, "")), id=f"resnet-{position}")


def gates(model: nn.Module) -> list[SqueezeExcite]:
    return [module for module in model.modules() if isinstance(module, SqueezeExcite)]


def output(model: nn.Module, image: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(image)


def compiles(case: Case, model: nn.Module) -> None:
    image = case.images()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(output(compiled, image), output(model, image), rtol=1e-3, atol=1e-4)


def exports(case: Case, model: nn.Module) -> None:
    found = output(case.program(model).module(), case.images())
    torch.testing.assert_close(found, output(model, case.images()), rtol=1e-3, atol=1e-4)


def runs_in_onnxruntime(case: Case, model: nn.Module) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    image, file = case.images(), io.BytesIO()
    with warnings.catch_warnings():
        # torch.onnx's own deprecation notices.
        warnings.simplefilter("ignore")
        exported = torch.onnx.export(case.program(model), (image,), dynamo=True, verbose=False)
    assert exported is not None
    exported.save(file)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), output(model, image), rtol=1e-3, atol=1e-4)


def runs_channels_last(case: Case, model: nn.Module) -> None:
    image = case.images()
    other = copy.deepcopy(model).to(memory_format=torch.channels_last)
    found = output(other, image.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(found, output(model, image), rtol=1e-3, atol=1e-4)


def runs_in_bf16(case: Case, model: nn.Module) -> None:
    """No further from float32 than a tenth of the output, or than three times what the plain model is."""
    differences = []
    for net in (model, case.plain):
        expected = output(net, case.images())
        with torch.autocast("cpu", torch.bfloat16):
            found = output(net, case.images()).float()
        differences.append(float((found - expected).norm() / expected.norm()))
    ours, timms = differences
    assert ours < max(0.1, 3 * timms)


def checkpoints_gradients(case: Case, model: nn.Module) -> None:
    """In eval mode, where both passes see the same statistics and no dropout."""
    found = []
    for enabled in (False, True):
        other = copy.deepcopy(model)
        other.set_grad_checkpointing(enabled)
        other(case.images(2)).square().mean().backward()
        found.append({name: p.grad for name, p in other.named_parameters() if p.grad is not None})
    plain, checkpointed = found
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(gradient, checkpointed[name])


def changes_the_classifier(case: Case, model: nn.Module) -> None:
    model, reference, image = copy.deepcopy(model), copy.deepcopy(case.plain), case.images()
    with torch.no_grad():
        features = model.forward_features(image)
        assert _shapes(features) == _shapes(reference.forward_features(image))
        torch.testing.assert_close(model.forward_head(features), output(model, image))
    assert output(model, image).shape == (1, 10)
    model.reset_classifier(3)
    assert output(model, image).shape == (1, 3)
    model.reset_classifier(0)
    reference.reset_classifier(0)
    assert _shapes(output(model, image)) == _shapes(output(reference, image))


def _tensors(outputs: Any) -> list[torch.Tensor]:
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    items = outputs.values() if isinstance(outputs, dict) else outputs
    return [tensor for item in items for tensor in _tensors(item)]


def _shapes(outputs: Any) -> list[torch.Size]:
    return [tensor.shape for tensor in _tensors(outputs)]


def gives_features(case: Case, model: nn.Module) -> None:
    """By the model's own method, or by hooks where ``feature_info`` says, as ``features_only`` does."""
    image, found = case.images(), []
    for net in (model, case.plain):
        if hasattr(net, "forward_intermediates"):
            with torch.no_grad():
                found.append(net.forward_intermediates(image, intermediates_only=True))
        else:
            indices = tuple(range(len(net.feature_info)))
            hooked = FeatureHookNet(copy.deepcopy(net), out_indices=indices, default_hook_type="forward")
            found.append(output(hooked, image))
    ours, timms = map(_shapes, found)
    assert len(ours) > 1
    assert ours == timms


def copies(case: Case, model: nn.Module) -> None:
    expected = output(model, case.images())
    assert torch.equal(output(copy.deepcopy(model), case.images()), expected)


def keeps_its_state(case: Case, model: nn.Module) -> None:
    image, stream = case.images(), io.BytesIO()
    expected = output(model, image)
    torch.save(model.state_dict(), stream)
    stream.seek(0)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert not torch.equal(output(other, image), expected)
    other.load_state_dict(torch.load(stream, weights_only=True))
    assert torch.equal(output(other, image), expected)


def averages(case: Case, model: nn.Module) -> None:
    expected = output(model, case.images())
    other = copy.deepcopy(model)
    average = ModelEmaV3(other, decay=0.5)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    average.update(other)
    ours = dict(average.module.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ours[name], parameter / 2)
    assert output(average.module, case.images()).shape == expected.shape


def trains_in_parallel(case: Case, model: nn.Module) -> None:
    wrapped = nn.parallel.DistributedDataParallel(copy.deepcopy(model).train())
    with warnings.catch_warnings():
        # Convolutions of one channel a group have two layouts that are one; torch says itself that it is no error.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        outputs = _tensors(wrapped(case.images(2)))
        torch.stack([tensor.square().mean() for tensor in outputs]).sum().backward()
    for gate in gates(wrapped):
        assert gate.fc2.weight.grad is not None


def fuses(case: Case, model: nn.Module) -> None:
    """Nothing changes where there is nothing to fuse; elsewhere ours loses as many parameters as timm's."""
    fused, reference = reparameterize_model(model), reparameterize_model(case.plain)
    assert len(gates(fused)) == len(gates(model))
    assert _size(model) - _size(fused) == _size(case.plain) - _size(reference)
    torch.testing.assert_close(
        output(fused, case.images()), output(model, case.images()), rtol=1e-3, atol=1e-3
    )


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


USES: dict[str, Callable[[Case, nn.Module], None]] = {
    "compile": compiles,
    "export": exports,
    "onnx": runs_in_onnxruntime,
    "channels_last": runs_channels_last,
    "bf16_autocast": runs_in_bf16,
    "grad_checkpointing": checkpoints_gradients,
    "classifier": changes_the_classifier,
    "features": gives_features,
    "deepcopy": copies,
    "state_dict": keeps_its_state,
    "ema": averages,
    "ddp": trains_in_parallel,
    "reparameterize": fuses,
}


@pytest.fixture(scope="module", params=_params())
def case(request: pytest.FixtureRequest) -> Case:
    return Case(*request.param)


@pytest.fixture(scope="module", autouse=True)
def _process_group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    rendezvous = tmp_path_factory.mktemp("ddp") / "rendezvous"
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("use", USES)
def test_use(case: Case, use: str) -> None:
    if not case.exceptions[use]:
        USES[use](case, case.built)
        return
    if case.exceptions[use].startswith(WITH_SE):
        USES[use](case, case.plain)
        with pytest.raises(AssertionError):
            USES[use](case, case.built)
        return
    with pytest.raises(Exception) as timms:  # noqa: PT011
        USES[use](case, case.plain)
    with pytest.raises(timms.type):
        USES[use](case, case.built)


def test_every_family_is_in_the_sample() -> None:
    coverage = {row["name"]: row for row in read("zoo-coverage.csv")}
    families = {
        (row["family"], row["nature"]) for row in coverage.values() if row["nature"] in ("conv", "hybrid")
    }
    assert {(row["family"], row["nature"]) for row in FAMILIES} == families
    assert len(FAMILIES) == len(families)
    for row in FAMILIES:
        found = coverage[row["model"]]
        assert (found["family"], found["nature"]) == (row["family"], row["nature"])
    assert len({row["family"] for row in FAMILIES if row["model"] in DEFAULT}) == 6


def test_the_documented_exceptions_are_these() -> None:
    path = DOCS.parent / "benchmarks" / "zoo_coverage.py"
    spec = importlib.util.spec_from_file_location("zoo_coverage", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.usage_section(FAMILIES) in (DOCS / "zoo-coverage.md").read_text(encoding="utf-8")


# Of EfficientViT's modules, convolution with norm, most are replaced as a whole.
@pytest.mark.parametrize(
    "name", ["repvgg_a0", "efficientvit_m0", pytest.param("mobileone_s0", marks=pytest.mark.slow)]
)
def test_reparameterisation_keeps_the_gates(name: str) -> None:
    case = Case(name, 64, None, {})
    fuses(case, case.built)
    assert _size(reparameterize_model(case.built)) < _size(case.built)
