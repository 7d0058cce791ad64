"""Steps as polynomials: two ways of writing a step are one polynomial."""

from __future__ import annotations

import numpy as np
import pytest

from synapse_onnx.compiler.loops.polynomials import Polynomial, is_close

V, X, S = map(Polynomial.symbol, ("v", "x", "spike_0"))
ONE = Polynomial.constant(1.0)


def test_a_leak_towards_the_input_is_a_decay_and_a_gain() -> None:
    one = V + (X - V).scaled(0.5)
    two = V.scaled(0.5) + X.scaled(0.5)
    assert one.is_close_to(two)
    assert one.of("v") == 0.5
    assert one.symbols == {"v", "x"}
    assert not one.is_close_to(V.scaled(0.5) + X.scaled(0.5 + 1e-5))
    assert not one.is_close_to(one + Polynomial.constant(1e-5))


def test_a_spike_is_its_own_square_and_a_voltage_is_not() -> None:
    assert (S * S).is_close_to(S)
    assert not (V * V).is_close_to(V)
    assert (V * V).terms.keys() == {(("v", 2),)}
    assert (S * V * S).of("spike_0", "v") == 1.0
    assert (S * (ONE - S)).terms == {}


def test_what_cancels_is_gone() -> None:
    rest = (V + X) * (V - X) - V * V + X * X
    assert rest.terms == {}
    assert rest.value == 0.0
    assert (V - V + ONE.scaled(3.0)).value == 3.0
    assert V.value is None


def test_coefficients_are_arrays() -> None:
    decay = Polynomial.constant(np.array([0.5, 0.25, 0.0]))
    product = decay * V
    np.testing.assert_array_equal(product.of("v"), [0.5, 0.25, 0.0])
    np.testing.assert_array_equal((product + V).of("v"), [1.5, 1.25, 1.0])
    assert not product.is_close_to(V.scaled(0.5))


@pytest.mark.parametrize(
    ("one", "other", "close"),
    [
        (0.1, np.float32(0.1), True),
        (0.0, 1e-13, True),
        (0.0, 1e-6, False),
        (1.0, 1.0 + 1e-5, False),
        (1.0, -1.0, False),
        ([1.0, 2.0], [1.0, 2.00001], False),
        ([1.0, 1.0], 1.0, True),
    ],
)
def test_close_coefficients_differ_by_a_rounding(one: object, other: object, close: bool) -> None:
    assert is_close(one, other) is close
