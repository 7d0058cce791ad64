"""Operators that change their argument are rewritten where nobody else sees the change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from remembering import Says
from torch import Tensor

from synapse_onnx.compiler.loops.in_place import without_changes

X = torch.arange(12.0).reshape(3, 4) - 5


def _program(function: Callable[[Tensor], Any]) -> torch.export.ExportedProgram:
    return torch.export.export(Says(function).eval(), (X.clone(),), strict=False)


def _changed_once(x: Tensor) -> Tensor:
    y = x * 2
    y -= 1
    return y + x


def _changed_twice(x: Tensor) -> Tensor:
    y = x * 2
    before = y + 0.5
    y -= 1
    between = y * 3
    y.mul_(x)
    return y + before + between


def _returned(x: Tensor) -> tuple[Tensor, Tensor]:
    y = x * 2
    other = y  # another name of the same tensor
    y += x
    return y, other


def _in_a_list(x: Tensor) -> Tensor:
    kept = [x * 2]
    kept[0] += 1
    return torch.stack(kept)


def _viewed_before(x: Tensor) -> Tensor:
    y = x * 2
    row = y.unsqueeze(0) + 1
    y -= 1
    return row + y


def _masked(x: Tensor) -> Tensor:
    y = x * 2
    y[x > 0] = 7.0
    return y


def _zeroed(x: Tensor) -> Tensor:
    y = torch.sigmoid(x)
    z = y * 1
    y.zero_()
    return y + z


def _rows_written(x: Tensor) -> Tensor:
    y, state = torch.zeros_like(x), x[0] * 0
    for t in range(3):
        state = state * 0.5
        state += x[t]
        y[t] = state
        if t:
            y[t] = y[t - 1] + y[t]
    return y * 2 + y


def _read_between(x: Tensor) -> Tensor:
    y = torch.ones_like(x)
    before = y + 1
    y[0] = x[1]
    between = y[0] * 3
    y[2] = between
    return y + before


def _of_the_same_type(x: Tensor) -> Tensor:
    y = x * 2
    z = y.float()  # y itself
    z -= 1
    return y


def _detached(x: Tensor) -> Tensor:
    y = x * 2
    z = y.detach()
    y -= 1
    return z + y


def _of_a_cell(x: Tensor) -> Tensor:
    """One of two states that an operator gives."""
    weights = torch.ones(16, 4) / 8, torch.ones(16, 4) / 4
    h, c = torch.lstm_cell(x, (x * 0, x * 0.5), *weights)
    c -= 0.25 * h
    return c + h


def _view_of_its_own(x: Tensor) -> Tensor:
    y = torch.nn.functional.batch_norm(x, torch.ones(4), torch.ones(4)).view(3, 2, 2)
    y += x.view(3, 2, 2)
    return y * 2


def _reshaped(x: Tensor) -> Tensor:
    y = (x * 2).reshape(4, 3)
    y -= 1
    return y


def _rows_of_nothing(x: Tensor) -> Tensor:
    y = torch.empty_like(x)
    for t in range(3):
        y[t] = 2 * x[t]
    return y


@pytest.mark.parametrize(
    "function",
    [
        _of_a_cell,
        _view_of_its_own,
        _reshaped,
        _rows_of_nothing,
        _rows_written,
        _of_the_same_type,
        _detached,
        _read_between,
        _changed_once,
        _changed_twice,
        _returned,
        _in_a_list,
        _viewed_before,
        _masked,
        _zeroed,
    ],
)
def test_changes_of_what_was_just_made_are_rewritten(function: Callable[[Tensor], Any]) -> None:
    program = _program(function)
    assert without_changes(program.graph)
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        assert schema is None or not schema.is_mutable
    program.graph_module.recompile()
    found, expected = program.module()(X.clone()), function(X.clone())
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def _view_seen_later(x: Tensor) -> Tensor:
    y = x * 2
    row = y[0]
    y -= 1
    return row


def _base_seen_later(x: Tensor) -> Tensor:
    y = torch.nn.functional.batch_norm(x, torch.ones(4), torch.ones(4))
    z = y.view(3, 2, 2)
    z += 1
    return y + z.view(3, 4)


def _part_seen_later(x: Tensor) -> Tensor:
    parts = x.clone().chunk(2, -1)  # which share memory
    parts[0].mul_(2)
    return parts[0] + parts[1]


def _row_seen_later(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    row = y[1]
    y[1] = x[0]
    return row + 1


def _row_of_an_argument(x: Tensor) -> Tensor:
    x[1] = x[0]
    return x * 2


def _row_of_another_type(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[1] = x[0].double()
    return y


def _slice_changed(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[1:] = x[:2]
    return y


def _argument(x: Tensor) -> Tensor:
    x += 1
    return x * 2


def _the_same_of_dropout(x: Tensor) -> Tensor:
    y = x * 2
    z = torch.dropout(y, 0.5, False)  # y itself
    y -= 1
    return z


def _of_another_type(x: Tensor) -> Tensor:
    y = x * 2
    y += x.double()  # which stays float32
    return y


@pytest.mark.parametrize(
    "function",
    [
        _of_another_type,
        _view_seen_later,
        _base_seen_later,
        _part_seen_later,
        _row_seen_later,
        _row_of_an_argument,
        _row_of_another_type,
        _slice_changed,
        _argument,
        _the_same_of_dropout,
    ],
)
def test_what_others_may_see_is_left_to_torch(function: Callable[[Tensor], Any]) -> None:
    program = _program(function)
    before = [str(node.target) for node in program.graph.nodes]
    assert not without_changes(program.graph)
    assert [str(node.target) for node in program.graph.nodes] == before
