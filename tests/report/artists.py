"""What was drawn, read back from matplotlib's own artists."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from networks import spikes


def sample(*shape: int, seed: int = 0, rate: float = 0.3) -> np.ndarray:
    return spikes(*shape, seed=seed, rate=rate).numpy()


def scatters(ax: Axes) -> list[PathCollection]:
    found = [artist for artist in ax.collections if isinstance(artist, PathCollection)]
    assert len(found) == len(ax.collections)
    return found


def places(marks: PathCollection) -> set[tuple[float, float]]:
    """(time, row) of every mark; no mark stands twice."""
    offsets = [(float(x), float(y)) for x, y in np.asarray(marks.get_offsets())]
    assert len(set(offsets)) == len(offsets)
    return set(offsets)


def nonzero(values: np.ndarray) -> set[tuple[float, float]]:
    rows, steps = np.nonzero(values.reshape(-1, values.shape[-1]))
    return {(float(t), float(row)) for row, t in zip(rows, steps, strict=True)}


def drawn(ax: Axes) -> Figure:
    """Draw a figure as a file would have it: what cannot be drawn raises here."""
    figure = ax.figure
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    return figure


def legend(ax: Axes) -> list[str]:
    found = ax.get_legend()
    return [] if found is None else [text.get_text() for text in found.get_texts()]
