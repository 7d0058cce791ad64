"""``reshape``, ``float``, ``1 - x``, ``x + 1`` and the like, traced as operators that are core.

Torch traces them as composite operators, and its exporter traces a program with such an operator
once more to take it apart, which doubles the time of an export (``_translate``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from synapse_onnx._view import contiguous, moved, view
from synapse_onnx.compiler.function_mode import FunctionMode

__all__ = ["AsViews"]

aten = torch.ops.aten

#: methods that convert a tensor to a type
_DTYPES = {
    Tensor.float: torch.float32,
    Tensor.double: torch.float64,
    Tensor.int: torch.int32,
    Tensor.long: torch.int64,
    Tensor.bool: torch.bool,
}


#: functions that convert a tensor to the type that they are given
_CASTS = {Tensor.to, aten.to.dtype}

#: functions of two numbers, of which Python's may be an integer and the tensor's are floats
_SUMS = {
    Tensor.add, Tensor.__add__, Tensor.__radd__, torch.add, aten.add.Tensor,
    Tensor.mul, Tensor.__mul__, Tensor.__rmul__, torch.mul, aten.mul.Tensor,
    Tensor.sub, Tensor.__sub__, torch.sub, aten.sub.Tensor,
    Tensor.div, Tensor.__truediv__, torch.div, aten.div.Tensor,
}  # fmt: skip

#: the largest integer that all floats around it hold
_EXACT = 2**24


class AsViews(FunctionMode):
    """While it is active, these functions call operators that torch's exporter translates."""

    def call(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call a function of torch, or an operator."""
        if function in _FORMS and args:  # not torch.flatten(input=x)
            return _FORMS[function](function, *args, **kwargs)
        if function in _DTYPES and len(args) == 1 and not kwargs:
            return _converted(args[0], _DTYPES[function])
        if function in _CASTS and not kwargs and [*map(type, args[1:])] == [torch.dtype]:
            return _converted(*args)
        if function in _SUMS and not kwargs and len(args) == 2:
            return function(*_of_one_type(*args))
        return function(*args, **kwargs)


def _reshape(_: Any, x: Tensor, *shape: Any, **named: Any) -> Tensor:
    (sizes,) = named.values() if named else shape if len(shape) == 1 else (shape,)
    return view(x, *sizes) if isinstance(sizes, Sequence) else view(x, sizes)


def _flatten(_: Any, x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    start, end = start_dim % max(x.dim(), 1), end_dim % max(x.dim(), 1)
    if start >= end:
        return torch.flatten(x, start_dim, end_dim)  # the tensor itself, or one axis of a number
    return view(x, *x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :])


def _unflatten(function: Any, x: Tensor, dim: Any, sizes: Any) -> Tensor:
    if not isinstance(dim, int):
        return function(x, dim, sizes)  # type: ignore[no-any-return]
    axis = dim % x.dim()
    return view(x, *x.shape[:axis], *sizes, *x.shape[axis + 1 :])


def _contiguous(function: Any, x: Tensor, **named: Any) -> Tensor:
    if named:
        return function(x, **named)  # type: ignore[no-any-return]
    return contiguous(x)


def _moved(_: Any, *args: Any, **named: Any) -> Tensor:
    return moved(*args, **named)


def _subtracted_from(function: Any, x: Tensor, other: Any, *, alpha: Any = 1) -> Tensor:
    """Return ``other - x``."""
    if type(other) in (int, float):
        # as torch.result_type says, which a trace takes for an operator
        kept = x.is_floating_point() or (isinstance(other, int) and x.dtype != torch.bool)
        of_number = torch.int64 if isinstance(other, int) else torch.get_default_dtype()
        other = torch.scalar_tensor(other, dtype=x.dtype if kept else of_number, device=x.device)
    if not isinstance(other, Tensor):  # of NumPy, or a size
        named = {} if alpha == 1 else {"alpha": alpha}
        return function(x, other, **named)  # type: ignore[no-any-return]
    return aten.sub.Tensor(other, x, alpha=alpha)  # type: ignore[no-any-return]


def _normalised(
    function: Any,
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Return ``F.batch_norm`` of statistics that a layer holds, if it is given them."""
    if training or running_mean is None or running_var is None:
        return function(  # type: ignore[no-any-return]
            x, running_mean, running_var, weight, bias, training, momentum, eps
        )
    norm = aten._native_batch_norm_legit_no_training.default
    result: Tensor = norm(x, weight, bias, running_mean, running_var, momentum, eps)[0]
    return result


def _normalised_in_loop(function: Any, x: Tensor, *args: Any) -> Tensor:
    weight, bias, mean, variance, training, momentum, eps, _ = args
    if training or mean is None:
        return function(x, *args)  # type: ignore[no-any-return]
    return _normalised(function, x, mean, variance, weight, bias, False, momentum, eps)


def _transposed(function: Any, x: Tensor, *axes: Any, **named: Any) -> Tensor:
    known = all(isinstance(axis, int) and -x.dim() <= axis < x.dim() for axis in axes)
    if len(axes) != 2 or not known:
        return function(x, *axes, **named)  # type: ignore[no-any-return]
    (dim0, dim1), order = axes, [*range(x.dim())]
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return x.permute(order)


def _of_one_type(one: Any, other: Any) -> tuple[Any, Any]:
    """Return two operands, of which an integer that meets floats is a float: ``x + 1``."""
    if type(one) is int:
        return _of_one_type(other, one)[::-1]
    if type(other) is int and abs(other) <= _EXACT and getattr(one, "dtype", None) == torch.float32:
        return one, float(other)
    return one, other


def _itself(_: Any, x: Tensor) -> Tensor:
    return x


def _zeros(_: Any, x: Tensor) -> Tensor:
    return torch.zeros_like(x)


#: function, or operator of a loop that was found -> what stands for it, given it and its arguments
_FORMS: Mapping[Any, Callable[..., Any]] = {
    **dict.fromkeys((Tensor.reshape, torch.reshape, aten.reshape.default), _reshape),
    **dict.fromkeys((Tensor.flatten, torch.flatten, aten.flatten.using_ints), _flatten),
    **dict.fromkeys((Tensor.unflatten, torch.unflatten, aten.unflatten.int), _unflatten),
    **dict.fromkeys((Tensor.contiguous, aten.contiguous.default), _contiguous),
    **dict.fromkeys((Tensor.movedim, torch.movedim, Tensor.moveaxis, torch.moveaxis), _moved),
    **dict.fromkeys((aten.movedim.intlist, aten.movedim.int), _moved),
    **dict.fromkeys((Tensor.detach_, aten.detach_.default), _itself),
    **dict.fromkeys((Tensor.__rsub__, torch.rsub, aten.rsub.Scalar), _subtracted_from),
    **dict.fromkeys((Tensor.transpose, torch.transpose, aten.transpose.int), _transposed),
    **dict.fromkeys((Tensor.swapaxes, torch.swapaxes), _transposed),
    torch.nn.functional.batch_norm: _normalised,
    aten.batch_norm.default: _normalised_in_loop,
    aten.zero.default: _zeros,
}


def _converted(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x if x.dtype == dtype else aten._to_copy.default(x, dtype=dtype)
