"""Rockpool: modules keep their states as attributes, and are reset before each sequence.

``Sequential`` records ``copy.copy(x)`` of what every part returns, of which a tracer loses sight.
So it records a clone while it is traced.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any, Self

from torch import Tensor

from synapse_onnx.compiler.frameworks._framework import Framework
from synapse_onnx.compiler.function_mode import FunctionMode

__all__ = ["FRAMEWORK"]


def _reset(module: Any) -> None:
    """Give a module the states of a fresh one, with those of its parts."""
    if hasattr(module, "reset_state"):
        module.reset_state()


def _takes_sequences(_: Any) -> bool:
    return True


class _CopiesAsClones(FunctionMode):
    """Makes ``copy.copy`` of a tensor an operator, in this thread.

    No mode is asked of a tensor with numbers, so the class gets a method meanwhile.
    """

    def __enter__(self) -> Self:
        """Begin."""
        with _lock:
            _active[threading.get_ident()] += 1
            Tensor.__copy__ = _copied  # type: ignore[attr-defined]
        return super().__enter__()  # type: ignore[no-any-return, no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        """End."""
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        with _lock:
            _active[threading.get_ident()] -= 1
            if not +_active:
                del Tensor.__copy__  # type: ignore[attr-defined]

    def call(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call a function of torch."""
        return function(*args, **kwargs)


_lock = threading.Lock()

#: thread -> how many of these modes are active in it
_active: Counter[int] = Counter()


def _copied(tensor: Tensor) -> Any:
    if _active[threading.get_ident()]:
        return tensor.clone()
    function, args = tensor.__reduce_ex__(4)[:2]  # type: ignore[no-untyped-call]
    return function(*args)


FRAMEWORK = Framework(
    "rockpool",
    reset=_reset,
    start=_reset,
    takes_sequences=_takes_sequences,
    in_plain_torch=_CopiesAsClones,
)
