"""The proof by construction: any part of a file that is changed is named, and nothing is run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import looping
import onnx
import pytest
import torch
from networks import NEURON, Convolutional, built, spikes
from planted import catalogue
from torch import nn

import synapse_onnx as so
from synapse_onnx.compiler.arguments import Arguments
from synapse_onnx.verification import construction
from synapse_onnx.verification.construction import differences
from synapse_onnx.verification.subject import Subject

X = spikes(2, 6, 9)


def _recurrent() -> nn.Module:
    blocks = so.block.alif
    neuron = NEURON | {"threshold_step": 0.5, "threshold_decay": 0.1, "refractory_decay": 0.2}
    return nn.Sequential(
        blocks.Dense(neuron, 6, 8, delay=True),
        blocks.Recurrent(neuron, 8, 4),
        blocks.Affine(neuron, 4, 2),
    )


def _floats() -> nn.Module:
    neuron = NEURON | {"regime": "float"}
    layers = so.block.cuba
    return nn.Sequential(layers.Dense(neuron, 6, 5, pre_hook_fx=None), layers.Dense(neuron, 5, 3))


def _complex() -> nn.Module:
    neuron = {"threshold": 1.0, "period": 5, "decay": 0.1}
    return nn.Sequential(so.block.rf.Dense(neuron, 6, 4), so.block.rf.Dense(neuron, 4, 2))


def _encoders() -> nn.Module:
    neuron = {"threshold": 0.1, "activation": torch.relu}
    layers = so.block.sigma_delta
    return nn.Sequential(layers.Input(neuron), layers.Dense(neuron, 6, 3))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "recurrent": _recurrent, "floats": _floats, "complex": _complex, "encoders": _encoders,
}  # fmt: skip


def _made(name: str, streaming: bool) -> tuple[nn.Module, onnx.ModelProto]:
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    network(X)  # which draws delays
    return network, so.export(network, X, streaming=streaming)


def _subject(network: nn.Module, model: onnx.ModelProto, x: torch.Tensor = X) -> Subject:
    arguments = Arguments.of(network, x, "verify")
    return Subject(network, model, arguments, outputs=None, providers=None, native=None)


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_fault_of_the_catalogue_is_named(name: str, streaming: bool) -> None:
    network, model = _made(name, streaming)
    found = _score(f"{name}, streaming {streaming}", _subject(network, model), model)
    assert found > 100


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", ["delay_of_3", "growing_threshold", "affine"])
@pytest.mark.usefixtures("compiled_once")
def test_every_fault_of_a_loop_in_torch_code_is_named(name: str, streaming: bool) -> None:
    """Loops that stay Scans, and a neuron that was recognised."""
    model, (x,) = looping.exported(name, streaming=streaming), looping.example(name)
    subject = _subject(looping.network(name), model, x)
    found = _score(f"loop {name}, streaming {streaming}", subject, model)
    assert found > 50


def _score(name: str, subject: Subject, model: onnx.ModelProto) -> int:
    """Plant every fault of the catalogue; each must be named. Return their number."""
    assert differences(subject, model) == []
    counts, missed = Counter[str](), []
    for fault in catalogue(model):
        subject.model = fault.model
        found = differences(subject, model)
        counts["caught" if found else "missed"] += 1
        if not found:
            missed.append(fault.name)
        assert [sentence for sentence in found if "\n" in sentence] == []
    print(f"{name}: {counts['caught']} of {counts.total()} faults caught")
    assert missed == []
    return counts.total()


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
@pytest.mark.usefixtures("compiled_once")
def test_verify_calls_no_fault_equal(streaming: bool) -> None:
    """A share of the catalogue, by the whole of verify."""
    network, model = _made("encoders", streaming)
    assert so.verify(network, model, X).verdict == "equal"
    for fault in list(catalogue(model))[::9]:
        try:
            report = so.verify(network, fault.model, X)
        except so.ModelError:  # one that ONNX Runtime refuses
            continue
        assert not report.ok, fault.name
        assert report.problems, fault.name


def _set_attribute(model: onnx.ModelProto, node: str, attribute: str, value: int) -> None:
    (found,) = (n for n in model.graph.node if n.name == node)
    next(a for a in found.attribute if a.name == attribute).i = value


@pytest.fixture(scope="module")
def network() -> Convolutional:
    return built()


@pytest.fixture(scope="module")
def model(network: Convolutional) -> onnx.ModelProto:
    return so.export(network, spikes(2, 2, 8, 8, 5))


IMAGES = spikes(3, 2, 8, 8, 20)


def _changed(model: onnx.ModelProto, change: Callable[[onnx.ModelProto], object]) -> Any:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    change(copied)
    return copied


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda m: _set_attribute(m, "conv_neuron", "threshold", 4095),
            "threshold of node conv_neuron is 4095 in the file, and the network compiles to 4097",
        ),
        (
            lambda m: m.graph.node.append(onnx.helper.make_node("Neg", ["output"], ["x"], "extra")),
            "node extra (Neg) is not of this network",
        ),
        (
            lambda m: m.graph.initializer.pop(),
            "initialiser {last} is missing in the file",
        ),
        (
            lambda m: setattr(m.functions[0].node[3], "op_type", "Abs"),
            "the body of {body} is not what the network compiles to: node 3 differs",
        ),
        (
            lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[0], "dim_value", 3),
            "the type of x is float[3, 2, 8, 8, T] in the file, and the network compiles to "
            "float[N, 2, 8, 8, T]",
        ),
        (
            lambda m: onnx.helper.set_model_props(
                m, {p.key: p.value for p in m.metadata_props} | {"synapse_onnx.chunk": "4"}
            ),
            "metadata chunk is 4 in the file, and the network compiles to 1",
        ),
        (
            lambda m: m.metadata_props.insert(
                0, onnx.StringStringEntryProto(key="synapse_onnx.layout")
            ),
            "metadata synapse_onnx.layout is in the file 2 times",
        ),
        (
            lambda m: m.graph.output.append(m.graph.output[0]),
            "the outputs are output, output in the file, and the network compiles to output",
        ),
    ],
    ids=["attribute", "node", "initialiser", "body", "input", "metadata", "twice", "ends"],
)
def test_a_difference_is_named(
    change: Callable[[onnx.ModelProto], object], sentence: str, network, model
) -> None:
    subject = _subject(network, model, IMAGES)
    subject.model = _changed(model, change)
    last, body = model.graph.initializer[-1].name, model.functions[0].name
    assert sentence.format(last=last, body=body) in differences(subject, model)


def test_long_texts_are_shown_where_they_part(network, model) -> None:
    def change(copied: onnx.ModelProto) -> None:
        entry = next(p for p in copied.metadata_props if p.key == "synapse_onnx.layers")
        entry.value = entry.value.replace('"threshold": 1.0', '"threshold": 1.5')

    subject = _subject(network, model, IMAGES)
    subject.model = _changed(model, change)
    (sentence,) = differences(subject, model)
    stored, _, expected = sentence.partition(" in the file, and the network compiles to ")
    assert stored.startswith("metadata layers are ...")
    assert '"threshold": 1.5' in stored
    assert '"threshold": 1.0' in expected
    assert len(sentence) < 220


def _renamed(model: onnx.ModelProto) -> onnx.ModelProto:
    """As a tool writes it that numbers nodes and values."""
    kept = {v.name for v in (*model.graph.input, *model.graph.output)}

    def change(copied: onnx.ModelProto) -> None:
        del copied.graph.value_info[:]
        for i, node in enumerate(copied.graph.node):
            node.name = f"node_{i}"
            for names in (node.input, node.output):
                new = [name if name in kept or not name else f"v/{name}" for name in names]
                del names[:]
                names.extend(new)
        for tensor in copied.graph.initializer:
            tensor.name = f"v/{tensor.name}"

    return _changed(model, change)


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """As a slimmer writes it: constants as nodes, an Identity, and nodes that nothing reads."""

    def change(copied: onnx.ModelProto) -> None:
        graph = copied.graph
        (constant,) = (t for t in graph.initializer if t.name == "constant_0")
        graph.node.insert(0, onnx.helper.make_node("Constant", [], [constant.name], value=constant))
        graph.initializer.remove(constant)
        graph.node.insert(0, onnx.helper.make_node("Identity", ["x"], ["copied"]))
        for node in graph.node[1:]:
            names = ["copied" if name == "x" else name for name in node.input]
            del node.input[:]
            node.input.extend(names)
        graph.node.append(onnx.helper.make_node("Relu", ["x"], ["unread"]))

    return _changed(model, change)


@pytest.mark.parametrize("rewrite", [_renamed, _folded])
def test_a_file_of_the_same_normal_form_is_proved(rewrite, network, model) -> None:
    report = so.verify(network, rewrite(model), IMAGES)
    assert report.verdict == "equal", str(report)
    assert any("a tool has written the file anew" in note for note in report.notes)


@pytest.mark.parametrize("rewrite", [_renamed, _folded])
def test_a_fault_in_such_a_file_is_found(rewrite, network, model) -> None:
    for change in (
        lambda m: _set_attribute(m, "conv_neuron", "threshold", 4095),
        lambda m: setattr(m.functions[0].node[3], "op_type", "Abs"),
    ):
        try:
            report = so.verify(network, rewrite(_changed(model, change)), IMAGES)
        except so.ModelError:
            continue
        assert not report.ok


def test_an_inlined_file_is_judged_by_the_run_alone(network, model) -> None:
    report = so.verify(network, so.flat(model), IMAGES)
    assert report.verdict == "equal by the run alone", str(report)
    assert report.by_run_alone == "the functions of the file are inlined"
    assert report.layers == ()
    assert "by the run alone: the functions of the file are inlined" in str(report)
    assert 'id="by-run-alone"' in report.to_html()


def test_a_file_of_another_version_is_judged_by_the_run_alone(network, model) -> None:
    def age(copied: onnx.ModelProto) -> None:
        (version,) = (p for p in copied.metadata_props if p.key == "synapse_onnx.version")
        version.value = "0.0.9"

    report = so.verify(network, _changed(model, age), IMAGES)
    assert report.ok
    assert report.by_run_alone.startswith("the file was written by synapse-onnx 0.0.9 with torch ")
    # what is still known is still compared
    wrong = _changed(model, lambda m: _set_attribute(m, "conv_neuron", "threshold", 4095))
    assert not so.verify(network, _changed(wrong, age), IMAGES).ok


class _Twice(nn.Module):
    """Returns one value as two outputs, which an Identity makes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = so.block.cuba.Dense(NEURON, 6, 3, weight_scale=3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.dense(x)
        return y, y


def _drop_identity(model: onnx.ModelProto) -> None:
    """Turn around which of two outputs is the copy of the other."""
    (copy,) = (node for node in model.graph.node if node.op_type == "Identity")
    source, target = copy.input[0], copy.output[0]
    swap = {source: target, target: source}
    for node in model.graph.node:
        for names in (node.input, node.output):
            new = [swap.get(name, name) for name in names]
            del names[:]
            names.extend(new)


def test_a_value_that_is_two_outputs_has_a_normal_form() -> None:
    torch.manual_seed(0)
    network = _Twice().eval()
    model = so.export(network, X)
    turned = _changed(model, _drop_identity)
    assert so.verify(network, turned, X).verdict == "equal"
    for faulty in (model, turned):
        wrong = _changed(faulty, lambda m: _set_attribute(m, "dense.neuron", "threshold", 4095))
        assert not so.verify(network, wrong, X).ok


def test_what_has_no_normal_form_is_told_as_it_is(network, model, monkeypatch) -> None:
    def fail(*_: Any) -> bool:
        raise ValueError("a pass does not take this graph")

    monkeypatch.setattr(construction, "same_outputs", fail)
    report = so.verify(network, _folded(model), IMAGES)
    assert any("is not of this network" in problem for problem in report.problems)


def test_a_network_that_was_changed_after_the_export_is_another_one(network, model) -> None:
    changed = built(threshold=2.0)
    report = so.verify(changed, model, torch.zeros_like(IMAGES))
    assert not report.ok
    assert any("threshold of node dense_neuron" in problem for problem in report.problems)


def test_metadata_that_were_added_are_the_users(network, model) -> None:
    def add(copied: onnx.ModelProto) -> None:
        copied.metadata_props.add(key="synapse_onnx.show", value="{}")

    assert so.verify(network, _changed(model, add), IMAGES).verdict == "equal"


@pytest.mark.parametrize("alone", [False, True], ids=["whole", "by the run alone"])
def test_a_parameter_that_differs_is_told_once(alone: bool, network, model) -> None:
    def change(m: onnx.ModelProto) -> None:
        tensor = next(t for t in m.graph.initializer if t.name.endswith("voltage_decay"))
        array = onnx.numpy_helper.to_array(tensor) + 1
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
        if alone:
            m.producer_name = "a tool"

    report = so.verify(network, _changed(model, change), IMAGES)
    assert not report.ok
    assert bool(report.by_run_alone) == alone
    told = [problem for problem in report.problems if "voltage_decay" in problem]
    assert len(told) == 1
    assert "values differ between the frozen module and the model" in told[0]
