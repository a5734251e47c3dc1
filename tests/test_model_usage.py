"""What people do with a model next: compile, export, half precision, checkpointing, EMA, DDP, reparameterise."""

from __future__ import annotations

import copy
import io
import tempfile
import warnings
from pathlib import Path

import pytest
import timm
import torch
from timm.utils import ModelEmaV3
from timm.utils.model import reparameterize_model
from torch import nn

from se_nas import Architecture, build_model
from se_nas.blocks import SqueezeExcite

# One small model for each way of inserting: slot, wrapper behind, wrapper before, shortcut, last axis.
SMALL = [
    ("test_resnet", None),
    ("test_resnet", "identity"),
    ("test_resnet", "pre"),
    ("test_efficientnet", None),
    ("test_convnext", None),
    ("test_mambaout", None),
]
SAMPLE = [
    *("regnetx_002", "mobilenetv3_small_050", "ghostnet_050", "rexnet_100", "repghostnet_050", "densenet121"),
    *("inception_v3", "vgg11_bn", "dla46x_c", "cs3darknet_focus_s", "convmixer_768_32", "fasternet_t0"),
    *("hgnetv2_b0", "hrnet_w18_small", "inception_next_atto", "mobilevitv2_050", "repvit_m0_9", "res2next50"),
    *("resnest14d", "resnetv2_18", "selecsls42", "legacy_seresnet18", "skresnet18", "starnet_s050"),
    *(
        "swiftformer_xs",
        "ese_vovnet19b_slim_dw",
        "xception41",
        "test_nfnet",
        "test_byobnet",
        "edgenext_xx_small",
    ),
]
CASES = [
    *(pytest.param(name, position, id=f"{name}-{position or 'usual'}") for name, position in SMALL),
    *(pytest.param(name, None, id=name, marks=pytest.mark.slow) for name in SAMPLE),
]
every_case = pytest.mark.parametrize(("name", "position"), CASES)


def side(name: str) -> int:
    return 96 if name.startswith("inception") else 64


def images(name: str, batch_size: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch_size, 3, side(name), side(name), generator=generator)


def built(name: str, position: str | None = None, **kwargs: object) -> nn.Module:
    torch.manual_seed(0)
    model = build_model(Architecture.uniform(name, reduction=8, position=position), num_classes=10, **kwargs)
    with torch.no_grad():
        for module in model.modules():
            # Gates that are far from one half, and branches that are not zero, show in the output.
            if isinstance(module, SqueezeExcite):
                module.fc2.bias.uniform_(-2, 2)
            elif isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
    return model.eval()


def output(model: nn.Module, image: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(image)


@every_case
def test_export(name: str, position: str | None) -> None:
    model, image = built(name, position), images(name)
    program = torch.export.export(model, (image,))
    torch.testing.assert_close(output(program.module(), image), output(model, image), rtol=1e-4, atol=1e-5)


@every_case
def test_channels_last(name: str, position: str | None) -> None:
    model, image = built(name, position), images(name)
    expected = output(model, image)
    model = model.to(memory_format=torch.channels_last)
    found = output(model, image.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@every_case
def test_bf16_autocast(name: str, position: str | None) -> None:
    model, image = built(name, position), images(name)
    with torch.autocast("cpu", torch.bfloat16):
        found = output(model, image)
    assert torch.isfinite(found).all()


@every_case
def test_gradient_checkpointing(name: str, position: str | None) -> None:
    model, image = built(name, position), images(name, 2)
    try:
        model.set_grad_checkpointing(True)
    except (AssertionError, AttributeError):
        pytest.skip(f"timm's {name} has no gradient checkpointing")
    model.set_grad_checkpointing(False)
    gradients = []
    for enabled in (False, True):
        model.set_grad_checkpointing(enabled)
        model.zero_grad()
        # In eval mode both passes see the same statistics and no dropout.
        model(image).square().mean().backward()
        gradients.append([m.fc2.weight.grad.clone() for m in model.modules() if isinstance(m, SqueezeExcite)])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


@every_case
def test_classifier_and_features(name: str, position: str | None) -> None:
    model, image = built(name, position), images(name)
    reference = timm.create_model(name, num_classes=10).eval()
    assert output(model, image).shape == (1, 10)
    with torch.no_grad():
        assert model.forward_features(image).shape == reference.forward_features(image).shape
    model.reset_classifier(3)
    assert output(model, image).shape == (1, 3)
    model.reset_classifier(0)
    reference.reset_classifier(0)
    assert output(model, image).shape == output(reference, image).shape
    if hasattr(reference, "forward_intermediates"):
        with torch.no_grad():
            ours = model.forward_intermediates(image, intermediates_only=True)
            timms = reference.forward_intermediates(image, intermediates_only=True)
        assert [feature.shape for feature in ours] == [feature.shape for feature in timms]


@every_case
def test_copies_and_state(name: str, position: str | None) -> None:
    model, image = built(name, position), images(name)
    expected = output(model, image)
    average = ModelEmaV3(model)
    average.update(model)
    assert torch.equal(output(copy.deepcopy(model), image), expected)
    torch.testing.assert_close(output(average.module, image), expected)
    stream = io.BytesIO()
    torch.save(model.state_dict(), stream)
    stream.seek(0)
    other = built(name, position)
    nn.init.zeros_(next(m for m in other.modules() if isinstance(m, SqueezeExcite)).fc1.weight)
    other.load_state_dict(torch.load(stream, weights_only=True))
    assert torch.equal(output(other, image), expected)


@pytest.mark.slow
@every_case
def test_compile(name: str, position: str | None) -> None:
    model, image = built(name, position), images(name)
    expected = output(model, image)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(output(compiled, image), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@every_case
def test_onnx(name: str, position: str | None) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, image = built(name, position), images(name)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # torch.onnx's own deprecation notices.
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.onnx"
        torch.onnx.export(model, (image,), path, dynamo=True, external_data=False, verbose=False)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), output(model, image), rtol=1e-3, atol=1e-4)


def test_compile_one_model() -> None:
    model, image = built("test_resnet", "pre"), images("test_resnet")
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(output(compiled, image), output(model, image), rtol=1e-4, atol=1e-5)


def test_distributed_data_parallel(tmp_path: Path) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1
    )
    try:
        model = built("test_resnet", "pre").train()
        wrapped = nn.parallel.DistributedDataParallel(model)
        wrapped(images("test_resnet", 2)).square().mean().backward()
        gates = [module for module in model.modules() if isinstance(module, SqueezeExcite)]
        assert all(gate.fc2.weight.grad is not None for gate in gates)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("name", ["repvgg_a0", pytest.param("mobileone_s0", marks=pytest.mark.slow)])
def test_reparameterisation_keeps_the_gates(name: str) -> None:
    model, image = built(name), images(name)
    count = sum(isinstance(module, SqueezeExcite) for module in model.modules())
    fused = reparameterize_model(model)
    assert sum(isinstance(module, SqueezeExcite) for module in fused.modules()) == count
    assert sum(p.numel() for p in fused.parameters()) < sum(p.numel() for p in model.parameters())
    torch.testing.assert_close(output(fused, image), output(model, image), rtol=1e-3, atol=1e-3)
