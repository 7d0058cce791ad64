"""verify where kernels are installed: a file is compared with them, and without them."""

from __future__ import annotations

import onnx
import pytest
from networks import built, spikes

import synapse_onnx as so
from synapse_onnx.runtime import native

pytestmark = pytest.mark.skipif(
    native.problem() is not None, reason=f"there are no native kernels: {native.problem()}"
)

X = spikes(3, 2, 8, 8, 20)


def _rows(report: so.Report) -> dict[str, bool]:
    return {row.name: row.ok for row in report.outputs}


def test_the_bodies_are_compared_beside_the_kernels() -> None:
    network = built()
    model = so.export(network, X)
    assert _rows(so.verify(network, model, X)) == {"output": True, "output (portable)": True}
    assert _rows(so.verify(network, model, X, native=True)) == {"output": True}
    assert _rows(so.verify(network, model, X, native=False)) == {"output": True}


def test_a_fault_of_a_body_is_found_by_the_run_too() -> None:
    """Whatever the construction says: kernels do not look into bodies."""
    network = built()
    model: onnx.ModelProto = so.export(network, X)
    model.producer_name = "a tool"  # so that bodies are not compared with the registry's
    body = next(f for f in model.functions if f.name == "QuantizedConv")
    output = body.output[0]
    last = next(node for node in body.node if output in node.output)
    last.output[0] = "right"
    body.node.append(onnx.helper.make_node("Neg", ["right"], [output]))
    report = so.verify(network, model, X)
    assert not report.ok
    assert _rows(report) == {"output": True, "output (portable)": False}
