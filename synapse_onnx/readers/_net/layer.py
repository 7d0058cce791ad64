"""One layer of a ``.net`` file: its values, checked as they are read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synapse_onnx.errors import InputError
from synapse_onnx.readers._fields import MAX_NEURONS, Array, Fields, Shape

#: the integer that stands for a weight, bias or threshold of one
WEIGHT_ONE = 64


@dataclass
class Layer(Fields):
    """One layer of a file.

    Attributes:
        file: the file, for errors.
        number: its number in the file.
        group: its HDF5 group.
        type: its type, such as "dense".
    """

    file: str
    number: int
    group: Any
    type: str = ""

    def __post_init__(self) -> None:
        self.type = self.text("type")

    @property
    def name(self) -> str:
        """Its name in the network: "dense_2"."""
        return f"{self.type}_{self.number}"

    def place(self, key: str) -> str:
        """Name the file, the layer and the key."""
        kind = f" ({self.type})" if self.type else ""
        return f"{self.file}: layer {self.number}{kind}, key {key}"

    def has(self, key: str) -> bool:
        """Whether the layer has this key."""
        return key in self.group

    def is_group(self, key: str) -> bool:
        """Whether the layer has this key, and it is a group."""
        return self.has(key) and not hasattr(self.group[key], "shape")

    def _value(self, key: str) -> Any:
        if not self.has(key):
            raise self.invalid(key, "it is missing")
        item = self.group[key]
        if not hasattr(item, "shape") or item.shape is None:
            raise self.invalid(key, "it is not an array")
        return item[()]

    def text(self, key: str) -> str:
        """Return a string; older files have an array of one."""
        values = np.asarray(self._value(key)).reshape(-1)
        value = values[0] if len(values) == 1 else None
        if isinstance(value, bytes):
            value = value.decode("ascii", "replace")
        if not isinstance(value, str):
            raise self.invalid(key, "it is not a string")
        return value

    def flag(self, key: str) -> bool:
        """Return whether the key is there and not zero."""
        return self.has(key) and bool(np.any(self._value(key)))

    def integers(self, key: str) -> Array:
        """Return whole numbers as int64, in the shape that the file has."""
        value = np.asarray(self._value(key))
        if value.dtype.kind not in "biuf" or value.size == 0:
            raise self.invalid(key, f"it holds no numbers but {value.dtype} of shape {value.shape}")
        self.check_finite(key, value)
        if np.abs(value.astype(np.float64)).max() >= 1 << 31:  # float16 cannot hold 2**31
            raise self.invalid(key, f"{np.abs(value).max():g} is out of any range")
        whole = np.rint(value)
        if not (whole == value).all():
            odd = value.reshape(-1)[(whole != value).reshape(-1)][0]
            raise self.invalid(key, f"it must hold integers, and holds {odd:g}")
        integers: Array = whole.astype(np.int64)
        return integers

    def integer(self, key: str, least: int, most: int, default: int | None = None) -> int:
        """Return one whole number in a range; older files have an array of one."""
        if default is not None and not self.has(key):
            return default
        value = self.integers(key).reshape(-1)
        if len(value) != 1:
            raise self.invalid(key, f"it must be one number, and holds {len(value)}")
        if not least <= value[0] <= most:
            raise self.invalid(key, f"it must lie in {least} to {most}, got {value[0]}")
        return int(value[0])

    def pair(self, key: str, least: int) -> tuple[int, int]:
        """Return (height, width); one number in the file is both."""
        value = self.integers(key).reshape(-1)
        if len(value) not in (1, 2) or (value < least).any() or (value > MAX_NEURONS).any():
            raise self.invalid(key, f"it must be (height, width) >= {least}, got {value.tolist()}")
        return int(value[0]), int(value[-1])

    def shape(self) -> Shape:
        """Return the shape of the neurons, (C,) or (C, H, W)."""
        value = [int(size) for size in self.integers("shape").reshape(-1)]
        if len(value) not in (1, 3) or min(value) < 1 or math.prod(value) > MAX_NEURONS:
            raise self.mismatch(
                "shape",
                f"it must be (C) or (C, H, W) of at most {MAX_NEURONS} neurons, got {value}",
            )
        return tuple(value)

    def parts(self, key: str) -> tuple[str, ...]:
        """Return the keys of a weight: one, or those of its real and imaginary part."""
        return (f"{key}/real", f"{key}/imag") if self.is_group(key) else (key,)

    def weights(self, key: str, axes: int) -> list[Tensor]:
        """Return a weight, or its real and imaginary part: five axes, float32, 64 becoming 1.

        The file has ``axes`` of them, before those of size 1 that older files add.
        """
        weights = []
        for part in self.parts(key):
            value = self.integers(part)
            if value.ndim == 1 and axes == 2:
                outputs = math.prod(self.shape())
                if value.size % outputs:
                    raise self.mismatch(part, f"{value.size} weights do not make {outputs} rows")
                value = value.reshape(outputs, -1)
            if not axes <= value.ndim <= 5 or value.shape[axes:] != (1,) * (value.ndim - axes):
                raise self.mismatch(part, f"it must have {axes} axes, got {value.shape}")
            if np.abs(value).max() >= 1 << 15:
                raise self.invalid(part, f"{np.abs(value).max()} is no weight of Loihi")
            value = value.reshape(value.shape[:axes] + (1,) * (5 - axes))
            weights.append(torch.from_numpy(value.astype(np.float32) / np.float32(WEIGHT_ONE)))
        if len(weights) == 2 and weights[0].shape != weights[1].shape:
            raise self.mismatch(f"{key}/imag", "its shape is not that of the real part")
        return weights


def layers_of(file: str, hdf5: Any) -> Iterator[Layer]:
    """Yield the layers of an open file, in order."""
    if "layer" not in hdf5 or hasattr(hdf5["layer"], "shape"):
        raise InputError(f"{file} is not a network of lava-dl: it has no group 'layer'")
    group = hdf5["layer"]
    if not len(group):
        raise InputError(f"{file}: the group 'layer' is empty")
    for number in range(len(group)):
        if str(number) not in group or hasattr(group[str(number)], "shape"):
            raise InputError(f"{file}: it holds {len(group)} layers, and layer {number} is missing")
        yield Layer(file, number, group[str(number)])
