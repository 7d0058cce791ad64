"""Which calls of layers matter: those that an output, or a state of a stream, depends on.

A graph has no nodes of the others.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from synapse_onnx._layer import Deployable, named_states
from synapse_onnx.compiler.arguments import Arguments
from synapse_onnx.verification.trace import Call, run_layers

__all__ = ["unused_calls", "used"]

#: path of a layer and number of its call
Place = tuple[str, int]


def unused_calls(
    module: nn.Module,
    layers: Mapping[str, Deployable],
    arguments: Arguments,
    tensors: Sequence[Tensor],
    *,
    streaming: bool,
) -> set[Place]:
    """Return the calls that no output depends on, when a network runs on these inputs.

    Where it streams, the states are outputs as well.
    """
    every: set[Place] = set()
    used: set[Place] = set()
    with _Origins() as origins:

        def record(
            path: str,
            number: int,
            inputs: tuple[Tensor, ...],
            outputs: tuple[Tensor, ...],
            states: Any,
        ) -> None:
            place = path, number
            every.add(place)
            if streaming and any(True for _ in named_states(layers[path])):
                used.update({place}, *(origins.of(x) for x in inputs))
            for y in outputs:
                origins.add(y, {place})

        results = run_layers(module, layers, arguments, tensors, record)
        used.update(*(origins.of(y) for y in results))
    return every - used


def used(
    calls: Sequence[Call], unused: set[Place], nodes: Mapping[str, Sequence[onnx.NodeProto]]
) -> list[Call]:
    """Return the calls that a model has nodes of, numbered anew.

    Calls that are unused are left out, unless the number of ``nodes`` says that they are there.
    """
    every = Counter(call.path for call in calls)
    gone = Counter(path for path, _ in unused)
    numbers: Counter[str] = Counter()
    left = []
    for call in calls:
        path, count = call.path, len(nodes.get(call.path, ()))
        kept = every[path] - gone[path]
        fits = count % kept == 0 if kept and count else not (kept or count)
        if fits and (path, call.number) in unused:
            continue
        numbers[path] += 1
        left.append(replace(call, number=numbers[path]))
    return left


class _Origins(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Which calls went into the memory of each tensor, operator by operator."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._of: defaultdict[int, set[Place]] = defaultdict(set)
        #: tensors with origins, so that no other tensor gets their memory while calls are followed
        self._held: list[Tensor] = []

    def of(self, tensor: Tensor) -> set[Place]:
        """Return the calls that went into a tensor."""
        return self._of[_memory(tensor)]

    def add(self, tensor: Tensor, places: set[Place]) -> None:
        """Take note that calls went into a tensor."""
        if places:
            self._of[_memory(tensor)] |= places
            self._held.append(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator, and pass on what went into its arguments."""
        result = func(*args, **(kwargs or {}))
        given = _tensors((args, kwargs))
        places: set[Place] = set().union(*map(self.of, given))
        written = given if func._schema.is_mutable else []
        for tensor in (*_tensors(result), *written):
            self.add(tensor, places)
        return result


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _tensors(values: Any) -> list[Tensor]:
    leaves, _ = torch.utils._pytree.tree_flatten(values)
    return [value for value in leaves if isinstance(value, Tensor)]
