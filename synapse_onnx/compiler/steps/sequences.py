"""``over_time``: a module that takes one step, as a module that takes a whole sequence."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from synapse_onnx._layer import LoopsOverTime
from synapse_onnx.compiler.frameworks import sequence_module
from synapse_onnx.compiler.freezer import uncompiled
from synapse_onnx.compiler.steps.handed import Handed, Hands
from synapse_onnx.compiler.steps.held import Start, changed, marks
from synapse_onnx.compiler.steps.learned import Learned
from synapse_onnx.errors import InputError, ShapeError
from synapse_onnx.model.layout import LAYOUTS, has_time, time_axis

__all__ = ["OverTime", "over_time"]

#: what a module shares with its step: parameters, buffers and parts, with their names
_SHARED = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")


def over_time(step_module: nn.Module, axes: str = "TNC") -> OverTime:
    """Make a module over whole sequences of one that takes a single step.

    Its ``forward`` starts from fresh states, runs the step module at every time step, and stacks
    the outputs over time. It can be trained, exported and verified like a network that has the loop
    in its own code. Parameters, buffers and parts are those of the step module, and have the same
    names.

    States that the step module keeps between calls, in buffers or attributes, start from what it
    held when ``over_time`` was called; those of snnTorch, SpikingJelly, sinabs and Rockpool start
    as in a fresh module. After a call they are those of the last step.

    A module that is given its states and returns them behind its outputs, as in ``y, state =
    cell(x, state)``, starts from None, and its outputs alone are returned. Its arguments ``state``,
    ``mem``, ``hidden``, ``hx`` and the like are taken for states, also with numbers
    (``mem1, mem2``).

    Args:
        step_module: takes one step of every input, (N, C) or (N, C, H, W).
        axes: axes of the sequences: "TNC", "NTC" or "NCT", also for inputs with H and W. Inputs
            with three or five axes are sequences; every step gets others as they are.

    Returns:
        A module whose forward takes what that of the step module takes, as sequences, and returns
        what it returns, every tensor stacked over time.

    Raises:
        InputError: the module is none, cannot be copied, or takes whole sequences itself; or
            ``axes`` is none of these. In a call: whether a state is handed on cannot be told, or
            a state has values of an earlier call, or outputs are not of one kind.
        ShapeError: in a call: no input is a sequence, or they have different lengths.
    """
    if axes.removesuffix("...") not in LAYOUTS:
        raise InputError(f"over_time: axes must be {' or '.join(LAYOUTS)}, got {axes!r}")
    if isinstance(step_module, OverTime):
        raise InputError("over_time: the module runs over time already; give the step module")
    step = uncompiled(step_module)
    start = Start.of(step)
    whole = sequence_module(step)
    if whole is not None:
        path, layer = whole
        raise InputError(
            f"over_time: {repr(path) if path else 'the module'}, a {type(layer).__name__}, takes "
            f"whole sequences and not single steps; export the module as it is"
        )
    return _made(step, Learned(start, axes.removesuffix("..."), Handed.of(step)))


class OverTime(LoopsOverTime):
    """A step module over whole sequences; made by :func:`over_time`."""

    _step: nn.Module
    _learned: Learned

    @property
    def axes(self) -> str:
        """Axes of its inputs and outputs."""
        return self._learned.axes

    @property
    def is_settled(self) -> bool:
        """Whether it is known what the step module keeps; the first call sees that."""
        return self._learned.hands is not None

    def train(self, mode: bool = True) -> OverTime:
        """Set the mode of the step module."""
        self._step.train(mode)
        self.training = mode
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run all steps from fresh states; return the outputs, stacked over time.

        Raises:
            InputError, ShapeError: see :func:`over_time`.
        """
        learned, step = self._learned, self._step
        given = _steps(learned.handed.inputs.bind(*args, **kwargs), learned.axes)
        if learned.hands is None:
            learned.see(step, given)
        hands = learned.hands or Hands.NOTHING
        if torch.compiler.is_exporting():
            with learned.start.put_for_a_trace(step, learned.states):
                results = learned.handed.run(step, given, hands)
            return _stacked([learned.handed.outputs(y, hands) for y in results], learned.axes)
        learned.start.put(step, learned.states)
        before = marks(step)
        results = learned.handed.run(step, given, hands)
        late = changed(step, before) - learned.states - learned.others
        if late:
            learned.see(step, given, late)
            learned.others |= late - learned.states
            if late & learned.states:  # which this call did not start afresh
                return self.forward(*args, **kwargs)
        return _stacked([learned.handed.outputs(y, hands) for y in results], learned.axes)

    def __deepcopy__(self, memo: dict[int, Any]) -> OverTime:
        """Return a copy with a step module of its own."""
        made = memo[id(self)] = type(self).__new__(type(self))
        own = {key: value for key, value in vars(self).items() if key not in _SHARED}
        made.__dict__.update({key: copy.deepcopy(value, memo) for key, value in own.items()})
        _share(made)
        return made

    def __reduce__(self) -> Any:
        """Pickle the step module, and what is known of it."""
        return _made, (self._step, self._learned)


def _made(step: nn.Module, learned: Learned) -> OverTime:
    """Return a module of a class of its own, whose forward has the names of the inputs."""

    def forward(self: OverTime, *args: Any, **kwargs: Any) -> Any:
        return OverTime.forward(self, *args, **kwargs)

    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    forward.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [itself, *learned.handed.inputs.parameters.values()]
    )
    members = {"forward": forward, "__module__": __name__, "__doc__": OverTime.__doc__}
    made: OverTime = type("OverTime", (OverTime,), members)()
    made.__dict__.update(_step=step, _learned=learned, training=step.training)
    _share(made)
    return made


def _share(made: OverTime) -> None:
    """Give a module the parameters, buffers and parts of its step, under the same names."""
    made.__dict__.update({key: vars(made._step)[key] for key in _SHARED})


def _steps(bound: inspect.BoundArguments, axes: str) -> list[dict[str, Any]]:
    """Return the inputs of every step, by name.

    Raises:
        ShapeError: no input is a sequence, or they have different lengths.
    """
    tensors = [x for x in pytree.tree_leaves(dict(bound.arguments)) if isinstance(x, Tensor)]
    lengths = [x.shape[time_axis(axes, x.dim())] for x in tensors if has_time(x.dim())]
    if not lengths or lengths[0] < 1 or any(length != lengths[0] for length in lengths):
        kinds = {"TNC": "(T, N, C[, H, W])", "NTC": "(N, T, C[, H, W])"}
        shapes = " and ".join(str(tuple(x.shape)) for x in tensors)
        raise ShapeError(
            f"over_time: the inputs must be sequences {kinds.get(axes, '(N, C[, H, W], T)')} of "
            f"one length, of a step or more, got {shapes or 'no tensor'}"
        )

    def step(t: int) -> Any:
        return pytree.tree_map_only(
            Tensor,
            lambda x: x.select(time_axis(axes, x.dim()), t) if has_time(x.dim()) else x,
            dict(bound.arguments),
        )

    return [step(t) for t in range(lengths[0])]


def _stacked(outputs: list[Any], axes: str) -> Any:
    """Return outputs of all steps as one structure, every tensor stacked over time.

    Raises:
        InputError: steps return different kinds of values.
    """
    rows, structures = zip(*map(pytree.tree_flatten, outputs), strict=True)
    columns = list(zip(*rows, strict=False))
    for column in columns:
        if isinstance(column[0], Tensor):
            continue
        if any(value is not column[0] and value != column[0] for value in column):
            raise InputError(
                f"over_time: an output is {column[0]!r} at one step and {column[-1]!r} at another; "
                f"return tensors"
            )
    if any(structure != structures[0] for structure in structures):
        raise InputError("over_time: steps return different structures of values")
    values = [
        torch.stack(column, min(time_axis(axes, column[0].dim() + 1), column[0].dim()))
        if isinstance(column[0], Tensor)
        else column[0]
        for column in columns
    ]
    return pytree.tree_unflatten(values, structures[0])
