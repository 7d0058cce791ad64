"""Pictures of spikes, membranes and rates, drawn with matplotlib; extra ``report``.

Each function draws into the caller's axes, or else into a figure of its own, which needs no
display and opens no window: ``plot.raster(spikes).figure.savefig("raster.png")``. No setting of
matplotlib is changed; text and background follow the style in use, colours its brightness.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from synapse_onnx._extra import needed
from synapse_onnx.errors import InputError
from synapse_onnx.report._plot_data import (
    Neuron,
    array_of,
    check_shapes,
    chosen_neurons,
    finite,
    is_graded,
    named_traces,
    neuron_name,
    sequence,
    threshold_levels,
    time_axis,
)
from synapse_onnx.report._plot_marks import (
    DASHES,
    GREYS,
    Marks,
    add_legend,
    axes_or_new,
    draw_spikes,
    draw_thresholds,
    finite_range,
    label_rows,
    palette,
    text_color,
    whole_numbers,
)
from synapse_onnx.report.result import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["divergence", "membrane", "raster", "rates"]

#: most neurons whose voltages one picture shows
NEURONS = 10


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
    expected = finite(sequence(spikes, names[0] if pair else "spikes"), "spikes")
    rows = chosen_neurons(expected.shape[:-1], neurons, "raster")
    scale, unit = time_axis(dt, "raster")
    sides = [expected]
    if actual is not None:
        sides.append(finite(sequence(actual, names[1]), names[1]))
        check_shapes(dict(zip(names, sides, strict=True)), "raster")
    flat = [side.reshape(-1, side.shape[-1]) for side in sides]
    if neurons is not None:
        flat = [side[rows] for side in flat]
    ax = axes_or_new(ax, 3.6)
    count, steps = flat[0].shape
    ax.set(
        xlim=((start - 0.5) * scale, (start + steps - 0.5) * scale),
        ylim=(-0.5, count - 0.5),
        xlabel=unit,
        ylabel="neuron",
    )
    largest = max(float(np.abs(side).max()) for side in flat)
    marks = Marks(ax, start, scale, largest, graded=any(is_graded(side) for side in flat))
    if not pair:
        marks.draw(flat[0], text_color(ax), marks.plain)
    else:
        marks.draw_pair(flat[0], flat[1], names)
    label_rows(ax, rows, every=neurons is None)
    if not unit.endswith("ms"):
        whole_numbers(ax.xaxis)
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
    traces = named_traces(voltage, "voltage")
    shape = next(iter(traces.values())).shape
    rows = chosen_neurons(shape[:-1], neurons, "membrane")
    if len(rows) > NEURONS:
        raise InputError(
            f"membrane: {len(rows):,} neurons are too many for one picture; choose up to {NEURONS} "
            f"by neurons="
        )
    marks = {} if spikes is None else named_traces(spikes, "spikes")
    check_shapes(
        {**traces, **{f"spikes {name}".strip(): m for name, m in marks.items()}}, "membrane"
    )
    for name in marks:
        if name not in traces and name:
            raise InputError(f"membrane: spikes {name!r} have no voltage of that name")
    levels = None if threshold is None else threshold_levels(threshold, shape)
    scale, unit = time_axis(dt, "membrane")
    ax = axes_or_new(ax, 3.0)
    time = np.arange(start, start + shape[-1]) * scale
    colors = palette(ax)
    chosen: dict[tuple[int, str], Any] = {}
    seen = []
    for row in rows:
        for number, (name, values) in enumerate(traces.items()):
            curve = values.reshape(-1, shape[-1])[row].astype(np.float64)
            curve = np.where(np.isfinite(curve), curve, np.nan)
            seen.append(curve)
            color = chosen[row, name] = colors[len(chosen) % len(colors)]
            label = ", ".join(
                filter(None, [neuron_name(row, shape) if len(rows) > 1 else "", name])
            )
            style = DASHES[number % len(DASHES)]
            ax.plot(time, curve, style, color=color, label=label or "voltage", linewidth=1.5)
    if levels is not None:
        seen += draw_thresholds(ax, levels.reshape(-1, shape[-1])[rows], time)
    draw_spikes(ax, marks, rows, chosen, time, finite_range(seen))
    ax.set(
        xlim=((start - 0.5) * scale, (start + shape[-1] - 0.5) * scale),
        xlabel=unit,
        ylabel=f"voltage of {neuron_name(rows[0], shape)}" if len(rows) == 1 else "voltage",
    )
    if len(ax.lines) > 1:
        add_legend(ax)
    if not unit.endswith("ms"):
        whole_numbers(ax.xaxis)
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
        array = finite(array_of(spikes, f"rates: {name}"), f"rates: {name}")
        if array.ndim < 2 or not array.size:
            raise InputError(
                f"rates: {name}: expected neurons and time steps, got shape {array.shape}"
            )
        values.append(np.count_nonzero(array) / array.size)
    ax = axes_or_new(ax, 0.9 + 0.32 * len(values))
    places = np.arange(len(values))
    bars = ax.barh(places, values, color=palette(ax)[0])
    ax.bar_label(bars, fmt="{:.3g}", padding=3)
    ax.set_yticks(places, [str(name) for name in layers])
    ax.set(
        xlim=(0, 1.15 * max(values) or 1),
        ylim=(len(values) - 0.5, -0.5),
        xlabel="spikes per neuron and time step",
    )
    return ax


def divergence(report: Report, *, dt: float | None = None) -> Figure:
    """Draw what a report of :func:`synapse_onnx.verify` has kept, torch and ONNX Runtime overlaid.

    The top panel shows the membrane around the first divergence, if that is a spike. Below it are
    the spikes of every spiking layer, a bounded part of one sample. An equal report has only these.

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

    scale, _ = time_axis(dt, "divergence")
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
        ax.axvline(first.t * scale, color=GREYS[palette(ax)], linewidth=1, zorder=0)
        ax.set_ylabel("above threshold")
    for kept, ax in zip(rasters, panels, strict=True):
        sides, names = (kept.torch, kept.runtime), ("torch", "ONNX Runtime")
        raster(*sides, start=kept.start, dt=dt, names=names, ax=ax)
        if len(kept.neurons) < kept.size[0]:
            label_rows(ax, np.asarray(kept.neurons), every=False)
            ax.set_ylabel(f"{len(kept.neurons)} of {kept.size[0]:,} neurons")
        ax.set_title(kept.name, loc="left", fontsize="medium")
    for ax in axes[:-1]:
        ax.set_xlabel("")
    return figure
