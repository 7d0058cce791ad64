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
from synapse_onnx.compiler.loops.order import Order
from synapse_onnx.compiler.loops.reading import Reading, read
from synapse_onnx.compiler.loops.recorder import NotRecordedError, record
from synapse_onnx.compiler.loops.terms import Pool, Size
from synapse_onnx.compiler.loops.traces import Traces

X = torch.arange(24.0).reshape(4, 3, 2) - 9

#: networks that do not run the sizes of traces
FIXED = {"parameter_a_step"}


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[Size]:
    """The first sizes of which both traces were made; they are equal in every part."""
    sizes: list[Size] = []
    recorded = Traces._recorded

    def both(self: Traces, size: Size) -> Any:
        program = recorded(self, size)
        if program is not None and len(sizes) < 2:  # the others differ in their length alone
            pool = Pool()
            _assert_equal(
                read(program, pool, size.steps, Order()),
                read(self._exported(size), pool, size.steps, Order()),
            )
            sizes.append(size)
        return program

    monkeypatch.setattr(Traces, "_recorded", both)
    return sizes


def _assert_equal(one: Reading, other: Reading) -> None:
    assert len(one.outputs) == len(other.outputs)
    assert all(a is b for a, b in zip(one.outputs, other.outputs, strict=True))
    # torch.export has leaves that nobody reads, too
    for part in ("kinds", "paths"):
        found, expected = getattr(one, part), getattr(other, part)
        assert {term: expected[term] for term in found} == found


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_the_trace_of_torch_export(name: str, compared: list[Size]) -> None:
    so.export(network(name), example(name))
    assert bool(compared) is (name not in FIXED)


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


@pytest.mark.parametrize("kind", [_Rows, _Detached])
def test_what_is_returned_may_be_changed_in_place(
    kind: type[nn.Module], compared: list[Size]
) -> None:
    x = torch.arange(108.0).reshape(3, 4, 9)
    assert so.verify(kind(), so.export(kind(), x, axes="NCT"), x).ok
    assert compared
