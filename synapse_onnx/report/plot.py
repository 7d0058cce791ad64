"""Pictures of spikes, membranes and rates, drawn with matplotlib; extra ``report``.

Each function draws into the axes that it is given, or else into a figure of its own, which needs no
display and opens no window: ``plot.raster(spikes).figure.savefig("raster.png")``. No setting of
matplotlib is changed; text and background follow the style in use, colours its brightness.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synapse_onnx._extra import needed
from synapse_onnx.errors import InputError
from synapse_onnx.report.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["divergence", "membrane", "raster", "rates"]

#: spikes of one kind that are drawn as marks; more become one image
MARKS = 20_000
#: most rows and columns of such an image
PIXELS = (400, 800)
#: most neurons whose voltages one picture shows
NEURONS = 10

#: Okabe and Ito's colours, which colour-blind people tell apart, for light and dark backgrounds
_LIGHT = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_DARK = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#D55E00")
#: of what is equal, on the same backgrounds
_GREYS: dict[tuple[str, ...], str] = {_LIGHT: "#666666", _DARK: "#9A9A9A"}
_DASHES = ("-", "--", "-.")

Array = NDArray[Any]
#: a neuron by its flat index, or by (channel,) or (channel, row, column)
Neuron = int | Sequence[int]


def raster(
    spikes: ArrayLike,
    actual: ArrayLike | None = None,
    *,
    neurons: Sequence[Neuron] | None = None,
    start: int = 0,
    dt: float | None = None,
    names: tuple[str, str] = ("expected", "actual"),
    ax: Axes | None = None,
) -> Axes:
    """Draw the spikes of a sample over time, or two of them laid over each other.

    A mark is a value that is not zero. Graded spikes are discs, their area the size of the spike,
    hollow where it is negative. Of two sequences, what is equal is grey, and a place that differs
    bears a mark in the colour and shape of each side that spikes there. Spikes of one kind that are
    more than 20,000 become an image, the darker the more spikes a pixel holds.

    Args:
        spikes: (C, T) or (C, H, W, T), NumPy or torch; the expected ones of a pair.
        actual: the other sequence of a pair, of the same shape.
        neurons: which neurons to show, a row each in this order; all by default.
        start: time step of the first value.
        dt: milliseconds of a time step; without it time is in steps.
        names: what the two sides of a pair are called.
        ax: axes to draw into; of a new figure by default.

    Returns:
        The axes.

    Raises:
        InputError: a shape or an argument does not fit, a value is not finite, or matplotlib is
            missing.
    """
    needed("matplotlib", "report", "plot.raster")
    pair = actual is not None
    expected = _finite(_sequence(spikes, names[0] if pair else "spikes"), "spikes")
    rows = _chosen(expected.shape[:-1], neurons, "raster")
    scale, unit = _time(dt, "raster")
    sides = [expected]
    if actual is not None:
        sides.append(_finite(_sequence(actual, names[1]), names[1]))
        _same_shape(dict(zip(names, sides, strict=True)), "raster")
    flat = [side.reshape(-1, side.shape[-1]) for side in sides]
    if neurons is not None:
        flat = [side[rows] for side in flat]
    ax = _axes(ax, 3.6)
    count, steps = flat[0].shape
    ax.set(
        xlim=((start - 0.5) * scale, (start + steps - 0.5) * scale),
        ylim=(-0.5, count - 0.5),
        xlabel=unit,
        ylabel="neuron",
    )
    largest = max(float(np.abs(side).max()) for side in flat)
    marks = _Marks(ax, start, scale, largest, graded=any(_is_graded(side) for side in flat))
    if not pair:
        marks.draw(flat[0], _ink(ax), marks.plain)
    else:
        marks.draw_pair(flat[0], flat[1], names)
    _label_rows(ax, rows, every=neurons is None)
    if not unit.endswith("ms"):
        _whole_numbers(ax.xaxis)
    return ax


def membrane(
    voltage: ArrayLike | Mapping[str, ArrayLike],
    *,
    threshold: ArrayLike | None = None,
    spikes: ArrayLike | Mapping[str, ArrayLike] | None = None,
    neurons: Sequence[Neuron] | None = None,
    start: int = 0,
    dt: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the voltages of neurons of a sample over time, with threshold and spikes.

    Values that are not finite leave a gap. Spikes are marks above the voltages, a line of them for
    each neuron and trace, in the colour of the voltage.

    Args:
        voltage: (C, T) or (C, H, W, T), NumPy or torch; or several such traces by name, which are
            laid over each other.
        threshold: one for all; one a channel (C,); or of the voltage's shape, where it adapts.
        spikes: of the voltage's shape; or by the name of the trace.
        neurons: which neurons to show, at most 10; all by default.
        start: time step of the first value.
        dt: milliseconds of a time step; without it time is in steps.
        ax: axes to draw into; of a new figure by default.

    Returns:
        The axes.

    Raises:
        InputError: a shape or an argument does not fit, there are more than 10 neurons, or
            matplotlib is missing.
    """
    needed("matplotlib", "report", "plot.membrane")
    traces = _traces(voltage, "voltage")
    shape = next(iter(traces.values())).shape
    rows = _chosen(shape[:-1], neurons, "membrane")
    if len(rows) > NEURONS:
        raise InputError(
            f"membrane: {len(rows):,} neurons are too many for one picture; choose up to {NEURONS} "
            f"by neurons="
        )
    marks = {} if spikes is None else _traces(spikes, "spikes")
    _same_shape(
        {**traces, **{f"spikes {name}".strip(): m for name, m in marks.items()}}, "membrane"
    )
    for name in marks:
        if name not in traces and name:
            raise InputError(f"membrane: spikes {name!r} have no voltage of that name")
    levels = None if threshold is None else _levels(threshold, shape)
    scale, unit = _time(dt, "membrane")
    ax = _axes(ax, 3.0)
    time = np.arange(start, start + shape[-1]) * scale
    colors = _palette(ax)
    chosen: dict[tuple[int, str], Any] = {}
    seen = []
    for row in rows:
        for number, (name, values) in enumerate(traces.items()):
            curve = values.reshape(-1, shape[-1])[row].astype(np.float64)
            curve = np.where(np.isfinite(curve), curve, np.nan)
            seen.append(curve)
            color = chosen[row, name] = colors[len(chosen) % len(colors)]
            label = ", ".join(filter(None, [_neuron(row, shape) if len(rows) > 1 else "", name]))
            style = _DASHES[number % len(_DASHES)]
            ax.plot(time, curve, style, color=color, label=label or "voltage", linewidth=1.5)
    if levels is not None:
        seen += _draw_thresholds(ax, levels.reshape(-1, shape[-1])[rows], time)
    _draw_spikes(ax, marks, rows, chosen, time, _range(seen))
    ax.set(
        xlim=((start - 0.5) * scale, (start + shape[-1] - 0.5) * scale),
        xlabel=unit,
        ylabel=f"voltage of {_neuron(rows[0], shape)}" if len(rows) == 1 else "voltage",
    )
    if len(ax.lines) > 1:
        _legend(ax)
    if not unit.endswith("ms"):
        _whole_numbers(ax.xaxis)
    return ax


def rates(layers: Mapping[str, ArrayLike], *, ax: Axes | None = None) -> Axes:
    """Draw a bar for each layer: spikes per neuron and time step, the first layer on top.

    A spike is a value that is not zero, of whatever size.

    Args:
        layers: spikes of each layer by its name, time last, with any axes before it, NumPy or
            torch; over a batch it is the mean.
        ax: axes to draw into; of a new figure by default.

    Returns:
        The axes.

    Raises:
        InputError: there are no layers, an array is empty or not of numbers, or matplotlib is
            missing.
    """
    needed("matplotlib", "report", "plot.rates")
    if not isinstance(layers, Mapping) or not layers:
        raise InputError("rates: expected the spikes of at least one layer, as {name: spikes}")
    values = []
    for name, spikes in layers.items():
        array = _finite(_array(spikes, f"rates: {name}"), f"rates: {name}")
        if array.ndim < 2 or not array.size:
            raise InputError(
                f"rates: {name}: expected neurons and time steps, got shape {array.shape}"
            )
        values.append(np.count_nonzero(array) / array.size)
    ax = _axes(ax, 0.9 + 0.32 * len(values))
    places = np.arange(len(values))
    bars = ax.barh(places, values, color=_palette(ax)[0])
    ax.bar_label(bars, fmt="{:.3g}", padding=3)
    ax.set_yticks(places, [str(name) for name in layers])
    ax.set(
        xlim=(0, 1.15 * max(values) or 1),
        ylim=(len(values) - 0.5, -0.5),
        xlabel="spikes per neuron and time step",
    )
    return ax


def divergence(report: Result, *, dt: float | None = None) -> Figure:
    """Draw what a report of :func:`synapse_onnx.verify` has kept, torch and ONNX Runtime overlaid.

    On top stands the membrane around the first divergence, where that is a spike; below it the
    spikes of every spiking layer, a bounded part of one sample. Of an equal report there are the
    spikes alone.

    Args:
        report: what ``verify`` returned.
        dt: milliseconds of a time step; without it time is in steps.

    Returns:
        A figure of its own, one panel below the other.

    Raises:
        InputError: the report holds neither spikes nor a membrane, or matplotlib is missing.
    """
    needed("matplotlib", "report", "plot.divergence")
    from matplotlib.figure import Figure

    scale, _ = _time(dt, "divergence")
    first, near = report.first_divergence, report.membrane
    if first is None or first.t is None:
        near = None
    rasters = [raster for raster in report.shown_rasters if raster.torch.size]
    if near is None and not rasters:
        raise InputError("divergence: the report holds no spikes over time and no membrane to show")
    heights = [2.4] * (near is not None)
    heights += [0.8 + 0.02 * len(raster.neurons) for raster in rasters]
    figure = Figure(figsize=(8, 0.5 + sum(heights) + 0.35 * len(heights)), layout="constrained")
    axes = list(figure.subplots(len(heights), squeeze=False, height_ratios=heights)[:, 0])
    if first is not None:
        figure.suptitle(textwrap.fill(str(first), 90), fontsize="medium")
    panels = iter(axes)
    if near is not None and first is not None and first.t is not None:
        curves = {"torch": [near.on_torch], "on ONNX Runtime's currents": [near.on_runtime]}
        ax = membrane(curves, threshold=0.0, start=near.start, dt=dt, ax=next(panels))
        ax.axvline(first.t * scale, color=_GREYS[_palette(ax)], linewidth=1, zorder=0)
        ax.set_ylabel("above threshold")
    for kept, ax in zip(rasters, panels, strict=True):
        sides, names = (kept.torch, kept.runtime), ("torch", "ONNX Runtime")
        raster(*sides, start=kept.start, dt=dt, names=names, ax=ax)
        if len(kept.neurons) < kept.size[0]:
            _label_rows(ax, np.asarray(kept.neurons), every=False)
            ax.set_ylabel(f"{len(kept.neurons)} of {kept.size[0]:,} neurons")
        ax.set_title(kept.name, loc="left", fontsize="medium")
    for ax in axes[:-1]:
        ax.set_xlabel("")
    return figure


# -- what is given -------------------------------------------------------------------------------


def _array(value: Any, what: str) -> Array:
    """Return an array of real numbers; of a torch tensor on any device, without importing torch."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    try:
        array = np.asarray(value)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{what}: expected an array of numbers: {error}") from error
    if array.dtype.kind not in "biuf":
        raise InputError(f"{what}: expected an array of real numbers, got {array.dtype}")
    return array


def _finite(array: Array, what: str) -> Array:
    if not np.isfinite(array).all():
        raise InputError(f"{what}: there are NaN or infinite values")
    return array


def _sequence(value: Any, what: str) -> Array:
    """Return one sample over time."""
    array = _array(value, what)
    if array.ndim not in (2, 4):
        hint = "; take one sample of the batch" if array.ndim in (3, 5) else ""
        raise InputError(
            f"{what}: expected one sample, (C, T) or (C, H, W, T), got shape {array.shape}{hint}"
        )
    if not array.size:
        raise InputError(f"{what}: shape {array.shape} has no neurons or no time steps")
    return array


def _traces(value: Any, what: str) -> dict[str, Array]:
    """Return the traces by name; one that is given alone has none."""
    if not isinstance(value, Mapping):
        return {"": _sequence(value, what)}
    if not value:
        raise InputError(f"{what}: there is no trace to show")
    return {str(name): _sequence(trace, f"{what} {name}") for name, trace in value.items()}


def _same_shape(arrays: Mapping[str, Array], what: str) -> None:
    (name, first), *others = arrays.items()
    for other, array in others:
        if array.shape != first.shape:
            raise InputError(
                f"{what}: {name or 'voltage'} has shape {first.shape}, {other} {array.shape}"
            )


def _chosen(shape: tuple[int, ...], neurons: Sequence[Neuron] | None, what: str) -> Array:
    """Return the flat indices of the neurons to show."""
    if neurons is None:
        return np.arange(math.prod(shape))
    if not isinstance(neurons, Iterable):
        raise InputError(f"{what}: neurons= takes a list of neurons, got {neurons!r}")
    chosen = []
    for neuron in neurons:
        index: Sequence[Any] = neuron if isinstance(neuron, Sequence) else [neuron]
        sizes = shape if isinstance(neuron, Sequence) else (math.prod(shape),)
        if len(index) != len(sizes) or not all(
            isinstance(i, int | np.integer) and 0 <= i < size
            for i, size in zip(index, sizes, strict=True)
        ):
            raise InputError(f"{what}: there is no neuron {neuron!r} in a layer of shape {shape}")
        chosen.append(int(np.ravel_multi_index(tuple(index), sizes)))
    if not chosen:
        raise InputError(f"{what}: neurons= names no neuron")
    return np.asarray(chosen)


def _levels(threshold: Any, shape: tuple[int, ...]) -> Array:
    """Return the threshold in the voltage's shape."""
    array = _array(threshold, "threshold")
    if array.shape == shape[:1] and array.ndim:
        array = array.reshape(-1, *(1,) * (len(shape) - 1))
    elif array.shape not in ((), shape):
        raise InputError(
            f"threshold: expected one number, one a channel ({shape[0]},) or the voltage's shape "
            f"{shape}, got shape {array.shape}"
        )
    return np.broadcast_to(array, shape)


def _time(dt: float | None, what: str) -> tuple[float, str]:
    """Return the length of a step on the time axis, and what the axis is called."""
    if dt is None:
        return 1.0, "time step"
    if not (math.isfinite(dt) and dt > 0):
        raise InputError(f"{what}: dt must be a finite number of milliseconds > 0, got {dt}")
    return float(dt), "time in ms"


def _is_graded(values: Array) -> bool:
    return values.dtype != bool and bool(((values != 0) & (values != 1)).any())


# -- what is drawn -------------------------------------------------------------------------------


class _Marks:
    """Spikes as marks of one raster, or as images where they are many."""

    def __init__(self, ax: Axes, start: int, scale: float, largest: float, *, graded: bool) -> None:
        self.ax, self.start, self.scale = ax, start, scale
        self.largest, self.graded = largest, graded
        #: of spikes that need no distinction
        self.plain = "o" if graded else "|"
        box = ax.get_window_extent()
        points = 72 / ax.figure.dpi
        (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
        #: a neuron's row and a time step, in points
        self.row = box.height * points / (high - low)
        self.step = box.width * points / ((right - left) / scale)

    def draw_pair(self, expected: Array, actual: Array, names: tuple[str, str]) -> None:
        """Draw what is equal in grey, and what differs in the colour and shape of its side."""
        differs = expected != actual
        both = (differs & (expected != 0) & (actual != 0)).any()
        word = "where they differ" if both else "alone"
        colors = _palette(self.ax)
        kinds = [
            ("equal" if self.graded else "both", ~differs, expected, _GREYS[colors], self.plain),
            (f"{names[0]} {word}", differs, expected, colors[1], "v"),
            (f"{names[1]} {word}", differs, actual, colors[0], "^"),
        ]
        handles = []
        for label, where, values, color, marker in kinds:
            count = self.draw(np.where(where, values, 0), color, marker)
            handles.append(_key(f"{label} ({count:,})", color, marker))
        _legend(self.ax, handles)

    def draw(self, values: Array, color: Any, marker: str) -> int:
        """Draw spikes (neurons, steps) and return their number."""
        count = int(np.count_nonzero(values))
        if count > MARKS:
            self._image(values, color)
        elif count:
            self._scatter(values, color, marker)
        return count

    def _scatter(self, values: Array, color: Any, marker: str) -> None:
        neurons, steps = np.nonzero(values)
        sizes = values[neurons, steps].astype(np.float64)
        plain = marker == self.plain
        if self.graded:
            base = min(max(self.row, 3.0), 10.0) ** 2 * (1 if plain else 1.6)
            area: Any = np.maximum(np.abs(sizes) / self.largest, 0.02) * base
        else:
            size = min(max(0.8 * self.row, 1.5), 14.0) if plain else min(max(2 * self.row, 4), 6)
            area = size**2
        width = 0.8 if marker != "|" else min(max(0.7 * self.step, 0.5), 2.0)
        marks = self.ax.scatter(
            (self.start + steps) * self.scale,
            neurons,
            s=area,
            marker=marker,
            color=color,
            linewidths=width,
            zorder=2 if plain else 3,
        )
        if (sizes < 0).any():
            marks.set_facecolor([(0, 0, 0, 0) if size < 0 else color for size in sizes])

    def _image(self, values: Array, color: Any) -> None:
        """Draw how much each pixel holds as its opacity; the least stays visible."""
        from matplotlib.colors import to_rgb

        amount = np.abs(values) if self.graded else values != 0
        for axis, most in enumerate(PIXELS):
            size = values.shape[axis]
            edges = np.linspace(0, size, min(size, most) + 1).astype(np.int64)
            sums = np.add.reduceat(amount, edges[:-1], axis=axis, dtype=np.float32)
            amount = sums / np.expand_dims(np.diff(edges), 1 - axis)
        pixels = np.empty((*amount.shape, 4), np.float32)
        pixels[..., :3] = to_rgb(color)
        pixels[..., 3] = np.where(amount > 0, 0.25 + 0.75 * amount / amount.max(), 0)
        limits = (*self.ax.get_xlim(), *self.ax.get_ylim())
        self.ax.imshow(pixels, extent=limits, origin="lower", aspect="auto", zorder=1)


def _draw_thresholds(ax: Axes, levels: Array, time: Array) -> list[Array]:
    """Draw one line where all neurons have one threshold, else one a neuron; return what it was."""
    style: dict[str, Any] = {"color": _ink(ax), "linestyle": ":", "linewidth": 1.2, "zorder": 1}
    if (levels == levels.flat[0]).all():
        ax.axhline(float(levels.flat[0]), label="threshold", **style)
        return [levels[0, :1]]
    voltages = [line.get_color() for line in ax.lines]
    traces = len(voltages) // len(levels)
    for i, level in enumerate(levels):
        color = voltages[i * traces] if len(levels) > 1 else style["color"]
        label = "threshold" if i == 0 else "_threshold"  # one line of the legend for all
        ax.plot(time, level, label=label, **{**style, "color": color})
    return list(levels)


def _draw_spikes(
    ax: Axes,
    marks: Mapping[str, Array],
    rows: Array,
    colors: Mapping[tuple[int, str], Any],
    time: Array,
    limits: tuple[float, float],
) -> None:
    """Draw the spikes above the voltages, each neuron and trace on a line of its own."""
    low, high = limits
    height = 0.08 * (high - low)
    place = high
    for row in rows:
        for name, spikes in marks.items():
            place += height
            at = time[spikes.reshape(-1, len(time))[row] != 0]
            color = colors.get((row, name), _ink(ax))
            ax.scatter(at, np.full(len(at), place), s=36, marker="|", color=color, linewidths=1.5)
    ax.set_ylim(low - height, place + height)


def _range(curves: Sequence[Array]) -> tuple[float, float]:
    """Return the least and the largest finite value, apart."""
    values = np.concatenate(curves)
    values = values[np.isfinite(values)]
    if not values.size:
        return -1.0, 1.0
    low, high = float(values.min()), float(values.max())
    return (low, high) if low < high else (low - 0.5, high + 0.5)


# -- axes ----------------------------------------------------------------------------------------


def _axes(ax: Axes | None, height: float) -> Axes:
    """Return the axes, or those of a new figure that belongs to no window."""
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    if ax is None:
        return Figure(figsize=(8, height), layout="constrained").subplots()
    if not isinstance(ax, Axes):
        raise InputError(f"ax: expected the axes of a figure, got {type(ax).__name__}")
    return ax


def _palette(ax: Axes) -> tuple[str, ...]:
    """Return colours that stand out from the background."""
    from matplotlib.colors import to_rgba

    color = to_rgba(ax.get_facecolor())
    if not color[3]:
        color = to_rgba(ax.figure.get_facecolor())
    luminance = float(np.dot(color[:3], (0.2126, 0.7152, 0.0722)))
    return _DARK if luminance < 0.4 else _LIGHT


def _ink(ax: Axes) -> Any:
    """Return the colour of text in the style in use."""
    return ax.xaxis.label.get_color()


def _neuron(flat: int, shape: tuple[int, ...]) -> str:
    """Name a neuron by channel, or by (channel, row, column)."""
    index = tuple(int(i) for i in np.unravel_index(flat, shape[:-1]))
    return f"neuron {index[0] if len(index) == 1 else index}"


def _label_rows(ax: Axes, neurons: Array, *, every: bool) -> None:
    """Put the neurons' indices beside the rows, as many as are legible."""
    if every:
        _whole_numbers(ax.yaxis)
        return
    shown = np.unique(np.linspace(0, len(neurons) - 1, min(len(neurons), 6)).astype(int))
    ax.set_yticks(shown, [str(neurons[i]) for i in shown])


def _whole_numbers(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))


def _key(label: str, color: Any, marker: str) -> Any:
    """Return an entry of a legend."""
    from matplotlib.lines import Line2D

    return Line2D(
        [], [], color=color, marker=marker, linestyle="none", label=label, markeredgewidth=1.5
    )


def _legend(ax: Axes, handles: Sequence[Any] | None = None) -> None:
    """Put a legend above the axes, where it hides nothing."""
    entries = {} if handles is None else {"handles": handles}
    ax.legend(
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=4,
        frameon=False,
        borderaxespad=0.2,
        columnspacing=1.2,
        handletextpad=0.5,
        fontsize="small",
        **entries,
    )
