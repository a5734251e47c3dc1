"""Each fault is injected into a real training: memory, divergence, crashing workers, damaged files."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from se_nas.data import ImageData, Images
from se_nas.errors import CheckpointError, DataError, DiskError, InfeasibleError
from se_nas.training import Runtime, train
from se_nas.training.checkpoint import checkpoint_path, load_state, save_state
from se_nas.training.loop import make_batches


def limit_memory(model, largest, training=True):
    """Let a forward pass of more than ``largest`` images fail as torch does when memory runs out."""
    sizes = []

    def check(module, inputs):
        if module.training is training:
            if len(inputs[0]) > largest:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            sizes.append(len(inputs[0]))

    model.register_forward_pre_hook(check)
    return sizes


def test_out_of_memory_halves_the_pass_and_remembers_it(small_net, make_context):
    runtime = Runtime()
    model = small_net()
    sizes = limit_memory(model, 2)
    context = make_context(runtime=runtime, batch_size=8, epochs=1)
    result = train(model, context)
    assert result.state == "complete"
    assert (result.batch_size, result.micro_batch, runtime.micro_batch) == (8, 2, 2)
    assert sizes == [2] * 24

    # The next candidate of the process starts with what was found, and gets the same weights from it.
    other = small_net()
    limit_memory(other, 2)
    again = train(other, make_context(runtime=runtime, batch_size=8, epochs=1))
    assert again.micro_batch == 2
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_accumulated_gradients_are_those_of_the_whole_batch(small_net, make_context):
    """Without batch norm and dropout, a step in four passes is the step in one."""
    weights = []
    for micro in (None, 2, 3):
        model = small_net(dropout=0.0)
        model.stem[1], model.body[1] = torch.nn.Identity(), torch.nn.Identity()
        train(model, make_context(runtime=Runtime(micro_batch=micro), epochs=1, optimizer="sgd", lr=0.1))
        weights.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(weights[0], weights[2], rtol=1e-4, atol=1e-6)


def test_not_even_one_image_fits(small_net, make_context):
    model = small_net()
    limit_memory(model, 0)
    with pytest.raises(InfeasibleError, match=r"net-7 does not fit.*not even one image"):
        train(model, make_context(name="net-7"))


def test_memory_that_runs_out_later_goes_on_from_the_state(small_net, make_context, tmp_path):
    """As when another program takes memory: the first epoch fits, then passes of 8 do not."""
    model = small_net()
    passes = []

    def check(module, inputs):
        if module.training:
            passes.append(len(inputs[0]))
            if len(passes) > 8 and len(inputs[0]) > 4:
                raise MemoryError

    model.register_forward_pre_hook(check)
    result = train(model, make_context(checkpoint_dir=tmp_path))
    assert (result.state, result.micro_batch, result.epochs) == ("complete", 4, 3)
    assert passes == [8] * 9 + [4] * 24


def test_memory_that_runs_out_in_validation(small_net, make_context):
    model = small_net()
    limit_memory(model, 4, training=False)
    result = train(model, make_context(batch_size=8))
    assert (result.state, result.micro_batch) == ("complete", 4)


def test_passes_that_become_too_small_for_batch_norm(small_net, make_context):
    model = small_net()
    model.drop = torch.nn.Sequential(model.drop, torch.nn.BatchNorm1d(16))
    limit_memory(model, 1)
    with pytest.raises(InfeasibleError, match="more than 1 value per channel"):
        train(model, make_context())


def test_other_runtime_errors_pass_through(small_net, make_context):
    model = small_net()
    model.fc = torch.nn.Linear(7, 3)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        train(model, make_context())


def poison(model, passes):
    """Make the outputs of the given training passes (counted from 0) infinite."""
    count = iter(range(10**6))

    def hook(module, inputs, output):
        if module.training and next(count) in passes:
            return output * float("inf")
        return output

    model.register_forward_hook(hook)


def test_divergence_restarts_once_with_a_lower_rate(small_net, make_context, tmp_path):
    model = small_net()
    poison(model, {8})
    result = train(model, make_context(lr=1e-2, checkpoint_dir=tmp_path))
    assert (result.state, result.restarts, result.epochs) == ("complete", 1, 3)
    assert [row["epoch"] for row in result.curve] == [1, 2, 3]

    straight = small_net()
    train(straight, make_context(lr=1e-3))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), straight.parameters(), strict=True))


def test_second_divergence_keeps_the_last_good_value(small_net, make_context, tmp_path):
    model = small_net()
    # Six passes an epoch: the second fails and is looked at after pass 11, the restart fails in its second.
    poison(model, {8, 20})
    result = train(model, make_context(checkpoint_dir=tmp_path))
    assert (result.state, result.restarts, result.epochs) == ("diverged", 1, 1)
    assert result.accuracy == result.curve[-1]["accuracy"]
    assert result.loss == pytest.approx(result.curve[-1]["loss"])
    assert result.weights is None
    assert not list(tmp_path.iterdir())


def test_diverged_before_any_epoch_has_no_value(small_net, make_context):
    model = small_net()
    poison(model, {1, 7})
    result = train(model, make_context())
    assert (result.state, result.accuracy, result.loss, result.curve) == ("diverged", None, None, ())


def test_exploding_but_finite_loss_is_divergence(small_net, make_context):
    result = train(small_net(), make_context(optimizer="sgd", lr=900.0, warmup_epochs=0, weight_decay=0))
    assert (result.state, result.restarts) == ("diverged", 1)


def test_resume_remembers_the_restart(small_net, make_context, tmp_path):
    straight = small_net()
    poison(straight, {2})
    train(straight, make_context())

    model = small_net()
    poison(model, {2})
    polls = iter(range(100))
    cut = train(model, make_context(checkpoint_dir=tmp_path, stop=lambda: next(polls) >= 13))
    assert (cut.state, cut.restarts) == ("unfinished", 1)
    resumed = small_net(seed=3)
    result = train(resumed, make_context(checkpoint_dir=tmp_path))
    assert (result.state, result.restarts) == ("complete", 1)
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))


class DiskImages:
    """Images that are made when they are read; some crash the process that reads them, some are damaged."""

    class_names = ("a", "b", "c")

    def __init__(self, labels, flag=None, damaged=(), crash_always=False):
        self.labels, self.flag, self.damaged, self.crash_always = labels, flag, damaged, crash_always

    def read(self, index):
        if index in self.damaged:
            raise OSError("image file is truncated")
        if self.flag is not None and index == 5 and (self.crash_always or not self.flag.exists()):
            self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        pixels = np.random.default_rng(index).integers(0, 90, (40, 40, 3), dtype=np.uint8)
        label = self.labels[index]
        pixels[:, label * 13 : (label + 1) * 13, label] = 230
        return Image.fromarray(pixels)

    def name(self, index):
        return f"image-{index}"

    def payload(self, index):
        return b""


def disk_data(**faults) -> ImageData:
    labels = np.arange(36) % 3
    samples = DiskImages(labels, **faults)
    splits = [
        Images(labels=torch.from_numpy(labels[part]), samples=samples, indices=part)
        for part in (np.arange(24), np.arange(24, 36))
    ]
    return ImageData(
        name="disk",
        class_names=samples.class_names,
        input_size=(3, 32, 32),
        fingerprint="disk",
        skipped=(),
        train=splits[0],
        val=splits[1],
        test=None,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        split_seed=0,
        mirror=False,
    )


def epochs_of(data, make_context, workers, epochs=(0, 1), start=0, **settings):
    context = make_context(data=data, runtime=Runtime(workers=workers), seed=2, **settings)
    batches = make_batches(context)
    return [
        (images.clone(), targets.clone())
        for epoch in epochs
        for images, targets in batches.epoch(epoch, start)
    ]


def assert_equal_batches(left, right):
    assert len(left) == len(right)
    for (images, targets), (others, wanted) in zip(left, right, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(targets, wanted)


AUGMENTED = {"crop": "random_resized", "auto_augment": "rand-m6-mstd0.5", "mixup": 0.2, "random_erasing": 0.5}


def test_draws_do_not_depend_on_the_number_of_workers(make_context):
    alone = epochs_of(disk_data(), make_context, 0, **AUGMENTED)
    shared = epochs_of(disk_data(), make_context, 2, **AUGMENTED)
    assert len(alone) == 6
    assert_equal_batches(alone, shared)


def test_loader_persists_and_gives_every_candidate_the_same(make_context):
    data = disk_data()
    first = epochs_of(data, make_context, 1, **AUGMENTED)
    assert_equal_batches(first, epochs_of(data, make_context, 1, **AUGMENTED))
    # From the middle of an epoch, as after an interruption.
    assert_equal_batches(first[4:6], epochs_of(data, make_context, 1, epochs=(1,), start=1, **AUGMENTED))


# torch's loader hears of the killed worker once more when it is finalised, where nobody can catch it.
killed_worker = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@killed_worker
def test_crashing_worker_is_restarted_and_nothing_is_lost(make_context, tmp_path):
    expected = epochs_of(disk_data(), make_context, 0)
    flag = tmp_path / "crashed"
    assert_equal_batches(expected, epochs_of(disk_data(flag=flag), make_context, 2))
    assert flag.exists()


@killed_worker
def test_worker_that_crashes_again_and_again_is_an_error(make_context, tmp_path):
    with pytest.raises(DataError, match="crashed 4 times"):
        epochs_of(disk_data(flag=tmp_path / "crashed", crash_always=True), make_context, 1)


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_images_are_skipped_and_counted(small_net, make_context, workers):
    data = disk_data(damaged={3, 4, 30})
    context = make_context(data=data, runtime=Runtime(workers=workers), epochs=2, batch_size=12)
    result = train(small_net(), context)
    assert result.state == "complete"
    assert result.skipped == ("image-3", "image-4")
    assert result.epochs == 2


def test_damaged_validation_image_is_left_out(small_net, make_context):
    from se_nas.training import evaluate

    context = make_context(data=disk_data(damaged=set(range(24, 35))), runtime=Runtime(workers=0))
    metrics = evaluate(small_net(), context)
    assert metrics.per_class[:2] == (None, None)
    assert metrics.per_class[2] in (0.0, 100.0)


def test_nothing_but_damaged_images_is_an_error(make_context):
    with pytest.raises(DataError, match="10 images in a row"):
        epochs_of(disk_data(damaged=set(range(24))), make_context, 0)


def test_full_disk_is_a_clear_error_and_leaves_no_rest(small_net, make_context, tmp_path, monkeypatch):
    def full(*args, **keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DiskError, match=r"No space left on device\. Make room on that disk"):
        train(small_net(), make_context(checkpoint_dir=tmp_path))
    assert not list(tmp_path.iterdir())


def test_killed_while_writing_leaves_the_last_state(tmp_path, monkeypatch):
    path = checkpoint_path(tmp_path, "net", 0, ".state")
    save_state(path, {"epoch": 1})

    def killed(*args, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save_state(path, {"epoch": 2})
    assert load_state(path)["epoch"] == 1


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 broken zip"])
def test_damaged_state_is_a_clear_error(small_net, make_context, tmp_path, content):
    path = checkpoint_path(tmp_path, "candidate", 0, ".state")
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"candidate-s0\.state"):
        train(small_net(), make_context(checkpoint_dir=tmp_path))


def test_pickled_code_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trapped"),)

    path = tmp_path / "net-s0.state"
    torch.save({"schema": 1, "trap": Trap()}, path)
    with pytest.raises(CheckpointError):
        load_state(path)
    assert not (tmp_path / "trapped").exists()
