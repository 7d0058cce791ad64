"""Operators over a whole sequence at once: what one step does, done to all steps.

A :class:`Steps` is a sequence (T, ...) that stands for the value (...) of a step. Every rule gives
the very values that a loop over the steps would give.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Steps", "chosen", "for_tensors", "has_rule", "in_turn", "over_steps"]

aten = torch.ops.aten


@dataclass(frozen=True)
class Steps:
    """A sequence (T, ...): the value (...) of every step."""

    values: Tensor

    @property
    def rank(self) -> int:
        """Number of axes of the value of a step."""
        return self.values.dim() - 1


def has_rule(op: Any) -> bool:
    """Whether an operator may be known over a whole sequence, which its arguments decide."""
    return op in _RULES or op is operator.getitem or torch.Tag.pointwise in getattr(op, "tags", ())


def over_steps(op: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return the sequence of an operator's results; None if no rule is known.

    Args:
        op: the operator.
        args: its arguments, some of which are :class:`Steps`; also within lists.
        kwargs: its keyword arguments.
    """
    if op is operator.getitem:
        return args[0][args[1]]
    if any(isinstance(value, Steps) for value in kwargs.values()):
        return None
    rule = _RULES.get(op)
    if rule is None and torch.Tag.pointwise in getattr(op, "tags", ()):
        rule = _elementwise
    return None if rule is None else rule(op, list(args), dict(kwargs))


def in_turn(phases: Steps, values: Mapping[int, Any]) -> Steps:
    """Return at every step what the value of its phase is there."""
    rank = max(value.rank if isinstance(value, Steps) else value.dim()
               for value in (phases, *values.values()) if _has_rank(value))  # fmt: skip
    aligned = {phase: _aligned(value, rank) for phase, value in values.items()}
    return Steps(chosen(_aligned(phases, rank), aligned))


def chosen(phase: Tensor, values: Mapping[int, Any]) -> Any:
    """Return the value of a phase, a tensor: one of these, which are tensors and numbers."""
    dtype = next(value.dtype for value in values.values() if isinstance(value, Tensor))
    (_, result), *others = values.items()
    for number, value in others:
        result = torch.where(phase == number, value, result)
    return result.to(dtype)


def _plain(value: Any) -> Any:
    return value.values if isinstance(value, Steps) else value


def _is_alone(args: Sequence[Any]) -> bool:
    """Whether the first argument is the only sequence."""
    later = [each for arg in args[1:] for each in (arg if isinstance(arg, list) else [arg])]
    return isinstance(args[0], Steps) and not any(isinstance(each, Steps) for each in later)


def for_tensors(op: Any) -> Any:
    """Return the overload of an operator that takes a tensor where this one takes a number."""
    packet = getattr(op, "overloadpacket", None)
    if packet is not None and op._overloadname == "Scalar" and "Tensor" in packet.overloads():
        return packet.Tensor
    return op


def _elementwise(op: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    if any(_has_rank(arg) for arg in args[1:]):
        op = for_tensors(op)
    ranks = [arg.rank if isinstance(arg, Steps) else arg.dim() for arg in args if _has_rank(arg)]
    rank = max(ranks, default=0)
    return op(*(_aligned(arg, rank) for arg in args), **kwargs)


def _has_rank(value: Any) -> bool:
    return isinstance(value, Steps | Tensor)


def _aligned(value: Any, rank: int) -> Any:
    """Give a sequence axes of size 1 after its first, so that its steps have this rank."""
    if not isinstance(value, Steps) or value.rank == rank:
        return _plain(value)
    sizes = value.values.shape
    return value.values.reshape([sizes[0], *[1] * (rank - value.rank), *sizes[1:]])


def _directly(op: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Work on the last axes, whatever comes before them."""
    return op(*map(_plain, args), **kwargs) if _is_alone(args) else None


def _matmul(_: Any, args: list[Any], __: dict[str, Any]) -> Any:
    x, y = args
    if isinstance(x, Steps) and isinstance(y, Steps):
        return torch.matmul(x.values, y.values) if x.rank == y.rank >= 2 else None
    if isinstance(x, Steps) and x.rank >= 1 and y.dim() <= 2:
        return torch.matmul(x.values, y)
    if isinstance(y, Steps) and y.rank >= 2 and x.dim() == 2:
        return torch.matmul(x, y.values)
    return None


def _addmm(_: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    bias, x, weight = args
    if kwargs or isinstance(bias, Steps):
        return None
    product = _matmul(None, [x, weight], {})
    return None if product is None else torch.add(bias, product)


def _as_batch(rank: int) -> Callable[..., Any]:
    """Return the rule of an operator on a batch: T becomes part of the batch."""

    def rule(op: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        x = args[0]
        if not _is_alone(args) or x.rank != rank:
            return None
        sizes = x.values.shape[:2]
        result = op(x.values.flatten(0, 1), *args[1:], **kwargs)
        if isinstance(result, Tensor):
            return _parted(result, sizes)
        return tuple(
            _parted(y, sizes) if isinstance(y, Tensor) and y.dim() == rank else y for y in result
        )

    return rule


def _parted(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return (T * N, ...) as (T, N, ...)."""
    return x.reshape([*sizes, *x.shape[1:]])


def _batch_norm(op: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    x = args[0]
    return _as_batch(x.rank)(op, args, kwargs) if isinstance(x, Steps) else None


def _shifted(*positions: int, default: Any = None) -> Callable[..., Any]:
    """Return the rule of an operator whose arguments at these positions are axes.

    Where the last of them is left out, ``default`` stands for it.
    """

    def rule(op: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if not _is_alone(args):
            return None
        if default is not None and len(args) == positions[-1]:
            args = [*args, default]
        rank = args[0].rank
        if len(args) <= positions[-1]:
            return None
        for i in positions:
            args[i] = _shift(args[i], rank)
            if args[i] is None:
                return None
        return op(*map(_plain, args), **kwargs)

    return rule


def _shift(axes: Any, rank: int) -> Any:
    """Return the axes of a step as axes of the sequence; None where they are not given."""
    if isinstance(axes, list | tuple):
        return [_shift(axis, rank) for axis in axes] if axes else list(range(1, rank + 1))
    if not isinstance(axes, int):
        return None
    return axes + 1 if axes >= 0 else axes


def _total(op: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Sum or mean of all elements."""
    if not _is_alone(args) or args[0].rank == 0:
        return None
    x = args[0].values
    reduced = {aten.sum.default: torch.sum, aten.mean.default: torch.mean}[op]
    return reduced(x, dim=list(range(1, x.dim())), **kwargs)


def _sized(op: Any, args: list[Any], _: dict[str, Any]) -> Any:
    """Reshape or expand: the sizes of a step, after the number of steps."""
    x = args[0]
    if not _is_alone(args):
        return None
    sizes = [x.values.shape[0], *args[1]]
    if op is aten.expand.default:
        return _aligned(x, len(args[1])).expand(sizes)
    return x.values.reshape(sizes)


def _joined(op: Any, args: list[Any], _: dict[str, Any]) -> Any:
    """Concatenate or stack parts of which some are the same at every step."""
    parts, axis = args[0], args[1] if len(args) > 1 else 0
    sequences = [part for part in parts if isinstance(part, Steps)]
    if not sequences:
        return None
    steps = sequences[0].values.shape[0]
    whole = [
        part.values if isinstance(part, Steps) else part.unsqueeze(0).expand(steps, *part.shape)
        for part in parts
    ]
    return op(whole, axis + 1 if axis >= 0 else axis)


def _flattened(op: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Flatten axes; a trace leaves out those that are the first and the last."""
    return _shifted(1, 2)(op, [*args, *[0, -1][len(args) - 1 :]], kwargs)


def _transposed(_: Any, args: list[Any], __: dict[str, Any]) -> Any:
    return args[0].values.transpose(1, 2) if args[0].rank == 2 else args[0].values


def _permuted(_: Any, args: list[Any], __: dict[str, Any]) -> Any:
    x, axes = args
    return x.values.permute([0, *(axis % x.rank + 1 for axis in axes)])


_RULES: Mapping[Any, Callable[..., Any]] = {
    aten._to_copy.default: _elementwise,
    aten.linear.default: _directly,
    aten.softmax.int: _shifted(1),
    aten._softmax.default: _shifted(1),
    aten.layer_norm.default: _directly,
    aten.matmul.default: _matmul,
    aten.mm.default: _matmul,
    aten.bmm.default: _matmul,
    aten.addmm.default: _addmm,
    aten.conv1d.default: _as_batch(3),
    aten.conv2d.default: _as_batch(4),
    aten.conv3d.default: _as_batch(5),
    aten.conv_transpose1d.default: _as_batch(3),
    aten.conv_transpose2d.input: _as_batch(4),
    aten.conv_transpose3d.input: _as_batch(5),
    aten.max_pool1d.default: _as_batch(3),
    aten.max_pool2d.default: _as_batch(4),
    aten.max_pool3d.default: _as_batch(5),
    aten.max_pool2d_with_indices.default: _as_batch(4),
    aten.avg_pool1d.default: _as_batch(3),
    aten.avg_pool2d.default: _as_batch(4),
    aten.avg_pool3d.default: _as_batch(5),
    aten.adaptive_avg_pool1d.default: _as_batch(3),
    aten.adaptive_avg_pool2d.default: _as_batch(4),
    aten.adaptive_max_pool2d.default: _as_batch(4),
    aten.upsample_nearest2d.default: _as_batch(4),
    aten.upsample_nearest2d.vec: _as_batch(4),
    aten.upsample_bilinear2d.vec: _as_batch(4),
    aten.batch_norm.default: _batch_norm,
    aten._native_batch_norm_legit_no_training.default: _batch_norm,
    aten.group_norm.default: _batch_norm,
    aten.instance_norm.default: _batch_norm,
    aten.sum.default: _total,
    aten.mean.default: _total,
    aten.sum.dim_IntList: _shifted(1),
    aten.mean.dim: _shifted(1),
    aten.amax.default: _shifted(1),
    aten.amin.default: _shifted(1),
    aten.max.dim: _shifted(1),
    aten.min.dim: _shifted(1),
    aten.argmax.default: _shifted(1),
    aten.cumsum.default: _shifted(1),
    aten.flip.default: _shifted(1),
    aten.select.int: _shifted(1),
    aten.slice.Tensor: _shifted(1),
    aten.index_select.default: _shifted(1),
    aten.split.Tensor: _shifted(2, default=0),
    aten.split_with_sizes.default: _shifted(2, default=0),
    aten.chunk.default: _shifted(2, default=0),
    aten.unbind.int: _shifted(1, default=0),
    aten.squeeze.dim: _shifted(1),
    aten.unsqueeze.default: _shifted(1),
    aten.transpose.int: _shifted(1, 2),
    aten.t.default: _transposed,
    aten.permute.default: _permuted,
    aten.flatten.using_ints: _flattened,
    aten.unflatten.int: _shifted(1),
    aten.reshape.default: _sized,
    aten.view.default: _sized,
    aten.expand.default: _sized,
    aten.cat.default: _joined,
    aten.stack.default: _joined,
}
