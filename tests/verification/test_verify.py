"""verify: what it accepts, and above all what it must not accept."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
import torch
from faults import FAULTS, one_weight, replace_values
from networks import NEURON, Complex, Convolutional, Mixed, cuba, spikes
from torch import nn

import synapse_onnx as so

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def network() -> Convolutional:
    torch.manual_seed(0)
    return Convolutional().eval()


@pytest.fixture(scope="module")
def model(network: Convolutional) -> onnx.ModelProto:
    return so.export(network, spikes(2, 2, 8, 8, 5))


@pytest.fixture(scope="module")
def inputs() -> torch.Tensor:
    return spikes(6, 2, 8, 8, 30)


@pytest.mark.matrix
def test_an_equal_model_is_called_equal(network, model, inputs) -> None:
    report = so.verify(network, model, inputs)
    assert report.ok
    assert (report.max_abs_diff, report.spike_flips, report.first_divergence) == (0, 0, None)
    assert [row.name for row in report.layers] == [
        "conv", "conv_neuron", "pool", "pool_neuron", "dense", "dense_neuron",
    ]  # fmt: skip
    assert all(row.exact and row.tolerance == 0 for row in (*report.layers, *report.outputs))
    steps = {shape[0][-1] for shape in report.shapes}
    batches = {shape[0][0] for shape in report.shapes}
    assert (steps, batches) == ({30, 37, 1, 7}, {6, 1, 7, 2})
    # six samples, one that is longer, seven of one step, two of seven
    assert report.outputs[0].values == 5 * (6 * 30 + 37 + 7 + 2 * 7)
    assert "✓ conv_neuron" in str(report)
    assert str(report).splitlines()[-1].startswith("equal on inputs")


def test_the_network_really_spikes(network, inputs) -> None:
    """Else every comparison above would compare zeros."""
    with torch.no_grad():
        rate = float(network(inputs).mean())
    assert 0.02 < rate < 0.9


@pytest.mark.parametrize(("fault", "layer"), FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("hook", [so.quantize.q8, None], ids=["q8", "float"])
@pytest.mark.matrix
@pytest.mark.usefixtures("compiled_once")
def test_planted_faults_are_found_in_their_layer(fault, layer: str, hook, inputs) -> None:
    torch.manual_seed(0)
    network = Convolutional(hook).eval()
    broken = so.export(network, spikes(2, 2, 8, 8, 5))
    if fault is one_weight and hook is None:

        def change(array: np.ndarray) -> None:
            array[1, 0, 1, 1, 0] += 1 / 32

        replace_values(broken, "conv.weight", change)
    else:
        fault(broken)
    report = so.verify(network, broken, inputs)
    assert not report.ok
    assert report.first_divergence is not None
    assert report.first_divergence.layer.split(" (")[0] == layer
    rows = {row.name: row for row in report.layers}
    assert not rows[layer].ok
    before = [row.ok for row in report.layers[: [*rows].index(layer)]]
    assert all(before), "a layer before the fault is blamed"
    assert str(report).splitlines()[-1].startswith("NOT equal")
    assert f"first divergence: {layer}" in str(report)


def test_the_first_divergence_is_the_first_and_has_its_margin(network, model, inputs) -> None:
    broken = onnx.ModelProto()
    broken.CopyFrom(model)
    node = next(node for node in broken.graph.node if node.name == "conv_neuron")
    next(a for a in node.attribute if a.name == "threshold").i -= 200
    report = so.verify(network, broken, inputs)
    found = report.first_divergence
    assert found is not None
    with torch.no_grad():
        _, voltage = network.conv_neuron.dynamics(network.conv(inputs))
    # where the lower threshold is crossed first: voltages in [threshold - 200/4096, threshold)
    early = (voltage < 1.0 + 1e-6) & (voltage >= (4097 - 200) / 4096)
    t = int(early.flatten(0, -2).any(0).nonzero()[0])
    assert found.t == t
    place = (found.sample, *found.neuron, found.t)
    assert bool(early[place])
    assert found.margin == pytest.approx(float(voltage[place]) - 1.0)
    assert -200 / 4096 <= found.margin <= 0
    assert (found.expected, found.found) == (0, 1)
    assert len(found.neuron) == 3


def test_float_currents_may_flip_spikes_but_neurons_stay_right() -> None:
    """A current that is off in its last bit may flip a spike; that is reported, not failed."""
    torch.manual_seed(0)
    network = nn.Sequential(so.synapse.Dense(40, 30, weight_scale=3), cuba()).eval()
    model = so.export(network, spikes(2, 40, 5))
    x = spikes(4, 40, 200, seed=3)
    moved = onnx.ModelProto()
    moved.CopyFrom(model)
    moved.producer_name = "a tool that adds in another order"
    # 2e-6 of a current is within what another order of addition does to a sum
    dense = next(node for node in moved.graph.node if node.name == "0")
    current = dense.output[0]
    dense.output[0] = "unrounded"
    moved.graph.initializer.append(
        onnx.numpy_helper.from_array(np.array(1 + 2e-6, np.float32), "rounding")
    )
    nodes = list(moved.graph.node)
    nodes.insert(
        nodes.index(dense) + 1, onnx.helper.make_node("Mul", ["unrounded", "rounding"], [current])
    )
    del moved.graph.node[:]
    moved.graph.node.extend(nodes)
    report = so.verify(network, moved, x)
    assert report.spike_flips > 0, "the case must flip a spike to test anything"
    assert report.ok, str(report)
    assert any("float currents" in note for note in report.notes)
    assert report.first_divergence is not None
    assert report.first_divergence.margin is not None
    assert abs(report.first_divergence.margin) < 0.05

    # with a decay that is off as well the same flips are a failure of the neuron
    def worse(array: np.ndarray) -> None:
        array += 1

    replace_values(moved, "1.voltage_decay", worse)
    report = so.verify(network, moved, x)
    assert not report.ok
    assert {row.name: row.ok for row in report.layers} == {"0": True, "1": False}


def test_inputs_too_fine_for_float32_sums_get_a_tolerance_and_a_note(network, model) -> None:
    x = torch.rand(4, 2, 8, 8, 20, generator=torch.Generator().manual_seed(0))
    report = so.verify(network, model, x)
    assert report.ok, str(report)
    assert not report.layers[0].exact
    assert any(note.startswith("conv: its input is too fine") for note in report.notes)
    # on a grid of 1/16 the sums are exact again
    assert so.verify(network, model, torch.round(x * 16) / 16).layers[0].exact


def test_code_between_layers_is_verified_too() -> None:
    """A wrong operator of the user's own, ahead of a neuron, is not taken for rounding."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.synapse = so.synapse.Dense(6, 5, weight_scale=3)
            self.neuron = cuba()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.neuron(self.synapse(x) * 1.5)

    torch.manual_seed(0)
    network = Scaled().eval()
    broken = so.export(network, spikes(2, 6, 5))
    constant = next(t for t in broken.graph.initializer if t.name.startswith("constant"))
    assert onnx.numpy_helper.to_array(constant) == np.float32(1.5)
    constant.CopyFrom(onnx.numpy_helper.from_array(np.float32(1.501), constant.name))
    report = so.verify(network, broken, spikes(4, 6, 100))
    assert not report.ok
    assert {row.name: row.ok for row in report.layers} == {"synapse": True, "neuron": False}


def _rename(model: onnx.ModelProto) -> None:
    for value in model.graph.input:
        value.name = "other"
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if name == "x":
                node.input[i] = "other"


def _drop_output(model: onnx.ModelProto) -> None:
    del model.graph.output[1:]


def _extra_axis(model: onnx.ModelProto) -> None:
    out = model.graph.output[0]
    old = out.name
    out.name = "wide"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), "zero_axis"))
    model.graph.node.append(onnx.helper.make_node("Unsqueeze", [old, "zero_axis"], ["wide"]))
    out.type.tensor_type.ClearField("shape")


def _other_type(model: onnx.ModelProto) -> None:
    out = model.graph.output[0]
    old = out.name
    out.name = "wide"
    model.graph.node.append(onnx.helper.make_node("Cast", [old], ["wide"], to=11))
    out.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE


def _nan(model: onnx.ModelProto) -> None:
    out = model.graph.output[0]
    old = out.name
    out.name = "ill"
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(np.array(np.nan, np.float32), "nan")
    )
    model.graph.node.append(onnx.helper.make_node("Add", [old, "nan"], ["ill"]))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (_rename, "the model's inputs are named other and forward() takes x"),
        (_drop_output, "the module has 2 outputs and the model 1"),
        (_extra_axis, "torch returns shape (4, 3), the model (1, 4, 3)"),
        (_other_type, "torch returns float32, the model float64"),
        (_nan, "NaN in 0 values of torch and 12 of the model"),
    ],
    ids=["name", "count", "rank", "dtype", "NaN"],
)
@pytest.mark.usefixtures("compiled_once")
def test_what_is_wrong_beside_values(fault, message: str) -> None:
    torch.manual_seed(0)
    network = Mixed().eval()
    broken = so.export(network, spikes(2, 6, 5))
    fault(broken)
    report = so.verify(network, broken, spikes(4, 6, 20))
    assert not report.ok
    assert any(message in problem for problem in report.problems), report.problems


def test_nan_on_both_sides_is_not_equal() -> None:
    class Root(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sqrt(x)

    report = so.verify(Root(), so.export(Root(), torch.ones(2, 3, 4)), -torch.ones(2, 3, 4))
    assert not report.ok
    assert "NaN in 42 values of torch" in report.problems[0]


def test_a_layer_that_is_given_nan_is_not_right() -> None:
    """No neuron spikes on it, in torch either: what it was given is what is wrong."""
    torch.manual_seed(0)
    dense = so.synapse.Dense(6, 5, weight_scale=4)
    network = nn.Sequential(dense, so.neuron.cuba.Neuron(0.5, 0.25, 0.1, regime="float")).eval()
    x = spikes(4, 6, 20)
    assert network(x).any()
    broken = so.export(network, x)
    (neuron,) = (node for node in broken.graph.node if node.op_type == "CubaFloat")
    array = onnx.numpy_helper.from_array(np.array(np.nan, np.float32), "nan")
    broken.graph.initializer.append(array)
    ill = onnx.helper.make_node("Add", [neuron.input[0], "nan"], ["ill"])
    broken.graph.node.insert(list(broken.graph.node).index(neuron), ill)
    neuron.input[0] = "ill"
    report = so.verify(network, broken, x)
    assert not report.ok
    assert [row.ok for row in report.layers] == [True, False]


@pytest.mark.parametrize(
    "statements",
    [
        "by = Constant<value_float = 1.001>() {state} = Mul(right, by)",
        "by = Sub(right, right) {state} = Div(by, by)",
        "by = Sub(right, right) {state} = Div(right, by)",
    ],
    ids=["a thousandth", "NaN", "infinite"],
)
@pytest.mark.parametrize("state", ["last_pre", "last_residual"])
@pytest.mark.usefixtures("compiled_once")
def test_a_last_state_that_no_output_shows_is_compared(state: str, statements: str) -> None:
    """The encoder's states are floats; an output that is right does not excuse them."""
    network = nn.Sequential(so.axon.Delta(threshold=0.5))
    model = so.export(network, torch.rand(2, 3, 6))
    (function,) = (f for f in model.functions if f.name == "Delta")
    (node,) = (n for n in function.node if state in n.output)
    node.output[list(node.output).index(state)] = "right"
    spoilt = onnx.parser.parse_function(
        f"""<opset_import: ["" : 21], domain: "spoilt"> f (right) => ({state})
        {{ {statements.format(state=state)} }}"""
    )
    function.node.extend(spoilt.node)
    report = so.verify(network, model, torch.rand(2, 3, 6))
    assert not report.ok
    assert state.replace("_", " ") in str(report.first_divergence)


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("fault", ["none", "step", "decay"])
@pytest.mark.usefixtures("compiled_once")
def test_feedback_that_grows_is_followed_step_by_step(fault: str, complex_: bool) -> None:
    """Roundings grow with it, so that a fault is what the spikes themselves do not lead to."""
    torch.manual_seed(0)
    params = {"threshold": 0.5, "graded_spike": True, "regime": "float"}
    if complex_:
        network = so.block.rf.Recurrent({**params, "period": 9, "decay": 0.1}, 4, 3, weight_scale=9)
    else:
        decays = {"current_decay": 0.25, "voltage_decay": 0.25}
        network = so.block.cuba.Recurrent({**params, **decays}, 4, 3, weight_scale=9)
    network.eval()
    x = spikes(3, 4, 25)
    assert bool((network(x).abs() > 1e3).any())
    model = so.export(network, x)
    names = {"none": "", "step": "recurrent_synapse", "decay": "neuron"}
    for tensor in model.graph.initializer:
        changed = tensor.name.startswith(names[fault] or "nothing")
        if changed and not tensor.name.endswith("weight"):  # which is integers, and has a step
            array = onnx.numpy_helper.to_array(tensor) * np.float32(1.001)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    report = so.verify(network, model, x)
    rows = {row.name: row for row in report.layers}
    assert rows["neuron"].ok == (fault == "none"), report
    assert rows["input_synapse.real" if complex_ else "input_synapse"].ok


@pytest.mark.parametrize("fault", ["none", "current_decay", "voltage_decay", "threshold"])
@pytest.mark.parametrize(("graded", "neurons", "steps"), [(True, 32, 100), (False, 64, 300)])
@pytest.mark.usefixtures("compiled_once")
def test_feedback_of_float_sums_excuses_what_a_rounding_decides(
    graded: bool, neurons: int, steps: int, fault: str
) -> None:
    """In fixed point that is a unit, and what follows from it: a hundredth of one is not."""
    torch.manual_seed(0 if graded else 3)
    params = {"threshold": 0.5, "current_decay": 0.25, "voltage_decay": 0.1}
    network = so.block.cuba.Recurrent(
        {**params, "graded_spike": graded}, 12, neurons, weight_scale=0.5
    )
    hook = so.quantize.Quantizer(48)  # steps of 1/24, no power of two
    network.input_synapse.pre_hook_fx = network.recurrent_synapse.pre_hook_fx = hook
    network.eval()
    x = spikes(3, 12, steps)
    model = so.export(network, x)
    if fault == "threshold":
        (node,) = (node for node in model.graph.node if node.op_type == "RecurrentCuba")
        (level,) = (a for a in node.attribute if a.name == "threshold")
        level.i += 40
    elif fault != "none":
        replace_values(model, f"neuron.{fault}", lambda values: np.add(values, 40, out=values))
    report = so.verify(network, model, x)
    (row,) = (row for row in report.layers if row.name == "neuron")
    assert row.ok == report.ok == (fault == "none"), str(report)
    assert row.spike_flips


FIXED = [
    kind
    for kind, module in so.neuron.kinds().items()
    if "slayer" in getattr(getattr(module.Neuron, "equation", None), "regimes", ())
]


@pytest.mark.parametrize(
    ("kind", "graded", "regime"),
    [(kind, i % 2 == 0, ("slayer", "loihi")[i % 3 == 0]) for i, kind in enumerate(FIXED)],
)
@pytest.mark.usefixtures("compiled_once")
def test_feedback_of_float_weights_excuses_no_fault(kind: str, graded: bool, regime: str) -> None:
    """Half a hundredth of any fraction shows, and what roundings decide is none."""
    torch.manual_seed(7)
    params = {**getattr(so.neuron, kind).Neuron.example, "graded_spike": graded, "regime": regime}
    network = getattr(so.block, kind).Recurrent(params, 12, 48, weight_scale=0.5)
    for part in network.modules():
        if isinstance(part, so.synapse.Dense):
            part.pre_hook_fx = None
    network.eval()
    x = spikes(3, 12, 100)
    model = so.export(network, x)
    assert so.verify(network, model, x).ok
    names = [f"neuron.{name}" for name in network.neuron.decays]
    assert len(names) >= 2
    for name in names:
        worse = onnx.ModelProto()
        worse.CopyFrom(model)
        replace_values(worse, name, lambda values: np.add(values, 20, out=values))
        assert not so.verify(network, worse, x).ok, name


def test_another_model_is_not_taken_for_this_one(network) -> None:
    other = so.export(Complex().eval(), spikes(2, 2, 8, 8, 5))
    report = so.verify(network, other, spikes(2, 2, 8, 8, 9))
    assert not report.ok
    assert any("layers that the module lacks: synapse" in problem for problem in report.problems)


def test_a_model_of_a_fixed_length_is_not_run_at_others() -> None:
    torch.manual_seed(0)
    network = Convolutional().eval()
    x = spikes(3, 2, 8, 8, 9)
    static = so.export(network, x, dynamic=False)
    report = so.verify(network, static, x)
    assert report.ok, str(report)
    assert len(report.shapes) == 1


def test_a_module_keeps_its_state_and_mode(network, model, inputs) -> None:
    module = copy.deepcopy(network).train()
    module.conv_neuron.persistent_state = True
    so.verify(module, model, inputs)
    assert module.training
    assert module.conv_neuron.current_state.dim() == 1


def test_float_neurons_are_verified() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        so.synapse.Dense(40, 30, weight_scale=3),
        so.neuron.cuba.Neuron(**NEURON, regime="float"),
    ).eval()
    model = so.export(network, spikes(2, 40, 5))
    assert so.verify(network, model, spikes(4, 40, 100)).ok

    def change(array: np.ndarray) -> None:
        array += np.float32(1e-3)

    replace_values(model, "1.voltage_decay", change)
    report = so.verify(network, model, spikes(4, 40, 100))
    assert {row.name: row.ok for row in report.layers} == {"0": True, "1": False}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.full((1, 2, 8, 8, 3), float("nan")), "input 0 has NaN or infinite values"),
        (torch.zeros(0, 2, 8, 8, 3), "verify: argument 0 is empty"),
    ],
)
def test_inputs_that_prove_nothing_are_refused(network, model, bad, message: str) -> None:
    with pytest.raises(so.InputError, match=message):
        so.verify(network, model, bad)
