"""The sigma decoder against a plain statement of its equation."""

from __future__ import annotations

import numpy as np
import pytest
from plain_equations import IDS, SHAPES, summed, through_onnx, values

import synapse_onnx as so


@pytest.mark.parametrize("unit", [0.0301, 33333.3])
@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
def test_sigma_decoder(shape: tuple[int, ...], unit: float) -> None:
    decoder, x = so.dendrite.Sigma(), values(*shape, unit=unit)
    expected = summed(x.numpy())
    assert expected.any()
    np.testing.assert_array_equal(decoder.train()(x).numpy(), expected)
    np.testing.assert_array_equal(decoder.eval()(x).numpy(), expected)
    if unit > 1:
        np.testing.assert_array_equal(through_onnx(decoder, x), expected)
