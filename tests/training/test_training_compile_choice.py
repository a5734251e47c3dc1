import functools

import pytest
import torch

from se_nas import Architecture, build_model, find_sites
from se_nas.study import SearchConfig
from se_nas.study.plan import resolve
from se_nas.training import (
    CompileChoice,
    Runtime,
    StepTime,
    block_structures,
    choose_compile,
    compile_blocks,
    session,
    timing,
    train,
)
from se_nas.training import compile_choice as module

FRAMES = torch._dynamo.utils.counters


@pytest.fixture
def measured(monkeypatch):
    """Steps take ``eager``, ``graphs`` or ``compiled`` seconds, compiling takes ``spent`` and a trial of graphs
    ten; six steps an epoch. Without ``graphs`` they cannot be captured.
    """

    def make(eager, compiled, spent=0.0, graphs=None):
        clock, calls = [0.0], []

        def measure(model, context):
            runtime = context.runtime
            calls.append("compiled" if runtime.compile else "graphs" if runtime.graphs else "eager")
            clock[0] += spent if runtime.compile else 10 * runtime.graphs
            step = compiled if runtime.compile else graphs if runtime.graphs else eager
            if step is None:
                runtime.graphs, runtime.graphs_error = False, "it waits for the device"
                step = eager
            if isinstance(step, Exception):
                raise step
            return StepTime(step=step, validation=0.0, steps=6)

        monkeypatch.setattr(module, "measure_step_time", measure)
        monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])
        return calls

    return make


@pytest.mark.parametrize(
    ("eager", "compiled", "spent", "candidates", "variants", "pays"),
    [
        (10.0, 8.0, 500.0, 20, 1.0, True),
        (10.0, 8.0, 500.0, 10, 1.0, False),
        (10.0, 8.0, 500.0, 20, 2.0, False),
        (10.0, 11.0, 0.0, 1000, 1.0, False),
    ],
)
def test_compiling_must_earn_its_time(
    small_net, make_context, measured, eager, compiled, spent, candidates, variants, pays
):
    """20 candidates of 3 epochs of 6 steps save 2 s each: 720 s; 10 save 360 s."""
    measured(eager, compiled, spent)
    context = make_context(compile="auto", runtime=Runtime(device="cuda:0"))
    choice = choose_compile(small_net(), context, candidates=candidates, variants=lambda: variants)
    assert choice.compile is pays
    assert choice.reason.startswith("on: " if pays else "off: ")
    assert (choice.eager_step, choice.compiled_step, choice.compile_seconds) == (eager, compiled, spent)
    assert context.runtime.compile is False


@pytest.mark.parametrize(
    ("device", "candidates", "seconds", "tried"),
    [
        # 8 minutes of search are never enough, nor 20 candidates of 18 steps of at most 10 s on a CPU.
        ("cpu", 20, 288.0, []),
        ("cuda:0", 20, 60.0, []),
        ("cuda:0", 20, 288.0, ["eager", "graphs"]),
        ("cpu", 20, None, []),
        ("mps", 10**6, None, []),
        # 2,000 such candidates might be; a step takes 0.1 s, so it is an hour.
        ("cpu", 2000, None, ["eager"]),
        ("cuda:0", 2000, None, ["eager", "graphs", "compiled"]),
        ("cpu", 20, 1e5, ["eager", "compiled"]),
    ],
)
def test_auto_is_tried_only_where_it_can_pay(
    small_net, make_context, measured, device, candidates, seconds, tried
):
    calls = measured(0.1, 0.05)
    context = make_context(compile="auto", runtime=Runtime(device=device))
    choice = choose_compile(small_net(), context, candidates=candidates, seconds=seconds)
    assert calls == tried
    assert choice.compile is ("compiled" in tried)
    assert choice.compile or choice.reason.startswith("off: not tried")


@pytest.mark.parametrize(
    ("graphs", "pays", "reason"),
    [
        (0.4, True, "; CUDA graphs: 400.0 ms per step instead of 1000.0 ms"),
        (0.5, False, "; no CUDA graphs: 500.0 ms per step instead of 1000.0 ms"),
        (None, False, "; no CUDA graphs: it waits for the device"),
    ],
)
def test_graphs_must_earn_their_capture(small_net, make_context, measured, graphs, pays, reason):
    """Three epochs of six steps save 10.8 or 9 s a candidate; the trial takes ten."""
    measured(1.0, 0.3, 7.0, graphs)
    context = make_context(compile="auto", runtime=Runtime(device="cuda:0"))
    choice = choose_compile(small_net(), context, candidates=20)
    assert choice.graphs is pays
    assert choice.graphs_step == graphs
    assert choice.reason.endswith(reason)
    assert context.runtime.graphs is False
    compiled = choose_compile(small_net(), make_context(compile="on", runtime=context.runtime), candidates=1)
    instead = 400 if pays else 1000
    assert compiled.reason == f"on, as asked: a step takes 300.0 ms instead of {instead}.0 ms{reason}"


def test_off_and_on_are_taken_as_they_are(small_net, make_context, measured):
    calls = measured(0.1, 0.2, 30.0)
    off = choose_compile(small_net(), make_context(compile="off"), candidates=10**6)
    assert off == CompileChoice(compile=False, reason="off, as asked")
    assert calls == []
    on = choose_compile(small_net(), make_context(compile="on"), candidates=1)
    assert on.compile
    assert on.reason == "on, as asked: a step takes 200.0 ms instead of 100.0 ms"


def refuse(graph, inputs):
    raise ValueError("no compiler here")


@pytest.fixture
def no_compiler(monkeypatch):
    for place in (session, timing):
        monkeypatch.setattr(place, "compile_blocks", functools.partial(compile_blocks, backend=refuse))


def test_what_cannot_be_compiled_is_not(small_net, make_context, no_compiler):
    choice = choose_compile(small_net(), make_context(compile="on"), candidates=1)
    assert not choice.compile
    assert choice.reason.startswith("off: compiling fails here: backend='refuse' raised")
    assert choice.eager_step > 0


def test_a_candidate_that_cannot_be_compiled_is_trained_eagerly(small_net, make_context, no_compiler):
    expected = train(small_net(), make_context())
    context = make_context(runtime=Runtime(device="cpu", compile=True))
    result = train(small_net(), context)
    assert (result.state, result.loss, result.epochs) == ("complete", expected.loss, 3)
    assert context.runtime.compile is False
    assert context.runtime.compile_error.startswith("backend='refuse' raised")


def resnet10(widths):
    paths = [site.path for site in find_sites("resnet10t")]
    chosen = {path: width for path, width in zip(paths, widths, strict=True) if width}
    return build_model(Architecture.from_widths("resnet10t", widths=chosen), num_classes=3)


@pytest.mark.usefixtures("quiet_compiler")
def test_candidates_that_differ_in_se_share_the_other_blocks():
    """Only the block with another SE width is compiled again, forward in training and in evaluation."""

    def graphs(model):
        before = FRAMES["stats"]["unique_graphs"]
        compile_blocks(model, backend="eager")
        model.train()(torch.randn(2, 3, 32, 32)).sum().backward()
        with torch.inference_mode():
            model.eval()(torch.randn(2, 3, 32, 32))
        return FRAMES["stats"]["unique_graphs"] - before

    torch._dynamo.reset()
    first = resnet10((0, 8, 0, 0))
    assert len(block_structures(first)) == 4
    assert graphs(first) == 8
    assert graphs(resnet10((0, 8, 0, 0))) == 0
    other = resnet10((0, 16, 0, 0))
    assert len(block_structures(first) | block_structures(other)) == 5
    assert graphs(other) == 2
    assert graphs(resnet10((0, 8, 0, 4))) == 2


def test_a_search_stores_the_decision(tmp_path, measured):
    config = {"backbone": "test_resnet", "objectives": "accuracy,macs", "epochs": 1, "trials": 1}
    config |= {"device": "cpu", "runs": str(tmp_path)}
    default = resolve(SearchConfig(**config))
    assert default.recipe.compile == "auto"
    assert not default.runtime.compile
    assert dict(default.describe())["compile"].startswith("off: not tried")
    measured(0.2, 0.1, 7.0)
    plan = resolve(SearchConfig(**config, compile="on"))
    assert plan.runtime.compile
    assert plan.compilation.to_dict() == {
        "compile": True,
        "reason": "on, as asked: a step takes 100.0 ms instead of 200.0 ms",
        "graphs": False,
        "eager_step": 0.2,
        "graphs_step": None,
        "compiled_step": 0.1,
        "compile_seconds": 7.0,
    }


@pytest.mark.slow
@pytest.mark.usefixtures("quiet_compiler")
def test_code_that_was_generated_trains_like_torch(make_context):
    """With torch's real code generator; losses agree up to rounding."""
    data = make_context(epochs=1)
    eager = train(resnet10((0, 8, 0, 0)), data)
    compiled = make_context(epochs=1, runtime=Runtime(device="cpu", compile=True))
    torch.manual_seed(0)
    result = train(resnet10((0, 8, 0, 0)), compiled)
    assert compiled.runtime.compile
    assert result.loss == pytest.approx(eager.loss, rel=0.2)
