"""verify where kernels are installed: a file is compared with them, and without them."""

from __future__ import annotations

import onnx
import pytest
from networks import built, spikes

import synapse_onnx as so
from synapse_onnx.runtime import native
from synapse_onnx.verification.cut import CutModel

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


def test_each_layer_is_probed_in_both_forms() -> None:
    network = built()
    model = so.export(network, X)
    assert so.verify(network, model, X).probed == ("native kernels", "function bodies")
    assert so.verify(network, model, X, native=True).probed == ("native kernels",)
    assert so.verify(network, model, X, native=False).probed == ("function bodies",)


def test_a_fault_of_a_kernel_that_no_sample_shows_is_found(monkeypatch) -> None:
    network = built()
    model = so.export(network, X)
    run = CutModel.run

    def wrong_above_32_bits(self, session, inputs, chosen):
        results = run(self, session, inputs, chosen)
        if session.native and max(abs(array).max() for array in chosen.values()) > 2**20:
            results["conv_neuron:s"] = 1 - results["conv_neuron:s"]
        return results

    monkeypatch.setattr(CutModel, "run", wrong_above_32_bits)
    report = so.verify(network, model, X)
    assert not report.ok
    assert all(row.ok for row in report.outputs)
    assert report.problems[0].startswith(
        "probed alone with large inputs, by native kernels: conv_neuron: sample 0"
    )
