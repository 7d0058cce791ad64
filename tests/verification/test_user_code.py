"""verify of right networks with the user's own code on and around layers, and of wrong files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from faults import replace_values
from networks import NEURON, cuba, spikes
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.model.metadata import Metadata
from synapse_onnx.quantize import q8
from synapse_onnx.verification.liveness import _Origins

pytestmark = pytest.mark.usefixtures("compiled_once")


def dense(count: int, out: int, hook: Any = q8) -> so.synapse.Dense:
    return so.synapse.Dense(count, out, weight_scale=3, pre_hook_fx=hook)


def _neither(self: Two, x: Tensor) -> Tensor:
    return self.neuron(self.dense(x))


class Two(nn.Module):
    """Two layers, and the user's code between and after them."""

    def __init__(self, between: Callable[..., Any] | None = None, hook: Any = q8) -> None:
        super().__init__()
        self.dense, self.neuron = dense(3, 4, hook), cuba()
        self.between = between or _neither

    def forward(self, x: Tensor) -> Any:
        return self.between(self, x)


def made(between: Callable[..., Any] | None = None, hook: Any = q8) -> Two:
    torch.manual_seed(0)
    return Two(between, hook).eval()


def assert_equal(module: nn.Module, x: Tensor, *, streams: bool = True) -> so.Report:
    """The export is called equal, whole and as a stream, and nothing of the caller's changes."""
    module.eval()
    given = x.clone()
    report = so.verify(module, so.export(module, x), x)
    assert report.ok, str(report)
    if streams:
        streamed = so.verify(module, so.export(module, x, streaming=True), x)
        assert streamed.ok, str(streamed)
    assert torch.equal(x, given)
    return report


def assert_found(module: nn.Module, name: str = "dense.weight") -> None:
    """A weight that differs in the file is found."""
    x = spikes(3, 3, 9)
    model = so.export(module, x)

    def change(array: np.ndarray) -> None:
        array.flat[0] += 1

    replace_values(model, name, change)
    assert not so.verify(module, model, x).ok


# -- hooks and subclasses ------------------------------------------------------------------------


def _halved(module: nn.Module, args: Any, result: Tensor) -> Tensor:
    return 0.5 * result


def _halved_in_place(module: nn.Module, args: Any, result: Tensor) -> Tensor:
    return result.mul_(0.5)


def _doubled(module: nn.Module, args: Any) -> Tensor:
    return 2 * args[0]


def _doubled_all(module: nn.Module, args: Any) -> tuple[Tensor, ...]:
    return tuple(2 * value for value in args)


def _raised(module: nn.Module, args: Any, keywords: Any) -> Any:
    return (args[0] + 1,), keywords


HOOKS: dict[str, Callable[[Two], Any]] = {
    "after a neuron": lambda n: n.neuron.register_forward_hook(_halved),
    "after a synapse": lambda n: n.dense.register_forward_hook(_halved),
    "before a neuron": lambda n: n.neuron.register_forward_pre_hook(_doubled),
    "with keywords": lambda n: n.dense.register_forward_pre_hook(_raised, with_kwargs=True),
    "in place": lambda n: n.neuron.register_forward_hook(_halved_in_place),
    "around the network": lambda n: (
        n.register_forward_pre_hook(_doubled_all),
        n.register_forward_hook(_halved),
    ),
}


@pytest.mark.parametrize("hook", HOOKS.values(), ids=HOOKS)
@pytest.mark.parametrize("weights", [q8, None], ids=["q8", "float"])
def test_hooks_that_change_values_are_not_the_layers(hook, weights) -> None:
    module = made(hook=weights)
    hook(module)
    report = assert_equal(module, spikes(3, 3, 9))
    assert [row.name for row in report.layers] == ["dense", "neuron"]
    assert_found(module)


class Halved(so.neuron.cuba.Neuron):
    def forward(self, input: Any) -> Tensor:
        return super().forward(input) * 0.5


class Shifted(so.synapse.Dense):
    def forward(self, input: Tensor, gain: float = 2.0) -> Tensor:
        return super().forward(input * gain) + 0.25


class Mixin:
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).flip(1)  # type: ignore[misc]


class Flipped(Mixin, Shifted):
    pass


@pytest.mark.parametrize("synapse", [Shifted, Flipped])
def test_a_subclass_goes_on_with_what_a_layer_returns(synapse) -> None:
    module = made()
    module.dense = synapse(3, 4, weight_scale=3, pre_hook_fx=q8)
    module.neuron = Halved(**NEURON)
    report = assert_equal(module, spikes(3, 3, 9))
    assert [row.name for row in report.layers] == ["dense", "neuron"]
    assert type(module.neuron) is Halved
    assert_found(module)


@pytest.mark.parametrize("hook", [q8, None], ids=["q8", "float"])
def test_a_subclass_and_hooks_of_a_neuron_with_feedback(hook) -> None:
    torch.manual_seed(0)
    block = so.block.cuba.Recurrent(
        {**NEURON, "regime": "float"}, 3, 4, weight_scale=3, pre_hook_fx=hook
    )
    block.neuron.__class__ = Shown
    block.recurrent_synapse.register_forward_hook(_halved)  # which the loop does not run
    report = assert_equal(nn.Sequential(block), spikes(3, 3, 9))
    assert "0.neuron" in [row.name for row in report.layers]


class Shown(so.neuron.cuba.Neuron):
    def forward(self, input: Any) -> Tensor:
        return super().forward(input) * 0.5 + 0.25


def test_a_subclass_may_run_its_layer_twice() -> None:
    class Twice(so.neuron.cuba.Neuron):
        def forward(self, input: Any) -> Tensor:
            return super().forward(2 * super().forward(input))

    module = made()
    module.neuron = Twice(**NEURON)
    report = assert_equal(module, spikes(3, 3, 9), streams=False)
    assert [row.name for row in report.layers] == ["dense", "neuron (call 1)", "neuron (call 2)"]
    with pytest.raises(so.ExportError, match="calls neuron 2 times, and it keeps one"):
        so.export(module, spikes(3, 3, 9), streaming=True)


def test_functional_call_puts_other_parameters_into_a_layer() -> None:
    def between(self: Two, x: Tensor) -> Tensor:
        halves = {name: 0.5 * value for name, value in self.dense.named_parameters()}
        return self.neuron(torch.func.functional_call(self.dense, halves, (x,)))

    assert_equal(made(between, hook=None), spikes(3, 3, 9))


@pytest.mark.parametrize("kind", ["cuba", "adrf_iz", "lif", "sigma_delta"])
def test_functional_call_of_a_copy_of_all_tensors(kind: str) -> None:
    """Which are no parameters then: decays are rounded all the same, and states are found."""
    torch.manual_seed(0)
    arguments = so.neuron.kinds()[kind].Neuron.example
    block = getattr(so.block, kind).Dense(arguments, 3, 4, weight_scale=3)

    class Called(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = block

        def forward(self, x: Tensor) -> Tensor:
            tensors = (*self.block.named_parameters(), *self.block.named_buffers())
            copies = {name: value.clone() for name, value in tensors}
            return torch.func.functional_call(self.block, copies, (x,))

    x = spikes(3, 3, 9)
    with torch.no_grad():
        assert torch.equal(Called().eval()(x), block.eval()(x))
    assert_equal(Called(), x)


@pytest.mark.parametrize("hook", [so.quantize.q8, None], ids=["q8", "float"])
def test_functional_call_of_a_layer_with_two_names(hook: Any) -> None:
    """Which torch leaves with the tensors that it was given: pytorch #164759."""
    torch.manual_seed(0)
    neuron = so.neuron.kinds()["sigma_delta"].Neuron.example
    block = so.block.sigma_delta.Dense(neuron, 3, 4, weight_scale=3, pre_hook_fx=hook)

    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = self.two = block

        def forward(self, x: Tensor) -> Any:
            return self.two(x)

    class Called(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()

        def forward(self, x: Tensor) -> Any:
            copies = {name: value.clone() for name, value in self.inner.named_parameters()}
            return torch.func.functional_call(self.inner, copies, (x,))

    assert_equal(Called(), spikes(3, 3, 9))


# -- changes in place ----------------------------------------------------------------------------


def _before(self: Two, x: Tensor) -> Tensor:
    return self.neuron(self.dense(x.mul_(2)))


def _after(self: Two, x: Tensor) -> tuple[Tensor, Tensor]:
    y = self.neuron(self.dense(x))
    x.zero_()
    return y, x


def _result(self: Two, x: Tensor) -> Tensor:
    y = self.dense(x)
    z = self.neuron(y)
    y.zero_()
    return z.mul_(0.5)


def _inference(self: Two, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return self.neuron(self.dense(x)).mul_(0.5)


@pytest.mark.parametrize("between", [_before, _after, _result, _inference])
@pytest.mark.parametrize("weights", [q8, None], ids=["q8", "float"])
def test_values_that_are_changed_in_place(between, weights, request) -> None:
    if between is _before:  # to compile twice changes nothing either, which one of them tells
        request.getfixturevalue("compiled_anew")
    module = made(between, weights)
    # samples in one place of memory are no matter of the weights, and a stream runs either
    assert_equal(module, spikes(3, 3, 9), streams=weights is None)
    assert_equal(module, spikes(1, 3, 9).expand(3, 3, 9), streams=weights is not None)


@pytest.mark.parametrize("between", [_before, _after, _result, _inference])
@pytest.mark.parametrize("weights", [q8, None], ids=["q8", "float"])
def test_faults_beside_values_that_are_changed_in_place(between, weights) -> None:
    assert_found(made(between, weights))


# -- names and results that are not used ---------------------------------------------------------


def test_a_layer_with_two_names_is_one_layer() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Sequential(dense(3, 3), cuba())
            self.two = nn.ModuleDict({"same": self.one})
            self.last = self.one[0]

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.two["same"](self.one(x)))

    torch.manual_seed(0)
    x = spikes(3, 3, 9)
    report = assert_equal(Both(), x, streams=False)
    assert [row.name for row in report.layers] == [
        "one.0 (call 1)", "one.1 (call 1)", "one.0 (call 2)", "one.1 (call 2)", "one.0 (call 3)",
    ]  # fmt: skip
    metadata = Metadata.read(so.export(Both(), x))
    assert [layer["path"] for layer in metadata.layers] == ["one.0", "one.1"]
    assert metadata.exact == ("output",)


def test_a_layer_is_called_by_its_second_name() -> None:
    module = made(lambda self, x: self.other(self.dense(x)))
    module.other = module.neuron
    assert_equal(module, spikes(3, 3, 9))
    assert_found(module)


def _first(self: Two, x: Tensor) -> Tensor:
    self.neuron(self.dense(x + 1))
    return self.neuron(self.dense(x))


def _second(self: Two, x: Tensor) -> Tensor:
    y = self.neuron(self.dense(x))
    shape = self.dense(y[:, :3]).shape
    return y.reshape(shape)


@pytest.mark.parametrize(("between", "path"), [(_first, "neuron"), (_second, "dense")])
def test_calls_whose_results_are_not_used(between, path: str) -> None:
    module = made(between)
    report = assert_equal(module, spikes(3, 3, 9), streams=False)
    assert [row.name for row in report.layers] == ["dense", "neuron"]
    assert any(
        note.startswith(f"{path}: no output depends on 1 of its calls") for note in report.notes
    )
    assert_found(module)


def test_a_constant_in_the_memory_of_an_unused_result_is_no_use_of_it() -> None:
    """Memory that is free again may become that of a constant, which no operator makes."""
    with _Origins() as origins:
        result = torch.zeros(4) + 1
        origins.add(result, {("layer", 1)})
        assert origins.of(result + 1) == {("layer", 1)}
        del result
        constants = [torch.tensor([1.0, 2.0, 3.0, 4.0]) for _ in range(50)]
        assert not any(map(origins.of, constants))


def test_a_wide_synapse_is_two_nodes_of_one_call() -> None:
    """So two calls, one of them not used, have the nodes of two calls."""

    def between(self: Two, x: Tensor) -> Tensor:
        self.dense(x + 1)
        return self.dense(x)

    module = made(between, hook=so.quantize.Quantizer(2048, 16))
    with torch.no_grad():
        module.dense.weight.mul_(4)
    model = so.export(module, 1000 * spikes(3, 3, 9))
    report = so.verify(module, model, 1000 * spikes(3, 3, 9))
    assert report.ok, str(report)


def test_a_layer_that_the_file_lacks_is_missed_if_an_output_depends_on_it() -> None:
    x = spikes(3, 3, 9)
    module = made(lambda self, x: self.neuron(self.dense(x) + 0 * self.dense(2 * x)))
    model = so.export(module, x)
    (_, gone) = (node for node in model.graph.node if node.op_type == "QuantizedDense")
    zero = onnx.helper.make_node("Mul", [node_input(model, gone), "zero"], ["nothing"])
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((1, 1, 4), "f"), "zero"))
    place = list(model.graph.node).index(gone)
    model.graph.node.remove(gone)
    model.graph.node.insert(place, zero)
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if name == gone.output[0]:
                node.input[i] = "nothing"
    report = so.verify(module, model, x)
    assert not report.ok
    assert "dense: torch calls this layer 2 times and the model has 1 nodes" in str(report)


def node_input(model: onnx.ModelProto, gone: onnx.NodeProto) -> str:
    """A value of the shape of a node's output: that of the same layer's other node."""
    return next(n.output[0] for n in model.graph.node if n.op_type == gone.op_type)


# -- torch.compile -------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["whole", "in place", "list"])
def test_compiled_modules_run_as_they_stand(part: str) -> None:
    module: Any = made()
    if part == "whole":
        module = torch.compile(module, backend=_refused)
    elif part == "in place":
        module.compile(backend=_refused)
    else:
        module = Listed()
    report = assert_equal(module, spikes(3, 3, 9))
    assert report.layers


class Listed(nn.Module):
    """torch's tracer loses the path of what a compiled module calls, beside one with two names."""

    def __init__(self) -> None:
        super().__init__()
        parts = made(), nn.Sequential(dense(4, 2), cuba())
        compiled: list[Any] = [torch.compile(part, backend=_refused) for part in parts]
        self.parts = nn.ModuleList(compiled)
        self.names = nn.ModuleDict({"one": cuba()})
        self.again = self.names["one"]

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return self.again(x)


def _refused(graph: Any, inputs: Any) -> Any:
    raise AssertionError("nothing is compiled for an export, or to verify one")
