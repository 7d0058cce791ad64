"""Events of a camera or cochlea, (x, y, p, t), binned into spikes over time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synapse_onnx.errors import InputError

__all__ = ["bin_events"]

#: bound on the size of the result, 4 GiB of float32
_MOST = 1 << 30


def bin_events(
    events: Mapping[str, ArrayLike],
    shape: Sequence[int],
    dt: float,
    *,
    steps: int | None = None,
    count: bool = False,
) -> NDArray[np.float32]:
    """Sort events into time steps: an event at time t falls into step ``floor(t / dt)``.

    Args:
        events: arrays (E,) "p" and "t", and "x" and "y" for images. ``p`` is the channel, for a
            camera the polarity; ``x`` the column, ``y`` the row; ``t`` the time, from 0, in any
            unit and any order.
        shape: (C,) or (C, H, W) of one sample.
        dt: length of a time step, in the unit of ``t``.
        steps: number of time steps; by default up to the last event, at least one.
        count: whether several events of one place and step add up; if not, they are one spike.

    Returns:
        float32 array (C, T) or (C, H, W, T).

    Raises:
        InputError: a column is missing, of another length, no numbers or outside of its range, an
            event is later than ``steps``, or the result would be beyond 4 GiB.
    """
    if not (math.isfinite(dt) and dt > 0):
        raise InputError(f"dt must be a finite number > 0, got {dt}")
    names = ("p",) if len(shape) == 1 else ("p", "y", "x")
    missing = [name for name in (*names, "t") if name not in events]
    if missing:
        raise InputError(
            f"events lack the column {missing[0]!r}; for a sample of shape {tuple(shape)} they "
            f"need {', '.join((*names, 't'))}"
        )
    columns = {name: _column(name, events[name]) for name in (*names, "t")}
    sizes = {name: column.size for name, column in columns.items()}
    if len(set(sizes.values())) > 1:
        text = ", ".join(f"{name} has {size}" for name, size in sizes.items())
        raise InputError(f"columns of events must be equally long, and {text}")
    places = [_index(name, columns[name], size) for name, size in zip(names, shape, strict=True)]
    time = columns["t"]
    if time.size and time.min() < 0:
        raise InputError(f"an event has the time {time.min():g}; times begin at 0")
    last = math.floor(float(time.max()) / dt) if time.size else -1
    length = max(last + 1, 1) if steps is None else steps
    if last >= length:
        raise InputError(f"an event falls into step {last}, and there are {length} steps")
    if math.prod(shape) * length > _MOST:
        raise InputError(
            f"{length} steps of shape {tuple(shape)} are beyond 4 GiB; take a larger dt, or let "
            f"times begin at 0"
        )
    frames = np.zeros((*shape, length), np.float32)
    where = (*places, np.floor(time / dt).astype(np.int64))
    if count:
        np.add.at(frames, where, np.float32(1))
    else:
        frames[where] = 1
    return frames


def _column(name: str, values: ArrayLike) -> NDArray[Any]:
    column = np.asarray(values)
    if column.ndim != 1 or column.dtype.kind not in "biuf":
        raise InputError(
            f"column {name!r} of events must be numbers of shape (E,), got {column.dtype} of "
            f"shape {column.shape}"
        )
    if column.dtype.kind == "f" and not np.isfinite(column).all():
        raise InputError(f"column {name!r} of events has NaN or infinite values")
    return column.astype(np.float64)


def _index(name: str, column: NDArray[Any], size: int) -> NDArray[np.int64]:
    wrong = (column < 0) | (column >= size) | (column != np.floor(column))
    if wrong.any():
        event = int(np.argmax(wrong))
        raise InputError(
            f"event {event} has {name}={column[event]:g}; it must be a whole number from 0 to "
            f"{size - 1}"
        )
    return column.astype(np.int64)
