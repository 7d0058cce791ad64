"""Whether a rounding decides: torch again, with floats rounded as another program may round them.

Two right programs add the same numbers in another order, so their sums differ in the last digits.
One such digit can put a voltage above its threshold, and all that follows is another trajectory.
Here every operator on float32 is rounded another way, at random; results that are exact stay as
they are. A place where the network then gives other values is one where roundings decide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from synapse_onnx.model.layout import has_time

__all__ = [
    "ROUNDING",
    "Decided",
    "OtherRoundings",
    "decided",
    "differing_output",
    "differs",
    "largest",
]

aten = torch.ops.aten

#: runs with other roundings: one that decides shows in half of them
_RUNS = 6

#: errors of sums, in units of half the last digit of the sum of magnitudes
_SUMS = 4.0

#: float32 sums in another order, relative to the largest value
ROUNDING = 1e-4

#: operators that add many products, linear in each of the arguments
_PRODUCTS = {
    aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default,
    aten.convolution.default, aten.mv.default, aten.dot.default, aten.sum.default,
    aten.sum.dim_IntList, aten.mean.default, aten.mean.dim, aten.cumsum.default,
}  # fmt: skip


class OtherRoundings(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Rounds what operators of torch compute in float32 another way.

    Args:
        seed: of the random numbers that say which way.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._generator = torch.Generator().manual_seed(seed)

    def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator, and move a result that is not exact within its rounding."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if (
            not isinstance(result, Tensor)
            or result.dtype != torch.float32
            or func.namespace != "aten"
            or func.is_view
            or func._schema.is_mutable
        ):
            return result
        try:
            precise = func(*_in_double(args), **_in_double(kwargs))
            sizes = func(*_in_double(args, torch.abs), **kwargs) if func in _PRODUCTS else precise
        except (RuntimeError, TypeError):  # an operator that takes no doubles
            return result
        if precise.dtype != torch.float64 or bool((precise == result).all()):
            return result
        size = _SUMS if func in _PRODUCTS else 2.0
        way = torch.rand(precise.shape, generator=self._generator, dtype=torch.float64) * 2 - 1
        moved = (precise + way * sizes.abs() * size * 2**-24).float()
        return torch.where(precise == result, result, moved)


def _in_double(values: Any, function: Callable[[Tensor], Tensor] | None = None) -> Any:
    def double(x: Tensor) -> Tensor:
        x = x.double() if x.dtype == torch.float32 else x
        return x if function is None or not x.dtype.is_floating_point else function(x)

    return torch.utils._pytree.tree_map_only(Tensor, double, values)


def differs(one: Tensor, other: Tensor, allowed: float) -> Tensor:
    """Return where two tensors of one shape differ by more than is allowed; NaN is like NaN."""
    return ~torch.isclose(one.double(), other.double(), rtol=0, atol=allowed, equal_nan=True)


@dataclass(frozen=True)
class Decided:
    """Until when no rounding decides on the outputs of a network, for each sample.

    Attributes:
        until: the first step of each sample at which one does, (N,); the number of steps if none.
        steps: number of time steps.
    """

    until: Tensor
    steps: int

    def covers(self, y: Tensor) -> Tensor:
        """Return which values of an output (N, ...[, T]) are decided, a bool of its shape.

        A value without time is of the whole sample, one without a batch of all samples.
        """
        until = self.until.reshape(-1, *[1] * (y.dim() - 1)) if _has_batch(y, self) else None
        end = self.until.min() if until is None else until
        step = torch.arange(self.steps) if _has_steps(y, self) else torch.tensor(self.steps - 1)
        return (step < end).expand(y.shape)

    def ended_where(self, moved: Tensor) -> Decided:
        """Return the same with an end where values of an output have moved."""
        if not moved.any():
            return self
        until = self.until.clone()
        rows = (
            moved
            if _has_batch(moved, self)
            else moved.unsqueeze(0).expand(len(until), *moved.shape)
        )
        rows = rows.reshape(len(until), -1, self.steps if _has_steps(moved, self) else 1).any(1)
        first = rows.int().argmax(1)  # 0 where there is no time
        return Decided(torch.where(rows.any(1), until.minimum(first), until), self.steps)


def _has_batch(y: Tensor, decided: Decided) -> bool:
    return y.dim() > 0 and y.shape[0] == len(decided.until)


def _has_steps(y: Tensor, decided: Decided) -> bool:
    return has_time(y.dim()) and y.shape[-1] == decided.steps


def decided(
    call: Callable[[Sequence[Tensor]], Sequence[Tensor]],
    inputs: Sequence[Tensor],
    expected: Sequence[Tensor],
    found: Sequence[Tensor],
    allowed: Sequence[float],
) -> Decided:
    """Return until when no rounding decides on what a network returns, where two results differ.

    Args:
        call: runs a fresh copy of the network on inputs, and returns its outputs (N, ...[, T]).
        inputs: what it was given, with a batch as the first axis or without.
        expected: what it returned.
        found: what another program returned, of the same shapes.
        allowed: of every output, differences that do not count.
    """
    steps = max((y.shape[-1] for y in expected if has_time(y.dim())), default=1)
    samples = max((y.shape[0] for y in expected if y.dim()), default=1)
    whole = Decided(torch.full((samples,), steps), steps)
    far = whole
    for pair in zip(expected, found, allowed, strict=True):
        far = far.ended_where(differs(*pair))
    rows = (far.until < steps).nonzero().squeeze(1)  # the others need not run
    if not len(rows):
        return whole
    inputs = [x[rows] if x.dim() and x.shape[0] == samples else x for x in inputs]
    with torch.no_grad():
        usual = call(inputs)  # of so few samples, which a batch may sum otherwise, too
    found_rows = Decided(whole.until[rows], steps)
    for seed in range(_RUNS):
        with torch.no_grad(), OtherRoundings(seed):
            outputs = call(inputs)
        for y, other, limit in zip(usual, outputs, allowed, strict=True):
            if y.shape == other.shape:
                found_rows = found_rows.ended_where(differs(y, other, limit))
    return Decided(whole.until.index_copy(0, rows, found_rows.until), steps)


def differing_output(
    call: Callable[[Sequence[Tensor]], Sequence[Tensor]],
    inputs: Sequence[Tensor],
    expected: Sequence[Tensor],
    found: Sequence[Tensor],
) -> int | None:
    """Return the index of the first output that differs by more than roundings; None without.

    Args:
        call: runs a fresh copy of the network on inputs, and returns its outputs (N, ...[, T]).
        inputs: what it was given.
        expected: what it returned.
        found: what another program returned, of the same shapes.
    """
    allowed = [ROUNDING * largest(y) for y in expected]
    far = [differs(*each) for each in zip(expected, found, allowed, strict=True)]
    if not any(bool(each.any()) for each in far):
        return None
    clear = decided(call, inputs, expected, found, allowed)
    for i, one in enumerate(expected):
        if bool((far[i] & clear.covers(one)).any()):
            return i
    return None


def largest(y: Tensor) -> float:
    """Return the largest magnitude of finite values; 0 where there are none."""
    return float(torch.where(y.isfinite(), y, 0).double().abs().max()) if y.numel() else 0.0
