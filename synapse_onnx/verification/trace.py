"""Running a network in torch, layer by layer, and its model in ONNX Runtime."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from synapse_onnx._layer import Deployable
from synapse_onnx.compiler.arguments import Arguments
from synapse_onnx.errors import InputError
from synapse_onnx.model.layout import time_first
from synapse_onnx.runtime.session import Session

__all__ = ["Call", "run_session", "run_torch"]


@dataclass
class Call:
    """One call of one layer in torch.

    Attributes:
        path: path of the layer in the network.
        number: 1 for the layer's first call, 2 for its second, ...
        layer: the layer.
        inputs: what it was given: one tensor, or two for a complex input.
        outputs: what it returned, likewise.
    """

    path: str
    number: int
    layer: Deployable
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


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
    calls: list[Call] = []
    counts: Counter[str] = Counter()

    def record(path: str, layer: Deployable) -> Any:
        def hook(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            counts[path] += 1
            outputs = output if isinstance(output, tuple) else (output,)
            argument = args[0] if args else next(iter(kwargs.values()))
            inputs = tuple(argument) if isinstance(argument, tuple | list) else (argument,)
            calls.append(Call(path, counts[path], layer, inputs, outputs))

        return hook

    with contextlib.ExitStack() as hooks, torch.no_grad():
        for path, layer in layers.items():
            layer.reset()
            hook = layer.register_forward_hook(record(path, layer), with_kwargs=True)
            hooks.enter_context(hook)
        result = module(*arguments.grouped(tensors))
    leaves, _ = torch.utils._pytree.tree_flatten(result)
    return [value for value in leaves if isinstance(value, Tensor)], calls


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
