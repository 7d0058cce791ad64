"""A product with a matrix of T x T whose rows are windows of weights: a sum over the last steps. ::

m = torch.zeros(T, T)
for t in range(T):
    first = max(0, t + 1 - k)
    m[t, first : t + 1] = w[k - (t + 1 - first) :]
h = m @ x.flatten(1)    # h[t] = w[0] * x[t - k + 1] + ... + w[k - 1] * x[t]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from synapse_onnx.compiler.loops.terms import Term

__all__ = ["windows"]

aten = torch.ops.aten


def windows(
    rows: tuple[Any, ...], element: Callable[[Term, int], Term]
) -> list[dict[int, Term]] | None:
    """Return what each step multiplies earlier ones by: steps ago -> a weight.

    Args:
        rows: the rows of a square matrix.
        element: returns an element of a vector.

    Returns:
        A window for each row, all with the same steps but those before the first one; None if the
        rows are no windows that end at or before their own step.
    """
    found = [_window(row, t, element) for t, row in enumerate(rows)]
    known = [each for each in found if each is not None]
    if len(known) < len(found) or not known[-1] or min(known[-1]) < 0:
        return None
    whole: Mapping[int, Term] = known[-1]
    fits = all(each.keys() == {ago for ago in whole if ago <= t} for t, each in enumerate(known))
    return known if fits else None


def _window(row: Any, t: int, element: Callable[[Term, int], Term]) -> dict[int, Term] | None:
    """Return the weights of a row of zeros into which a vector was written."""
    if not isinstance(row, Term) or row.op is not aten.slice_scatter.default or row.kwargs:
        return None
    base, part, axis, start, end, *step = row.args
    if axis != 0 or step not in ([], [1]) or not _is_zero(base):
        return None
    return {t - j: _element(part, j - start, element) for j in range(start, end)}


def _is_zero(term: Term) -> bool:
    """Whether a term is a row of zeros."""
    source = term.args[0] if term.op is aten.select.int else term
    return isinstance(source, Term) and source.op is aten.full.default and source.args[1] == 0


def _element(part: Term, i: int, element: Callable[[Term, int], Term]) -> Term:
    """Return an element of a vector, of what it is a part of."""
    if part.op is aten.unsqueeze.default:
        return part.args[0]  # type: ignore[no-any-return]
    if part.op is aten.slice.Tensor and len(part.args) == 4 and part.args[1] == 0:
        return element(part.args[0], part.args[2] + i)
    return element(part, i)
