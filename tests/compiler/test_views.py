"""Operators of the user's code that torch takes apart: traced once, to the file of two traces."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from networks import NEURON, spikes
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx._view import view
from synapse_onnx.compiler import _trace, _translate, _views

Change = Callable[[Tensor], Tensor]

#: what makes (N, 108, T) of (N, 3, 6, 6, T), in ways that give the same graph as two traces
WAYS: dict[str, Change] = {
    "method": lambda y: y.flatten(1, 3),
    "function": lambda y: torch.flatten(y, 1, -2),
    "module": nn.Flatten(1, 3),
    "by name": lambda y: y.flatten(start_dim=1, end_dim=3),
    "turned": lambda y: y.permute(0, 2, 3, 1, 4).flatten(1, 3),
    "reshape": lambda y: y.reshape(y.shape[0], -1, y.shape[-1]),
    "function of a size": lambda y: torch.reshape(y, torch.Size((y.size(0), 108, y.size(-1)))),
    "turned reshape": lambda y: y.permute(0, 2, 3, 1, 4).reshape((y.shape[0], 108, y.shape[-1])),
}


class Images(nn.Module):
    """A convolution, an image as neurons, a dense layer."""

    def __init__(self, change: Change) -> None:
        super().__init__()
        self.conv = so.block.cuba.Conv(NEURON, 2, 3, 3, weight_scale=3)
        self.dense = so.block.cuba.Dense(NEURON, 108, 4, weight_scale=3)
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dense(self.change(self.conv(x)))
        return y


def _network(change: Change) -> nn.Module:
    torch.manual_seed(0)
    return Images(change).eval()


@pytest.mark.parametrize("way", WAYS)
def test_one_trace_gives_the_file_of_two(
    way: str, judged: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, x = _network(WAYS[way]), spikes(2, 2, 8, 8, 9)
    once = so.export(network, x)
    assert judged == [True]
    monkeypatch.setattr(_translate, "_is_decomposed", lambda program, table: False)
    monkeypatch.setattr(_trace, "AsViews", contextlib.nullcontext)
    assert so.export(network, x) == once


@pytest.mark.usefixtures("compiled_once")
@pytest.mark.parametrize(
    "change",
    [
        lambda y: y.reshape(y.shape[0], 108, -1),
        lambda y: y.movedim(1, 3).reshape(y.shape[0], 108, -1),
        lambda y: y.reshape(shape=(y.shape[0], 108, y.shape[-1])),
    ],
)
def test_other_ways_are_right(change: Change) -> None:
    network, x = _network(change), spikes(3, 2, 8, 8, 12)
    model: onnx.ModelProto = so.export(network, x)
    assert so.verify(network, model, x).verdict == "equal"


@pytest.mark.usefixtures("compiled_once")
def test_sizes_that_stay_are_left_alone() -> None:
    class Same(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            scalar = x.sum().flatten() + torch.flatten(x.sum())
            return x.flatten(2) + x.flatten(1, 1) + scalar.reshape(1, 1, 1)

    x = spikes(2, 3, 5)
    assert so.verify(Same(), so.export(Same(), x), x).ok


def test_view_is_reshape() -> None:
    x = torch.arange(24.0).reshape(2, 3, 4)
    for tensor in (x, x.movedim(0, 2), x[:, ::2]):
        size = tensor.numel() // 2
        assert torch.equal(view(tensor, 2, size), tensor.reshape(2, size))
        assert torch.equal(view(tensor, -1), tensor.reshape(-1))
    assert view(x, 6, 4).data_ptr() == x.data_ptr()


#: operators of (N, 4, T) that torch would take apart
FORMS: dict[str, Change] = {
    "from one": lambda y: 1 - y,
    "from a number": lambda y: 2.5 - y,
    "from integers": lambda y: (1 - (y > 0.5).long()) * (2.5 - (y > 0.5).int()),
    "from NumPy's": lambda y: np.float64(1.5) - y,
    "from a size": lambda y: y.shape[-1] - y,
    "scaled": lambda y: torch.rsub(y, y.flip(1), alpha=2),
    "integers and floats": lambda y: (2 + (y + 1) * 3 - 2) / 4,
    "a large integer": lambda y: (y + 1) * (2**24 + 1),
    "a constant": lambda y: y * torch.tensor([0.5, 1.0, 2.0, 3.0])[:, None],
    "detached": lambda y: (y * 2).detach_() + 1.0,
    "contiguous": lambda y: y.transpose(1, 2).contiguous().transpose(1, 2),
    "swapped": lambda y: torch.transpose(y, -1, 1).swapaxes(1, 2),
    "swapped by name": lambda y: y.transpose(dim0=1, dim1=2).swapaxes(axis0=1, axis1=2) * 2.0,
    "parts": lambda y: y.unflatten(1, (2, -1)).sum(1),
    "torch.unflatten": lambda y: torch.unflatten(y, -2, (2, 2)).sum(1),
    "normalised": nn.BatchNorm1d(4).eval(),
    "normalised by name": lambda y: nn.functional.batch_norm(
        y, running_var=torch.ones(4), running_mean=torch.zeros(4), eps=0.5
    ),
    "without factors": nn.BatchNorm1d(4, affine=False).eval(),
}


class Formed(nn.Module):
    """A dense layer, and something done to what it gives."""

    def __init__(self, change: Change) -> None:
        super().__init__()
        self.dense = so.synapse.Dense(6, 4, weight_scale=3)
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self.dense(x))


@pytest.mark.parametrize("name", FORMS)
def test_one_trace_of_what_torch_takes_apart(name: str, judged: list[bool]) -> None:
    torch.manual_seed(0)
    network, x = Formed(FORMS[name]).eval(), spikes(3, 6, 9)
    once = so.export(network, x)
    assert judged == [name not in ("swapped by name", "from NumPy's", "from a size")]
    with torch.no_grad():
        expected = network(x).numpy()
    np.testing.assert_array_equal(so.Session(once).run(x.numpy()), expected, strict=True)
    assert so.verify(network, once, x).ok


#: numbers without halves of few bits, and one with
NUMBERS = (0.1, 1 / 3, 1e-3, 2.5, 1)


def test_an_integer_that_meets_floats_is_a_float(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's exporter runs the whole program to convert it."""
    converted: list[bool] = []
    judge = _translate.is_of_one_type
    monkeypatch.setattr(
        _translate,
        "is_of_one_type",
        lambda module: converted.append(not judge(module)) or judge(module),
    )
    x = spikes(3, 6, 9)
    for name in ("integers and floats", "a large integer"):
        so.export(Formed(FORMS[name]).eval(), x)
    assert converted == [False, True]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_minus_a_tensor_rounds_as_torch_does(dtype: torch.dtype, number: float) -> None:
    """Of halves, torch rounds the number first; both ways of writing it give the same bits."""
    x = torch.rand(300, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    for y in (x, x.T, x[:, 1], x[0, 0]):
        expected = number - y
        scaled = torch.rsub(y, number, alpha=3)
        with _views.AsViews():
            found = number - y
            assert torch.equal(torch.rsub(y, number, alpha=3), scaled)
        assert found.dtype == expected.dtype == dtype
        assert torch.equal(found, expected)
