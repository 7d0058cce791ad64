"""Spikes, thresholds and voltages, drawn into axes of matplotlib as suits the style in use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from synapse_onnx.errors import InputError
from synapse_onnx.report._plot_data import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Okabe and Ito's colours, which colour-blind people tell apart, for light and dark backgrounds
_LIGHT = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_DARK = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#D55E00")
#: grey for what is equal, on the same backgrounds
GREYS: dict[tuple[str, ...], str] = {_LIGHT: "#666666", _DARK: "#9A9A9A"}
DASHES = ("-", "--", "-.")
#: spikes of one kind that are drawn as marks; more become one image
MARKS = 20_000
#: most rows and columns of such an image
PIXELS = (400, 800)


def axes_or_new(ax: Axes | None, height: float) -> Axes:
    """Return the axes, or those of a new figure that belongs to no window."""
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    if ax is None:
        return Figure(figsize=(8, height), layout="constrained").subplots()
    if not isinstance(ax, Axes):
        raise InputError(f"ax: expected the axes of a figure, got {type(ax).__name__}")
    return ax


def palette(ax: Axes) -> tuple[str, ...]:
    """Return colours that stand out from the background."""
    from matplotlib.colors import to_rgba

    color = to_rgba(ax.get_facecolor())
    if not color[3]:
        color = to_rgba(ax.figure.get_facecolor())
    luminance = float(np.dot(color[:3], (0.2126, 0.7152, 0.0722)))
    return _DARK if luminance < 0.4 else _LIGHT


def text_color(ax: Axes) -> Any:
    """Return the colour of text in the style in use."""
    return ax.xaxis.label.get_color()


def label_rows(ax: Axes, neurons: Array, *, every: bool) -> None:
    """Label the rows with the neurons' indices, as many as are legible."""
    if every:
        whole_numbers(ax.yaxis)
        return
    shown = np.unique(np.linspace(0, len(neurons) - 1, min(len(neurons), 6)).astype(int))
    ax.set_yticks(shown, [str(neurons[i]) for i in shown])


def whole_numbers(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))


def legend_entry(label: str, color: Any, marker: str) -> Any:
    """Return an entry of a legend."""
    from matplotlib.lines import Line2D

    return Line2D(
        [], [], color=color, marker=marker, linestyle="none", label=label, markeredgewidth=1.5
    )


def add_legend(ax: Axes, handles: Sequence[Any] | None = None) -> None:
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


class Marks:
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
        colors = palette(self.ax)
        kinds = [
            ("equal" if self.graded else "both", ~differs, expected, GREYS[colors], self.plain),
            (f"{names[0]} {word}", differs, expected, colors[1], "v"),
            (f"{names[1]} {word}", differs, actual, colors[0], "^"),
        ]
        handles = []
        for label, where, values, color, marker in kinds:
            count = self.draw(np.where(where, values, 0), color, marker)
            handles.append(legend_entry(f"{label} ({count:,})", color, marker))
        add_legend(self.ax, handles)

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


def draw_thresholds(ax: Axes, levels: Array, time: Array) -> list[Array]:
    """Draw one line where all neurons have one threshold, else one a neuron; return what it was."""
    style: dict[str, Any] = {
        "color": text_color(ax),
        "linestyle": ":",
        "linewidth": 1.2,
        "zorder": 1,
    }
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


def draw_spikes(
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
            color = colors.get((row, name), text_color(ax))
            ax.scatter(at, np.full(len(at), place), s=36, marker="|", color=color, linewidths=1.5)
    ax.set_ylim(low - height, place + height)


def finite_range(curves: Sequence[Array]) -> tuple[float, float]:
    """Return the least and the largest finite value, apart."""
    values = np.concatenate(curves)
    values = values[np.isfinite(values)]
    if not values.size:
        return -1.0, 1.0
    low, high = float(values.min()), float(values.max())
    return (low, high) if low < high else (low - 0.5, high + 0.5)
