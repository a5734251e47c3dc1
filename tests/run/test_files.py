"""Files that are written whole or not at all, with the mode that the user's umask gives."""

from __future__ import annotations

import os
import stat

import pytest
import torch

from se_nas.architecture import Architecture
from se_nas.exporting.package import export_model
from se_nas.model import build_model
from se_nas.run import whole_file, write_json
from se_nas.training.checkpoint import save_state, save_weights


@pytest.fixture(params=[0o022, 0o002, 0o077])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_modes_follow_the_umask(tmp_path, umask):
    write_json(tmp_path / "a.json", {})
    save_state(tmp_path / "a-s0.state", {"epoch": 1})
    save_weights(tmp_path / "a-s0.safetensors", {"a": torch.zeros(2)}, {})
    assert {mode(path) for path in tmp_path.iterdir()} == {0o666 & ~umask}


def test_exported_weights_can_be_read_by_whom_the_umask_lets(tmp_path, umask):
    arch = Architecture.uniform("test_resnet", reduction=4)
    export_model(arch, build_model(arch), tmp_path / "out")
    assert mode(tmp_path / "out" / "model.safetensors") == 0o666 & ~umask


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")

    def write_half():
        with whole_file(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
