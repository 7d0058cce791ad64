"""Results: what a raster keeps, how rows are joined, and that a report has its page by itself."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np

from synapse_onnx.report.result import NEURONS, STEPS, Divergence, Raster, Row


def test_a_raster_is_cut_around_the_first_difference() -> None:
    torch_spikes = np.zeros((2, 300, 2000), np.float32)
    torch_spikes[1, :200, ::7] = 1
    runtime = torch_spikes.copy()
    runtime[1, 250, 1500] = 1
    raster = Raster.of("layer", torch_spikes, runtime, (1, 250, 1500))
    assert (raster.sample, raster.start, raster.size) == (1, 1500 - STEPS // 4, (300, 2000))
    assert raster.torch.shape == raster.runtime.shape == (NEURONS, STEPS)
    assert 250 in raster.neurons
    row = raster.neurons.index(250)
    assert np.argwhere(raster.torch != raster.runtime).tolist() == [[row, STEPS // 4]]
    whole = [runtime[1, n, raster.start : raster.start + STEPS] for n in raster.neurons]
    assert np.array_equal(raster.runtime, np.array(whole) != 0)
    assert raster.differs


def test_an_equal_raster_shows_neurons_that_spike() -> None:
    values = np.zeros((1, 4, 60, 10), np.float32)
    values[0, 3, 59, 5] = 1
    raster = Raster.of("layer", values, values, None)
    assert raster.neurons[-1] == 239
    assert raster.torch.sum() == 1
    assert not raster.differs


def test_rows_of_one_layer_on_several_inputs_are_one() -> None:
    first = Divergence("layer", 0, (1,), 2, 0.5, 0.0, 1.0)
    a = Row("layer", "cuba", True, True, 0.0, 0.0, 0, 10, (3, 3))
    b = Row("layer", "cuba", False, False, 1.0, 1e-5, 2, 4, (1, 3), first)
    assert a.joined(b) == Row("layer", "cuba", False, False, 1.0, 1e-5, 2, 14, (4, 6), first)
    # the first place is that of the first inputs, and currents have no spikes
    other = dataclasses.replace(b, first=dataclasses.replace(first, t=9))
    assert b.joined(other).first == first
    currents = dataclasses.replace(a, spike_flips=None, spikes=None)
    assert (currents.joined(currents).spike_flips, currents.joined(currents).spikes) == (None, None)
    assert currents.joined(a).spikes == (3, 3)


def test_a_report_has_its_page_whatever_else_is_imported() -> None:
    program = (
        "import sys; from synapse_onnx.report.result import Report; "
        "report = Report(True, 0.0, 0, None); "
        "assert report.to_html().startswith('<!doctype html>'); "
        "assert report._repr_html_().startswith('<div'); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
