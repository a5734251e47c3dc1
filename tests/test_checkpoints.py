"""What trainers wrap around a state dict, as timm reads it; and files that hold something else."""

from __future__ import annotations

import argparse
import pathlib
import zipfile

import numpy as np
import pytest
import timm
import timm.models
import torch
from safetensors.torch import save, save_file
from timm.utils import CheckpointSaver, ModelEmaV3
from torch import nn

from se_nas.architecture import Architecture
from se_nas.checkpoints import load_checkpoint, read_checkpoint
from se_nas.errors import CheckpointError, ConfigError
from se_nas.model import build_model
from se_nas.study import SearchConfig

NAME = "resnet10t"
LIMIT = 200


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(1)
    return timm.create_model(NAME, num_classes=5)


@pytest.fixture
def state(trained):
    return dict(trained.state_dict())


@pytest.fixture
def average(state):
    return {name: value / 2 if value.is_floating_point() else value for name, value in state.items()}


def fresh(num_classes=5):
    torch.manual_seed(2)
    return timm.create_model(NAME, num_classes=num_classes)


def same(model, state, but=()):
    return all(
        torch.equal(value, state[name]) for name, value in model.state_dict().items() if name not in but
    )


def with_prefix(state, prefix):
    return {prefix + name: value for name, value in state.items()}


def loaded(path, content, num_classes=5):
    torch.save(content, path)
    model = fresh(num_classes)
    return model, load_checkpoint(model, path)


def test_one_source_of_weights(tmp_path, state):
    torch.save(state, tmp_path / "w.pth")
    arch = Architecture.plain(NAME)
    with pytest.raises(ConfigError, match="pretrained and checkpoint both set the initial weights"):
        build_model(arch, pretrained=True, checkpoint=tmp_path / "w.pth", num_classes=5)
    with pytest.raises(ConfigError, match="pretrained and checkpoint both set the initial weights"):
        SearchConfig(backbone=NAME, pretrained=True, checkpoint=tmp_path / "w.pth")


def test_weights_without_content(tmp_path, state):
    torch.save({name: value.to("meta") for name, value in state.items()}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="holds names and shapes only"):
        read_checkpoint(fresh(), tmp_path / "w.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(tmp_path, state, value):
    state["layer1.0.conv1.weight"] = torch.full_like(state["layer1.0.conv1.weight"], value)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(
        CheckpointError, match=r"w.pth holds NaN or infinite weights, in layer1.0.conv1.weight\.$"
    ):
        read_checkpoint(fresh(), tmp_path / "w.pth")


# What is wrapped around


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "net", "params"])
def test_containers(tmp_path, state, key):
    model, found = loaded(tmp_path / "a.pth", {"epoch": 3, key: state, "optimizer": {"state": {}}})
    assert same(model, state)
    assert (found.taken, found.notes()) == (key, [])


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema", "ema_state_dict"])
@pytest.mark.parametrize("beside", ["state_dict", "model", None])
def test_the_moving_average_is_taken_and_said(tmp_path, state, average, key, beside):
    content = {key: average} if beside is None else {beside: state, key: average}
    model, found = loaded(tmp_path / "a.pth", content)
    assert same(model, average)
    assert len(found.notes()) == 1
    assert f"moving average of the weights ({key!r})" in found.notes()[0]


def test_a_moving_average_that_is_none(tmp_path, state):
    model, found = loaded(tmp_path / "a.pth", {"state_dict": state, "state_dict_ema": None})
    assert same(model, state)
    assert found.notes() == []


def test_containers_in_containers(tmp_path, state):
    model, found = loaded(tmp_path / "a.pth", {"model": {"state_dict": with_prefix(state, "module.")}})
    assert same(model, state)
    assert (found.taken, found.prefix) == ("model.state_dict", "module.")


@pytest.mark.parametrize("average_too", [False, True])
def test_a_file_of_timms_saver_gives_what_timm_takes(tmp_path, trained, average_too):
    args = argparse.Namespace(model=NAME, lr=0.1, opt="sgd", mean=None, amp=True)
    ema = ModelEmaV3(fresh()) if average_too else None
    saver = CheckpointSaver(
        trained,
        torch.optim.SGD(trained.parameters(), 0.1),
        args=args,
        model_ema=ema,
        checkpoint_dir=str(tmp_path),
        recovery_dir=str(tmp_path),
    )
    saver.save_checkpoint(0, 50.0)
    model, reference = fresh(), fresh()
    load_checkpoint(model, tmp_path / "last.pth.tar")
    timm.models.load_checkpoint(reference, str(tmp_path / "last.pth.tar"))
    assert same(model, reference.state_dict())
    assert same(model, (ema.module if ema else trained).state_dict())


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "model.",
        "net.",
        "backbone.",
        "model.backbone.",
        "student.encoder.",
    ],
)
def test_prefixes(tmp_path, state, prefix):
    model, found = loaded(tmp_path / "a.pth", with_prefix(state, prefix))
    assert same(model, state)
    assert found.left == ()


def test_names_of_compiled_parts(tmp_path, state):
    odd = {name.replace("layer1.", "layer1._orig_mod."): value for name, value in state.items()}
    assert same(loaded(tmp_path / "a.pth", odd)[0], state)


def test_averaged_model_of_torch(tmp_path, trained, state):
    content = torch.optim.swa_utils.AveragedModel(trained).state_dict()
    model, found = loaded(tmp_path / "a.pth", content)
    assert same(model, state)
    assert found.left == ("n_averaged",)


def test_lightning(tmp_path, state):
    content = {
        "epoch": 1,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": with_prefix(state, "net.")
        | {"criterion.weight": torch.ones(5), "acc.total": torch.ones(1)},
        "hyper_parameters": {"lr": 0.1, "args": argparse.Namespace(seed=1)},
        "optimizer_states": [{"state": {}, "param_groups": []}],
    }
    model, found = loaded(tmp_path / "a.ckpt", content)
    assert same(model, state)
    assert found.left == ("criterion.weight", "acc.total")
    assert "not used are criterion.weight, acc.total" in " ".join(found.notes())


def test_the_average_among_prefixes(tmp_path, state, average):
    content = {"state_dict": with_prefix(state, "model.") | with_prefix(average, "ema_model.")}
    model, found = loaded(tmp_path / "a.ckpt", content)
    assert same(model, average)
    assert "'ema_model.'" in found.notes()[0]


def test_a_loss_beside_names_without_a_prefix(tmp_path, state):
    model, found = loaded(tmp_path / "a.pth", state | {"criterion.weight": torch.ones(5)})
    assert same(model, state)
    assert found.left == ("criterion.weight",)


@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_head_of_another_size_starts_at_zero_and_is_said(tmp_path, state, prefix):
    model, found = loaded(tmp_path / "a.pth", with_prefix(state, prefix), num_classes=7)
    assert same(model, state, but=("fc.weight", "fc.bias"))
    assert not model.fc.weight.any()
    assert not model.fc.bias.any()
    assert found.notes() == [
        f"{found.path}: the classifier (fc.weight, fc.bias) does not fit and starts at zero."
    ]


@pytest.mark.parametrize("num_classes", [5, 7])
def test_a_new_head_on_timms_weights_starts_at_zero(tmp_path, state, num_classes):
    save_file(state, tmp_path / "w.safetensors")
    model = build_model(
        Architecture.plain(NAME),
        pretrained=True,
        pretrained_cfg={
            "file": str(tmp_path / "w.safetensors"),
            "num_classes": 5,
            "first_conv": "conv1.0",
            "classifier": "fc",
        },
        num_classes=num_classes,
    )
    assert same(model, state, but=("fc.weight", "fc.bias"))
    assert bool(model.fc.weight.any()) == (num_classes == 5)
    assert model.fc.bias.numel() == num_classes


def test_a_new_head_on_features_alone_starts_at_zero(tmp_path, state):
    bare = {name: value for name, value in state.items() if not name.startswith("fc.")}
    assert not loaded(tmp_path / "a.pth", bare)[0].fc.weight.any()


def test_from_scratch_the_head_is_random():
    assert build_model(Architecture.plain(NAME), num_classes=7).fc.weight.any()


def test_a_head_of_another_name(tmp_path, state):
    renamed = {name.replace("fc.", "head."): value for name, value in state.items()}
    model, found = loaded(tmp_path / "a.pth", renamed)
    assert same(model, state, but=("fc.weight", "fc.bias"))
    assert found.left == ("head.weight", "head.bias")
    assert found.fresh == ("fc.weight", "fc.bias")


def test_half_precision(tmp_path, state):
    half = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    model, _ = loaded(tmp_path / "a.pth", half)
    assert same(model, {name: value.to(state[name].dtype) for name, value in half.items()})


QUANTISED = {
    "per tensor": lambda value: torch.quantize_per_tensor(value, 0.01, 0, torch.qint8),
    "per channel": lambda value: torch.quantize_per_channel(
        value, torch.full((len(value),), 0.01), torch.zeros(len(value)), 0, torch.qint8
    ),
}


@pytest.mark.filterwarnings("ignore:.*quantiz.*", "ignore:.*TypedStorage.*")
@pytest.mark.parametrize("kind", QUANTISED)
def test_quantised_weights(tmp_path, state, kind):
    state["conv1.0.weight"] = QUANTISED[kind](state["conv1.0.weight"])
    with pytest.raises(CheckpointError, match=r"a\.pth holds quantised weights; give those that they were"):
        loaded(tmp_path / "a.pth", state)


@pytest.mark.filterwarnings("ignore:.*quantization.*:DeprecationWarning", "ignore:.*TypedStorage.*")
def test_a_network_quantised_by_torch(tmp_path, trained):
    quantised = torch.ao.quantization.quantize_dynamic(trained, {nn.Linear})
    with pytest.raises(CheckpointError, match="holds quantised weights") as caught:
        loaded(tmp_path / "a.pth", quantised.state_dict())
    assert len(str(caught.value).replace(str(tmp_path), "")) < LIMIT


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.bool, torch.complex64])
def test_numbers_that_are_not_weights(tmp_path, state, dtype):
    state["layer1.0.conv1.weight"] = (100 * state["layer1.0.conv1.weight"]).to(dtype)
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(CheckpointError, match=f"holds {name} where .* layer1.0.conv1.weight; give") as caught:
        loaded(tmp_path / "a.pth", state)
    assert len(str(caught.value).replace(str(tmp_path), "")) < LIMIT


@pytest.mark.filterwarnings("ignore:Sparse (CSR|BSR).*")
@pytest.mark.parametrize("layout", ["to_sparse", "to_sparse_csr"])
def test_sparse_weights_are_those_that_they_stand_for(tmp_path, trained, state, layout):
    dense = state["fc.weight"] * (state["fc.weight"] > 0)
    model, found = loaded(tmp_path / "a.pth", {**state, "fc.weight": getattr(dense, layout)()})
    assert same(model, {**state, "fc.weight": dense})
    assert found.notes() == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_other_widths_of_floating_point(tmp_path, state, dtype):
    narrow = {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}
    model, _ = loaded(tmp_path / "a.pth", narrow)
    assert same(model, {name: value.to(state[name].dtype) for name, value in narrow.items()})


def test_norms_without_their_counter(tmp_path, state):
    old = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    assert same(loaded(tmp_path / "a.pth", old)[0], state)


def test_old_format_of_torch(tmp_path, state):
    torch.save({"state_dict": state}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    model = fresh()
    load_checkpoint(model, tmp_path / "a.pth")
    assert same(model, state)


@pytest.mark.parametrize("name", ["a.bin", "a", "a.pth", "a.safetensors"])
def test_the_content_decides_what_a_file_is(tmp_path, state, name):
    save_file(state, tmp_path / name)
    model = fresh()
    load_checkpoint(model, str(tmp_path / name))
    assert same(model, state)
    torch.save(state, tmp_path / name)
    model = fresh()
    load_checkpoint(model, str(tmp_path / name))
    assert same(model, state)


def test_reading_leaves_the_model_as_it_is(tmp_path, state):
    torch.save(with_prefix(state, "model."), tmp_path / "a.pth")
    with torch.device("meta"):
        model = timm.create_model(NAME, num_classes=9)
    assert read_checkpoint(model, tmp_path / "a.pth").fresh == ("fc.weight", "fc.bias")


# What does not fit


def refused(path, model=None):
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(model or fresh(), path)
    return str(error.value)


def test_another_network(tmp_path):
    torch.save(timm.create_model("resnet34").state_dict(), tmp_path / "a.pth")
    assert "layer1.2.conv1.weight is unknown to the model" in refused(
        tmp_path / "a.pth", timm.create_model("resnet18")
    )


def test_a_prefix_is_named_if_the_rest_does_not_fit(tmp_path, state):
    del state["layer1.0.conv1.weight"]
    torch.save(with_prefix(state, "model."), tmp_path / "a.pth")
    message = refused(tmp_path / "a.pth")
    assert "does not fit ResNet (after the prefix 'model.'): layer1.0.conv1.weight is missing." in message


def test_names_that_have_nothing_in_common(tmp_path):
    torch.save({"encoder.patch": torch.zeros(2), "decoder": torch.zeros(2)}, tmp_path / "a.pth")
    assert "(its names are encoder.patch, decoder)" in refused(tmp_path / "a.pth")


def test_gates_in_the_weights(tmp_path):
    built = build_model(Architecture.uniform(NAME, reduction=4), num_classes=5)
    torch.save(built.state_dict(), tmp_path / "a.pth")
    assert "is unknown to the model" in refused(tmp_path / "a.pth")


# Other files


class Foreign:
    pass


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"hyper_parameters": {"path": pathlib.PurePosixPath("x")}}, "pathlib.PurePosixPath"),
        ({"hyper_parameters": {"own": Foreign()}}, "test_checkpoints.Foreign"),
        ({"best": np.float64(0.5)}, "numpy"),
    ],
)
def test_foreign_objects(tmp_path, state, content, named):
    torch.save({"state_dict": state, **content}, tmp_path / "a.ckpt")
    message = refused(tmp_path / "a.ckpt")
    assert f"also holds a {named}" in message
    assert len(message) < LIMIT


@pytest.mark.parametrize("new", [True, False])
def test_a_whole_model_pickled(tmp_path, trained, new):
    torch.save(trained, tmp_path / "a.pth", _use_new_zipfile_serialization=new)
    message = refused(tmp_path / "a.pth")
    assert "timm." in message
    assert "state_dict()" in message
    assert len(message) < LIMIT


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (POINTER, "git-lfs pointer"),
        (b"\n<!DOCTYPE html><html>404</html>", "web page"),
        (b"text", "neither torch.save nor safetensors"),
        (save({"a": torch.zeros(100)})[:200], "safetensors file is damaged"),
    ],
)
def test_files_without_weights(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    message = refused(tmp_path / name)
    assert reason in message
    assert "\n" not in message
    assert len(message) < LIMIT


def test_a_truncated_file(tmp_path, state):
    torch.save(state, tmp_path / "a.pth")
    (tmp_path / "a.pth").write_bytes((tmp_path / "a.pth").read_bytes()[:5000])
    assert len(refused(tmp_path / "a.pth")) < LIMIT


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning")
def test_a_torchscript_archive(tmp_path):
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "a.pt")
    message = refused(tmp_path / "a.pt")
    assert "is a program" in message
    assert len(message) < LIMIT


def test_an_exported_program(tmp_path):
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),)), tmp_path / "a.pt2")
    assert "is a program" in refused(tmp_path / "a.pt2")


def test_arrays_of_numpy(tmp_path):
    np.savez(tmp_path / "a.npz", weight=np.zeros(3))
    assert "NumPy arrays" in refused(tmp_path / "a.npz")


def test_a_zip_of_other_files(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "weights")
    assert len(refused(tmp_path / "a.zip")) < LIMIT


@pytest.mark.parametrize(
    "content", [{}, {"epoch": 3}, [1, 2], {"state_dict": {}}, {"model": None}, torch.zeros(2)]
)
def test_no_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    message = refused(tmp_path / "a.pth")
    assert "no state dict" in message
    assert len(message) < LIMIT


def test_a_folder_and_a_missing_file(tmp_path):
    assert "is a folder" in refused(tmp_path)
    assert "does not exist" in refused(tmp_path / "absent.pth")


@pytest.mark.parametrize(
    ("path", "error", "reason"),
    [
        ("", ConfigError, "path is empty; give a path"),
        ("  ", CheckpointError, "checkpoint is '  '"),
        (None, ConfigError, "path is None; it must be a string or a path"),
        (3, ConfigError, "path is 3; it must be a string or a path"),
    ],
)
def test_an_empty_path(path, error, reason):
    with pytest.raises(error, match=reason):
        load_checkpoint(fresh(), path)
    if path is not None:
        with pytest.raises(error, match="checkpoint is "):
            build_model(Architecture.uniform(NAME, reduction=4), checkpoint=path)
