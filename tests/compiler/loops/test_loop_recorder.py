"""A trace on numbers is that of torch.export, or none."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from looping import NETWORKS, example, network
from remembering import Says
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.compiler.loops import traces
from synapse_onnx.compiler.loops.order import Order
from synapse_onnx.compiler.loops.reading import Reading, read
from synapse_onnx.compiler.loops.recorder import NotRecordedError, record
from synapse_onnx.compiler.loops.terms import Pool, Size
from synapse_onnx.compiler.loops.traces import Traces

X = torch.arange(24.0).reshape(4, 3, 2) - 9

#: networks that do not run the sizes of traces
FIXED = {"parameter_a_step"}


class Compared(BaseException):
    """Both traces of a size were made, and are equal; the rest of an export is not needed."""


@pytest.fixture
def _compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare the first trace; the others differ in their length alone."""
    recorded = Traces._recorded

    def both(self: Traces, size: Size) -> Any:
        program = recorded(self, size)
        if program is None:
            return None
        pool = Pool()
        _assert_equal(
            read(program, pool, size.steps, Order()),
            read(self._exported(size), pool, size.steps, Order()),
        )
        raise Compared

    monkeypatch.setattr(Traces, "_recorded", both)


def _assert_equal(one: Reading, other: Reading) -> None:
    assert len(one.outputs) == len(other.outputs)
    assert all(a is b for a, b in zip(one.outputs, other.outputs, strict=True))
    # torch.export has leaves that nobody reads, too
    for part in ("kinds", "paths"):
        found, expected = getattr(one, part), getattr(other, part)
        assert {term: expected[term] for term in found} == found


@pytest.mark.usefixtures("_compared")
@pytest.mark.parametrize("name", sorted(NETWORKS.keys() - FIXED))
def test_it_is_the_trace_of_torch_export(name: str) -> None:
    with pytest.raises(Compared):
        so.export(network(name), example(name))


def _written(x: Tensor) -> Tensor:
    """Puts a value in a tensor by a view of it, and reads the tensor."""
    kept = torch.zeros(3)
    kept[1:].add_(x[0, 0, 0])
    return x * float(kept.sum())


#: what makes a trace depend on numbers
READS: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda x: x * x[0, 0, 0].item(),
    "float": lambda x: x * float(x.sum()),
    "bool": lambda x: x if x.sum() > 0 else -x,
    "int as an index": lambda x: x[int(x.abs().sum()) % 4],
    "index": lambda x: x[x.abs().sum().long() % 4 :],
    "in": lambda x: x if 3.0 in x else -x,
    "tolist": lambda x: x * x.flatten().tolist()[0],
    "numpy": lambda x: torch.from_numpy(x.numpy() * 2),
    "asarray": lambda x: torch.from_numpy(np.asarray(x) * 2),
    "dlpack": lambda x: torch.from_numpy(np.from_dlpack(x) * 2),
    "mask": lambda x: x[x > 0],
    "nonzero": lambda x: x.nonzero(),
    "where": lambda x: torch.where(x > 0)[0],
    "unique": lambda x: x.unique(),
    "equal": lambda x: x if torch.equal(x, x) else -x,
    "allclose": lambda x: x if torch.allclose(x, x) else -x,
    "of a view": _written,
    "random": lambda x: x * torch.rand(1).item(),
    "repeats": lambda x: x[0].repeat_interleave(x[0, :, 0].abs().long(), 0),
    "pointer": lambda x: x * (x.data_ptr() % 2),
    "format": lambda x: x * float(f"{x.sum():.2f}"),
    "print": lambda x: x * len(str(x)),
}


@pytest.mark.parametrize("name", READS)
def test_it_gives_up_where_numbers_decide(name: str) -> None:
    with torch.no_grad(), pytest.raises(NotRecordedError):
        record(Says(READS[name]), [X.clone()], [])


def test_numbers_of_parameters_are_the_same_in_every_call() -> None:
    weight = torch.ones(2)

    def run(x: Tensor) -> Tensor:
        count = torch.zeros(1)
        count += 2
        return x * weight.sum().item() + float(count) if weight.any() else x

    program = record(Says(run), [X.clone()], [])
    calls = [(str(n.target), n.args[1:]) for n in program.graph.nodes if n.op == "call_function"]
    assert calls[-2:] == [("aten.mul.Tensor", (2.0,)), ("aten.add.Tensor", (2.0,))]


def _after_a_write(x: Tensor, weight: Tensor) -> Tensor:
    kept = torch.zeros(2)
    kept.add_(x[0, 0, 0])  # other memory than that of the weight
    return x * kept.sum() * float(weight.sum())


#: what reads numbers that follow from a parameter [1, 2] alone -> the factor that they are
OF_PARAMETERS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], float]] = {
    "item": (lambda x, w: x * w.sum().item(), 3.0),
    "bool": (lambda x, w: x * 2.0 if w.sum() > 2 else x, 2.0),
    "tolist": (lambda x, w: x * w.tolist()[1], 2.0),
    "numpy": (lambda x, w: x * float(w.detach().numpy()[1]), 2.0),
    "format": (lambda x, w: x * float(f"{w.sum():.2f}"), 3.0),
    "print": (lambda x, w: x * float("2." in str(w)), 1.0),
    "after a write": (_after_a_write, 3.0),
}


@pytest.mark.parametrize("name", OF_PARAMETERS)
def test_numbers_that_follow_from_parameters_are_literals(name: str) -> None:
    run, factor = OF_PARAMETERS[name]
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    with torch.no_grad():
        program = record(Says(lambda x: run(x, weight)), [X.clone()], [])
    (last,) = (n for n in program.graph.nodes if n.op == "output")
    assert last.args[0][0].target == torch.ops.aten.mul.Tensor
    assert last.args[0][0].args[1] == factor


class _Masked(nn.Module):
    """A decay of whole bits, as Rockpool computes it: it changes what follows from a parameter."""

    def __init__(self, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.tau, self.change = nn.Parameter(torch.tensor([0.25, 4.0, 2.0])), change
        self.fc = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:  # (T, N, 2)
        voltage, out = torch.zeros(x.shape[1], 3), []
        for x_t in x:
            shift = torch.round(torch.log2(self.tau))
            before = shift * 1.0
            self.change(shift)
            voltage = voltage * (1 - 1 / 2 ** (shift + 1)) + self.fc(x_t) + before
            out.append(voltage)
        return torch.stack(out)


def _where_negative(shift: Tensor) -> None:
    shift[shift < 0] = 0


def _in_a_view(shift: Tensor) -> None:
    row = shift[None][0]
    row[:1] = 0
    row[row > 1.5] = 1


def _of_sized_by_values(shift: Tensor) -> None:
    row = shift[None]
    row[:, : len(shift.nonzero())].clamp_(min=0)


@pytest.mark.parametrize("change", [_where_negative, _in_a_view, _of_sized_by_values])
def test_what_is_changed_of_parameters_becomes_a_constant(change: Callable[[Tensor], Any]) -> None:
    torch.manual_seed(0)
    network, x = _Masked(change), torch.rand(9, 4, 2)
    model = so.export(network, x)
    assert so.verify(network, model, x).ok
    assert [node.op_type for node in model.graph.node].count("Scan") == 1
    network.tau.data += 1.0  # the file holds what the parameter was
    assert not so.verify(network, model, x).ok


def _by_chance(shift: Tensor) -> None:
    shift[None].uniform_()


def test_no_random_number_becomes_a_constant() -> None:
    with pytest.raises(so.ExportError, match="random"):
        so.export(_Masked(_by_chance), torch.rand(9, 4, 2))
    program = record(_Masked(_by_chance), [X.clone()], [])
    calls = [n.meta["call"] for n in program.graph.nodes if "uniform_" in str(n.target)]
    assert calls == [0] * 4
    with pytest.raises(NotRecordedError):  # if it is taken for one
        record(_Masked(_by_chance), [X.clone()], [], range(1000))


class _Counts(nn.Module):
    """Branches on a buffer that its steps write to."""

    def __init__(self, *, of_inputs: bool) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))
        self.of_inputs = of_inputs

    def forward(self, x: Tensor) -> Tensor:
        self.seen.zero_()
        out = []
        for x_t in x:
            self.seen[:1] += x_t.sum() * 0 + 1 if self.of_inputs else 1.0
            out.append(x_t * 2 if self.seen > 3 else x_t)
        return torch.stack(out)


@pytest.mark.parametrize(
    ("of_inputs", "reason"), [(True, "depends on the values"), (False, "no common form")]
)
def test_a_state_is_no_constant(reason: str, *, of_inputs: bool) -> None:
    with pytest.raises(so.ExportError, match=reason):
        so.export(_Counts(of_inputs=of_inputs), torch.rand(9, 4, 2))


def test_a_deep_copy_is_the_value_that_it_copies() -> None:
    program = record(Says(lambda x: copy.deepcopy(x * 2) + 1), [X.clone()], [])
    calls = [str(n.target) for n in program.graph.nodes if n.op == "call_function"]
    assert calls == ["aten.mul.Tensor", "aten.clone.default", "aten.add.Tensor"]
    with pytest.raises(NotRecordedError):  # a copy of the memory, which Rockpool's forward makes
        record(Says(lambda x: copy.copy(x * 2) + 1), [X.clone()], [])


def test_it_gives_up_where_something_else_is_returned() -> None:
    with torch.no_grad(), pytest.raises(NotRecordedError):
        record(Says(lambda x: {"x": x, "set": {1, 2}}), [X.clone()], [])


def test_the_caller_sees_what_the_network_raises() -> None:
    with pytest.raises(ZeroDivisionError):
        record(Says(lambda x: x * (1 / 0)), [X.clone()], [])
    assert float(X.sum()) == 60.0  # no mode is left behind


def test_constants_are_what_they_were_when_they_were_read() -> None:
    constant = torch.ones(2)

    def run(x: Tensor) -> Tensor:
        return x * constant + torch.tensor([1.0, 2.0])

    program = record(Says(run), [X.clone()], [])
    constant.zero_()
    leaves = [leaf.value for leaf in program.leaves.values() if leaf.value is not None]
    assert [leaf.tolist() for leaf in leaves] == [[1.0, 1.0], [1.0, 2.0]]


class _Rows(nn.Module):
    """Returns the very tensor that its steps have written to."""

    def forward(self, x: Tensor) -> Tensor:
        voltage, out = torch.zeros_like(x[..., 0]), torch.zeros_like(x)
        for t in range(x.shape[-1]):
            voltage = voltage * 0.5 + x[..., t]
            out[..., t] = voltage
        return out


class _Detached(nn.Module):
    """Returns a value that is changed in place as the last thing."""

    def forward(self, x: Tensor) -> Tensor:
        voltage = torch.zeros_like(x[..., 0])
        for t in range(x.shape[-1]):
            voltage = voltage * 0.5 + x[..., t]
        return voltage.detach_()


@pytest.mark.usefixtures("_compared")
@pytest.mark.parametrize("kind", [_Rows, _Detached])
def test_what_is_returned_may_be_changed_in_place(kind: type[nn.Module]) -> None:
    with pytest.raises(Compared):
        so.export(kind(), torch.arange(108.0).reshape(3, 4, 9), axes="NCT")


class Pruned(nn.Module):
    """A pruned layer whose mask is applied within forward(), and a count of spikes."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 4)
        self.register_buffer("mask", (torch.rand(4, 6) > 0.5).float())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        v, spikes, count = torch.zeros(x.shape[1], 4), [], torch.tensor(0.0)
        for x_t in x:
            self.linear.weight.data *= self.mask
            v = 0.9 * v + self.linear(x_t)
            s = (v > 0.2).float()
            v = v - 0.2 * s
            count += s.sum()
            spikes.append(s)
        return torch.stack(spikes), count


class Weakening(Pruned):
    """Weights that become smaller at every step: a state that no input drives."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("gain", torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        self.gain.fill_(1.0)
        v, spikes = torch.zeros(x.shape[1], 4), []
        for x_t in x:
            self.gain.mul_(0.9)
            v = 0.9 * v + self.linear(x_t) * self.gain
            s = (v > 0.2).float()
            v = v - 0.2 * s
            spikes.append(s)
        return torch.stack(spikes)


@pytest.mark.parametrize(("kind", "folded"), [(Pruned, True), (Weakening, False)])
def test_a_change_of_a_weight_is_a_constant_unless_it_changes_it_at_every_step(
    kind: type[nn.Module], folded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    net, x = kind().eval(), torch.randn(9, 3, 6)
    anew: list[bool] = []

    def noted(*args: Any, changes: bool) -> Any:
        anew.append(not changes)
        return record(*args, changes=changes)

    monkeypatch.setattr(traces, "record", noted)
    monkeypatch.setattr(traces, "_program", None)  # torch.export is asked for nothing
    model = so.export(net, x, axes="TNC")
    assert any(anew) is not folded
    report = so.verify(net, model, x)
    assert report.ok, report
    scans = [node.op_type for node in model.graph.node].count("Scan")
    assert scans == 1  # the count of spikes, or the gain
