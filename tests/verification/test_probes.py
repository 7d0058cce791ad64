"""Every layer alone on generated inputs: faults that no sample reaches, and no false alarm."""

from __future__ import annotations

import json

import onnx
import pytest
import torch
from graphs import all_nodes
from networks import spikes
from neurons import KINDS as NEURONS
from neurons import example
from onnx import inliner
from torch import nn

import synapse_onnx as so
from synapse_onnx.ops.arithmetic.loihi import STATE_LIMIT
from synapse_onnx.verification import probes, verifier
from synapse_onnx.verification.stimuli import KINDS, Domain, stimulus

X = spikes(3, 6, 20, rate=0.4)


def network_of(kind: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    layers = getattr(so.block, kind)
    sizes = [(6, 8), (8, 3)]
    return nn.Sequential(
        *(
            layers.Dense(
                example(kind, **options), *size, weight_scale=4, pre_hook_fx=so.quantize.q8
            )
            for size in sizes
        )
    ).eval()


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return network_of("cuba")


@pytest.fixture(scope="module")
def model(network: nn.Module) -> onnx.ModelProto:
    return so.export(network, X)


def with_fault_in(model: onnx.ModelProto, branch: str) -> onnx.ModelProto:
    """Return a copy whose loop in a branch adds where it should multiply."""
    faulty = onnx.ModelProto()
    faulty.CopyFrom(model)
    (body,) = (function for function in faulty.functions if function.name == "Cuba")
    graphs = [a.g for node in body.node for a in node.attribute if a.g.name == branch]
    node = next(n for graph in graphs for n in all_nodes(graph.node) if n.op_type == "Mul")
    node.op_type = "Add"
    return faulty


def run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the proof by construction out, which finds every change of a file."""
    monkeypatch.setattr(verifier, "compare_construction", lambda *_: None)


def test_a_fault_in_a_loop_that_no_sample_enters_is_found(network, model, monkeypatch) -> None:
    run_alone(monkeypatch)
    faulty = with_fault_in(model, "wide")
    report = so.verify(network, faulty, X)
    assert not report.ok
    assert report.problems[0].startswith(
        "probed alone with large inputs, by function bodies: 0.neuron: sample "
    )
    monkeypatch.setattr(verifier, "probe_layers", lambda *_: None)
    assert so.verify(network, faulty, X).ok  # no sample has shown it


def test_a_fault_that_samples_show_is_not_told_twice(network, model, monkeypatch) -> None:
    run_alone(monkeypatch)
    report = so.verify(network, with_fault_in(model, "narrow"), X, native=False)
    assert not report.ok
    assert not any("probed" in problem for problem in report.problems)


@pytest.mark.usefixtures("compiled_once")
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("kind", sorted(NEURONS))
def test_every_branch_of_every_body_runs(kind: str, graded: bool, streaming: bool) -> None:
    if graded and not getattr(so.neuron, kind).Neuron.grades:
        pytest.skip(f"{kind} has no graded spikes")
    network = network_of(kind, **({"graded_spike": True} if graded else {}))
    report = so.verify(network, so.export(network, X, streaming=streaming), X)
    assert report.ok, str(report)
    assert bool(report.branches) == (kind != "sigma_delta")  # one loop of floats
    # no number is infinite or NaN, and no neuron has a reset other than the network's
    untaken = {branch.name for branch in report.branches if not branch.taken}
    assert untaken <= ({"exact", "other"} if kind == "lif" else set())


def test_branches_of_samples_are_told_from_those_of_generated_inputs(network, model) -> None:
    report = so.verify(network, model, X)
    found = {branch.name: (branch.taken, branch.by_samples) for branch in report.branches}
    assert found == {"narrow": (True, True), "wide": (True, False)}
    assert "branches taken by the samples: Cuba (32 bits)" in str(report)
    assert "by generated inputs alone: Cuba (64 bits)" in str(report)
    assert json.loads(report.to_json())["branches"][1]["by_samples"] is False
    assert "<h2>Inside the layers</h2>" in report.to_html()
    large = so.verify(network, model, X * 1e6)
    assert all(branch.by_samples for branch in large.branches)


def test_function_bodies_are_probed(network, model) -> None:
    report = so.verify(network, model, X)
    assert report.probed == ("function bodies",)
    assert "each layer alone on generated inputs: by function bodies" in str(report)


def test_states_are_measured_against_their_bounds(network, model) -> None:
    report = so.verify(network, model, X)
    with torch.no_grad():
        current, voltage = network[0].neuron.dynamics(network[0].synapse(X))
    first = report.states[:2]
    assert [(s.layer, s.state) for s in first] == [
        ("0.neuron", "current"), ("0.neuron", "voltage"),
    ]  # fmt: skip
    assert [s.largest for s in first] == [float(x.abs().max()) for x in (current, voltage)]
    assert {s.bound for s in first} == {STATE_LIMIT / network[0].neuron.s_scale}
    assert "largest states, as parts of 2**23 units: 0.neuron current 0.00" in str(report)


def test_a_reference_and_an_inlined_file_are_not_probed(network, model) -> None:
    assert so.verify(network.__call__, model, X).probed == ()
    inlined = inliner.inline_local_functions(model)
    assert so.verify(network, inlined, X).probed == ()


def test_fixed_sizes_are_kept(network) -> None:
    report = so.verify(network, so.export(network, X, dynamic=False), X)
    assert report.ok, str(report)
    assert report.shapes == (((3, 6, 20),),)
    assert all(branch.taken for branch in report.branches)


def test_inputs_of_bytes_are_probed_as_bytes(network) -> None:
    report = so.verify(network, so.export(network, X, input_type="uint8"), X)
    assert report.ok, str(report)
    assert report.probed


def test_a_norm_of_torchs_moves_states_by_units() -> None:
    """It rounds floats between states in fixed point, which large currents show."""
    network = network_of("cuba", norm=lambda: nn.Sequential(nn.BatchNorm1d(3)))[1:]
    x = spikes(3, 8, 20, rate=0.4)
    network.train()
    network(x)
    report = so.verify(network.eval(), so.export(network, x), x)
    assert report.ok, str(report)
    assert report.probed


def test_a_value_that_two_layers_read_is_one_input() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense = so.synapse.Dense(6, 6, pre_hook_fx=so.quantize.q8)
            self.left = so.neuron.cuba.Neuron(1.0, 0.25, 0.1)
            self.right = so.neuron.cuba.Neuron(2.0, 0.25, 0.1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            current = self.dense(x)
            return self.dense(self.left(current) + self.right(current))

    network = Twice().eval()
    report = so.verify(network, so.export(network, X), X)
    assert report.ok, str(report)
    assert report.probed


@pytest.mark.parametrize("kind", KINDS)
def test_stimuli_stay_in_their_domain(kind: str) -> None:
    import numpy as np

    shape = (3, 5, 7)
    spiking = stimulus(kind, shape, Domain(True, np.dtype("float32")), 0)
    assert set(spiking.ravel()) == {0.0, 1.0}
    bytes_ = stimulus(kind, shape, Domain(False, np.dtype("uint8")), 0)
    assert bytes_.min() >= 0
    assert bytes_.max() <= 255
    floats = stimulus(kind, shape, Domain(False, np.dtype("float32"), 2.0, 4096), 0)
    assert not floats[0].any()  # one sample is silent
    assert floats[1:].any((1, 2)).all()
    assert (stimulus(kind, (1, 5, 7), Domain(False, np.dtype("float32")), 0) != 0).any()
    assert np.array_equal(
        floats, stimulus(kind, shape, Domain(False, np.dtype("float32"), 2.0, 4096), 0)
    )


def test_a_layer_whose_node_takes_more_than_the_layer_is_left_out() -> None:
    """A pool that pads: its node takes the padded image."""
    network = nn.Sequential(
        so.synapse.Pool((1, 2), stride=1, padding=(0, 1)), so.neuron.cuba.Neuron(0.5, 0.25, 0.25)
    ).eval()
    x = spikes(2, 1, 1, 1, 5)
    report = so.verify(network, so.export(network, x), x)
    assert report.ok, str(report)
    assert report.probed
    assert report.notes == (
        "0: not compared alone on generated inputs, for the graph states no shape of the input, "
        "or another one than the layer's",
    )


def test_a_model_without_shapes_is_compared_by_the_samples(network, model, monkeypatch) -> None:
    monkeypatch.setattr(probes, "types_of", lambda *_: {})
    report = so.verify(network, model, X)
    assert report.ok
    assert report.probed == ()
    assert report.notes[0].startswith("0.neuron, 0.step, 0.synapse, 1.neuron, ")
