"""Axes of matplotlib: colours, labels and legends that suit the style in use."""

from __future__ import annotations

from collections.abc import Sequence
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
