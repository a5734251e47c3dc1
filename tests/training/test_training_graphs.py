"""Steps and validations as CUDA graphs. Without a GPU, recording is played by a stand-in that does what torch's
capture does: it runs the work without leaving a trace, and a replay writes to the gradients of that run."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from se_nas.training import Runtime, Training, capture, choose_compile, evaluate, train
from se_nas.training.evaluation import Evaluation
from se_nas.training.faults import OutOfMemoryError
from se_nas.training.loop import make_batches
from se_nas.training.step import Step

EXACT = {"lr": 2**-8, "schedule": "constant", "warmup_epochs": 0}
"""Rates that are the same in 32 and 64 bits."""


class Recorder:
    """Stand-in for ``capture.record``; counts captures, and fails at those given, counted from 1."""

    def __init__(self):
        self.captures, self.fail, self.changed = 0, (), []

    def __call__(self, work, device):
        self.captures += 1
        if self.captures in self.fail:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        weights = [tensor for tensor in self.changed if isinstance(tensor, nn.Parameter)]
        assert all(weight.grad is None for weight in weights)
        kept = [(tensor, tensor.detach().clone()) for tensor in self.changed]
        with torch.random.fork_rng(devices=[]):
            work()
        with torch.no_grad():
            for tensor, value in kept:
                tensor.copy_(value)
        gradients = [(weight, weight.grad) for weight in weights if weight.grad is not None]

        def replay():
            for weight, gradient in gradients:
                weight.grad = gradient.zero_()
            work()

        return replay


@pytest.fixture
def recorder(monkeypatch):
    made, original = Recorder(), capture.capture

    def remembered(work, changes, *others):
        made.changed = list(changes)
        return original(work, made.changed, *others)

    for place in ("step", "evaluation"):
        monkeypatch.setattr(f"se_nas.training.{place}.capture", remembered)
    monkeypatch.setattr(capture, "record", made)
    return made


def outcome(result):
    return result.state, result.accuracy, result.loss, result.train_loss


@pytest.mark.parametrize(
    "changes",
    [EXACT, {**EXACT, "ema_decay": 0.9, "clip_grad": 0.5, "mixup": 0.2}, {**EXACT, "optimizer": "sgd"}],
    ids=["plain", "average", "sgd"],
)
def test_a_capture_leaves_no_trace_and_holds_the_whole_step(small_net, make_context, recorder, changes):
    expected = train(small_net(), make_context(**changes))
    model, runtime = small_net(), Runtime(graphs=True)
    result = train(model, make_context(runtime=runtime, **changes))
    # A step, and a pass of validation.
    assert recorder.captures == 2
    assert outcome(result) == outcome(expected)
    assert (runtime.graphs, runtime.graphs_error, runtime.graphs_note) == (True, None, None)


@pytest.mark.parametrize("optimizer", ["lamb", "adopt"])
def test_an_optimiser_that_cannot_be_captured_runs_outside(small_net, make_context, recorder, optimizer):
    expected = train(small_net(), make_context(optimizer=optimizer, ema_decay=0.9))
    runtime = Runtime(graphs=True)
    result = train(small_net(), make_context(optimizer=optimizer, ema_decay=0.9, runtime=runtime))
    assert recorder.captures == 2
    assert outcome(result) == outcome(expected)
    assert runtime.graphs
    assert runtime.graphs_note == f"the optimiser {optimizer!r} runs outside of CUDA graphs"


def test_an_optimiser_that_fails_to_be_captured_runs_outside(small_net, make_context, recorder):
    expected = train(small_net(), make_context(**EXACT))
    recorder.fail, runtime = (1,), Runtime(graphs=True)
    result = train(small_net(), make_context(runtime=runtime, **EXACT))
    assert recorder.captures == 3
    assert outcome(result) == outcome(expected)
    assert runtime.graphs_note == (
        "the optimiser 'adamw' runs outside of CUDA graphs: operation not permitted when stream is capturing"
    )


@pytest.mark.parametrize("freeze_epochs", [1, 0.5])
@pytest.mark.parametrize("optimizer", ["adamw", "lamb"])
def test_capture_anew_where_other_weights_are_trained(
    small_net, make_context, recorder, optimizer, freeze_epochs
):
    changes = {**EXACT, "freeze_epochs": freeze_epochs, "optimizer": optimizer}
    expected = train(small_net(), make_context(**changes))
    context = make_context(runtime=Runtime(graphs=True), **changes)
    model = small_net()
    training = Training(model, context)
    while training.advance():
        pass
    assert recorder.captures == 3
    assert outcome(training.result()) == outcome(expected)
    # Another training uses both graphs again.
    model.load_state_dict(small_net().state_dict())
    again = Training(model, make_context(runtime=context.runtime, **changes), training.step)
    while again.advance():
        pass
    assert recorder.captures == 3
    assert outcome(again.result()) == outcome(expected)


def test_steps_in_several_passes_are_not_captured(small_net, make_context, recorder):
    expected = train(small_net(), make_context(runtime=Runtime(micro_batch=4), **EXACT))
    result = train(small_net(), make_context(runtime=Runtime(micro_batch=4, graphs=True), **EXACT))
    assert recorder.captures == 1
    assert outcome(result) == outcome(expected)


@pytest.mark.parametrize("optimizer", ["adamw", "lamb"])
@pytest.mark.parametrize("graphs", [(True, True), (True, False), (False, True)])
def test_goes_on_with_or_without_graphs(small_net, make_context, recorder, tmp_path, optimizer, graphs):
    changes = {**EXACT, "optimizer": optimizer, "ema_decay": 0.9}
    straight = small_net()
    expected = train(straight, make_context(**changes))
    polls, resumed = iter(range(100)), small_net(seed=3)
    before, after = (Runtime(graphs=on) for on in graphs)
    train(
        small_net(),
        make_context(runtime=before, checkpoint_dir=tmp_path, stop=lambda: next(polls) >= 8, **changes),
    )
    result = train(resumed, make_context(runtime=after, checkpoint_dir=tmp_path, **changes))
    assert outcome(result) == outcome(expected)
    for name, tensor in straight.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name])


def test_what_cannot_be_captured_is_trained_without(small_net, make_context, recorder):
    expected = train(small_net(), make_context(**EXACT))
    recorder.fail, runtime = range(100), Runtime(graphs=True)
    result = train(small_net(), make_context(runtime=runtime, **EXACT))
    assert outcome(result) == outcome(expected)
    assert runtime.graphs is False
    assert runtime.graphs_error == "operation not permitted when stream is capturing"


@pytest.fixture
def failing_end(monkeypatch):
    """Stand-ins for torch's capture, whose end fails once something in it has, as CUDA's does."""

    class Graph:
        def __init__(self, graph, **keywords):
            self.mode = keywords["capture_error_mode"]

        def __enter__(self):
            assert self.mode == "thread_local"

        def __exit__(self, kind, error, trace):
            if kind is not None:
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    monkeypatch.setattr(torch.cuda, "graph", Graph)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay="replay"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)


def test_what_ends_a_capture_is_told_and_not_that_it_has_ended(failing_end):
    """Out of memory is the place's fault and lowers their number; another error gives up graphs for good."""
    runs = []

    def full():
        runs.append(1)
        if len(runs) > capture.WARM_UP:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with pytest.raises(OutOfMemoryError, match=r"Tried to allocate 2\.00 GiB"):
        capture.capture(full, (), torch.device("cpu"))

    def waits():
        runs.append(1)
        if len(runs) > 2 * capture.WARM_UP + 1:
            raise RuntimeError("operation not permitted when stream is capturing")

    with pytest.raises(capture.CaptureError, match="not permitted when stream is capturing"):
        capture.capture(waits, (), torch.device("cpu"))
    assert capture.capture(lambda: None, (), torch.device("cpu")) == "replay"


def test_beside_others_a_training_waits_for_its_validation_in_turns(small_net, make_context, monkeypatch):
    asked = []

    def ready(self):
        asked.append(len(asked))
        return len(asked) % 4 == 0

    alone = Training(small_net(), make_context(**EXACT))
    expected = 0
    while alone.advance():
        expected += 1
    monkeypatch.setattr(Evaluation, "ready", property(ready))
    training = Training(small_net(), make_context(**EXACT), alone=lambda: False)
    turns = 0
    while training.advance():
        turns += 1
    epochs = training.result().epochs
    assert turns == expected + 3 * epochs
    assert outcome(training.result()) == outcome(alone.result())
    asked.clear()
    training = Training(small_net(), make_context(**EXACT))
    while training.advance():
        pass
    assert not asked


@pytest.mark.parametrize("size", [7, 24, 512])
def test_validation_by_chunks_is_the_whole(small_net, make_context, recorder, monkeypatch, size):
    """24 images; the last chunk of 7 is filled up, and one of 512 is filled up by far."""
    monkeypatch.setattr("se_nas.training.evaluation.eval_batch", lambda data, runtime: size)
    model, context = small_net(), make_context(runtime=Runtime(graphs=True))
    expected = evaluate(model, make_context())
    assert recorder.captures == 0
    augment = make_batches(context).augment
    validate = Evaluation(model, context.data, augment, context.runtime, repeated=True)
    for _ in range(2):
        found = validate()
        assert found.correct.tolist() == expected.correct.tolist()
        assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    assert recorder.captures == 1


@pytest.mark.gpu
@pytest.mark.parametrize("compile", [False, True])
def test_gpu_graphs_train_like_torch(small_net, make_context, compile):
    plain = train(small_net(), make_context(runtime=Runtime(device="cuda")))
    runtime = Runtime(device="cuda", graphs=True, compile=compile)
    result = train(small_net(), make_context(runtime=runtime))
    assert (runtime.graphs, runtime.graphs_error) == (True, None)
    assert result.train_loss == pytest.approx(plain.train_loss, rel=0.05)


@pytest.mark.gpu
def test_gpu_measures_graphs(small_net, make_context):
    context = make_context(compile="auto", runtime=Runtime(device="cuda"))
    choice = choose_compile(small_net(), context, candidates=10, seconds=600.0)
    assert choice.eager_step > 0
    assert choice.graphs_step > 0


MIXED = {"mixup": 0.2, "cutmix": 1.0, "random_erasing": 0.4, "crop": "random_resized", "hflip": 0.5}


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        MIXED,
        {"optimizer": "sgd", "clip_grad": 0.5, "ema_decay": 0.9},
        {"optimizer": "nadamw"},
        {"optimizer": "muon"},
        {"optimizer": "lamb", "ema_decay": 0.9},
        {"optimizer": "adopt"},
        {"freeze_epochs": 0.5, "backbone_lr_factor": 0.5},
        {"auto_augment": "rand-m6-mstd0.5-inc1"},
    ],
    ids=["plain", "mixed", "sgd", "nadamw", "muon", "lamb", "adopt", "frozen", "policy"],
)
def test_gpu_captured_steps_are_those_of_torch(small_net, make_context, precision, changes):
    """Without dropout, whose draws differ between a graph and its absence; rounding alone is left."""
    losses = []
    for graphs in (False, True):
        runtime = Runtime(device="cuda", precision=precision, graphs=graphs)
        context = make_context(runtime=runtime, precision=precision, epochs=2, **changes)
        result = train(small_net(dropout=0.0), context)
        assert (runtime.graphs, runtime.graphs_error) == (graphs, None)
        outside = graphs and (
            changes.get("optimizer") in ("lamb", "adopt")
            or (precision == "fp16" and changes.get("optimizer") in ("nadamw", "muon"))
        )
        assert (runtime.graphs_note is not None) is outside
        losses.append((result.train_loss, result.loss))
    assert losses[1] == pytest.approx(losses[0], rel=1e-4 if precision == "fp32" else 3e-2)


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "nadamw", "lamb"])
def test_gpu_goes_on_across_a_capture(small_net, make_context, tmp_path, optimizer):
    changes = {"optimizer": optimizer, "ema_decay": 0.9, "clip_grad": 1.0}
    runtime = Runtime(device="cuda", precision="bf16", graphs=True)
    straight = train(small_net(), make_context(runtime=runtime, **changes))
    polls = iter(range(100))
    cut = train(
        small_net(),
        make_context(runtime=runtime, checkpoint_dir=tmp_path, stop=lambda: next(polls) >= 8, **changes),
    )
    assert cut.state == "unfinished"
    result = train(small_net(seed=3), make_context(runtime=runtime, checkpoint_dir=tmp_path, **changes))
    assert result.loss == pytest.approx(straight.loss, rel=1e-3)
    assert result.train_loss == pytest.approx(straight.train_loss, rel=1e-3)


def gpu_losses(step, context, count, seed):
    """The loss of each of ``count`` steps on the same batch."""
    losses = []
    with step.active():
        torch.manual_seed(seed)
        step.set_mode(frozen=False)
        inputs = next(iter(make_batches(context).inputs(0)))
        for _ in range(count):
            step.load(inputs)
            step.run()
            losses.append(step.loss_sum.item())
            step.loss_sum.zero_()
    return losses


@pytest.mark.gpu
def test_gpu_dropout_differs_between_replays_and_follows_the_seed(small_net, make_context):
    """At a rate of practically zero, dropout is all that changes the loss."""
    context = make_context(runtime=Runtime(device="cuda", graphs=True), lr=1e-12, weight_decay=0.0)
    step = Step(context.runtime.place(small_net(dropout=0.5)), context, make_batches(context))
    first = gpu_losses(step, context, 6, seed=1)
    assert len(set(first)) == 6
    assert gpu_losses(step, context, 6, seed=1) == pytest.approx(first, rel=1e-5)
    assert gpu_losses(step, context, 6, seed=2) != pytest.approx(first, rel=1e-5)


@pytest.mark.gpu
def test_gpu_trainings_that_take_turns_are_those_done_alone(small_net, make_context):
    """Each on its own stream, with its own dropout."""

    def contexts():
        runtime = Runtime(device="cuda", graphs=True)
        return [make_context(runtime=runtime, seed=seed) for seed in range(3)]

    alone = [train(small_net(), context).loss for context in contexts()]
    trainings = [Training(small_net(), context) for context in contexts()]
    waiting = list(trainings)
    while waiting:
        waiting = [training for training in waiting if training.advance()]
    assert [training.result().loss for training in trainings] == pytest.approx(alone, rel=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "radam", "rmsprop", "lamb"])
def test_gpu_begun_again_a_captured_step_is_a_new_one(small_net, make_context, optimizer):
    context = make_context(
        runtime=Runtime(device="cuda", graphs=True, precision="bf16"), optimizer=optimizer, ema_decay=0.9
    )
    place = context.runtime.place
    step = Step(place(small_net(seed=5)), context, make_batches(context))
    gpu_losses(step, context, 5, seed=1)
    graphs = dict(step._graphs)
    with step.active(after_others=True):
        step.model.load_state_dict(place(copy.deepcopy(small_net())).state_dict())
        step.begin()
    found = gpu_losses(step, context, 5, seed=2)
    fresh = Step(place(small_net()), context, make_batches(context))
    assert gpu_losses(fresh, context, 5, seed=2) == pytest.approx(found, rel=1e-3)
    assert step._graphs == graphs


@pytest.mark.gpu
def test_gpu_captured_validation_is_that_of_torch(small_net, make_context, monkeypatch):
    monkeypatch.setattr("se_nas.training.evaluation.eval_batch", lambda data, runtime: 7)
    context = make_context(runtime=Runtime(device="cuda", graphs=True))
    model = context.runtime.place(small_net())
    expected = evaluate(model, context)
    step = Step(model, context, make_batches(context))
    with step.active(after_others=True):
        for _ in range(2):
            found = step.validate()
            assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    assert context.runtime.graphs_error is None
