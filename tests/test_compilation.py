import pytest
import torch

from se_nas.compilation import CompilationError, compilation_errors, compile_separately
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
