"""A mark is a spike: rasters, their differences, and the image that many marks become."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from artists import drawn, legend, nonzero, places, sample, scatters
from matplotlib import colors, rcParams, style

import synapse_onnx as so
from synapse_onnx.report._plot_marks import MARKS, PIXELS

pytestmark = pytest.mark.usefixtures("settings_stay")

plot = so.plot

#: forms in which spikes come
KINDS: dict[str, Any] = {
    "NumPy": np.asarray,
    "bool": lambda values: values != 0,
    "list": np.ndarray.tolist,
    "torch": torch.from_numpy,
    "gradient": lambda values: torch.from_numpy(values).requires_grad_(),
}


@pytest.mark.parametrize("shape", [(5, 20), (2, 3, 4, 20)], ids=["dense", "image"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_mark_is_a_spike(shape: tuple[int, ...], kind: Any) -> None:
    values = sample(*shape)
    ax = plot.raster(kind(values))
    (marks,) = scatters(ax)
    assert places(marks) == nonzero(values)
    assert ax.get_xlim() == (-0.5, 19.5)
    assert ax.get_ylim() == (-0.5, np.prod(shape[:-1]) - 0.5)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time step", "neuron")
    assert not legend(ax)
    drawn(ax)


def test_every_difference_is_marked_on_its_side() -> None:
    expected, actual = sample(6, 30), sample(6, 30)
    actual[2, 5] = 1 - actual[2, 5]
    actual[3, 9:12] = 1 - actual[3, 9:12]
    alone = (nonzero(expected) - nonzero(actual), nonzero(actual) - nonzero(expected))
    assert all(alone)
    assert len(alone[0] | alone[1]) == 4
    ax = plot.raster(expected, actual, names=("torch", "ONNX Runtime"))
    both, left, right = scatters(ax)
    assert places(both) == nonzero(expected * actual)
    assert places(left) == alone[0]
    assert places(right) == alone[1]
    # told apart by colour and by shape, and above what is equal
    assert len({tuple(marks.get_edgecolor()[0]) for marks in (both, left, right)}) == 3
    shapes = {marks.get_paths()[0].vertices.tobytes() for marks in (both, left, right)}
    assert len(shapes) == 3
    assert both.get_zorder() < min(left.get_zorder(), right.get_zorder())
    assert legend(ax) == [
        f"both ({len(places(both))})",
        f"torch alone ({len(alone[0])})",
        f"ONNX Runtime alone ({len(alone[1])})",
    ]


def test_equal_sequences_show_no_difference() -> None:
    values = sample(6, 30)
    ax = plot.raster(values, torch.from_numpy(values))
    (both,) = scatters(ax)
    assert places(both) == nonzero(values)
    assert legend(ax)[1:] == ["expected alone (0)", "actual alone (0)"]


def test_graded_spikes_have_their_size() -> None:
    values = np.zeros((3, 8), np.float32)
    values[0, 1], values[1, 4], values[2, 7] = 2.0, -4.0, 1.0
    (marks,) = scatters(plot.raster(values))
    offsets = np.asarray(marks.get_offsets())
    sizes = {tuple(place): size for place, size in zip(offsets, marks.get_sizes(), strict=True)}
    assert sizes[1, 0] / sizes[4, 1] == pytest.approx(2 / 4)
    assert sizes[7, 2] / sizes[4, 1] == pytest.approx(1 / 4)
    filled = dict(zip(map(tuple, offsets), marks.get_facecolor()[:, 3], strict=True))
    assert filled == {(1, 0): 1, (4, 1): 0, (7, 2): 1}  # hollow where it is negative


def test_graded_spikes_differ_in_their_size_too() -> None:
    expected = np.array([[0, 2.0, 0, 3.0]], np.float32)
    actual = np.array([[0, 2.0, 1.0, 2.5]], np.float32)
    ax = plot.raster(expected, actual)
    both, left, right = scatters(ax)
    assert (places(both), places(left), places(right)) == ({(1, 0)}, {(3, 0)}, {(2, 0), (3, 0)})
    assert legend(ax) == [
        "equal (1)", "expected where they differ (1)", "actual where they differ (2)",
    ]  # fmt: skip


def test_many_spikes_are_one_image() -> None:
    """10,000 neurons over 2,000 steps: no artist a spike, and every spike leaves a trace."""
    values = np.zeros((10_000, 2_000), bool)
    values[:, 500:520] = True
    values[9_999, 1_999] = True
    other = values.copy()
    other[40, 7] = True
    ax = plot.raster(values, other)
    (image,) = ax.images
    (right,) = scatters(ax)
    assert places(right) == {(7, 40)}
    shown = np.asarray(image.get_array())[..., 3]
    assert shown.shape == PIXELS
    # a pixel is 25 neurons and 2.5 steps: cut at whole ones
    edges = np.linspace(0, 2_000, PIXELS[1] + 1).astype(int)
    expected = np.add.reduceat(values[0].astype(float), edges[:-1]) / np.diff(edges)
    assert np.array_equal(shown[0] > 0, expected > 0)
    assert np.allclose(shown[0][expected > 0], 0.25 + 0.75 * expected[expected > 0])
    assert shown[-1, -1] > 0.25
    assert np.count_nonzero(shown[:, -1]) == 1
    assert tuple(image.get_extent()) == (-0.5, 1999.5, -0.5, 9999.5)
    assert len(ax.get_children()) < 20
    drawn(ax)


def test_marks_become_an_image_only_above_the_limit() -> None:
    values = np.zeros((MARKS // 100 + 1, 100), np.float32)
    values[:-1] = 1
    assert [len(places(marks)) for marks in scatters(plot.raster(values))] == [MARKS]
    values[-1, 0] = 1
    ax = plot.raster(values)
    assert len(ax.images) == 1
    assert not ax.collections


def test_an_image_of_graded_spikes_is_shaded_by_their_size() -> None:
    values = np.ones((250, 100), np.float32)
    values[:, 50:] = -3
    (image,) = plot.raster(values).images
    shown = np.asarray(image.get_array())[..., 3]
    assert np.allclose(shown[:, :50], 0.25 + 0.75 / 3)
    assert np.allclose(shown[:, 50:], 1)


def test_colours_and_text_follow_the_style() -> None:
    values = sample(4, 10)
    other = 1 - values
    found = {}
    for name in ("default", "dark_background"):
        with style.context(name):
            ax = plot.raster(values, other)
            ink = ax.xaxis.label.get_color()
            assert ink == rcParams["axes.labelcolor"]
            assert colors.same_color(plot.raster(values).collections[0].get_edgecolor()[0], ink)
            back = np.asarray(colors.to_rgb(ax.get_facecolor()))
            found[name] = [marks.get_edgecolor()[0][:3] for marks in scatters(ax)]
            for color in found[name]:
                assert abs(float((color - back).mean())) > 0.25
    assert not np.array_equal(found["default"][0], found["dark_background"][0])
