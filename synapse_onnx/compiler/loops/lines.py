"""Values of earlier steps that a sequence is given in front, as a causal convolution reads them.

A pad along time, or zeros that are put before a sequence, delay it or let the first steps read what
was before them. A chunk of a stream has the last steps of the chunk before in their place::

    pad(x, (k, 0))            ->  cat(line, x),         line = the last k steps of it
    pad(x, (k, -k))           ->  cat(line, x)[..., :T]
    cat([zeros(.., k), x])    ->  cat(line, x)
    cat([zeros(.., k), x[..., :-k]])          ->  cat(line, x)[..., :T]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from synapse_onnx.compiler.loops.form import Apply
from synapse_onnx.compiler.loops.numbers import Formula
from synapse_onnx.compiler.loops.reading import SLICE

__all__ = ["Front", "front_of"]

aten = torch.ops.aten


@dataclass(frozen=True)
class Front:
    """Steps that are put before a sequence.

    Attributes:
        source: the sequence, a whole value of a form.
        axis: where they are put, from the last axis (-1) on.
        count: how many.
        start: the number that they are at the start.
        cut: whether as many are cut off at the end.
    """

    source: Any
    axis: int
    count: int
    start: float
    cut: bool

    def by_sample(self, x: Tensor, batch: int) -> Tensor | None:
        """Return a sequence with two first axes, (N, 1, ...), or (N, C, ...) of (N * C, ...)."""
        x = x.movedim(self.axis, -1)
        whole = bool(batch) and x.shape[0] % batch == 0
        return x.reshape([batch, -1, *x.shape[1:]]) if whole and x.numel() else None

    def line(self, x: Tensor, batch: Any) -> Tensor:
        """Return what is before a sequence at the start of a stream, as ``by_sample`` has it."""
        sizes = x.movedim(self.axis, -1).shape[:-1]
        return torch.full([batch, sizes[0] // batch, *sizes[1:], self.count], self.start).to(x)

    def joined(self, line: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sequence with its line in front, and the line of the next chunk."""
        x, steps = x.movedim(self.axis, -1), x.shape[self.axis]
        longer = torch.cat([line.flatten(0, 1), x], -1)
        whole = longer[..., :steps] if self.cut else longer
        return whole.movedim(-1, self.axis), longer[..., steps:].reshape(line.shape)


def front_of(value: Apply) -> Front | None:
    """Return what a pad or a concatenation puts before a sequence; None if it is no such."""
    if value.op in (aten.pad.default, aten.constant_pad_nd.default):
        return _of_pad(value)
    if value.op is aten.cat.default:
        return _of_cat(value)
    return None


def _of_pad(value: Apply) -> Front | None:
    source, sizes, *rest = value.args
    if value.op is aten.pad.default:
        mode = rest.pop(0) if rest else value.kwargs.get("mode", "constant")
        if mode != "constant":
            return None
    number = rest[0] if rest else value.kwargs.get("value", 0)
    if not all(isinstance(size, int) for size in sizes):
        return None
    padded = [i for i in range(len(sizes) // 2) if sizes[2 * i] or sizes[2 * i + 1]]
    if len(padded) != 1:
        return None
    front, back = sizes[2 * padded[0] : 2 * padded[0] + 2]
    if front < 1 or back not in (0, -front) or not isinstance(number, int | float | None):
        return None
    return Front(source, -1 - padded[0], front, float(number or 0), back < 0)


def _of_cat(value: Apply) -> Front | None:
    parts = value.args[0]
    axis = value.args[1] if len(value.args) > 1 else value.kwargs.get("dim", 0)
    if len(parts) != 2 or not isinstance(parts[0], Apply) or parts[0].op is not aten.full.default:
        return None
    sizes, number = parts[0].args[:2]
    axis = axis if axis < 0 else axis - len(sizes)
    count = sizes[axis]
    if not isinstance(count, int) or count < 1 or not isinstance(number, int | float):
        return None
    rest = _all_but(parts[1], axis, count, len(sizes))
    return Front(parts[1] if rest is None else rest, axis, count, float(number), rest is not None)


def _all_but(value: Any, axis: int, count: int, rank: int) -> Any:
    """Return the sequence of which a value is all but so many last steps; None if it is none."""
    if not isinstance(value, Apply) or value.op is not SLICE or len(value.args) != 4:
        return None
    source, sliced, start, end = value.args
    if sliced % rank != axis % rank or start not in (0, None):
        return None
    if isinstance(end, Formula):
        at_two_sizes = all(end.at(steps, 3) == steps - count for steps in (1000, 2000))
        return source if end.is_whole and at_two_sizes else None
    return source if end == -count else None
