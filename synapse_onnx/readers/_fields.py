"""Values of a file, checked as they are read; an error names the file, the part and the value."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from synapse_onnx.errors import InputError, ShapeError, SynapseError

__all__ = ["MAX_NEURONS", "Array", "Fields", "Shape", "located"]

Shape = tuple[int, ...]
Array = NDArray[Any]

#: upper bound on the neurons of a layer: a damaged file must not ask for all memory
MAX_NEURONS = 1 << 24


@contextlib.contextmanager
def located(file: str, part: str) -> Iterator[None]:
    """Prefix errors with the file and the part, unless they name the file already."""
    try:
        yield
    except SynapseError as error:
        if str(error).startswith(f"{file}: "):
            raise
        raise type(error)(f"{file}: {part}: {error}") from error


class Fields:
    """A part of a file (a layer, a node) whose values are checked as they are read."""

    def place(self, key: str) -> str:
        """Name the file, the part and the value, for an error."""
        raise NotImplementedError

    def invalid(self, key: str, reason: str) -> InputError:
        """Return the error of a value that cannot be right."""
        return InputError(f"{self.place(key)}: {reason}")

    def mismatch(self, key: str, reason: str) -> ShapeError:
        """Return the error of a value whose shape does not fit the others."""
        return ShapeError(f"{self.place(key)}: {reason}")

    def check_finite(self, key: str, values: Array) -> None:
        """Check that no value is infinite or NaN."""
        if not np.isfinite(values).all():
            raise self.invalid(key, "it holds values that are not finite")

    def per_neuron(self, key: str, values: Tensor, shape: Shape, mismatch: str) -> Tensor:
        """Return a parameter as (1,), one a channel (C,), or one a neuron, in their shape.

        The values have any shape; ``mismatch`` is the error's reason where their number is wrong.
        """
        if values.numel() in (1, shape[0]):
            return values.flatten()
        if values.numel() != math.prod(shape):
            raise self.mismatch(key, mismatch)
        return values.reshape(shape)
