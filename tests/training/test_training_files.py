"""Final weights, the policy that prunes files, and the disk that they take."""

from __future__ import annotations

import time

import pytest
import torch
from safetensors.torch import load_file

from se_nas.errors import CheckpointError, ConfigError, DiskError
from se_nas.training import checkpoint_path, disk_used, prune, read_about, train
from se_nas.training.checkpoint import StateWriter, load_state, save_state


def test_final_weights_are_the_models(small_net, make_context, tmp_path):
    model = small_net()
    result = train(model, make_context(checkpoint_dir=tmp_path, name="abc", seed=2, ema_decay=0.9))
    assert result.weights == tmp_path / "abc-s2.safetensors"
    assert [path.name for path in tmp_path.iterdir()] == ["abc-s2.safetensors"]
    loaded = load_file(result.weights)
    assert loaded.keys() == model.state_dict().keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())
    # The identity start's scale travels with the weights.
    assert loaded["se.gate_scale"].item() == 2.0
    about = read_about(result.weights)
    assert (about["name"], about["seed"], about["epochs"], about["accuracy"]) == (
        "abc",
        2,
        3,
        result.accuracy,
    )


def test_states_are_written_after_every_epoch(small_net, make_context, tmp_path):
    there = []
    path = checkpoint_path(tmp_path, "candidate", 0, ".state")

    def on_epoch(epoch, metrics):
        # Each epoch is reported before its own state is written, and the last needs none.
        deadline = time.monotonic() + 10 * (epoch > 1)
        while time.monotonic() < deadline and (not path.exists() or load_state(path)["epoch"] < epoch - 1):
            time.sleep(0.01)
        there.append(load_state(path)["epoch"] if path.exists() else None)
        return True

    train(small_net(), make_context(checkpoint_dir=tmp_path, on_epoch=on_epoch))
    assert there == [None, 1, 2]
    assert not path.exists()


def test_writes_on_a_thread_what_was_there_at_the_call(tmp_path):
    writer = StateWriter(tmp_path / "a-s0.state")
    tensor = torch.zeros(1000)
    writer.write({"nested": {"list": [tensor]}})
    tensor.fill_(1)
    writer.wait()
    assert load_state(tmp_path / "a-s0.state")["nested"]["list"][0].sum() == 0
    writer.discard()
    writer.close()
    assert not list(tmp_path.iterdir())


def test_rest_of_a_killed_write_is_removed(small_net, make_context, tmp_path):
    (tmp_path / ".candidate-s0.state.x1y2").write_bytes(b"half")
    (tmp_path / ".other-s0.state.x1y2").write_bytes(b"half")
    train(small_net(), make_context(checkpoint_dir=tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"candidate-s0.safetensors", ".other-s0.state.x1y2"}


@pytest.fixture
def folder(tmp_path):
    for name in ("aa-s0", "aa-s1", "bb-s0"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"x" * 100)
    (tmp_path / "bb-s1.state").write_bytes(b"x" * 10)
    (tmp_path / "notes.txt").write_text("mine")
    return tmp_path


@pytest.mark.parametrize(
    ("keep", "left", "freed"),
    [
        ("all", {"aa-s0.safetensors", "aa-s1.safetensors", "bb-s0.safetensors", "bb-s1.state"}, 0),
        ("front", {"aa-s0.safetensors", "aa-s1.safetensors"}, 110),
        ("none", set(), 310),
    ],
)
def test_pruning(folder, keep, left, freed):
    assert disk_used(folder) == 310
    assert prune(folder, keep, {"aa"}) == freed
    assert {path.name for path in folder.iterdir()} == left | {"notes.txt"}
    assert disk_used(folder) == 310 - freed


def test_unknown_policy_and_missing_folder(tmp_path):
    with pytest.raises(ConfigError, match=r"keep is 'some'; allowed: front, all, none"):
        prune(tmp_path, "some")
    assert disk_used(tmp_path / "missing") == 0


def test_state_of_a_newer_schema(small_net, make_context, tmp_path):
    path = checkpoint_path(tmp_path, "candidate", 0, ".state")
    torch.save({"schema": 99}, path)
    with pytest.raises(CheckpointError, match="schema"):
        train(small_net(), make_context(checkpoint_dir=tmp_path))


def test_state_of_another_network(small_net, make_context, tmp_path):
    polls = iter(range(100))
    train(small_net(), make_context(checkpoint_dir=tmp_path, stop=lambda: next(polls) >= 8))
    with pytest.raises(CheckpointError, match="another network"):
        train(small_net(se=False), make_context(checkpoint_dir=tmp_path))


def test_weights_that_are_none(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        read_about(tmp_path / "x.safetensors")


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="cannot be written: File exists"):
        save_state(tmp_path / "file" / "a-s0.state", {})


def test_a_state_of_an_earlier_version_has_no_digest(tmp_path):
    path = tmp_path / "a.state"
    torch.save({"schema": 1, "weights": torch.arange(1000.0)}, path)
    assert load_state(path)["weights"].sum() == 499500
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"the checksum of '.*data/0' is wrong"):
        load_state(path)


def test_pytorch_reads_a_state_as_it_is(tmp_path):
    save_state(tmp_path / "a.state", {"weights": torch.arange(3.0)})
    found = torch.load(tmp_path / "a.state", weights_only=True)
    assert torch.equal(found["weights"], torch.arange(3.0))


def test_no_flipped_bit_of_a_state_goes_unnoticed(tmp_path):
    state = {
        "epoch": 3,
        "name": "one",
        "weights": {"a": torch.arange(40.0), "b": torch.ones(2, 3)},
        "lr": [0.1],
    }
    path, damaged = tmp_path / "a.state", tmp_path / "damaged.state"
    save_state(path, state)
    content = path.read_bytes()
    refused = 0
    for index in range(len(content)):
        changed = bytearray(content)
        changed[index] ^= 1 << index % 8
        damaged.write_bytes(changed)
        try:
            found = load_state(damaged)
        except CheckpointError:
            refused += 1
            continue
        # The bit was one of the archive's own that says nothing about what is in it.
        weights = found.pop("weights")
        assert found == {"schema": 1, "epoch": 3, "name": "one", "lr": [0.1]}
        assert weights.keys() == {"a", "b"}
        assert all(torch.equal(weights[name], tensor) for name, tensor in state["weights"].items())
    assert refused > 1000
