"""Open axes of a model: the batch size N and the number of time steps T."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from synapse_onnx.model.layout import has_time

__all__ = ["AXES", "excerpt", "least_steps", "named_symbols", "open_axes", "steps_per_bin", "widen"]

#: what the open axes are, for sentences
AXES = {"N": "batch size N", "T": "number of time steps T"}


def steps_per_bin(network: nn.Module) -> int:
    """Return the number of steps in a bin of time, 1 without bins.

    All chunks of a sequence hold a multiple of it, except the last.
    """
    layers = [layer for layer in nn.Module.modules(network) if hasattr(layer, "describe")]
    return math.prod(getattr(layer, "factor", 1) for layer in layers)


def least_steps(network: nn.Module) -> int:
    """Return how many steps a network takes at least, where its loop or an output leaves some out.

    Of fewer steps none or one is left, and the tracer takes a size of 1 as a constant.
    """
    return int(getattr(network, "least_steps", 1))


def open_axes(value: Tensor, *, open_time: bool = True) -> dict[int, str]:
    """Return the open axes of an input, with their names: the batch, and time if it has any."""
    if value.dim() < 1:
        return {}
    timed = open_time and has_time(value.dim())
    return {0: "N", value.dim() - 1: "T"} if timed else {0: "N"}


def excerpt(inputs: Sequence[Tensor], steps: int) -> list[Tensor]:
    """Return the first time steps of every input that has a time axis, at most so many."""
    return [x[..., :steps] if has_time(x.dim()) else x for x in inputs]


def widen(network: nn.Module, inputs: Sequence[Tensor], *, open_time: bool = True) -> list[Tensor]:
    """Repeat a batch of 1, and a time of one bin, for the tracer takes a size of 1 as a constant.

    Returns:
        Inputs with a batch of at least 2 and more steps than a bin.
    """
    steps = max(steps_per_bin(network) + 1, least_steps(network))
    widened = []
    for value in inputs:
        repeats = [1] * value.dim()
        for axis, name in open_axes(value, open_time=open_time).items():
            least = steps if name == "T" else 2
            if 0 < value.shape[axis] < least:
                repeats[axis] = -(-least // value.shape[axis])
        # Without repeats no copy is made: for a long sequence it would take longer than the trace,
        # which reads no values. But a view must be, or its strides become conditions on its sizes.
        widened.append(value.contiguous() if set(repeats) <= {1} else value.repeat(repeats))
    return widened


def named_symbols(shape_env: Any) -> dict[Any, tuple[str, str]]:
    """Return symbol -> (name of the axis, the size that it is, like "x.shape[2]")."""
    names: dict[Any, tuple[str, str]] = {}
    for symbol, sources in shape_env.var_to_sources.items():
        source = sources[0].name
        source = source if isinstance(source, str) else source()
        text = source.replace(".size()[", ".shape[")
        start = text.find("['")
        argument, _, rest = text[start + 2 :].partition("']")
        axis = text.rpartition("[")[2].rstrip("]")
        names[symbol] = ("N" if axis == "0" else "T", f"{argument}{rest}")
    return names
