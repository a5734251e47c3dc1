"""``torch.compile`` for many networks of one class in one process.

torch stores what it compiled with the code object of a function, which all networks of a class share. After a few
variants (``torch._dynamo.config.recompile_limit``) it runs further ones uncompiled, and before that every call
tries the variants in turn. A search builds dozens of variants, so each gets a separate code object.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FunctionType
from typing import Any, cast

_quiet = ExitStack()


def compile_separately(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Compile a Python function separately from others made by the same ``def`` or ``lambda``.

    Args:
        function: written in Python; calls a network.
        options: of ``torch.compile``.
    """
    import torch

    import_dynamo()
    source = cast(FunctionType, function)
    separate = FunctionType(
        source.__code__.replace(), source.__globals__, source.__name__, None, source.__closure__
    )
    return torch.compile(separate, **options)


def import_dynamo() -> None:
    """Import torch's compiler so that neither this nor a compilation gives the warnings of ``torch_quiet``.

    Creating an optimiser imports the compiler, too.
    """
    with torch_quiet():
        from torch._dynamo.callback import callback_handler as handler
    # ``torch._dynamo.reset`` may have removed them.
    if _begin not in handler.start_callbacks:
        handler.register_start_callback(_begin)
        handler.register_end_callback(_end)


@contextmanager
def torch_quiet() -> Iterator[None]:
    """Ignore what torch and Triton warn about in their own code, where no user can act on it.

    Importing the compiler defines TorchScript modules, which torch 2.9 and later deprecate; compiling reads
    ``.grad`` of what has none. Under ``python -W error`` both would be errors. A hint to allow TF32 would change
    what is measured. Do not enter this at every step: it resets which warnings Python has already shown.
    """
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", category=category, module=r"(torch|triton)(\.|$)")
        for message in ("TensorFloat32 tensor cores", "The .grad attribute of a Tensor"):
            warnings.filterwarnings("ignore", message, category=UserWarning, module=r"torch\.")
        yield


def _begin(*_: Any) -> None:
    _quiet.enter_context(torch_quiet())


def _end(*_: Any) -> None:
    _quiet.close()


class CompilationError(Exception):
    """``torch.compile`` failed: no compiler, an unsupported operation, or a bug in torch."""


@contextmanager
def compilation_errors() -> Iterator[None]:
    """Turn what torch's compiler raises into ``CompilationError`` with the first line of its message."""
    try:
        yield
    except RuntimeError as error:
        # Only a program that compiles has this module, and importing it takes seconds.
        exceptions = sys.modules.get("torch._dynamo.exc")
        if exceptions is None or not isinstance(error, exceptions.TorchDynamoException):
            raise
        raise CompilationError(next((line for line in str(error).splitlines() if line), "")) from error
