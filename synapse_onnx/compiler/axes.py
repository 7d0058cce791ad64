"""Where a network has batch and time: (N, C, T), (T, N, C) or (N, T, C), each with H and W or not.

Inside this package time is the last axis. A network of another framework is given its own axes by
:func:`set_axes`, so that all the rest can take it for one of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx._layer import LoopsOverTime
from synapse_onnx._view import moved
from synapse_onnx.compiler.arguments import Arguments
from synapse_onnx.compiler.counting import called, count_called, count_operators
from synapse_onnx.compiler.frameworks import in_plain_torch
from synapse_onnx.compiler.freezer import deployables
from synapse_onnx.compiler.lengths import held_lengths
from synapse_onnx.compiler.steps import OverTime
from synapse_onnx.errors import ExportError
from synapse_onnx.model.layout import LAYOUTS, has_time, time_axis

__all__ = [
    "call_with_axes", "find_axes", "has_code_of_its_own",
    "loops_over_time", "resized", "runs_one_time", "set_axes", "with_time_last",
]  # fmt: skip


#: lengths that tell whether a network runs more where there are more steps: a loop of every tenth
#: step runs as much on 3 steps as on 2, and one that begins late fails on both
_LENGTHS = ((2, 3), (11, 23))


def with_time_last(arguments: Arguments, axes: str) -> Arguments:
    """Return example arguments as this package has them, (N, C[, H, W], T)."""
    if axes == "NCT":
        return arguments
    tensors = tuple(_time_last(x, axes).contiguous() for x in arguments.tensors)
    return Arguments(tensors, arguments.pairs, arguments.named)


def set_axes(network: nn.Module, axes: str) -> None:
    """Make a network take and return (N, C[, H, W], T), in place.

    A list with one tensor for every step is stacked.

    Args:
        network: a copy of a user's network.
        axes: the axes that its ``forward`` is written for: "NCT", "TNC" or "NTC".

    Raises:
        ExportError: it has hooks of its own, which would see other axes.
    """
    if axes == "NCT":
        return
    if network._forward_hooks or network._forward_pre_hooks:
        raise ExportError(
            f"the outermost module has hooks, which are not run where axes is {axes!r}; put the "
            f"network into a module without hooks"
        )
    kind = type(network)
    members: dict[str, Any] = {"__module__": kind.__module__}
    if kind.__call__ is nn.Module.__call__:
        members["forward"] = _forward_of(network, axes)
    else:  # Rockpool's call their parts without forward()
        members["__call__"] = lambda self, *args: call_with_axes(
            partial(kind.__call__, self), args, axes
        )
    network.__class__ = type(kind.__name__, (kind,), members)


def call_with_axes(call: Callable[..., Any], args: Sequence[Any], axes: str) -> Any:
    """Call a function that is written for other axes, with time as the last one of ours."""
    moved = torch.utils._pytree.tree_map_only(Tensor, lambda x: _own(x, axes), list(args))
    result = call(*moved)
    if axes == "NCT":
        return result
    steps = next((x.shape[-1] for x in _tensors(args) if has_time(x.dim())), None)
    return _returned(result, axes, steps)


def _forward_of(network: nn.Module, axes: str) -> Any:
    own = vars(network).pop("forward", None)  # of a caller that has replaced it
    plain = type(network).forward

    def forward(self: nn.Module, *args: Any) -> Any:
        return call_with_axes(partial(plain, self) if own is None else own, args, axes)

    forward.__wrapped__ = plain if own is None else lambda self, *args: own(*args)  # type: ignore[attr-defined]
    return forward


def _tensors(values: Any) -> list[Tensor]:
    return [x for x in torch.utils._pytree.tree_leaves(values) if isinstance(x, Tensor)]


def _returned(value: Any, axes: str, steps: int | None) -> Any:
    if isinstance(value, Tensor):
        return _time_last(value, axes)
    if type(value) is list and steps == len(value) and _are_alike(value):
        return torch.stack(value, dim=-1)
    if type(value) in (list, tuple):
        return type(value)(_returned(each, axes, steps) for each in value)
    return torch.utils._pytree.tree_map_only(Tensor, lambda x: _time_last(x, axes), value)


def _are_alike(values: Sequence[Any]) -> bool:
    return all(isinstance(x, Tensor) and x.shape == values[0].shape for x in values)


def _time_last(x: Tensor, axes: str) -> Tensor:
    return moved(x, time_axis(axes, x.dim()), -1) if has_time(x.dim()) else x


def _own(x: Tensor, axes: str) -> Tensor:
    return moved(x, -1, time_axis(axes, x.dim())) if has_time(x.dim()) else x


# -- found -----------------------------------------------------------------------------------------


def find_axes(network: nn.Module, arguments: Arguments) -> str:
    """Return the axes of a network: it runs more operators where time is longer.

    A network with layers of this package, or without a loop in torch code, has the axes of this
    package. A module of steps has those that were said.
    """
    if isinstance(network, OverTime):
        return network.axes
    own_layer = next(deployables(network), None)
    if own_layer or not any(has_time(x.dim()) for x in arguments.tensors):
        return "NCT"
    for lengths in _LENGTHS:
        growth = {axes: _growth(network, arguments, axes, lengths) for axes in LAYOUTS}
        axes = max(growth, key=lambda axes: growth[axes])
        if growth[axes] > 0:
            return axes
    held = (axes for axes in LAYOUTS if _holds_steps(network, arguments, axes))
    return next(held, None) or _axes_without_loop(network, arguments)


def _holds_steps(network: nn.Module, arguments: Arguments, axes: str) -> bool:
    """Whether a network holds the size of an axis, and runs more operators if it is larger."""

    def inputs(steps: int) -> Sequence[Any]:
        return arguments.grouped([_with_steps(x, steps, axes) for x in arguments.tensors])

    steps = next(x.shape[time_axis(axes, x.dim())] for x in arguments.tensors if has_time(x.dim()))
    return bool(held_lengths(network, inputs, {steps}))


def _axes_without_loop(network: nn.Module, arguments: Arguments) -> str:
    """Return the axes of a network whose operators do not tell: by what it runs with.

    An operator that loops by itself, or a cumulative sum, takes any batch size and time. What is
    made for one number of steps takes another batch size alone.
    """
    is_open = [_runs_with_other(network, arguments, axis) for axis in (0, 1, 2)]
    if is_open[:2] == [False, True]:
        return "TNC"
    if is_open != [True, True, False] or not has_code_of_its_own(network):
        return "NCT"
    remembers = [_remembers(network, arguments, axis) for axis in (0, 1)]
    if remembers[0] == remembers[1]:
        return "NCT"
    return "TNC" if remembers[0] else "NTC"


def _runs_with_other(network: nn.Module, arguments: Arguments, axis: int) -> bool:
    """Whether a network takes its sequences with one index less along an axis, or 2 for 1."""
    sizes = {x.shape[axis] for x in arguments.tensors if has_time(x.dim())}
    tensors = []
    for x in arguments.tensors:
        along = axis if has_time(x.dim()) else 0  # what has no time may have a batch
        size = x.shape[along] if x.dim() and x.shape[along] in sizes else 0
        other = torch.arange(size - 1 if size > 1 else 2) % max(size, 1)
        tensors.append(x.index_select(along, other) if size else x)
    return count_operators(network, arguments.grouped(tensors)) is not None


def _remembers(network: nn.Module, arguments: Arguments, axis: int) -> bool:
    """Whether an output depends on the first index of an axis at a later one."""
    results = []
    for factor in (1, -2, 5):
        tensors = [x.clone() for x in arguments.tensors]
        for x in tensors:
            if has_time(x.dim()):
                x.select(axis, 0).mul_(factor).add_(factor - 1)
        with torch.no_grad(), in_plain_torch():
            results.append(_tensors(called(network, arguments.grouped(tensors))))
    return any(
        y.dim() > axis and not torch.equal(y.narrow(axis, 1, y.shape[axis] - 1), other)
        for changed in results[1:]
        for y, z in zip(results[0], changed, strict=True)
        for other in [z.narrow(axis, 1, z.shape[axis] - 1)]
    )


def runs_one_time(network: nn.Module, inputs: Sequence[Tensor]) -> bool:
    """Whether a network (N, ..., T) of torch code runs the example's number of steps alone.

    A parameter for every step, or a matrix of T x T, fits neither a shorter sequence nor a longer
    one. A loop ``for t in range(10)`` finds no step at the end of a shorter one, and takes no note
    of a longer one.
    """
    timed = [x for x in inputs if has_time(x.dim())]
    if not timed or next(deployables(network), None):
        return False
    steps, batch = timed[0].shape[-1], timed[0].shape[0]
    if steps < 2 or count_operators(network, resized(inputs, steps, batch + 1)) is None:
        return False
    try:
        count_called(network, resized(inputs, steps - 1, batch))
    except Exception as error:  # of any class: it is the user's code
        longer = (resized(inputs, n, batch) for n in (steps + 1, 2 * steps))
        fails = all(count_operators(network, each) is None for each in longer)
        return fails or isinstance(error, IndexError)
    return False


def has_code_of_its_own(network: nn.Module) -> bool:
    """Whether a network has modules that are neither torch's nor layers of this package."""
    if any(isinstance(module, LoopsOverTime) for module in nn.Module.modules(network)):
        return True
    packages = {kind.__module__.partition(".")[0] for kind in map(type, nn.Module.modules(network))}
    return not packages <= {"torch", "synapse_onnx"}


def loops_over_time(network: nn.Module, inputs: Sequence[Tensor]) -> bool:
    """Whether a network (N, ..., T) runs more operators for more time steps.

    A network that fails on so few steps, and on more, does not count as one.
    """
    if not any(has_time(x.dim()) for x in inputs):
        return False
    if isinstance(network, LoopsOverTime):  # whose first call runs more, to see what a step keeps
        return True
    for lengths in _LENGTHS:
        few, more = (count_operators(network, resized(inputs, steps, 2)) for steps in lengths)
        if few is not None and more is not None and more > few:
            return True
    return False


def resized(inputs: Sequence[Tensor], steps: int, batch: int) -> list[Tensor]:
    """Return inputs (N, ..., T) of other sizes: the example's steps and samples again and again."""
    timed = next((x for x in inputs if has_time(x.dim())), None)
    first = next((x for x in inputs if x.dim()), None) if timed is None else timed
    given = None if first is None else first.shape[0]
    results = []
    for x in inputs:
        has_batch = x.dim() > 0 and x.shape[0] == given  # a scale of the whole batch has none
        samples = x[torch.arange(batch) % x.shape[0]] if has_batch else x
        if has_time(x.dim()):
            samples = samples[..., torch.arange(steps) % x.shape[-1]]
        results.append(samples)
    return results


def _growth(network: nn.Module, arguments: Arguments, axes: str, lengths: tuple[int, int]) -> int:
    """Return how many operators more a network runs where an axis is longer: of these sizes."""
    counts = []
    for steps in lengths:
        tensors = [_with_steps(x, steps, axes) for x in arguments.tensors]
        counts.append(count_operators(network, arguments.grouped(tensors)))
    few, more = counts
    return 0 if few is None or more is None else more - few


def _with_steps(x: Tensor, steps: int, axes: str) -> Tensor:
    if not has_time(x.dim()):
        return x
    axis = time_axis(axes, x.dim())
    return x.index_select(axis, torch.arange(steps) % x.shape[axis])
