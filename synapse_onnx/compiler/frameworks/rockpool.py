"""Rockpool: modules keep their states as attributes, and are reset before each sequence.

``Sequential`` records ``copy.copy(x)`` of what every part returns, of which a tracer loses sight.
So it records a clone while it is traced.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
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
    """Makes ``copy.copy`` of a tensor an operator."""

    def call(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call a function of torch."""
        if function is Tensor.__reduce_ex__:
            return torch.clone, args[:1]
        return function(*args, **kwargs)


FRAMEWORK = Framework(
    "rockpool",
    reset=_reset,
    start=_reset,
    takes_sequences=_takes_sequences,
    in_plain_torch=_CopiesAsClones,
)
