"""What a page shows besides its model: settings, kept in the model, and samples to choose from."""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from synapse_onnx.errors import InputError, ModelError, ShapeError
from synapse_onnx.model.layout import time_last

__all__ = ["DECODES", "LARGEST_SAMPLES", "Sample", "Show", "Wave", "pack", "samples_of", "unpack"]

#: how to read a class: most spikes, largest mean, largest last value
DECODES = ("count", "mean", "last")

_KEY = "synapse_onnx.show"
#: bounds on the values of all samples together, and on the labels: a page is no data set
LARGEST_SAMPLES, _LABELS = 1 << 22, 10_000


@dataclass(frozen=True)
class Wave:
    """Sounds to combine on the page, for an input of one channel.

    Attributes:
        sounds: name -> (period at the beginning, period at the end), in steps.
        steps: steps over which a period changes.
        grid: values are multiples of it, so that sums stay exact.
        limit: largest magnitude of a value.
    """

    sounds: Mapping[str, tuple[float, float]]
    steps: int = 96
    grid: float = 0.125
    limit: float = 4.0


@dataclass(frozen=True)
class Show:
    """Settings of a model's page that do not follow from its graph.

    Attributes:
        title: heading of the page.
        text: a sentence or two below it.
        labels: names of the first output's channels, in order.
        decode: how a class is read: the most spikes ("count"), the largest mean ("mean") or the
            largest last value ("last"); "" is "count" if the first output is spikes, else
            "last".
        window: number of last steps that count; 0 for all since the last reset.
        period: steps of one presentation. A drawn pixel of level g spikes g times per period,
            evenly spread.
        wave: sounds to choose from, for an input of one channel.
        bump: width in channels of a bump of light that follows the pointer, for an input
            without height and width; 0 for none.
        samples: name -> values of one sample (C[, H, W], T), of a model with one input.

    Raises:
        InputError: an attribute that a page cannot show.
    """

    title: str = ""
    text: str = ""
    labels: tuple[str, ...] = ()
    decode: str = ""
    window: int = 0
    period: int = 16
    wave: Wave | None = None
    bump: float = 0.0
    samples: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.decode not in ("", *DECODES):
            raise InputError(f"decode must be one of {', '.join(DECODES)}, got {self.decode!r}")
        if self.window < 0 or self.period < 1:
            raise InputError(
                f"window must be 0 or more and period 1 or more, got {self.window}, {self.period}"
            )
        if not (math.isfinite(self.bump) and self.bump >= 0):
            raise InputError(f"bump must be 0 or a width, got {self.bump}")
        if len(self.labels) > _LABELS:
            raise InputError(f"{len(self.labels):,} labels; a page takes {_LABELS:,} at most")
        if sum(np.asarray(values).size for values in self.samples.values()) > LARGEST_SAMPLES:
            raise InputError(f"samples of a page may have {LARGEST_SAMPLES:,} values at most")

    def write(self, model: onnx.ModelProto) -> None:
        """Store the settings in a model, replacing earlier ones."""
        self.remove(model)
        document = dict(vars(self))
        document["samples"] = [[name, pack(values)] for name, values in self.samples.items()]
        if self.wave is None:
            del document["wave"]
        else:
            sounds = [[name, *periods] for name, periods in self.wave.sounds.items()]
            document["wave"] = vars(self.wave) | {"sounds": sounds}
        prop = model.metadata_props.add()
        prop.key, prop.value = _KEY, json.dumps(document, sort_keys=True)

    @staticmethod
    def remove(model: onnx.ModelProto) -> None:
        """Remove the settings from a model."""
        for prop in [prop for prop in model.metadata_props if prop.key == _KEY]:
            model.metadata_props.remove(prop)

    @classmethod
    def read(cls, model: onnx.ModelProto) -> Show:
        """Read the settings from a model; defaults if it has none.

        Raises:
            ModelError: the settings are damaged.
        """
        text = next((prop.value for prop in model.metadata_props if prop.key == _KEY), None)
        if text is None:
            return cls()
        try:
            document = json.loads(text)
            return cls(
                title=_text(document["title"]),
                text=_text(document["text"]),
                labels=tuple(_text(label) for label in document["labels"]),
                decode=_text(document["decode"]),
                window=_whole(document["window"]),
                period=_whole(document["period"]),
                wave=_wave(document["wave"]) if "wave" in document else None,
                bump=_number(document["bump"]),
                samples={_text(name): unpack(packed) for name, packed in document["samples"]},
            )
        except (InputError, KeyError, TypeError, ValueError, RecursionError, zlib.error) as error:
            raise ModelError(
                "what the model says of its page (metadata synapse_onnx.show) cannot be read; "
                "export it anew"
            ) from error


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


def pack(values: NDArray[Any]) -> dict[str, Any]:
    """Return an array as JSON: small integers, where it is made of multiples of a power of two."""
    array = np.asarray(values, dtype=np.float32)
    if not np.isfinite(array).all():
        raise InputError("a sample of a page holds NaN or infinity")
    for step in (1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125):
        whole = array / np.float32(step)
        if (whole == np.round(whole)).all() and (np.abs(whole) <= 127).all():
            data, kind = whole.astype(np.int8).tobytes(), "int8"
            break
    else:
        data, kind, step = array.astype("<f4").tobytes(), "float32", 1.0
    packed = base64.b64encode(zlib.compress(data, 9)).decode("ascii")
    return {"shape": list(array.shape), "type": kind, "step": step, "data": packed}


def unpack(packed: Mapping[str, Any]) -> NDArray[np.float32]:
    """Return the array that :func:`pack` was given.

    Raises:
        ValueError, KeyError, TypeError, zlib.error: it is not what :func:`pack` gives, or unpacks
            to more than a page may hold.
    """
    shape = [_whole(size) for size in packed["shape"]]
    kind = {"int8": "i1", "float32": "<f4"}[packed["type"]]
    size = math.prod(shape)
    if min(shape, default=1) < 0 or size > LARGEST_SAMPLES:
        raise ValueError("a sample that is too large")
    unpacker = zlib.decompressobj()
    data = unpacker.decompress(base64.b64decode(packed["data"], validate=True), size * 4 + 1)
    values: NDArray[Any] = np.frombuffer(data, kind).reshape(shape)
    array = np.asarray(values * np.float32(_number(packed["step"])), dtype=np.float32)
    if not np.isfinite(array).all():
        raise ValueError("a sample that is no number")
    return array


def _wave(value: Mapping[str, Any]) -> Wave:
    sounds = {
        _text(name): (_above_zero(begin), _above_zero(end)) for name, begin, end in value["sounds"]
    }
    steps = _whole(value["steps"])
    if not sounds or steps < 1:
        raise ValueError("no sounds")
    return Wave(sounds, steps, _above_zero(value["grid"]), _above_zero(value["limit"]))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _whole(value: Any) -> int:
    if type(value) is not int or abs(value) > LARGEST_SAMPLES:
        raise TypeError("no whole number")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError("no number")
    return float(value)


def _above_zero(value: Any) -> float:
    if not _number(value) > 0:
        raise ValueError("no number above zero")
    return float(value)
