import subprocess
import sys
import warnings

import pytest
import torch

from se_nas.compilation import (
    CompilationError,
    compilation_errors,
    compile_separately,
    torch_quiet,
)
from se_nas.cost import LatencySettings
from se_nas.cost.backends import torch as torch_backend
from se_nas.errors import ConfigError

pytestmark = pytest.mark.usefixtures("quiet_compiler")


def powers(exponent):
    return lambda x: x**exponent


@torch._dynamo.config.patch(recompile_limit=4)
def test_variants_do_not_use_up_each_other():
    """torch alone would run variants of one function beyond its limit uncompiled."""
    counters = torch._dynamo.utils.counters
    compiled = []
    torch._dynamo.reset()
    before = counters["stats"]["unique_graphs"]
    variants = 8
    x = torch.tensor([1.0, 2.0])
    for exponent in range(2, variants + 2):
        compiled.append(compile_separately(powers(exponent), backend="eager", dynamic=False))
        assert compiled[-1](x).tolist() == [1.0, 2.0**exponent]
    assert counters["stats"]["unique_graphs"] - before == variants
    for exponent, function in enumerate(compiled, 2):
        assert function(x).tolist() == [1.0, 2.0**exponent]
    assert counters["stats"]["unique_graphs"] - before == variants


def refuse(graph, inputs):
    raise ValueError("no compiler here")


def test_failures_of_the_compiler_end_in_one_line():
    function = compile_separately(powers(2), backend=refuse)
    with pytest.raises(CompilationError, match=r"^backend='refuse' raised:"), compilation_errors():
        function(torch.ones(2))


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="mine"), compilation_errors():
        raise RuntimeError("mine")


def test_latency_of_a_network_that_cannot_be_compiled_is_refused(monkeypatch):
    monkeypatch.setattr(
        torch_backend, "compile_separately", lambda function: compile_separately(function, backend=refuse)
    )
    settings = LatencySettings(input_size=(3, 4, 4), mode="compile")
    with pytest.raises(ConfigError, match=r"latency mode 'compile' does not work here: .*choose eager"):
        torch_backend.prepare(torch.nn.Conv2d(3, 2, 1), torch.zeros(1, 3, 4, 4), settings)


def warn_in(module, category, text="old"):
    """As a line of that module would."""
    exec(
        "import warnings; warnings.warn(text, category)",
        {"__name__": module, "category": category, "text": text},
    )


@pytest.mark.parametrize("module", ["torch", "torch.jit._script", "triton.language.core"])
@pytest.mark.parametrize("category", [DeprecationWarning, FutureWarning])
def test_torch_may_use_what_it_deprecates(module, category):
    with pytest.warns(category, match="old"):
        warn_in(module, category)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with torch_quiet():
            warn_in(module, category)


@pytest.mark.parametrize(
    ("module", "category"),
    [("torch.optim", UserWarning), ("torchvision", DeprecationWarning), ("se_nas.model", DeprecationWarning)],
)
def test_other_warnings_pass(module, category):
    with pytest.warns(category, match="old"), torch_quiet():
        warn_in(module, category)


def deprecate(graph, inputs):
    warn_in("torch._inductor.lowering", DeprecationWarning)
    warn_in("torch._inductor.compile_fx", UserWarning, "TensorFloat32 tensor cores are available")
    return graph


def test_a_compiler_that_deprecates_itself_compiles():
    compiled = compile_separately(powers(2), backend=deprecate)
    assert compiled(torch.tensor([3.0])).tolist() == [9.0]
    with pytest.warns(DeprecationWarning, match="old"):
        warn_in("torch", DeprecationWarning)


def test_compilation_stays_quiet_after_a_reset_and_a_failure():
    for backend in (refuse, deprecate):
        torch._dynamo.reset()
        compiled = compile_separately(powers(3), backend=backend)
        if backend is refuse:
            with pytest.raises(CompilationError), compilation_errors():
                compiled(torch.tensor([2.0]))
        else:
            assert compiled(torch.tensor([2.0])).tolist() == [8.0]
        with pytest.warns(DeprecationWarning, match="old"):
            warn_in("torch", DeprecationWarning)


STRICT = """
import torch
from se_nas.architecture import Architecture
from se_nas.cost import measure_latency
from se_nas.model import build_model
from se_nas.training.compiling import compile_blocks
from se_nas.training.optim import make_optimizer
from se_nas.training.recipe import Recipe

arch = Architecture.uniform("test_resnet", reduction=16)
latency = measure_latency(arch, input_size=(3, 32, 32), mode="compile", max_seconds=0.1)
assert latency.conditions["mode"] == "compile"
model = compile_blocks(build_model(arch, num_classes=10))
optimizer = make_optimizer(model, Recipe())
before = [parameter.detach().clone() for parameter in model.parameters()]
model(torch.randn(4, 3, 32, 32)).square().mean().backward()
optimizer.step()
assert any(not torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))
print("done")
"""


@pytest.mark.slow
def test_compiling_works_where_warnings_are_errors():
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", STRICT], capture_output=True, text=True, timeout=280
    )
    assert found.stdout.strip() == "done", found.stderr
