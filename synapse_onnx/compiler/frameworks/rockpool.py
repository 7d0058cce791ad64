"""Rockpool: modules keep their states as attributes, and are reset before each sequence.

``Sequential`` records ``copy.copy(x)`` of what every part returns, of which a tracer loses sight.
So it records a clone while it is traced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from synapse_onnx.compiler.frameworks._framework import Framework

__all__ = ["FRAMEWORK"]


def _reset(module: Any) -> None:
    """Give a module the states of a fresh one, with those of its parts."""
    if hasattr(module, "reset_state"):
        module.reset_state()


def _takes_sequences(_: Any) -> bool:
    return True


class _CopiesAsClones(TorchFunctionMode):
    """Makes ``copy.copy`` of a tensor an operator."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch."""
        if func is Tensor.__reduce_ex__:
            return torch.clone, args[:1]
        return func(*args, **(kwargs or {}))


FRAMEWORK = Framework(
    "rockpool",
    reset=_reset,
    start=_reset,
    takes_sequences=_takes_sequences,
    in_plain_torch=_CopiesAsClones,
)
