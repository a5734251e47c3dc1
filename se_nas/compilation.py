"""``torch.compile`` for many networks of one class in one process.

torch keeps what it compiled with the code object of a function, and networks of one class share that. After a
few variants (``torch._dynamo.config.recompile_limit``) it runs further ones uncompiled, and before that each
call tries the variants in turn. A search builds dozens of variants, so each gets a code object of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any, cast


def compile_separately(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Compile a Python function, apart from others that were made by the same ``def`` or ``lambda``.

    Args:
        function: written in Python; calls a network.
        options: of ``torch.compile``.
    """
    import torch

    source = cast(FunctionType, function)
    own = FunctionType(
        source.__code__.replace(), source.__globals__, source.__name__, None, source.__closure__
    )
    return torch.compile(own, **options)


class CompilationError(Exception):
    """``torch.compile`` could not do it: no compiler, an operation that it lacks, a fault of its own."""


@contextmanager
def compilation_errors() -> Iterator[None]:
    """Turn what torch's compiler raises into ``CompilationError`` with one line of it."""
    try:
        yield
    except RuntimeError as error:
        # Only a program that compiles has this module, and importing it takes seconds.
        exceptions = sys.modules.get("torch._dynamo.exc")
        if exceptions is None or not isinstance(error, exceptions.TorchDynamoException):
            raise
        raise CompilationError(next((line for line in str(error).splitlines() if line), "")) from error
