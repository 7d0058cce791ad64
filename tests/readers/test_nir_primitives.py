"""NIR graphs: every node computes what NIR says of it."""

from __future__ import annotations

import math
from pathlib import Path

import nir
import numpy as np
import pytest
import torch
from nir_graphs import DT, NEURONS, NODES, TAU, both, drive, line, loop, read

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")  # torch's, of its own way
@pytest.mark.parametrize("name", NODES)
def test_nodes_without_states(name: str, tmp_path: Path) -> None:
    node, shape, expected = NODES[name]
    ours = (shape[0], 1, shape[1]) if len(shape) == 2 else shape
    x = drive(2, *ours)
    output = both(line(node, shape=shape), x, tmp_path)
    reference = expected(x).numpy()
    assert output.shape == reference.shape
    np.testing.assert_allclose(output, reference, rtol=1e-5, atol=1e-5)
    assert np.count_nonzero(reference)


@pytest.mark.parametrize("reset", ["zero", "subtract", "delayed"])
@pytest.mark.parametrize("name", NEURONS)
@pytest.mark.gpu
def test_neurons_are_their_equations(name: str, reset: str, tmp_path: Path) -> None:
    node, terms = NEURONS[name]
    if "level" not in terms and reset != "zero":
        pytest.skip("a readout has no reset")
    x = drive(3, 4)
    spikes, voltages = loop(x.numpy().astype(np.float64), reset=reset, **terms)
    output = both(line(node), x, tmp_path, reset=reset)
    if "level" not in terms:
        np.testing.assert_allclose(output, voltages, rtol=1e-5, atol=1e-6)
        return
    margin = np.abs(voltages - terms["level"]).min()
    assert margin > 1e-5, "a case so near its threshold that float32 may decide otherwise"
    np.testing.assert_array_equal(output, spikes)
    assert 0.05 < spikes.mean() < 0.9
    net = read(line(node), reset=reset)
    with torch.no_grad():
        membrane = net.layers.n0.dynamics(x)[1].numpy()
    np.testing.assert_allclose(membrane, voltages, rtol=1e-5, atol=1e-5)


def test_exponential_integration(tmp_path: Path) -> None:
    node, terms = NEURONS["LIF"]
    keep = math.exp(-DT / TAU)
    terms = terms | {"c": keep, "d": 3 * (1 - keep), "e": 0.2 * (1 - keep)}
    x = drive(3, 4)
    spikes, _ = loop(x.numpy().astype(np.float64), **terms)
    output = both(line(node), x, tmp_path, integration="exponential")
    np.testing.assert_array_equal(output, spikes)
    assert not np.array_equal(output, both(line(node), x, tmp_path))


def test_a_time_step_of_ones_own(tmp_path: Path) -> None:
    node, terms = NEURONS["LIF"]
    step = 3e-4
    terms = terms | {"c": 1 - step / TAU, "d": 3 * step / TAU, "e": 0.2 * step / TAU}
    spikes, _ = loop(drive(3, 4).numpy().astype(np.float64), **terms)
    np.testing.assert_array_equal(both(line(node), drive(3, 4), tmp_path, dt=step), spikes)


def test_parameters_of_every_neuron_of_an_image(tmp_path: Path) -> None:
    shape = (2, 3, 3)
    level = np.linspace(0.3, 1.2, 18).reshape(shape)
    ones = np.ones(shape)
    node = nir.LIF(TAU * ones, 5 * ones, 0 * ones, level)
    x = drive(2, *shape)
    output = both(line(node, shape=shape), x, tmp_path)
    for index in np.ndindex(shape):
        spikes, _ = loop(
            x.numpy()[:, *index].astype(np.float64), a=0, b=1, c=1 - DT / TAU, d=5 * DT / TAU,
            e=0, level=level[index],
        )  # fmt: skip
        np.testing.assert_array_equal(output[:, *index], spikes)
