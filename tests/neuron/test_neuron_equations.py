"""Every neuron against a plain statement of its equation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from plain_equations import (
    ARGUMENTS,
    IDS,
    PLAIN,
    SHAPES,
    Integers,
    Reals,
    assert_some_spike,
    drawn,
    through_onnx,
    values,
)

import synapse_onnx as so

#: ranges from which every channel draws its own parameters
RANGES: dict[str, tuple[float, float]] = {
    "current_decay": (0.1, 0.9),
    "voltage_decay": (0.0, 0.5),
    "threshold_decay": (0.05, 0.6),
    "refractory_decay": (0.2, 0.9),
    "period": (4.5, 11.0),
    "decay": (0.01, 0.3),
}


def currents(
    kind: str, *shape: int, seed: int = 0, unit: float = 0.0301
) -> tuple[torch.Tensor, ...]:
    count = len(so.neuron.kinds()[kind].Neuron.equation.currents)
    return tuple(values(*shape, seed=seed + i, unit=unit) for i in range(count))


def neuron_of(kind: str, *, shared: bool = True, **changes: Any) -> Any:
    arguments = ARGUMENTS[kind] | changes
    if not shared:
        arguments |= {name: span for name, span in RANGES.items() if name in arguments}
    return so.neuron.kinds()[kind].Neuron(**arguments, shared_param=shared)


def called(neuron: Any, x: tuple[torch.Tensor, ...]) -> np.ndarray:
    return neuron(x if len(x) == 2 else x[0]).detach().numpy()


def stated(neuron: Any, x: tuple[torch.Tensor, ...], a: Any) -> np.ndarray:
    """The neuron's output, one element and one step at a time."""
    arrays = [each.numpy() for each in x]
    spikes = np.zeros_like(arrays[0])
    for index in np.ndindex(*spikes.shape[:-1]):
        one = PLAIN[neuron.kind](a, drawn(neuron, index[1]), neuron)
        for t in range(spikes.shape[-1]):
            fired, out = one.step(*(each[(*index, t)] for each in arrays))
            spikes[(*index, t)] = (out if neuron.graded_spike else 1) if fired else 0
    return spikes


@pytest.mark.parametrize("graded", [False, True], ids=["binary", "graded"])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "channels"])
@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
@pytest.mark.parametrize("kind", PLAIN)
def test_neurons_compute_as_lava_dl_does(kind, shape, shared, graded) -> None:
    neuron = neuron_of(kind, shared=shared, graded_spike=graded)
    x = currents(kind, *shape)
    trained, evaluated = called(neuron.train(), x), called(neuron.eval(), x)
    expected = stated(neuron, x, Integers(neuron.s_scale))
    assert_some_spike(expected)
    np.testing.assert_array_equal(evaluated, expected)
    np.testing.assert_array_equal(trained, expected)
    if graded and not shared and len(shape) == 5:
        np.testing.assert_array_equal(through_onnx(neuron, *x), expected)


@pytest.mark.parametrize("scale", [1, 32, 1024])
@pytest.mark.parametrize("kind", PLAIN)
def test_neurons_of_another_scale(kind: str, scale: int) -> None:
    neuron = neuron_of(kind, shared=False, graded_spike=True, scale=scale, threshold=1.0)
    x = currents(kind, 2, 3, 25, unit=0.0703)
    trained, evaluated = called(neuron.train(), x), called(neuron.eval(), x)
    expected = stated(neuron, x, Integers(neuron.s_scale))
    assert_some_spike(expected)
    np.testing.assert_array_equal(evaluated, expected)
    np.testing.assert_array_equal(trained, expected)


@pytest.mark.parametrize("kind", PLAIN)
def test_states_beyond_float32_are_rounded_where_lava_dl_rounds_them(kind: str) -> None:
    neuron = neuron_of(kind, shared=False, graded_spike=True).eval()
    x = currents(kind, 2, 3, 40, unit=711.3)
    evaluated = called(neuron, x)
    expected = stated(neuron, x, Integers(neuron.s_scale))
    assert np.abs(expected).max() * neuron.s_scale > 2**24
    np.testing.assert_array_equal(evaluated, expected)
    np.testing.assert_array_equal(through_onnx(neuron, *x), expected)


@pytest.mark.parametrize("graded", [False, True], ids=["binary", "graded"])
@pytest.mark.parametrize("kind", PLAIN)
def test_states_beyond_float32_are_the_same_in_training(kind: str, graded: bool) -> None:
    neuron = neuron_of(kind, shared=False, graded_spike=graded).train()
    x = currents(kind, 2, 3, 40, unit=711.3)
    trained = called(neuron, x)
    expected = stated(neuron, x, Integers(neuron.s_scale))
    assert (expected != 0).any()
    np.testing.assert_array_equal(trained, expected)


@pytest.mark.parametrize("kind", PLAIN)
def test_the_float_regime_is_the_plain_equation(kind: str) -> None:
    neuron = neuron_of(kind, shared=False, regime="float")
    x = currents(kind, 2, 3, 25, seed=10)
    trained, evaluated = called(neuron.train(), x), called(neuron.eval(), x)
    a = Reals(neuron.s_scale)
    expected = stated(neuron, x, a)
    assert a.margin > 1e-5, "no decision may hang on rounding"
    assert_some_spike(expected)
    np.testing.assert_array_equal(evaluated, expected)
    np.testing.assert_array_equal(trained, expected)
    np.testing.assert_array_equal(through_onnx(neuron, *x), expected)
