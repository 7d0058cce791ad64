"""Running a network in torch, layer by layer, and its model in ONNX Runtime."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from synapse_onnx._layer import Deployable, named_states
from synapse_onnx.compiler.arguments import Arguments
from synapse_onnx.compiler.copies import copied_value
from synapse_onnx.compiler.frameworks import reset_states
from synapse_onnx.compiler.freezer import eagerly, step_neurons
from synapse_onnx.errors import InputError
from synapse_onnx.model.layout import time_first
from synapse_onnx.runtime.session import Session
from synapse_onnx.verification.recording import State, recorded

__all__ = ["Call", "run_layers", "run_session", "run_torch"]


@dataclass
class Call:
    """One call of one layer in torch.

    Attributes:
        path: path of the layer in the network.
        number: 1 for the layer's first call, 2 for its second, ...
        layer: the layer; a copy where the network had put other parameters into it for this call.
        inputs: what it was given: one tensor, or two for a complex input.
        outputs: what it returned, likewise.
        states: those that it ended with, by name; None of a layer that keeps some by itself.
    """

    path: str
    number: int
    layer: Deployable
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    states: Mapping[str, State] | None = None


#: path and number of a call, its inputs, outputs and last states
Recorder = Callable[
    [str, int, tuple[Tensor, ...], tuple[Tensor, ...], Mapping[str, State] | None], None
]


def run_torch(
    module: nn.Module,
    layers: Mapping[str, Deployable],
    arguments: Arguments,
    tensors: Sequence[Tensor],
) -> tuple[list[Tensor], list[Call]]:
    """Run a network from fresh states.

    Returns:
        The tensors that it returned, and the calls of its ``layers`` in the order in which they
        ended.
    """
    kept = _Kept(copies=False)
    result = _run_kept(module, layers, arguments, tensors, kept)
    if kept.any_changed():
        result = _run_kept(module, layers, arguments, tensors, _Kept(copies=True))
    return result


def run_layers(
    module: nn.Module,
    layers: Mapping[str, Deployable],
    arguments: Arguments,
    tensors: Sequence[Tensor],
    record: Recorder,
) -> list[Tensor]:
    """Run a network from fresh states, and return the tensors that it returned.

    After every call of a layer, ``record(path, number, inputs, outputs, states)`` is called. The
    network may change its arguments in place: it gets copies. Code that ``torch.compile`` was given
    runs as it stands.
    """
    counts: Counter[str] = Counter()

    def note(path: str, argument: Any, result: Any, states: Mapping[str, State] | None) -> None:
        counts[path] += 1
        record(path, counts[path], _as_tuple(argument), _as_tuple(result), states)

    with contextlib.ExitStack() as stack, torch.no_grad():
        stack.enter_context(eagerly())
        reset_states(module)
        for _, neuron in step_neurons(module):
            neuron.reset()
        for path, layer in layers.items():
            layer.reset()
            stack.enter_context(recorded(layer, functools.partial(note, path)))
        result = module(*arguments.grouped([x.clone() for x in tensors]))
    leaves, _ = torch.utils._pytree.tree_flatten(result)
    return [value.detach() for value in leaves if isinstance(value, Tensor)]


def run_session(session: Session, tensors: Sequence[Tensor]) -> list[NDArray[Any]]:
    """Run a model on the inputs of a network.

    Returns:
        Its outputs, in the model's own layout.

    Raises:
        ValueError: another number of inputs, shapes that the model refuses, or a failure of ONNX
            Runtime.
    """
    if len(session.inputs) != len(tensors):
        raise InputError(
            f"the model has {len(session.inputs)} inputs and the module was given {len(tensors)}"
        )
    arrays = [time_first(value.detach().cpu().numpy(), session.layout) for value in tensors]
    result = session.run(*arrays)
    return list(result) if isinstance(result, tuple) else [result]


def _as_tuple(value: Any) -> tuple[Tensor, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _run_kept(
    module: nn.Module,
    layers: Mapping[str, Deployable],
    arguments: Arguments,
    tensors: Sequence[Tensor],
    kept: _Kept,
) -> tuple[list[Tensor], list[Call]]:
    calls: list[Call] = []
    resting = {path: _parameters(layer) for path, layer in layers.items()}

    def record(
        path: str,
        number: int,
        inputs: tuple[Tensor, ...],
        outputs: tuple[Tensor, ...],
        states: Mapping[str, State] | None,
    ) -> None:
        layer = layers[path]
        if _parameters(layer) != resting[path]:  # torch.func.functional_call
            kind = type(layer).__mro__[1]
            layer = copied_value(layer)
            layer.__class__ = kind
        ends = kept.all_of(inputs), kept.all_of(outputs)
        calls.append(Call(path, number, layer, *ends, states))

    outputs = run_layers(module, layers, arguments, tensors, record)
    return list(kept.all_of(outputs)), calls


def _parameters(layer: Deployable) -> dict[str, int]:
    """Return which tensors a layer has, by their identity, without its states."""
    states = {f"{path}_state" for path, _, _ in named_states(layer)}
    tensors = (*layer.named_parameters(), *layer.named_buffers())
    return {name: id(tensor) for name, tensor in tensors if name not in states}


class _Kept:
    """Tensors of a run as they were when they passed.

    A network may change them in place later on, which only a run can tell: the first run keeps the
    tensors, and where one has changed since, a second one keeps copies. What passes from layer to
    layer as it is stays one tensor.
    """

    def __init__(self, *, copies: bool) -> None:
        self._copies = copies
        self._passed: list[tuple[Tensor, int]] = []
        #: address, version and form -> the tensor, whose memory stays its own that way, and a copy
        self._copied: dict[Any, tuple[Tensor, Tensor]] = {}

    def all_of(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return tensors that stay as these are now."""
        return tuple(map(self._of, tensors))

    def any_changed(self) -> bool:
        """Whether a tensor has changed since it passed."""
        return any(_version(tensor) != version for tensor, version in self._passed)

    def _of(self, tensor: Tensor) -> Tensor:
        if not self._copies:
            # one that counts no changes may have any
            version = -1 if tensor.is_inference() else _version(tensor)
            self._passed.append((tensor, version))
            return tensor.detach()
        key = tensor.data_ptr(), _version(tensor), tensor.shape, tensor.stride()
        if tensor.is_inference() or key not in self._copied:
            self._copied[key] = tensor, tensor.detach().clone()
        return self._copied[key][1]


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version
