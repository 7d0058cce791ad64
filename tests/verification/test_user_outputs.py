"""verify of outputs and inputs of any form."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from networks import NEURON, spikes
from torch import Tensor, nn

import synapse_onnx as so

pytestmark = pytest.mark.usefixtures("compiled_once")


class Body(nn.Module):
    """One block; what it returns is a subclass's."""

    def __init__(self, count: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.block = so.block.cuba.Dense(NEURON, count, 4, weight_scale=3)
        self.own = nn.Parameter(torch.arange(3.0))
        self.register_buffer("table", torch.ones(1, 2, 1))


class Pair(NamedTuple):
    spikes: Tensor
    rate: Tensor


OUTPUTS: dict[str, Any] = {
    "scalar": lambda net, x, y: y.mean(),
    "ragged": lambda net, x, y: (y, y.sum(-1), y.sum((1, 2)), y.sum(), y.reshape(-1, 2, 2, 9)),
    "parameter": lambda net, x, y: (y, net.own),
    "only a parameter": lambda net, x, y: net.own,
    "buffer": lambda net, x, y: (net.table, y),
    "input": lambda net, x, y: (y, x, x),
    "same twice": lambda net, x, y: (y, y),
    "nested": lambda net, x, y: {"b": [y, (y * 2, None)], "a": Pair(y, y.mean(-1))},
    "half": lambda net, x, y: y.half(),
    "integers": lambda net, x, y: (y.argmax(1), y > 0.5, y.double()),
}


class Headed(Body):
    """A block with one of the heads."""

    def __init__(self, head: str) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: Tensor) -> Any:
        return OUTPUTS[self.head](self, x, self.block(x))


@pytest.mark.parametrize("head", OUTPUTS)
@pytest.mark.parametrize("streaming", [False, True])
def test_outputs_of_any_form(head: str, streaming: bool) -> None:
    x = spikes(3, 3, 9)
    options: dict[str, Any] = {"streaming": streaming}
    options |= {"dynamic": False} if head == "ragged" else {}
    try:
        model = so.export(Headed(head), x, **options)
    except so.ExportError as error:
        assert streaming
        assert "so it cannot come step by step" in str(error)  # noqa: PT017
        return
    report = so.verify(Headed(head), model, x)
    assert report.ok, str(report)


@pytest.mark.parametrize(
    ("dtype", "kind"), [(torch.bfloat16, "bfloat16"), (torch.complex64, "complex")]
)
def test_outputs_of_types_that_no_model_has_are_refused(dtype: torch.dtype, kind: str) -> None:
    class Net(Body):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, self.block(x).to(dtype)

    with pytest.raises(so.ExportError, match=rf"output 1 of forward\(\) is {kind}, "):
        so.export(Net(), spikes(3, 3, 9))


# -- NaN -----------------------------------------------------------------------------------------


class Deviation(Body):
    def forward(self, x: Tensor) -> Any:
        y = self.block(x)
        return y, y.std(-1)


@pytest.mark.filterwarnings("ignore:std")
def test_nan_in_the_same_places_is_a_note() -> None:
    """One step has no deviation."""
    x = spikes(3, 3, 9)
    report = so.verify(Deviation(), so.export(Deviation(), x), x)
    assert report.ok, str(report)
    both = "NaN in 16 values of torch and of the model, in the same places"
    assert f"output_1: {both}" in report.notes


@pytest.mark.filterwarnings("ignore:std")
def test_an_output_that_is_nan_alone_is_named() -> None:
    x = spikes(3, 3, 1)
    report = so.verify(Deviation(), so.export(Deviation(), x, dynamic=False), x)
    assert report.ok, str(report)
    assert any("which are all: it was not compared" in note for note in report.notes)


@pytest.mark.filterwarnings("ignore:std")
def test_what_cancels_is_compared_with_what_it_remains_of() -> None:
    """One step that is repeated has no deviation, which ONNX Runtime computes to 5e-10."""
    module = Deviation()
    module.block = so.synapse.Dense(3, 4)
    x = torch.rand(1, 3, 1)
    report = so.verify(module, so.export(module.eval(), x), x)
    assert report.ok, str(report)
    row = next(row for row in report.outputs if row.name == "output_1")
    assert 0 < row.tolerance < 1e-4


@pytest.mark.filterwarnings("ignore:std")
def test_nan_in_other_places_is_wrong() -> None:
    class Other(Body):
        def forward(self, x: Tensor) -> Any:
            y = self.block(x)
            return y, y.std(-1, correction=0)

    x = spikes(3, 3, 9)
    report = so.verify(Deviation(), so.export(Other(), x), x)
    assert not report.ok
    assert "output_1: NaN in 16 values of torch and 0 of the model" in report.problems


# -- inputs --------------------------------------------------------------------------------------


class WithNumber(Body):
    def forward(self, x: Tensor, number: Tensor) -> Tensor:
        return self.block(x * number)


class NumberFirst(Body):
    def forward(self, number: Tensor, x: Tensor) -> Tensor:
        return self.block(x * number)


class Flat(Body):
    def forward(self, x: Tensor) -> Tensor:
        return self.block(x.unsqueeze(-1))


class Frames(Body):
    def forward(self, x: Tensor) -> Tensor:
        return self.block(x.flatten(1, 2))


class PerChannel(Body):
    def forward(self, gain: Tensor, x: Tensor) -> Tensor:
        return self.block(x * gain[:, None])


class Rest(Body):
    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        return self.block(x + sum(others))


X = spikes(2, 3, 9)
INPUTS: dict[str, tuple[nn.Module, Any, dict[str, Any]]] = {
    "a number": (WithNumber(), (X, torch.tensor(0.5)), {}),
    "a number first": (NumberFirst(), (torch.tensor(0.5), X), {}),
    "only (N, C)": (Flat(), X[..., 0], {}),
    "only (N, C, H, W)": (Frames(6), spikes(2, 3, 2, 5), {}),
    "(C,) first": (PerChannel(), (torch.tensor([0.5, 1.0, 2.0]), X), {"dynamic": False}),
    "*others": (Rest(), (X, X, 1 - X), {}),
}


@pytest.mark.parametrize(("module", "given", "options"), INPUTS.values(), ids=INPUTS)
@pytest.mark.parametrize("streaming", [False, True])
def test_inputs_of_any_rank(module, given, options, streaming: bool) -> None:
    module.eval()
    report = so.verify(module, so.export(module, given, streaming=streaming, **options), given)
    assert report.ok, str(report)


@pytest.mark.parametrize("call", ["export", "verify"])
def test_an_argument_by_keyword_alone_is_refused(call: str) -> None:
    class Keyword(Body):
        def forward(self, *, x: Tensor) -> Tensor:
            return self.block(x)

    model = so.export(Flat(), X[..., 0])
    calls = {
        "export": lambda: so.export(Keyword(), X),
        "verify": lambda: so.verify(Keyword(), model, X),
    }
    with pytest.raises(so.InputError, match=rf"^{call}: forward\(\) takes x by keyword alone"):
        calls[call]()


def test_a_constant_beside_a_stream_of_inputs_without_time() -> None:
    class Net(Body):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.block(x.unsqueeze(-1)), self.table

    report = so.verify(Net(), so.export(Net(), X[..., 0], streaming=True), X[..., 0])
    assert report.ok, str(report)


def test_a_pair_needs_an_argument_with_a_name() -> None:
    network = nn.DataParallel(nn.Sequential(so.neuron.rf.Neuron(**so.neuron.rf.Neuron.example)))
    with pytest.raises(so.InputError, match=r"^export: a pair \(real, imag\) needs an argument"):
        so.export(network, [(X, X)])


@pytest.mark.parametrize("streaming", [False, True])
def test_hooks_of_a_network_that_takes_a_pair(streaming: bool) -> None:
    network = nn.Sequential(so.neuron.rf.Neuron(**so.neuron.rf.Neuron.example)).eval()
    network.register_forward_pre_hook(lambda m, given: ((2 * given[0][0], given[0][1]),))
    network.register_forward_hook(lambda m, given, y: 0.5 * y)
    report = so.verify(network, so.export(network, [(X, X)], streaming=streaming), [(X, X)])
    assert report.ok, str(report)
