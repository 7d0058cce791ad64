"""Arguments of a network: tensors and pairs of them, and the inputs of the graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.compiler.arguments import Arguments


class One(nn.Module):
    def forward(self, x: Any) -> Any:
        return x[0] + 2 * x[1] if isinstance(x, tuple) else x


class Two(nn.Module):
    """A pair, and a tensor."""

    def forward(self, z: tuple[Tensor, Tensor], gain: Tensor) -> Tensor:
        return z[0] - gain * z[1]


class Several(nn.Module):
    def forward(self, *x: Tensor) -> Tensor:
        return x[0]


class Named(nn.Module):
    def forward(self, *, x: Tensor) -> Tensor:
        return x


A, B, C = (torch.arange(6.0).reshape(1, 2, 3) + 10 * i for i in range(3))


@pytest.mark.parametrize(
    ("module", "given", "pairs", "tensors"),
    [
        (One(), A, (False,), [A]),
        (One(), [A], (False,), [A]),
        (One(), (A, B), (True,), [A, B]),  # two tensors for one argument
        (One(), [(A, B)], (True,), [A, B]),
        (Two(), [(A, B), C], (True, False), [A, B, C]),
        (Two(), [C, [A, B]], (False, True), [C, A, B]),
        (Two(), (A, B), (False, False), [A, B]),
        (Several(), (A, B), (False, False), [A, B]),
        (Named(), (A, B), (False, False), [A, B]),
        (One(), torch.ones(1), (False,), [torch.ones(1)]),
    ],
)
def test_what_is_given_is_read(
    module: nn.Module, given: Any, pairs: tuple[bool, ...], tensors: list[Tensor]
) -> None:
    found = Arguments.of(module, given, "export")
    assert found.pairs == pairs
    assert len(found.tensors) == len(tensors)
    for value, expected in zip(found.tensors, tensors, strict=True):
        assert torch.equal(value, expected)


def test_tensors_leave_their_graph_and_device() -> None:
    leaf = torch.ones(1, 2, 3, requires_grad=True)
    (found,) = Arguments.of(One(), 2 * leaf, "export").tensors
    assert not found.requires_grad
    assert found.device.type == "cpu"


def test_they_are_put_together_again() -> None:
    given = Arguments.of(Two(), [(A, B), C], "export")
    assert given.grouped("rig") == [("r", "i"), "g"]
    assert given.names(Two()) == ["z_real", "z_imag", "gain"]
    assert Arguments.of(Two(), [A, (B, C)], "export").names(Two()) == [
        "z",
        "gain_real",
        "gain_imag",
    ]
    assert given.names(Several()) == []


def test_a_network_takes_its_tensors_one_by_one_for_a_while() -> None:
    module, given = Two(), Arguments.of(Two(), [(A, B), C], "export")
    with given.flat(module):
        assert torch.equal(module(A, B, C), A - C * B)
    assert torch.equal(module((A, B), C), A - C * B)
    assert "forward" not in vars(module)
    plain = Arguments.of(Two(), [A, B], "export")
    with plain.flat(module):
        assert "forward" not in vars(module), "there is nothing to take apart"
    several = Several()  # whose arguments have no names
    with Arguments.of(several, [(A, B)], "export").flat(several):
        assert "forward" not in vars(several)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_pair_is_two_inputs_of_the_graph(streaming: bool) -> None:
    model = so.export(Two(), [(A, B), C], streaming=streaming)
    session = so.Session(model)
    assert session.inputs == ("z_real", "z_imag", "gain")
    np.testing.assert_array_equal(session.run(*(x.numpy() for x in (A, B, C))), A - C * B)
    report = so.verify(Two(), model, [(A, B), C])
    assert report.ok, str(report)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([A.numpy()], "argument 0 is a ndarray"),
        ([A, 1.0], "argument 1 is a float"),
        ([A, (A, B, C)], "argument 1 is a tuple of 3"),
        ([[A]], "argument 0 is a list of 1"),
        ([(A, None)], "argument 0 is a tuple of 2"),
        ([A, torch.zeros(2, 0)], r"argument 1 is empty, of shape \(2, 0\)"),
        ([(A, torch.zeros(0))], r"argument 0 is empty, of shape \(0,\)"),
    ],
)
def test_what_is_no_tensor_is_refused(given: Any, said: str) -> None:
    with pytest.raises(so.InputError, match=f"^verify: .*{said}"):
        Arguments.of(Two(), given, "verify")


def test_two_tensors_for_one_argument_are_a_pair() -> None:
    assert Arguments.of(One(), (A, B), "export").pairs == (True,)
    assert Arguments.of(Several(), (A, B), "export").pairs == (False, False)
    assert Arguments.of(Named(), (A, B), "export").pairs == (False, False)
    with pytest.raises(so.InputError, match="argument 0 is empty"):
        Arguments.of(One(), (A, torch.zeros(0)), "export")


def test_a_tensor_and_something_else_are_no_pair() -> None:
    with pytest.raises(so.InputError, match="argument 1 is a float"):
        Arguments.of(One(), [A, 1.0], "export")
