"""What the tests share: pairwise parameters, and exports of several modules."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
import together
import torch
from pairwise import pairwise
from torch import nn

import synapse_onnx as so
from synapse_onnx import ops


@pytest.mark.parametrize("sizes", [(2, 3), (3, 5, 8), (7, 7, 2), (2, 2, 2, 2)])
def test_every_pair_of_values_is_chosen_and_fewer_than_all(sizes: tuple[int, ...]) -> None:
    axes = [[(axis, value) for value in range(size)] for axis, size in enumerate(sizes)]
    chosen = pairwise(*axes)
    assert set(chosen) <= set(itertools.product(*axes))
    met = {pair for each in chosen for pair in itertools.combinations(each, 2)}
    every = itertools.combinations(axes, 2)
    assert met == {pair for axes_ in every for pair in itertools.product(*axes_)}
    largest = max(sizes) * sorted(sizes)[-2]
    assert largest <= len(chosen) <= 1.3 * largest + 2


def test_groups_are_alike_and_hold_nothing_twice() -> None:
    items = ["a1", "b1", "a2", "a1", "c1", "d1"]
    groups = together.groups(items, alike=lambda x: x[1], apart=lambda x: x[0], most=3)
    assert groups == [["a1", "b1", "c1"], ["a2"], ["a1", "d1"]]


class Two(nn.Module):
    """Two inputs, two outputs."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x - y, x + y


def test_a_branch_has_its_own_inputs_and_outputs() -> None:
    draw = torch.Generator().manual_seed(0)
    x, y, z = (torch.randint(0, 2, (2, 3, 9), generator=draw).float() for _ in range(3))
    neuron = so.neuron.cuba.Neuron(0.5, 0.25, 0.05).eval()
    branches = [together.Branch("two", Two(), (x, y), 2), together.Branch("cuba", neuron, (z,))]
    model = together.export(branches)
    results = model.by_branch(so.Session(model.model).run(*model.arrays))
    assert {name: len(values) for name, values in results.items()} == {"two": 2, "cuba": 1}
    for found, expected in zip(results["two"], (x - y, x + y), strict=True):
        np.testing.assert_array_equal(found, expected.numpy())
    np.testing.assert_array_equal(results["cuba"][0], neuron(z).detach().numpy())
    # the function of an op is the one that it has in a model by itself
    (alone,) = so.export(neuron, z).functions
    (function,) = model.model.functions
    assert function == alone
    assert [n.op_type for n in model.model.graph.node if n.domain == ops.DOMAIN] == ["Cuba"]
    with pytest.raises(AssertionError, match="values without a branch"):
        model.by_branch((x, y))
    assert isinstance(model.model, onnx.ModelProto)
