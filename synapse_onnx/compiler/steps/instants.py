"""A module of single steps where a network over sequences is expected: it is looped over time."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from synapse_onnx.compiler._calls import RemembersError, check_calls
from synapse_onnx.compiler._changes import is_same
from synapse_onnx.compiler.arguments import Arguments
from synapse_onnx.compiler.frameworks import reset_states, sequence_module
from synapse_onnx.compiler.freezer import copied
from synapse_onnx.compiler.steps.handed import Handed
from synapse_onnx.compiler.steps.sequences import OverTime, over_time
from synapse_onnx.errors import SynapseError
from synapse_onnx.model.layout import has_time, time_axis

__all__ = ["looped", "looped_as_in_file"]

#: steps of the sequence that is made of one
_STEPS = 8


def looped(
    frozen: nn.Module, arguments: Arguments, axes: str | None, *, dynamic: bool
) -> tuple[nn.Module, Arguments]:
    """Return a module that takes one step and keeps its states, over time; another one as it is.

    Args:
        frozen: a frozen network.
        arguments: example arguments; of one step they become a sequence.
        axes: axes of the sequences, time first by default.
        dynamic: whether the file is one for any number of steps; else it takes one.

    Raises:
        InputError, ExportError: see :func:`over_time`, :func:`check_calls`.
    """
    if not _is_one_step(arguments) or not _keeps_states(frozen, arguments):
        return frozen, arguments
    made = over_time(frozen, axes or "TNC")
    return made, _sequence(arguments, made.axes, _STEPS if dynamic else 1)


def looped_as_in_file(
    module: nn.Module, arguments: Arguments, axes: str
) -> tuple[nn.Module, Arguments]:
    """Return the reference of a file that was made of single steps, and arguments for it.

    A module over sequences stays as it is, and so does a sequence. One step becomes several, so
    that the states are compared: every step has the samples in another order.
    """
    if _is_one_step(arguments):
        module = module if isinstance(module, OverTime) else over_time(copied(module), axes)
        return module, _sequence(arguments, axes, _STEPS)
    if not isinstance(module, OverTime):
        step = _cut(arguments, axes)
        if _keeps_states(copied(module).cpu(), step):
            return over_time(copied(module), axes), arguments
    return module, arguments


def _is_one_step(arguments: Arguments) -> bool:
    """Whether arguments are (N, C) or (N, C, H, W), and none is a sequence of them."""
    ranks = [x.dim() for x in arguments.tensors]
    return not any(map(has_time, ranks)) and any(has_time(rank + 1) for rank in ranks)


def _keeps_states(network: nn.Module, arguments: Arguments) -> bool:
    """Whether the calls of a network, given one step each, depend on those before."""
    if isinstance(network, OverTime) or sequence_module(network) is not None:
        return False
    handed = Handed.of(network)
    if handed.names and len(arguments.pairs) <= len(handed.inputs.parameters):
        return True
    try:
        arguments.check(network, "export")
        check_calls(network, arguments)
    except RemembersError:
        return True
    except SynapseError:  # for another reason, which the export tells
        return False
    return _answers_later(network, arguments)


def _answers_later(network: nn.Module, arguments: Arguments) -> bool:
    """Whether a call depends on others before the last one: a delay line keeps several."""
    used = copied(network)
    with torch.no_grad(), torch.random.fork_rng(devices=[]), contextlib.suppress(Exception):
        for t in range(_STEPS):
            inputs = arguments.grouped([x.roll(t, 0) if x.dim() else x for x in arguments.tensors])
            fresh = copied(network)
            reset_states(used)
            one, other = (pytree.tree_leaves(net(*inputs)) for net in (fresh, used))
            if not all(map(is_same, one, other)):
                return True
    return False


def _sequence(arguments: Arguments, axes: str, steps: int) -> Arguments:
    def stacked(x: Tensor) -> Tensor:
        if not has_time(x.dim() + 1):
            return x
        return torch.stack([x.roll(-t, 0) for t in range(steps)], time_axis(axes, x.dim() + 1))

    return Arguments(tuple(map(stacked, arguments.tensors)), arguments.pairs, arguments.named)


def _cut(arguments: Arguments, axes: str) -> Arguments:
    """Return the first step of sequences."""
    tensors = (
        x.select(time_axis(axes, x.dim()), 0) if has_time(x.dim()) else x for x in arguments.tensors
    )
    return Arguments(tuple(tensors), arguments.pairs, arguments.named)
