"""Samples: inputs to choose from on a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from synapse_onnx.errors import ShapeError
from synapse_onnx.model.layout import time_last

__all__ = ["Sample", "samples_of"]


@dataclass(frozen=True)
class Sample:
    """One sample of every input of a model.

    Attributes:
        name: name on the page.
        values: one array an input of the model, (C[, H, W], T), or without T for an input without
            time.
    """

    name: str
    values: tuple[NDArray[Any], ...]


def samples_of(
    arrays: Sequence[NDArray[Any]], layout: str, name: str, most: int = 64
) -> list[Sample]:
    """Cut arrays of a batch into samples.

    Args:
        arrays: one an input, (N, C[, H, W], T) or (N, C[, H, W]).
        layout: layout of the arrays.
        name: name of the samples; a number follows it if there are several.
        most: largest number of samples; the first ones are used.

    Raises:
        ShapeError: an array without axes, or arrays of different batches.
    """
    views = [time_last(array, layout) for array in arrays]
    numbers = {view.shape[0] if view.ndim else 0 for view in views}
    if len(numbers) != 1 or not min(numbers):
        raise ShapeError(
            f"samples need equally many in every array, one at least; got arrays of shape "
            f"{', '.join(str(array.shape) for array in arrays)}"
        )
    (number,) = numbers
    return [
        Sample(name if number == 1 else f"{name}, {i}", tuple(view[i] for view in views))
        for i in range(min(number, most))
    ]
