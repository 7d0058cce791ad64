"""One node of a NIR graph: its values, checked as they are read, and its shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from synapse_onnx.errors import ShapeError
from synapse_onnx.readers._fields import MAX_NEURONS, Array, Fields, Shape
from synapse_onnx.readers._nir.convention import Convention

#: weight (N, N) and bias (N,), or None, of a path from a neuron's spikes back to its input
Feedback = tuple[Tensor, Tensor | None]
#: a layer, and the shape of its output; None where it is not known
Layer = tuple[nn.Module, Shape | None]


@dataclass
class Node(Fields):
    """One node of a graph.

    Attributes:
        file: the file, for errors.
        name: the node's name in the graph.
        node: the ``nir.NIRNode``.
        convention: how the framework that wrote the graph discretises it.
        shape: shape of the input, (C,) or (C, H, W); None where it is not known.
        feedback: the paths from the node's spikes back to its input.
        looped: whether it is part of a cycle that is a loop over time.
    """

    file: str
    name: str
    node: Any
    convention: Convention
    shape: Shape | None = None
    feedback: list[Feedback] = field(default_factory=list)
    looped: bool = False

    @property
    def kind(self) -> str:
        """The NIR primitive: "Linear", "CubaLIF"."""
        return type(self.node).__name__

    def place(self, key: str) -> str:
        """Name the file, the node and the parameter."""
        return f"{self.file}: node {self.name} ({self.kind}), {key}"

    def has(self, key: str) -> bool:
        """Whether the node has this parameter."""
        return getattr(self.node, key, None) is not None

    def array(self, key: str) -> Array:
        """Return a parameter as float64; every value is finite and fits float32."""
        value: Any = getattr(self.node, key, None)
        if isinstance(value, Tensor):
            value = value.detach().cpu().numpy()
        if np.iscomplexobj(value):
            raise self.invalid(key, "it holds complex numbers")
        try:
            numbers = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise self.invalid(key, "it holds no numbers") from error
        if value is None or numbers.size == 0:
            raise self.invalid(key, "it is missing or empty")
        self.check_finite(key, numbers)
        if np.abs(numbers).max() > np.finfo(np.float32).max:
            raise self.invalid(key, "it holds values that are too large for float32")
        return numbers

    def tensor(self, key: str) -> Tensor:
        """Return a parameter as float32."""
        return torch.from_numpy(self.array(key).astype(np.float32))

    def positive(self, key: str) -> Array:
        """Return a parameter, as :meth:`array`, whose values are all above zero."""
        numbers = self.array(key)
        if not (numbers > 0).all():
            raise self.invalid(key, f"it must be above zero, got {numbers.min():g}")
        return numbers

    def integers(self, key: str, count: int, least: int) -> tuple[int, ...]:
        """Return ``count`` integers, one an axis; a single one in the graph holds for all axes."""
        numbers = self.array(key).reshape(-1)
        whole = len(numbers) in (1, count) and (numbers == np.rint(numbers)).all()
        if not whole or numbers.min() < least or numbers.max() > MAX_NEURONS:
            expected = "an integer" if count == 1 else f"{count} integers"
            raise self.invalid(
                key, f"it must be {expected} from {least} to {MAX_NEURONS}, got {numbers.tolist()}"
            )
        return tuple(int(number) for number in np.broadcast_to(numbers, count))

    def neuron_values(self, values: Array) -> Tensor:
        """Return a parameter of neurons as float32: (1,), one a channel (C,), or one a neuron.

        NIR stores one value a neuron; equal values become one, so that the model holds one.
        """
        shape = self.shape
        with np.errstate(over="ignore"):  # the neuron refuses what becomes infinite
            flat = torch.from_numpy(np.asarray(values, np.float64).astype(np.float32)).reshape(-1)
        equal = bool((flat == flat[0]).all())
        if equal and (shape is None or flat.numel() in (1, shape[0], math.prod(shape))):
            return flat[:1]
        if shape is None:
            return flat
        return self.per_neuron(
            "its parameters", flat, shape, f"there are {flat.numel()} for neurons of shape {shape}"
        )


def as_text(value: Any) -> str:
    """Return a string that HDF5 may hold as bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def declared_shape(node: Any) -> Shape | None:
    """Return the input shape that an Input or Flatten node declares, as it is written."""
    types = node.input_type
    value = next(iter(types.values()), None) if isinstance(types, Mapping) else types
    if value is None:
        return None
    try:
        # complex numbers are refused as NaN is: they are no whole numbers
        sizes = np.asarray(np.nan if np.iscomplexobj(value) else value, np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise ShapeError("its shape holds no numbers") from error
    if not (np.isfinite(sizes) & (sizes == np.rint(sizes))).all():
        raise ShapeError(f"its shape holds no whole numbers: {sizes.tolist()}")
    return tuple(int(size) for size in sizes)


def sample_shape(sizes: Shape | None) -> Shape | None:
    """Return NIR's shape of one sample as ours: (C,) or (C, H, W); (C, L) becomes (C, 1, L)."""
    if sizes is None:
        return None
    if not sizes:
        return (1,)
    if len(sizes) > 3 or min(sizes) < 1 or math.prod(sizes) > MAX_NEURONS:
        raise ShapeError(
            f"an input of shape {sizes} is none of (C), (C, L) and (C, H, W), of at most "
            f"{MAX_NEURONS} values"
        )
    return (sizes[0], 1, sizes[1]) if len(sizes) == 2 else sizes
