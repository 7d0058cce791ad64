"""Pictures: what is drawn is what was given, read back from matplotlib's own artists."""

from __future__ import annotations

import dataclasses
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faults import one_weight
from matplotlib import colors, rcParams, style
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from networks import Convolutional, spikes

import synapse_onnx as so
from synapse_onnx.report._plot_marks import MARKS, PIXELS
from synapse_onnx.report.plot import NEURONS

plot = so.plot

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def faulty() -> so.Report:
    torch.manual_seed(0)
    network = Convolutional().eval()
    inputs = spikes(3, 2, 8, 8, 30)
    model = so.export(network, inputs)
    one_weight(model)
    return so.verify(network, model, inputs, native=False)


@pytest.fixture(autouse=True)
def _settings_stay() -> Any:
    """No picture of this module changes a setting of matplotlib, or makes pyplot come."""
    before, windows = dict(rcParams), "matplotlib.pyplot" in sys.modules
    yield
    assert dict(rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == windows


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


# -- raster --------------------------------------------------------------------------------------

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


def test_time_is_in_steps_or_in_milliseconds() -> None:
    values = sample(4, 10)
    late = plot.raster(values, start=100)
    assert places(scatters(late)[0]) == {(t + 100, n) for t, n in nonzero(values)}
    assert late.get_xlim() == (99.5, 109.5)
    ax = plot.raster(values, start=100, dt=0.5)
    assert places(scatters(ax)[0]) == {((t + 100) * 0.5, n) for t, n in nonzero(values)}
    assert ax.get_xlim() == (49.75, 54.75)
    assert ax.get_xlabel() == "time in ms"


def test_chosen_neurons_have_rows_in_their_order() -> None:
    values = sample(2, 3, 4, 20)
    flat = values.reshape(-1, 20)
    ax = plot.raster(values, neurons=[7, (1, 2, 3), np.int64(0)])
    assert places(scatters(ax)[0]) == nonzero(flat[[7, 23, 0]])
    drawn(ax)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["7", "23", "0"]
    assert ax.get_yticks().tolist() == [0, 1, 2]


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


# -- membrane ------------------------------------------------------------------------------------


def test_membrane_shows_voltage_threshold_and_spikes() -> None:
    neuron = so.neuron.cuba.Neuron(threshold=1.0, current_decay=0.2, voltage_decay=0.1)
    current = 0.4 * spikes(1, 3, 50)
    voltage = neuron.dynamics(current)[1][0]
    neuron.reset()
    fired = neuron(current)[0]
    assert fired.any()
    ax = plot.membrane(voltage, threshold=1.0, spikes=fired, neurons=[2, 0])
    first, second, level = ax.lines
    for line, row in ((first, 2), (second, 0)):
        assert np.array_equal(line.get_xdata(), np.arange(50))
        assert np.array_equal(line.get_ydata(), voltage[row].double().numpy())
    assert list(level.get_ydata()) == [1.0, 1.0]
    assert legend(ax) == ["neuron 2", "neuron 0", "threshold"]
    top = float(voltage[[0, 2]].max())
    heights = []
    for marks, line, row in zip(scatters(ax), (first, second), (2, 0), strict=True):
        offsets = np.asarray(marks.get_offsets())
        assert np.array_equal(offsets[:, 0], np.nonzero(fired[row].numpy())[0])
        assert colors.same_color(marks.get_edgecolor()[0], line.get_color())
        (height,) = set(offsets[:, 1])
        heights.append(height)
    assert top < heights[0] < heights[1] < ax.get_ylim()[1]
    drawn(ax)


def test_traces_are_laid_over_each_other() -> None:
    voltage = np.random.default_rng(0).normal(size=(4, 20))
    fired = {"ONNX Runtime": voltage > 1}
    ax = plot.membrane(
        {"torch": voltage, "ONNX Runtime": voltage + 1},
        spikes=fired, neurons=[(3,)], start=10, dt=2.0,
    )  # fmt: skip
    torch_line, ort_line = ax.lines
    assert np.array_equal(torch_line.get_ydata(), voltage[3])
    assert np.array_equal(ort_line.get_ydata(), voltage[3] + 1)
    assert np.array_equal(ort_line.get_xdata(), np.arange(20, 60, 2))
    assert torch_line.get_linestyle() != ort_line.get_linestyle()
    assert torch_line.get_color() != ort_line.get_color()
    (marks,) = scatters(ax)
    assert colors.same_color(marks.get_edgecolor()[0], ort_line.get_color())
    assert legend(ax) == ["torch", "ONNX Runtime"]
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("voltage of neuron 3", "time in ms")
    assert ax.get_xlim() == (19, 59)


def test_thresholds_of_channels_and_over_time() -> None:
    voltage = np.random.default_rng(0).normal(size=(2, 1, 2, 20))
    ax = plot.membrane(voltage, threshold=[1.0, 2.0])
    levels = [line.get_ydata() for line in ax.lines[4:]]
    assert [set(level) for level in levels] == [{1.0}, {1.0}, {2.0}, {2.0}]
    assert [a.get_color() for a in ax.lines[4:]] == [a.get_color() for a in ax.lines[:4]]
    assert legend(ax).count("threshold") == 1
    one = plot.membrane(voltage, threshold=torch.tensor([1.0, 2.0]), neurons=[(1, 0, 0), (1, 0, 1)])
    assert list(one.lines[-1].get_ydata()) == [2.0, 2.0]
    assert len(one.lines) == 3
    adaptive = 1 + np.abs(voltage)
    ax = plot.membrane(voltage, threshold=adaptive, neurons=[1])
    assert np.array_equal(ax.lines[1].get_ydata(), adaptive[0, 0, 1])


def test_what_is_not_finite_leaves_a_gap() -> None:
    voltage = np.array([[0.0, np.inf, 1.0, np.nan, 2.0]])
    ax = plot.membrane(voltage)
    assert np.array_equal(ax.lines[0].get_ydata(), [0.0, np.nan, 1.0, np.nan, 2.0], equal_nan=True)
    assert all(np.isfinite(ax.get_ylim()))
    drawn(ax)
    drawn(plot.membrane(np.full((1, 3), np.nan)))


# -- rates ---------------------------------------------------------------------------------------


def test_bars_are_the_rates() -> None:
    layers = {"0": sample(4, 25), "mix.neuron": -3 * sample(2, 3, 2, 2, 9, seed=1), "silent": [[0]]}
    ax = plot.rates(layers)
    expected = [np.count_nonzero(values) / np.size(values) for values in layers.values()]
    assert 0 < expected[0] < 1
    assert [bar.get_width() for bar in ax.patches] == expected
    centres = [bar.get_y() + bar.get_height() / 2 for bar in ax.patches]
    assert centres == pytest.approx([0, 1, 2])
    assert ax.yaxis_inverted()
    assert [label.get_text() for label in ax.get_yticklabels()] == list(layers)
    assert [text.get_text() for text in ax.texts] == [f"{rate:.3g}" for rate in expected]
    drawn(ax)
    drawn(plot.rates({"silent": [[0, 0]]}))


# -- divergence ----------------------------------------------------------------------------------


def test_a_report_is_drawn_as_it_is(faulty: so.Report) -> None:
    first, membrane = faulty.first_divergence, faulty.membrane
    assert first is not None
    assert first.t is not None
    assert membrane is None  # a current diverges first
    figure = plot.divergence(faulty)
    assert figure.get_suptitle().replace("\n", " ") == str(first)
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["conv_neuron", "pool_neuron", "dense_neuron"]  # the output is the last's
    assert any(raster.differs for raster in faulty.rasters)
    for ax, kept in zip(figure.axes, faulty.rasters, strict=False):
        found = {marks.get_zorder(): places(marks) for marks in scatters(ax)[:1]}
        assert set.union(*found.values()) == {
            (t + kept.start, n) for t, n in nonzero(kept.torch & kept.runtime)
        }
        differing = set.union(set(), *map(places, scatters(ax)[1:]))
        assert differing == {(t + kept.start, n) for t, n in nonzero(kept.torch ^ kept.runtime)}
    rows = figure.axes[0].get_ylabel(), figure.axes[2].get_ylabel()
    assert rows == ("96 of 256 neurons", "neuron")
    figure.canvas.draw()


def test_the_membrane_around_a_divergence_is_drawn() -> None:
    torch.manual_seed(0)
    network = Convolutional().eval()
    inputs = spikes(3, 2, 8, 8, 30)
    model = so.export(network, inputs)
    node = next(node for node in model.graph.node if node.name == "dense_neuron")
    next(a for a in node.attribute if a.name == "threshold").i -= 1000
    report = so.verify(network, model, inputs, native=False)
    first, near = report.first_divergence, report.membrane
    assert first is not None
    assert near is not None
    assert first.t is not None
    figure = plot.divergence(report, dt=2.0)
    ax = figure.axes[0]
    on_torch, on_runtime, level, when = ax.lines
    assert tuple(on_torch.get_ydata()) == near.on_torch
    assert tuple(on_runtime.get_ydata()) == near.on_runtime
    assert on_torch.get_xdata()[0] == 2.0 * near.start
    assert set(level.get_ydata()) == {0.0}
    assert set(when.get_xdata()) == {2.0 * first.t}
    assert [a.get_title(loc="left") for a in figure.axes[1:]] == [
        "conv_neuron", "pool_neuron", "dense_neuron",
    ]  # fmt: skip
    figure.canvas.draw()


def test_a_voltage_is_no_raster_where_it_is_silent_when_cut_short() -> None:
    """The first step alone gives zeros of a voltage whose synapse waits for spikes."""
    torch.manual_seed(0)
    dense = so.synapse.Dense(3, 2, weight_scale=3, pre_hook_fx=so.quantize.q8)
    inputs = spikes(2, 3, 12, rate=0.6)
    inputs[..., 0] = 0
    report = so.verify(dense, so.export(dense, inputs), inputs)
    assert report.ok
    assert [row.spike_flips for row in report.outputs] == [None]
    assert not report.rasters
    with pytest.raises(so.InputError, match="holds no spikes over time and no membrane to show"):
        plot.divergence(report)


# -- style, errors, what is missing --------------------------------------------------------------


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


def test_axes_that_are_given_are_drawn_into() -> None:
    figure = Figure()
    axes = figure.subplots(3)
    assert plot.raster(sample(2, 5), ax=axes[0]) is axes[0]
    assert plot.membrane(sample(2, 5), ax=axes[1]) is axes[1]
    assert plot.rates({"a": sample(2, 5)}, ax=axes[2]) is axes[2]
    assert figure.axes == list(axes)
    figure.canvas.draw()


PAIR = np.zeros((2, 5))

ERRORS: dict[str, tuple[Any, str]] = {
    "batch": (
        lambda: plot.raster(np.zeros((3, 4, 9))),
        r"spikes: .*\(C, T\) or \(C, H, W, T\), got shape \(3, 4, 9\); take one sample",
    ),
    "no time": (lambda: plot.raster([1, 0]), r"got shape \(2,\)$"),
    "no neurons": (lambda: plot.raster(np.zeros((0, 5))), "no neurons or no time steps"),
    "NaN": (lambda: plot.raster([[1.0, np.nan]]), "spikes: there are NaN or infinite values"),
    "NaN in the second": (lambda: plot.raster([[1.0]], [[np.inf]]), "actual: there are NaN"),
    "words": (lambda: plot.raster([["a"]]), "spikes: expected an array of real numbers"),
    "complex": (lambda: plot.raster(PAIR * 1j), "real numbers, got complex128"),
    "ragged": (lambda: plot.raster([[1], [1, 2]]), "spikes: expected an array of numbers"),
    "shapes": (
        lambda: plot.raster(PAIR, PAIR[:, 1:]),
        r"raster: expected has shape \(2, 5\), actual \(2, 4\)",
    ),
    "dt": (
        lambda: plot.raster(PAIR, dt=0),
        "raster: dt must be a finite number of milliseconds > 0, got 0",
    ),
    "neuron": (
        lambda: plot.raster(PAIR, neurons=[2]),
        r"raster: there is no neuron 2 in a layer of shape \(2,\)",
    ),
    "negative": (lambda: plot.raster(PAIR, neurons=[-1]), "no neuron -1"),
    "place": (
        lambda: plot.membrane(PAIR, neurons=[(0, 0, 0)]),
        r"membrane: there is no neuron \(0, 0, 0\)",
    ),
    "half": (lambda: plot.raster(PAIR, neurons=[0.5]), "no neuron 0.5"),
    "one number": (lambda: plot.raster(PAIR, neurons=1), "takes a list of neurons, got 1"),
    "none chosen": (lambda: plot.raster(PAIR, neurons=[]), "names no neuron"),
    "axes": (
        lambda: plot.raster(PAIR, ax=Figure()),
        "ax: expected the axes of a figure, got Figure",
    ),
    "too many": (
        lambda: plot.membrane(np.zeros((NEURONS + 1, 5))),
        "11 neurons are too many for one picture; choose up to 10",
    ),
    "threshold": (
        lambda: plot.membrane(PAIR, threshold=[1, 2, 3]),
        r"threshold: .* got shape \(3,\)",
    ),
    "spikes": (
        lambda: plot.membrane(PAIR, spikes=PAIR[:1]),
        r"membrane: voltage has shape \(2, 5\), spikes \(1, 5\)",
    ),
    "trace": (
        lambda: plot.membrane({"a": PAIR}, spikes={"b": PAIR}),
        "spikes 'b' have no voltage of that name",
    ),
    "no trace": (lambda: plot.membrane({}), "voltage: there is no trace to show"),
    "traces": (
        lambda: plot.membrane({"a": PAIR, "b": PAIR[1:]}),
        r"a has shape \(2, 5\), b \(1, 5\)",
    ),
    "no layers": (lambda: plot.rates({}), "rates: expected the spikes of at least one layer"),
    "no mapping": (lambda: plot.rates(PAIR), "rates: expected the spikes of at least one layer"),
    "empty layer": (
        lambda: plot.rates({"a": np.zeros((2, 0))}),
        r"rates: a: .* got shape \(2, 0\)",
    ),
}


@pytest.mark.parametrize(("call", "sentence"), ERRORS.values(), ids=ERRORS)
def test_an_error_is_a_sentence(call: Any, sentence: str) -> None:
    with pytest.raises(so.InputError, match=sentence) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", plot.__all__)
def test_matplotlib_that_is_missing_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(so.InputError) as caught:
        getattr(plot, name)(None)
    assert str(caught.value) == (
        f"plot.{name} needs the package matplotlib: pip install 'synapse-onnx[report]'"
    )


def test_so_plot_brings_matplotlib_and_torch_only_when_they_are_needed() -> None:
    program = (
        "import sys, synapse_onnx as so; so.plot.raster; "
        "assert not {'matplotlib', 'torch'} & set(sys.modules); "
        "so.plot.raster([[0, 1]]).figure.canvas.draw(); "
        "assert 'matplotlib' in sys.modules; "
        "assert not {'matplotlib.pyplot', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_report_without_membrane_keeps_its_spikes(faulty: so.Report) -> None:
    equal = dataclasses.replace(faulty, first_divergence=None)
    figure = plot.divergence(equal)
    assert figure.get_suptitle() == ""
    assert len(figure.axes) == 3


# -- the documentation's picture -----------------------------------------------------------------


def test_the_picture_of_the_documentation_shows_the_committed_network() -> None:
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "docs" / "pictures.py")
    assert spec is not None
    assert spec.loader is not None
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    ear, mix, sound, membrane = pictures.raster().axes
    heard = np.asarray(sound.lines[0].get_ydata(), np.float32)
    network = pictures.Tones().eval()
    pictures.load_checkpoint(network, ROOT / "models" / "tones.pt")
    with torch.no_grad():
        first = network.ear(torch.from_numpy(heard).reshape(1, 1, -1))
        second = network.mix(first)[0].numpy()
    for ax, fired in ((ear, first[0].numpy()), (mix, second)):
        (both,) = scatters(ax)
        assert places(both) == nonzero(fired)
    on_torch, on_runtime, _ = membrane.lines
    assert np.array_equal(on_torch.get_ydata(), on_runtime.get_ydata())
    for marks in scatters(membrane):
        steps = np.asarray(marks.get_offsets())[:, 0]
        assert np.array_equal(steps, np.nonzero(second[pictures.NEURON])[0])
    assert (ROOT / "docs" / "pictures" / "raster.png").stat().st_size < 150_000
