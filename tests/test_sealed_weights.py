"""Weights whose file has changed by a bit are not taken for whole."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from se_nas.architecture import Architecture
from se_nas.checkpoints.sealed import load_sealed, save_sealed
from se_nas.errors import CheckpointError, SeNasError
from se_nas.exporting import export_model, load_exported
from se_nas.model import build_model

TENSORS = {
    "weight": torch.arange(24, dtype=torch.float32).view(2, 3, 4),
    "half": torch.linspace(-1, 1, 7).bfloat16(),
    "count": torch.tensor(5),
    "empty": torch.zeros(0, 3),
}


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    path = tmp_path_factory.mktemp("sealed") / "weights.safetensors"
    save_sealed(TENSORS, path, {"format": "pt"})
    return path


def test_what_was_written_comes_back(sealed):
    found = load_sealed(sealed)
    assert found.keys() == TENSORS.keys() == load_file(sealed).keys()
    assert all(torch.equal(found[name], value) for name, value in TENSORS.items())


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_flipped_bit_goes_unnoticed(sealed, tmp_path, data):
    content = bytearray(sealed.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(content)
    try:
        found = load_sealed(damaged)
    except (CheckpointError, SafetensorError, OSError, UnicodeDecodeError):
        return
    # The bit was one of the header's that says nothing about the weights.
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], value) for name, value in TENSORS.items())


def test_files_without_a_digest_are_taken_as_they_are(tmp_path):
    save_file(TENSORS, tmp_path / "old.safetensors")
    assert torch.equal(load_sealed(tmp_path / "old.safetensors")["weight"], TENSORS["weight"])


def test_a_damaged_export_is_refused(tmp_path):
    arch = Architecture.uniform("test_resnet", reduction=16)
    out = tmp_path / "net"
    export_model(arch, build_model(arch, num_classes=3), out, metadata={"input_size": (3, 32, 32)})
    load_exported(out)
    weights = out / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-100] ^= 4
    weights.write_bytes(content)
    with pytest.raises(SeNasError, match=r"the weights in .*model\.safetensors are damaged"):
        load_exported(out)
