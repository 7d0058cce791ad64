"""A network in torch that goes on from states that it is given, those of a stream.

Both sides start a chunk from the same states, so roundings of earlier chunks cannot make them part.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from synapse_onnx._layer import Stateful, named_states
from synapse_onnx.compiler.freezer import eagerly
from synapse_onnx.verification.doubts import Doubts
from synapse_onnx.verification.outputs import Run
from synapse_onnx.verification.recording import keeping_states
from synapse_onnx.verification.trace import run_torch

__all__ = ["Continued"]


class Continued:
    """The network of a run, whose layers keep their states from chunk to chunk.

    Args:
        run: a run of a network; its layers' states persist until :meth:`close`.

    Attributes:
        starts: the number that each state starts from, by name.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._places = {n: (layer, key) for n, layer, key in named_states(run.subject.module)}
        self.starts = {n: layer.state_starts[key] for n, (layer, key) in self._places.items()}
        self._begun: dict[str, Tensor] = {}
        self._reset()
        self._keeping = contextlib.ExitStack()
        self._keeping.enter_context(keeping_states(run.subject.module))

    def close(self) -> None:
        """Forget the states."""
        self._keeping.close()
        self._reset()

    def run(self, states: Mapping[str, NDArray[Any]], tensors: Sequence[Tensor]) -> list[Tensor]:
        """Run a chunk from these states, by name, and return the tensors that it returned.

        A state that is not among them goes on from where the last chunk ended.
        """
        self._set({name: torch.from_numpy(array) for name, array in states.items()})
        self._begun = self._states()
        subject = self._run.subject
        with torch.no_grad(), eagerly():
            result = subject.module(*subject.arguments.grouped([x.clone() for x in tensors]))
        leaves, _ = torch.utils._pytree.tree_flatten(result)
        return [value.detach() for value in leaves if isinstance(value, Tensor)]

    @property
    def unmoved(self) -> list[str]:
        """Names of the states that the last chunk has not touched.

        The network puts other states into its layers then, by ``torch.func.functional_call``.
        """
        now = self._states()
        return [name for name, state in self._begun.items() if now.get(name) is state]

    @property
    def ended(self) -> dict[str, NDArray[Any]]:
        """What the states are after the last chunk, by name; without those of unused layers."""
        return {name: state.numpy() for name, state in self._states().items()}

    def doubts(self, tensors: Sequence[Tensor]) -> Doubts:
        """Run the last chunk again, and return where roundings may decide in it."""
        subject, ended = self._run.subject, self._states()
        begun: dict[Stateful, dict[str, Tensor]] = {}
        for name, state in ended.items():
            layer, key = self._places[name]
            start = self._begun.get(name, torch.full_like(state, self.starts[name]))
            begun.setdefault(layer, {})[key] = start
        with contextlib.ExitStack() as stack, torch.no_grad():
            stack.callback(self._set, ended)  # after the run, which resets the layers
            stack.callback(self._mark_untouched)
            for layer, states in begun.items():
                layer.carried = _Carried(states)
                stack.callback(setattr, layer, "carried", None)
            outputs, calls = run_torch(subject.module, subject.layers, subject.arguments, tensors)
            return Doubts.of(self._run, outputs, calls)

    def _reset(self) -> None:
        for layer in {layer for layer, _ in self._places.values()}:
            layer.reset()
        self._mark_untouched()

    def _mark_untouched(self) -> None:
        self._untouched = {
            name: getattr(layer, f"{key}_state") for name, (layer, key) in self._places.items()
        }

    def _set(self, states: Mapping[str, Tensor]) -> None:
        for name, state in states.items():
            layer, key = self._places[name]
            setattr(layer, f"{key}_state", state)

    def _states(self) -> dict[str, Tensor]:
        """Return the states of layers that have run; those of others have no shape yet."""
        states = {n: getattr(layer, f"{key}_state") for n, (layer, key) in self._places.items()}
        return {name: s for name, s in states.items() if s is not self._untouched[name]}


class _Carried(dict[str, Tensor]):
    """States that a layer starts from at every call; where it ends is not kept."""

    def update(self, *_: Any, **__: Any) -> None:
        """Leave the states as they are."""
