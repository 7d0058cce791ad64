"""What a model is compared with that is not the network of its export.

A live network of another framework, or a function. It has no layers to look into, so its outputs
alone are compared: by position and shape, whatever its arguments and outputs are called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from synapse_onnx.compiler.axes import call_with_axes
from synapse_onnx.compiler.copies import copied_value
from synapse_onnx.compiler.freezer import deployables
from synapse_onnx.errors import InputError
from synapse_onnx.model.metadata import Metadata

__all__ = ["Reference", "as_module", "check_repeatable", "in_the_order_of"]


class Reference(nn.Module):
    """A callable as a module without parameters or layers.

    Each call runs a fresh copy, so that a state that the reference keeps is not seen by the next
    one. What cannot be copied is called as it is.

    Args:
        call: takes tensors and returns tensors, arrays, or a structure of them.

    Attributes:
        axes: axes that the call is written for; it is given, and returns, (N, C[, H, W], T).
    """

    def __init__(self, call: Callable[..., Any]) -> None:
        super().__init__()
        self.__dict__["call"] = call  # a module among these must not become a part of this one
        kind = type(call).__name__
        self.axes = "NCT"
        self.kind = f"a module of class {kind}" if isinstance(call, nn.Module) else "a function"

    def forward(self, *arguments: Any) -> list[Tensor]:
        """Return every tensor or array of the result, as tensors on the CPU.

        Raises:
            InputError: the reference raises an error, or returns no tensor.
        """
        call = _fresh(self.__dict__["call"])
        try:
            with torch.no_grad():
                result = call_with_axes(call, copied_value(arguments), self.axes)
        except Exception as error:  # of any framework
            lines = str(error).strip().splitlines() or [""]
            raise InputError(
                f"verify: the reference raises {type(error).__name__}: {lines[0]}"
            ) from error
        leaves, _ = torch.utils._pytree.tree_flatten(result)
        tensors = [torch.as_tensor(x) for x in leaves if isinstance(x, Tensor | np.ndarray)]
        if not tensors:
            raise InputError("verify: the reference returns no tensor or array")
        return [tensor.detach().cpu() for tensor in tensors]


def _fresh(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a copy in evaluation mode of a module; a function, and what has no copy, as it is."""
    try:
        copied = copied_value(call)
    except Exception:  # locks, files, generators: a module may hold anything
        return call
    return copied.eval().cpu() if isinstance(copied, nn.Module) else copied


def as_module(reference: Callable[..., Any], metadata: Metadata | None) -> nn.Module:
    """Return the network of a model itself, and any other reference as a :class:`Reference`.

    A module is taken for the model's network if it has a layer of this package, or if the model
    names none, or stands for a loop in torch code.

    Raises:
        InputError: the reference cannot be called.
    """
    if not callable(reference) or isinstance(reference, type):
        kind = f"a {type(reference).__name__}"
        if isinstance(reference, type):
            kind = f"the class {reference.__name__}; make an instance of it"
        raise InputError(f"verify: the reference must be a module or another callable, got {kind}")
    if not isinstance(reference, nn.Module):
        return Reference(reference)
    named = metadata is not None and not metadata.loops and metadata.layers
    own = next(deployables(reference), None)
    return Reference(reference) if named and own is None else reference


def check_repeatable(reference: Reference, arguments: Sequence[Any]) -> None:
    """Call a reference twice.

    Raises:
        InputError: the second call gives other outputs.
    """
    first, second = reference(*arguments), reference(*arguments)
    same = len(first) == len(second) and all(
        x.shape == y.shape and torch.equal(x.nan_to_num(), y.nan_to_num())
        for x, y in zip(first, second, strict=True)
    )
    if not same:
        raise InputError(
            "verify: the reference gives other outputs when it is called again, so it keeps a "
            "state or is random; give a function that resets it first"
        )


def in_the_order_of(
    arrays: Sequence[NDArray[Any]], returned: Sequence[Tensor]
) -> list[Tensor | None]:
    """Return for every array of the model the first tensor of its shape that is not yet taken.

    Numbers of another type (bool, int64, float64) are cast to the model's.
    """
    rest = list(returned)
    order: list[Tensor | None] = []
    for array in arrays:
        index = next((i for i, x in enumerate(rest) if tuple(x.shape) == array.shape), None)
        found = None if index is None else rest.pop(index)
        order.append(None if found is None else found.to(torch.from_numpy(array[:0].copy()).dtype))
    return order
