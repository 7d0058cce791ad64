"""The deployment form of a network, which is exported. It is still a torch module that runs."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TypeVar

from torch import nn

from synapse_onnx._layer import Deployable
from synapse_onnx.errors import SynapseError

__all__ = ["deployables", "freeze"]

M = TypeVar("M", bound=nn.Module)


def deployables(module: nn.Module, path: str = "") -> Iterator[tuple[str, Deployable]]:
    """Yield (path, layer) of the outermost layers of this package, in registration order."""
    if isinstance(module, Deployable):
        yield path, module
        return
    for name, child in module.named_children():
        yield from deployables(child, f"{path}.{name}" if path else name)


def freeze(module: M) -> M:
    """Return the deployment form of a network; the network itself is not touched.

    Weight norm is folded, hooks are evaluated, and a weight on an integer grid becomes integers and
    a step. Decays are rounded, dropout is removed, persistent states are reset, and the module is
    in evaluation mode. Its outputs are those of ``module.eval()``: bit for bit if the steps are
    powers of two and the sums stay within float32. (Larger sums are exact in the frozen form, and
    rounded in the other.)

    Args:
        module: any torch module; the layers of this package in it are frozen.

    Raises:
        InputError: a weight is NaN or infinite (the layer is named).
        QuantizationError: a hook returns no weight of the layer's shape (the layer is named).
    """
    frozen = copy.deepcopy(module).eval().requires_grad_(False)
    for path, layer in deployables(frozen):
        try:
            layer.freeze()
        except SynapseError as error:
            raise type(error)(f"{path or 'the module'}: {error}") from error
    return frozen
