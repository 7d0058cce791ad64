"""What counts as a transpose, and the two that every sequence has."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from graphs import parsed

from synapse_onnx.compiler import _transposes


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ("Transpose<perm = [0, 1]>(x)", True),
        ("Transpose(x)", False),
        ("ai.synapse.Transpose<perm = [0, 1]>(x)", False),
        ("Relu<perm = [0, 1]>(x)", False),
        ("ai.synapse.Relu<perm = [0, 1]>(x)", False),
    ],
)
def test_a_transpose_names_its_axes(node: str, expected: bool) -> None:
    model = ir.from_proto(parsed(f"g (float[2, 2] x) => (float[2, 2] y) {{ y = {node} }}"))
    assert (_transposes.permutation(model.graph.node(0)) is not None) is expected


def test_axes_of_time() -> None:
    assert _transposes.time_first(4) == [3, 0, 1, 2]
    assert _transposes.time_last(4) == [1, 2, 3, 0]
