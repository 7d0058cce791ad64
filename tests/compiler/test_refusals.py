"""What cannot be exported gets one sentence: its cause, its place, and what to do."""

from __future__ import annotations

import dataclasses
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from networks import spikes
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize
from torch.utils._pytree import tree_leaves

import synapse_onnx as so
from synapse_onnx.quantize import q8

NEURON = {"threshold": 1.0, "current_decay": 0.25, "voltage_decay": 0.1}
X = spikes(2, 6, 5)


class Net(nn.Module):
    """A synapse and a neuron, and a function of their module and its output."""

    def __init__(self, after: Callable[..., Any] = lambda net, y: y) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.dense = so.synapse.Dense(6, 4, weight_scale=3, pre_hook_fx=q8)
        self.neuron = so.neuron.cuba.Neuron(**NEURON)
        self.after = after

    def forward(self, x: Tensor) -> Any:
        return self.after(self, self.neuron(self.dense(x)))


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(-1)


@dataclasses.dataclass
class Record:
    y: Tensor


def behind(last: nn.Module) -> nn.Module:
    return nn.Sequential(Net(), Mean(), last)


def with_attribute(value: Any) -> nn.Module:
    net = nn.Sequential(Net())
    net[0].neuron.extra = value
    return net


def sparse() -> nn.Module:
    net = behind(nn.Linear(4, 3))
    net[2].weight = nn.Parameter(net[2].weight.detach().to_sparse())
    return net


def scripted(module: nn.Module) -> nn.Module:
    with warnings.catch_warnings(action="ignore"):  # torch calls torch.jit old
        return torch.jit.script(module)


class Fails(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        raise ValueError("no such weight")


def parametrised_badly() -> nn.Module:
    net = Net()
    parametrize.register_parametrization(net.dense, "weight", nn.Identity())
    net.dense.parametrizations["weight"][0] = Fails()
    return net


#: what is done -> (module, class, sentence)
MODULES = {
    "no module": (lambda: lambda x: x, so.InputError, r"must be a torch\.nn\.Module, got function"),
    "a class": (lambda: Net, so.InputError, "got the class Net; make an instance"),
    "lazy": (
        lambda: behind(nn.LazyLinear(3)),
        so.InputError,
        r"^2\.weight of LazyLinear has no shape .*; run the network once",
    ),
    "scripted": (
        lambda: behind(scripted(nn.Linear(4, 3))),
        so.InputError,
        r"module '2' is scripted .*; use the module that it was made from",
    ),
    "sparse": (sparse, so.InputError, r"^2\.weight is sparse .*; replace it by its to_dense"),
    "meta": (
        lambda: Net().to("meta"),
        so.InputError,
        r"^dense\.weight is on the meta device .*; load the network's weights",
    ),
    "lock": (
        lambda: with_attribute({"a": [threading.Lock()]}),
        so.InputError,
        r"attribute 'extra' of module '0\.neuron', a dict, cannot be copied.*lock.*; remove it",
    ),
    "generator": (
        lambda: with_attribute(i for i in range(3)),
        so.InputError,
        r"attribute 'extra' of module '0\.neuron', a generator, cannot be copied",
    ),
    "parametrised badly": (
        parametrised_badly,
        so.InputError,
        r"^dense: the parametrisation of \w+\.weight cannot be computed \(ValueError: no such "
        r"weight\); call torch\.nn\.utils\.parametrize\.remove_parametrizations",
    ),
    "float64 weights": (
        lambda: Net().double(),
        so.InputError,
        r"dense: .* torch\.float64.*call \.float\(\)",
    ),
    "float64 behind": (
        lambda: behind(nn.Linear(4, 3).double()),
        so.ExportError,
        r"forward\(\) fails on the example inputs, in module '2': RuntimeError: .*same dtype",
    ),
}


def refused(module: Any, args: Any, kind: type[Exception], sentence: str, **options: Any) -> None:
    """An export is refused by one sentence, and leaves the module as it was."""
    before = dict(module.named_parameters()) if isinstance(module, nn.Module) else {}
    with pytest.raises(so.SynapseError, match=sentence) as caught:
        so.export(module, args, **options)
    assert type(caught.value) is kind, caught.value
    assert "\n" not in str(caught.value)
    if isinstance(module, nn.Module):
        after = dict(module.named_parameters())
        assert before.keys() == after.keys()
        assert all(before[name] is after[name] for name in before)
        held = [vars(each) for each in module.modules()]
        assert not any(type(leaf).__name__ == "FakeTensor" for leaf in tree_leaves(held))
    assert torch._C._len_torch_function_stack() == 0


@pytest.mark.parametrize("case", MODULES)
def test_modules(case: str) -> None:
    make, kind, sentence = MODULES[case]
    module = make()
    refused(module, X, kind, sentence)
    if kind is so.InputError and case != "float64 behind":
        with pytest.raises(so.InputError, match=sentence):
            so.freeze(module)


#: what forward() does after the neuron -> (function, sentence)
FORWARDS: dict[str, tuple[Callable[..., Any], str]] = {
    "slice of time": (
        lambda net, y: y[..., :3],
        r"needs T >= 3 for the number of time steps T, x\.shape\[2\] of inputs \(N, C, T\) "
        r"\(__getitem__ at line \d+ of test_refusals\.py\); .* dynamic=False",
    ),
    "index of time": (lambda net, y: y[..., 4], r"needs T >= 5 for the number of time steps T"),
    "average of time": (
        lambda net, y: functional.avg_pool1d(y, 2),
        r"for the number of time steps T, x\.shape\[2\].*\(avg_pool1d at line",
    ),
    "maximum of time": (
        lambda net, y: functional.max_pool1d(y, 3, 1),
        r"time steps T as a constant \(5\), x\.shape\[2\].*\(max_pool1d at line",
    ),
    "layers in a loop": (
        lambda net, y: torch.cat([net.neuron(y[..., t : t + 1]) for t in range(y.shape[-1])], -1),
        r"its steps have no common form.*a layer of this package is called at every step",
    ),
    "loop over the first axis": (
        lambda net, y: torch.stack([y[n] for n in range(y.shape[0])]),
        r"batch size N as a constant \(2\), x\.shape\[0\] of inputs \(N, C, T\)",
    ),
    "a branch on time": (
        lambda net, y: y * 2 if y.shape[-1] > 4 else y,
        r"needs T >= 5 for the number of time steps T.*\(line \d+ of test_refusals",
    ),
    "a branch on few steps": (
        lambda net, y: y * 2 if y.shape[-1] > 1 else y,
        r"branches on the number of time steps T at line \d+ of test_refusals\.py.*one branch",
    ),
    "a branch on a batch": (
        lambda net, y: y * 2 if y.shape[0] > 1 else y * 3,
        r"branches on the batch size N at line \d+ of test_refusals\.py.*torch\.where",
    ),
    "a branch on both": (
        lambda net, y: y * 2 if y.numel() > 10 else y,
        r"branches on the (batch size N and number of time steps T|number .* and batch size N) at",
    ),
    "a comparison of shapes": (
        lambda net, y: y if y.shape[:1] == (1,) else y + 1,
        "branches on the batch size N at",
    ),
    "squeeze": (lambda net, y: y.squeeze(0), r"squeezes axis 0 .* an open axis .*select an index"),
    "weight": (
        lambda net, y: functional.linear(y.transpose(1, 2), net.dense.weight[:, :4, 0, 0, 0]),
        r"reads dense\.weight at line \d+ of test_refusals\.py, .*int8.*dense\.effective_weight",
    ),
    "cast weight": (lambda net, y: y + net.dense.weight.float().mean(), r"reads dense\.weight at"),
    "weight's number": (
        lambda net, y: y * net.dense.weight.float().mean().item(), r"reads dense\.weight at"
    ),
    "weight's type": (
        lambda net, y: y if net.dense.weight.dtype == torch.float32 else -y,
        r"reads dense\.weight at",
    ),
    "weight as output": (lambda net, y: (y, net.dense.weight), r"reads dense\.weight as output 1"),
    "decay": (
        lambda net, y: y * net.neuron.voltage_decay,
        r"reads neuron\.voltage_decay at line \d+ .* use a copy in a buffer",
    ),
    "bfloat16": (lambda net, y: (y.bfloat16() * 2).float(), r"^Net computes in bfloat16 \(mul\)"),
    "bfloat16 output": (lambda net, y: y.bfloat16(), "output 0 of .* bfloat16.*return float32"),
    "complex output": (lambda net, y: torch.complex(y, y), r"output 0 .* complex.*\(real, imag\)"),
    "sparse output": (
        lambda net, y: (y, y.to_sparse()),
        r"returns a tensor that is sparse \(torch\.sparse_coo\); return its to_dense\(\)",
    ),
    "sparse within": (
        lambda net, y: y.to_sparse().to_dense(),
        r"makes a sparse tensor \(aten\._to_sparse\.default\), .*compute with dense tensors",
    ),
    "nested output": (
        lambda net, y: torch.nested.nested_tensor([y[0], y[1, :, :2]]),
        "returns a tensor that is a nested tensor; return a tensor padded to one length",
    ),
    "quantised output": (
        lambda net, y: torch.quantize_per_tensor(y, 0.1, 0, torch.quint8),
        r"returns a tensor that is quantised \(torch\.quint8\); return its dequantize\(\)",
    ),
    "float": (lambda net, y: (y, 1.5), "output 1 .* a Python float.*return it as a tensor"),
    "int": (lambda net, y: (y, 3), "output 1 .* a Python int"),
    "size": (lambda net, y: (y, y.shape[0]), "output 1 .* a Python int"),
    "string": (lambda net, y: (y, "a"), "output 1 .* a Python str"),
    "nothing": (lambda net, y: None, "returns no tensor"),
    "empty": (lambda net, y: (), "returns no tensor"),
    "dataclass": (lambda net, y: Record(y), r"returns a Record.*tuples, lists and dicts"),
    "NumPy": (lambda net, y: y.numpy(), "a tensor becomes a NumPy array; compute with torch"),
    "legacy tensor": (
        lambda net, y: (y, torch.FloatTensor([y.mean()])),
        r"makes a tensor of the values of others by torch\.FloatTensor .*; use torch\.stack$",
    ),
    "argument of ONNX": (
        lambda net, y: (y, y.amax()),
        r"^operator aten\.amax in module .* with its argument 'dim' alone; give it in forward\(\)$",
    ),
    "values": (lambda net, y: y if y.sum() > 0 else -y, r"depends on the values .* torch\.where"),
    "sizes that do not fit": (
        lambda net, y: y.reshape(3, -1), r"fails on the example inputs: RuntimeError: shape"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FORWARDS)
def test_forwards(case: str) -> None:
    function, sentence = FORWARDS[case]
    refused(Net(function), X, so.ExportError, sentence)


@pytest.mark.parametrize("case", ["a branch on a batch", "a branch on few steps", "slice of time"])
def test_fixed_axes_hold_one_branch(case: str) -> None:
    net = Net(FORWARDS[case][0])
    assert so.verify(net, so.export(net, X, dynamic=False), X).ok


class Autocast(nn.Module):
    def __init__(self, enabled: bool) -> None:
        super().__init__()
        self.inner, self.enabled = Net(), enabled

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.enabled):
            y = x * 2
        return self.inner(y) if not self.enabled else self.run(y)

    def run(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.inner(x)


def test_autocast_in_forward() -> None:
    refused(Autocast(True), X, so.ExportError, r"enters torch\.autocast.*leave it out")
    off = Autocast(False)
    assert so.verify(off, so.export(off, X), X).ok


class Second(Net):
    def forward(self, x: Tensor, gain: Any) -> Any:
        return super().forward(x) * gain


class Keyword(Net):
    def forward(self, *, x: Tensor) -> Any:
        return super().forward(x)


#: what is given -> (module, arguments, class, sentence)
ARGUMENTS = {
    "float": (Second(), [X, 2.0], r"argument 1 is a float; give torch\.tensor\(2\.0\)"),
    "int": (Second(), [X, 2], r"argument 1 is a int; give torch\.tensor\(2\)"),
    "None": (Second(), [X, None], "argument 1 is a NoneType; leave it out"),
    "dict": (Net(), [{"x": X}], "argument 0 is a dict; give each of its tensors"),
    "dataclass": (Net(), [Record(X)], "argument 0 is a Record; give each of its tensors"),
    "NumPy": (Net(), [X.numpy()], r"argument 0 is a ndarray; give a tensor, by torch\.from_numpy"),
    "only a dict": (Net(), {"x": X}, r"args must be .* in the order of forward.* got a dict"),
    "only a float": (Net(), 1.0, "args must be .* got a float"),
    "only None": (Net(), None, "args must be .* got a NoneType"),
    "too many": (Net(), [X, X, X], r"forward\(\) of Net does not take 3 .* give one example"),
    "too few": (Second(), [X], r"forward\(\) of Second does not take 1 .*'gain'"),
    "by keyword": (Keyword(), X, r"forward\(\) takes x by keyword alone"),
    "sparse": (Net(), X.to_sparse(), r"argument 0 is sparse \(torch\.sparse_coo\); give its to_de"),
    "meta": (Net(), X.to("meta"), "argument 0 is on the meta device and has no values"),
    "float64": (Net(), X.double(), r"^dense: the input is float64, .* give float32 numbers"),
    "float16": (Net(), X.half(), r"^dense: the input is float16, .* give float32 numbers"),
    "bfloat16": (Net(), X.bfloat16(), "argument x is bfloat16, .* give float32"),
    "int64": (Net(), X.long(), r"^dense: Dense: .*floating-point tensor, got torch\.int64"),
    "bool": (Net(), X.bool(), r"^dense: Dense: expected .*floating-point tensor, got torch\.bool"),
    "neuron, float64": (
        so.neuron.cuba.Neuron(**NEURON), X.double(), r"^Neuron: the input is float64"
    ),
    "complex": (nn.Identity(), X.to(torch.complex64), r"complex.*give the pair \(real, imag\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", ARGUMENTS)
def test_arguments(case: str) -> None:
    module, args, sentence = ARGUMENTS[case]
    refused(module, args, so.InputError, sentence)


class Caching(nn.Module):
    """Keeps its last output in many places, and cannot be exported."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.last, self.all, self.by_name = Net(), None, [], {}
        self.register_buffer("kept", None)

    def forward(self, x: Tensor) -> Tensor:
        y = self.net(x)
        self.last = self.kept = self.by_name["y"] = y
        self.all.append(y)
        return y if y.sum() > 0 else -y


def test_a_network_runs_after_it_was_refused() -> None:
    net = Caching()
    expected = net(X)
    refused(net, X, so.ExportError, "depends on the values")
    assert len(net.all) == 1
    assert torch.equal(net(X), expected)
    compiled = so.verify(net.net, so.export(net.net, X), X)
    assert compiled.ok, str(compiled)
