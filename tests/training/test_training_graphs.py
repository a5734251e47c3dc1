"""CUDA graphs in training. Without a GPU, capturing is played by a stand-in that does to a network what torch
does: a few passes in training mode first, then a ``forward`` for one shape."""

import pytest
import torch

from se_nas.training import Runtime, choose_compile, train


@pytest.fixture
def captured(monkeypatch):
    """Stand-in for ``torch.cuda.make_graphed_callables``; gives the shapes of what was captured."""
    shapes = []

    def make_graphed_callables(module, args, allow_unused_input):
        (images,) = args
        original, shape = module.forward, images.shape
        assert module.training
        weights = [weight for weight in module.parameters() if weight.requires_grad]
        for _ in range(3):
            torch.autograd.grad(original(images).sum(), weights, allow_unused=allow_unused_input)

        def forward(images):
            assert images.shape == shape
            return original(images)

        module.forward = forward
        shapes.append(tuple(shape))
        return module

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", make_graphed_callables)
    return shapes


def outcome(result):
    return result.state, result.accuracy, result.loss, result.train_loss


@pytest.mark.parametrize("changes", [{}, {"ema_decay": 0.9}], ids=["plain", "ema"])
def test_passes_before_a_capture_leave_no_trace(small_net, make_context, captured, changes):
    expected = train(small_net(), make_context(**changes))
    model = small_net()
    result = train(model, make_context(runtime=Runtime(graphs=True), **changes))
    assert len(captured) == 1
    assert outcome(result) == outcome(expected)
    assert "forward" not in vars(model)


def test_capture_anew_where_other_weights_are_trained(small_net, make_context, captured):
    expected = train(small_net(), make_context(freeze_epochs=1))
    result = train(small_net(), make_context(freeze_epochs=1, runtime=Runtime(graphs=True)))
    assert len(captured) == 2
    assert outcome(result) == outcome(expected)


def test_no_graphs_where_gradients_are_accumulated(small_net, make_context, captured):
    expected = train(small_net(), make_context(runtime=Runtime(micro_batch=4)))
    result = train(small_net(), make_context(runtime=Runtime(micro_batch=4, graphs=True)))
    assert captured == []
    assert outcome(result) == outcome(expected)


@pytest.fixture
def impossible(monkeypatch):
    def refuse(module, args, allow_unused_input):
        module(*args)
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", refuse)


def test_what_cannot_be_captured_is_trained_without(small_net, make_context, impossible):
    expected = train(small_net(), make_context())
    runtime = Runtime(graphs=True)
    result = train(small_net(), make_context(runtime=runtime))
    assert outcome(result) == outcome(expected)
    assert runtime.graphs is False
    assert runtime.graphs_error == "operation not permitted when stream is capturing"


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
