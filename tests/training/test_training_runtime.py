"""Decisions about the machine: precision, memory format, compilation, and the time of a step."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from torch import nn

from se_nas.errors import ConfigError, DeviceError
from se_nas.training import (
    Recipe,
    Runtime,
    compile_blocks,
    measure_step_time,
    runtime,
    train,
)
from se_nas.training.compiling import repeated_blocks


def decide(name, monkeypatch, has_bf16, **recipe):
    monkeypatch.setattr(runtime, "_cpu_has_bf16", lambda: has_bf16)
    with torch.device("meta"):
        model = timm.create_model(name)
    made = Runtime.decide(model, Recipe(**recipe))
    return made.precision, made.channels_last


@pytest.mark.parametrize(
    ("name", "has_bf16", "expected"),
    [
        ("resnet18", True, ("bf16", False)),
        ("resnet18", False, ("fp32", True)),
        ("resnext50_32x4d", True, ("bf16", False)),
        ("mobilenetv2_100", True, ("fp32", True)),
    ],
)
def test_cpu_by_its_instructions_and_the_network(monkeypatch, name, has_bf16, expected):
    assert decide(name, monkeypatch, has_bf16) == expected


def test_recipe_overrules(monkeypatch):
    assert decide("resnet18", monkeypatch, True, precision="fp32", channels_last="off") == ("fp32", False)
    with pytest.raises(ConfigError, match="fp16"):
        decide("resnet18", monkeypatch, True, precision="fp16")


def test_round_trip_and_missing_device():
    made = Runtime(precision="bf16", micro_batch=4, workers=3)
    assert Runtime.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    with pytest.raises(DeviceError, match="cuda:17"):
        Runtime.from_dict({"device": "cuda:17"})


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_trains_in_every_precision_and_format(small_net, make_context, precision, channels_last):
    made = Runtime(precision=precision, channels_last=channels_last)
    model = small_net()
    result = train(model, make_context(runtime=made, epochs=6, lr=1e-2))
    assert result.accuracy > 90
    assert model.fc.weight.dtype == torch.float32
    if channels_last:
        assert model.body[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_step_time_is_of_real_steps_and_changes_nothing(small_net, make_context):
    model = small_net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    measured = measure_step_time(model, make_context(), steps=3)
    assert measured.step > 0
    assert measured.steps == 6
    assert measured.epoch == pytest.approx(6 * measured.step + measured.validation)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("backbone", "blocks"),
    [
        ("resnet10t", ["BasicBlock"] * 4),
        ("regnety_004", ["Bottleneck"] * 16),
        ("convnext_atto", ["ConvNeXtBlock"] * 12),
        ("vit_tiny_patch16_224", ["Block"] * 12),
        ("vgg11", []),
    ],
)
def test_blocks_that_repeat(backbone, blocks):
    with torch.device("meta"):
        model = timm.create_model(backbone)
    assert [type(block).__name__ for block in repeated_blocks(model)] == blocks


def test_compiling_keeps_keys_and_computes_the_same(small_net):
    calls = []

    def backend(graph, inputs):
        calls.append(1)
        return graph.forward

    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=3).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = model(images)
        keys = list(model.state_dict())
        for block in repeated_blocks(model) or [model]:
            block.compile(backend=backend)
        assert torch.equal(model(images), expected)
    assert calls
    assert list(model.state_dict()) == keys


@pytest.mark.slow
def test_compiled_blocks_train_like_the_others(make_context, small_net, monkeypatch):
    """Traced and differentiated by torch.compile; without its code generator, which takes minutes on a CPU."""

    def build():
        net = small_net()
        block = [nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()) for _ in range(2)]
        torch.manual_seed(0)
        net.body = nn.Sequential(net.body, nn.Sequential(*block))
        for layer in block:
            layer[0].reset_parameters()
        return net

    from se_nas.training import session

    compiled = []
    monkeypatch.setattr(
        session, "compile_blocks", lambda model: compiled.append(compile_blocks(model, backend="aot_eager"))
    )
    plain = train(build(), make_context(epochs=2))
    result = train(build(), make_context(runtime=Runtime(compile=True), epochs=2))
    assert len(compiled) == 1
    assert result.accuracy == plain.accuracy
    assert result.loss == pytest.approx(plain.loss, rel=1e-4)


@pytest.mark.gpu
def test_gpu_trains_resumes_and_keeps_data_on_the_device(small_net, make_context, tmp_path):
    model = small_net()
    made = Runtime.decide(model, Recipe(), "cuda")
    assert (made.channels_last, made.precision in ("bf16", "fp16")) == (True, True)
    polls = iter(range(1000))
    cut = train(model, make_context(runtime=made, checkpoint_dir=tmp_path, stop=lambda: next(polls) >= 8))
    assert cut.state == "unfinished"
    result = train(small_net(), make_context(runtime=made, checkpoint_dir=tmp_path))
    assert (result.state, result.epochs) == ("complete", 3)
