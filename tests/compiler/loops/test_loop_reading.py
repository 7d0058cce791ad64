"""Terms of traced programs: equal computations are one object, however they are written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from loop_forms import OTHER, Function, reading_of
from torch import Tensor

from synapse_onnx.compiler.loops.program import of_export
from synapse_onnx.compiler.loops.reading import FULL, SELECT, STACK
from synapse_onnx.compiler.loops.terms import CONSTANT, INPUT, PARAMETER, Pool, Size, terms_in
from synapse_onnx.errors import ExportError

# -- terms -----------------------------------------------------------------------------------------


def test_equal_terms_are_one_object() -> None:
    pool = Pool()
    x = pool.make(INPUT, (0,))
    assert pool.make(INPUT, (0,)) is x
    assert pool.make("add", (x, 1.0), {"a": 1, "b": 2}) is pool.make(
        "add", (x, 1.0), {"b": 2, "a": 1}
    )
    assert pool.make("add", (x, (x, 2))) is pool.make("add", (x, (x, 2)))


@pytest.mark.parametrize("other", [0.0, -0.0, False, (0,), "0", None])
def test_literals_of_another_kind_are_other_terms(other: Any) -> None:
    pool = Pool()
    terms = {pool.make("op", (value,)) for value in (0, other)}
    assert len(terms) == 2


def test_terms_are_found_in_arguments() -> None:
    pool = Pool()
    one, two, three = (pool.make(INPUT, (i,)) for i in range(3))
    term = pool.make("op", ((one, (1, two)), 3.0), {"k": three})
    assert list(terms_in(term)) == [one, two, three]
    assert one.is_leaf
    assert not pool.make(torch.ops.aten.add.Tensor, (one, two)).is_leaf


# -- one way of writing ----------------------------------------------------------------------------

Run = Callable[[Function, Tensor], Any]


def _written_to(net: Function, x: Tensor) -> Tensor:
    y = torch.zeros(len(x), x.shape[1], 3)
    for t in range(len(x)):
        y[t] = x[t].relu()
    return y


def _written_backwards(net: Function, x: Tensor) -> Tensor:
    y = torch.empty_like(x)
    for t in reversed(range(len(x))):
        y[t] = x[t].relu()
    return y


def _written_from_the_end(net: Function, x: Tensor) -> Tensor:
    y = torch.zeros(x.shape[1], len(x), 3)
    for t in range(len(x)):
        y[:, t - len(x)] = x[t].relu()
    return y.transpose(0, 1)


#: several functions whose outputs are the same terms
SAME: dict[str, list[Run]] = {
    "a step": [
        lambda net, x: x[3] + 1,
        lambda net, x: x.unbind(0)[3] + 1,
        lambda net, x: x.unbind()[-2] + 1,
        lambda net, x: x.split(1)[3].squeeze(0) + 1,
        lambda net, x: x.chunk(5)[3].squeeze(0) + 1,
        lambda net, x: x.split([1, 1, 1, 1, 1], 0)[3].squeeze(0) + 1,
        lambda net, x: x[3:4].squeeze(0) + 1,
        lambda net, x: x[3:4].squeeze((0,)) + 1,
        lambda net, x: x.select(-3, -2) + 1,
        lambda net, x: x[:][3].clone().detach().contiguous() + 1,
        lambda net, x: list(x)[3].to(torch.float32) + 1,
        lambda net, x: torch.nn.functional.dropout(x[3], 0.5, training=False) + 1,
        lambda net, x: x[3].reshape(x.shape[1], 3) + 1,
        lambda net, x: x[3].expand(x.shape[1], 3) + 1,
        lambda net, x: torch.stack([x[t].neg().neg() if t != 3 else x[t] for t in range(5)])[3] + 1,
    ],
    "a stack": [
        lambda net, x: torch.stack([x_t.relu() for x_t in x]),
        lambda net, x: torch.cat([x_t.relu().unsqueeze(0) for x_t in x]),
        lambda net, x: torch.cat([x_t.relu()[None] for x_t in x], dim=-3),
        _written_to,
        _written_backwards,
    ],
    "a stack that is turned": [
        lambda net, x: torch.stack([x_t.relu() for x_t in x], 1).transpose(0, 1),
        _written_from_the_end,
    ],
    "a stack along another axis": [
        lambda net, x: torch.stack([x_t.relu() for x_t in x], 2),
        lambda net, x: torch.stack([x_t.relu() for x_t in x], -1),
        lambda net, x: torch.cat([x_t.relu().unsqueeze(-1) for x_t in x], -1),
    ],
    "zeros": [
        lambda net, x: torch.zeros(x.shape[1], 3) + net.decay,
        lambda net, x: torch.zeros_like(x[0]) + net.decay,
        lambda net, x: x.new_zeros(x.shape[1], 3) + net.decay,
        lambda net, x: torch.full_like(x[2], 0) + net.decay,
        lambda net, x: torch.full((x.shape[1], 3), 0.0) + net.decay,
        lambda net, x: x[0].new_full((x.shape[1], 3), 0) + net.decay,
    ],
    "ones": [
        lambda net, x: torch.ones(x.shape[1], 3) + net.decay,
        lambda net, x: torch.ones_like(x[0]) + net.decay,
        lambda net, x: x.new_ones(x.shape[1], 3) + net.decay,
    ],
}


@pytest.mark.parametrize("what", SAME)
def test_one_way_of_writing(what: str) -> None:
    pool = Pool()
    first, *others = [reading_of(run, pool=pool) for run in SAME[what]]
    for i, reading in enumerate(others, 1):
        assert reading.outputs[0] is first.outputs[0], i


def test_a_stack_is_of_its_steps() -> None:
    (output,) = reading_of(SAME["a stack"][1]).outputs
    assert output.op is STACK
    parts, axis = output.args
    assert axis == 0
    assert [part.args[0].args[1:] for part in parts] == [(0, t) for t in range(5)]
    assert {part.args[0].op for part in parts} == {SELECT}


def test_zeros_depend_on_no_input() -> None:
    (output,) = reading_of(SAME["zeros"][1]).outputs
    filled, decay = output.args
    assert filled.op is FULL
    assert filled.args == ((4, 3), 0.0)
    assert decay.op == PARAMETER
    assert decay.args == ("decay",)


@pytest.mark.parametrize(
    "others",
    [
        [lambda net, x: x[3] + 1, lambda net, x: x[2] + 1],
        [lambda net, x: x[3] + 1, lambda net, x: x[3] + 1.0],
        [lambda net, x: x[2] + 1, lambda net, x: x[:, 2] + 1],
        [lambda net, x: x[1:3].sum(0), lambda net, x: x[1:2].sum(0)],
        [lambda net, x: x[1:].sum(0), lambda net, x: x[:1].sum(0)],
        [lambda net, x: torch.zeros(3) + net.decay, lambda net, x: torch.ones(3) + net.decay],
        [lambda net, x: torch.stack([x[0], x[1]]), lambda net, x: torch.stack([x[1], x[0]])],
        [lambda net, x: torch.stack([x[0], x[1]]), lambda net, x: torch.cat([x[0], x[1]])],
        [lambda net, x: x[1].double(), lambda net, x: x[1].int()],
        [
            lambda net, x: torch.div(x[0], x[1], rounding_mode="floor"),
            lambda net, x: torch.div(x[0], x[1]),
        ],
        [lambda net, x: x * torch.tensor([1, 2, 3]), lambda net, x: x * torch.tensor([1, 2, 4])],
        [lambda net, x: x[1:2].squeeze(1), lambda net, x: x[1:2].squeeze(0)],
    ],
)  # fmt: skip
def test_other_computations_are_other_terms(others: list[Run]) -> None:
    pool = Pool()
    one, two = (reading_of(run, pool=pool).outputs[0] for run in others)
    assert one is not two


def test_a_step_is_the_same_in_traces_of_other_lengths() -> None:
    pool = Pool()

    def run(net: Function, x: Tensor) -> Tensor:
        return net.fc(x[2]) * net.decay

    assert reading_of(run, Size(5, 4), pool).outputs == reading_of(run, OTHER, pool).outputs


def test_places_and_shapes() -> None:
    def run(net: Function, x: Tensor) -> Tensor:
        return net.fc(x[2])

    reading = reading_of(run)
    (output,) = reading.outputs
    assert reading.shape(output) == (4, 3)
    assert reading.kinds[output][1] is torch.float32
    assert reading.paths[output] == "fc"
    assert reading.places[output].endswith("of test_loop_reading.py")


def test_constants_are_known_by_their_values() -> None:
    pool = Pool()
    (output,) = reading_of(lambda net, x: x * torch.tensor([1.0, 2.0, 3.0]), pool=pool).outputs
    constant = output.args[1]
    assert constant.op == CONSTANT
    assert pool.values[constant].tolist() == [1.0, 2.0, 3.0]


def test_a_partly_written_buffer_is_no_stack() -> None:
    def run(net: Function, x: Tensor) -> Tensor:
        y = torch.zeros_like(x)
        for t in range(len(x) - 1):
            y[t] = x[t]
        return y

    assert reading_of(run).outputs[0].op is torch.ops.aten.select_scatter.default


def test_control_flow_of_torch_is_refused() -> None:
    def run(net: Function, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y * 2, (x,))

    program = torch.export.export(Function(run), (torch.rand(5, 4, 3),), strict=False)
    with pytest.raises(ExportError, match=r"control flow of torch's own .* torch\.where"):
        of_export(program)
