"""Pictures: membranes, rates and divergences are drawn as they were given."""

from __future__ import annotations

import dataclasses
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from artists import drawn, legend, nonzero, places, sample, scatters
from faults import one_weight
from matplotlib import colors
from matplotlib.figure import Figure
from networks import Convolutional, spikes

import synapse_onnx as so

pytestmark = pytest.mark.usefixtures("settings_stay", "compiled_once")

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


def test_a_report_without_membrane_keeps_its_spikes(faulty: so.Report) -> None:
    equal = dataclasses.replace(faulty, first_divergence=None)
    figure = plot.divergence(equal)
    assert figure.get_suptitle() == ""
    assert len(figure.axes) == 3


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


# -- axes, what is missing -----------------------------------------------------------------------


def test_axes_that_are_given_are_drawn_into() -> None:
    figure = Figure()
    axes = figure.subplots(3)
    assert plot.raster(sample(2, 5), ax=axes[0]) is axes[0]
    assert plot.membrane(sample(2, 5), ax=axes[1]) is axes[1]
    assert plot.rates({"a": sample(2, 5)}, ax=axes[2]) is axes[2]
    assert figure.axes == list(axes)
    figure.canvas.draw()


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
