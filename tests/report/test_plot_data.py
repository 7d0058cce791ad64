"""What a picture is made of: time, the chosen neurons, thresholds; and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from artists import drawn, legend, nonzero, places, sample, scatters
from matplotlib.figure import Figure

import synapse_onnx as so
from synapse_onnx.report.plot import NEURONS

pytestmark = pytest.mark.usefixtures("settings_stay")

plot = so.plot


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
