"""What a model may say of its page: labels, how outputs are read, how an input is made by hand."""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from synapse_onnx.errors import InputError, ModelError

__all__ = ["DECODES", "Show", "Wave"]

#: how a class is read from the outputs: most spikes, largest mean, largest last value
DECODES = ("count", "mean", "last")

_KEY = "synapse_onnx.show"
#: most values of all samples together, and most labels: a page is no data set
LARGEST_SAMPLES, _LABELS = 1 << 22, 10_000


@dataclass(frozen=True)
class Wave:
    """Sounds that a reader of the page may put together, for an input of one channel.

    Attributes:
        sounds: name -> (period at the beginning, period at the end), in steps.
        steps: steps over which a period changes.
        grid: values are whole multiples of it, so that sums stay exact.
        limit: largest magnitude of a value.
    """

    sounds: Mapping[str, tuple[float, float]]
    steps: int = 96
    grid: float = 0.125
    limit: float = 4.0


@dataclass(frozen=True)
class Show:
    """What the page of a model says and offers beside what follows from its graph.

    Attributes:
        title: heading of the page.
        text: a sentence or two below it.
        labels: names of the first output's channels, in their order.
        decode: how a class is read: the most spikes ("count"), the largest mean ("mean") or the
            largest last value ("last"); "" leaves it to the page, which counts what spikes.
        window: steps that count, up to the present one; 0 for all since the last reset.
        period: steps of one presentation. A drawn pixel of level g spikes g times in so many
            steps, evenly spread.
        wave: sounds to choose from, for an input of one channel.
        bump: width of a bump of light that follows the pointer, in channels; 0 for none. For an
            input without height and width.
        samples: name -> values of one sample (C[, H, W], T), of a model with one input.

    Raises:
        InputError: an attribute that a page could not show.
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
        """Store this in a model, replacing what it said before."""
        self.remove(model)
        document: dict[str, Any] = {
            "title": self.title,
            "text": self.text,
            "labels": list(self.labels),
            "decode": self.decode,
            "window": self.window,
            "period": self.period,
            "bump": self.bump,
            "samples": [[name, pack(values)] for name, values in self.samples.items()],
        }
        if self.wave is not None:
            document["wave"] = {
                "sounds": [[name, *periods] for name, periods in self.wave.sounds.items()],
                "steps": self.wave.steps,
                "grid": self.wave.grid,
                "limit": self.wave.limit,
            }
        prop = model.metadata_props.add()
        prop.key, prop.value = _KEY, json.dumps(document, sort_keys=True)

    @staticmethod
    def remove(model: onnx.ModelProto) -> None:
        """Take out of a model what it says of its page."""
        kept = [prop for prop in model.metadata_props if prop.key != _KEY]
        if len(kept) < len(model.metadata_props):
            pairs = [(prop.key, prop.value) for prop in kept]
            onnx.helper.set_model_props(model, dict(pairs))

    @classmethod
    def read(cls, model: onnx.ModelProto) -> Show:
        """Read what a model says of its page; what is not said has its default.

        Raises:
            ModelError: it is not what :meth:`write` writes.
        """
        text = next((prop.value for prop in model.metadata_props if prop.key == _KEY), None)
        if text is None:
            return cls()
        try:
            found = json.loads(text)
            return cls(
                title=_text(found["title"]),
                text=_text(found["text"]),
                labels=tuple(_text(label) for label in found["labels"]),
                decode=_text(found["decode"]),
                window=_whole(found["window"]),
                period=_whole(found["period"]),
                wave=_wave(found["wave"]) if "wave" in found else None,
                bump=_number(found["bump"]),
                samples={_text(name): unpack(packed) for name, packed in found["samples"]},
            )
        except (InputError, KeyError, TypeError, ValueError, RecursionError, zlib.error) as error:
            raise ModelError(
                "what the model says of its page (metadata synapse_onnx.show) cannot be read; "
                "export it anew"
            ) from error


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
    kinds: dict[str, Any] = {"int8": np.int8, "float32": np.dtype("<f4")}
    kind = kinds[packed["type"]]
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


def _wave(found: Mapping[str, Any]) -> Wave:
    sounds = {
        _text(name): (_above_zero(begin), _above_zero(end)) for name, begin, end in found["sounds"]
    }
    steps = _whole(found["steps"])
    if not sounds or steps < 1:
        raise ValueError("no sounds")
    return Wave(sounds, steps, _above_zero(found["grid"]), _above_zero(found["limit"]))


def _text(found: Any) -> str:
    if not isinstance(found, str):
        raise TypeError("no text")
    return found


def _whole(found: Any) -> int:
    if type(found) is not int or abs(found) > LARGEST_SAMPLES:
        raise TypeError("no whole number")
    return found


def _number(found: Any) -> float:
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise TypeError("no number")
    return float(found)


def _above_zero(found: Any) -> float:
    if not _number(found) > 0:
        raise ValueError("no number above zero")
    return float(found)
