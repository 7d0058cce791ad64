"""A change of memory is written as new values of all that share it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from remembering import Says
from torch import Tensor, fx, nn

from synapse_onnx.compiler.loops.memory import SharedError
from synapse_onnx.compiler.loops.program import Program
from synapse_onnx.compiler.loops.recorder import NotRecordedError, record

X = torch.arange(24.0).reshape(4, 3, 2) - 9


def _program(function: Callable[[Tensor], Tensor]) -> Program:
    with torch.no_grad():
        return record(Says(function), [X.clone()], [], changes=False)


def _run(program: Program, x: Tensor) -> Tensor:
    """Run a program as torch's own interpreter does."""
    nodes = [node for node in program.graph.nodes if node.op == "placeholder"]
    leaves = [program.leaves[node] for node in nodes]
    values = [x if leaf.value is None else leaf.value for leaf in leaves]
    result, *_ = fx.Interpreter(fx.GraphModule(nn.Module(), program.graph)).run(*values)
    return result


def _changes(program: Program) -> list[str]:
    schemas = [getattr(node.target, "_schema", None) for node in program.graph.nodes]
    return [schema.name for schema in schemas if schema is not None and schema.is_mutable]


def _through(view: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Change a view of a value, and read the value, the view and a view taken before."""

    def run(x: Tensor) -> Tensor:
        whole = x * 2
        before, part = whole.flatten(), view(whole)
        part.add_(100.0)
        part.mul_(part)
        return torch.cat([whole.flatten(), before * 2, part.flatten(), view(whole).flatten()])

    return run


def _rows(x: Tensor) -> Tensor:
    out = torch.zeros(4, 3, 2)
    for t in range(4):
        out[t] = x[t] * 2
        out[t, 1:] += out[t - 1, :-1]
    return out


def _whole_changes_views(x: Tensor) -> Tensor:
    whole = x + 1
    first, rest = whole[0], whole[1:]
    whole *= 3
    rest -= 1
    whole.zero_()[2] = first + 5
    return torch.cat([first.flatten(), rest.flatten(), whole.flatten()])


def _input(x: Tensor) -> Tensor:
    y = x[:, 0]
    x += 1
    y *= 2
    return x + y[:, None]


def _of_another_type(x: Tensor) -> Tensor:
    count = torch.zeros(3, dtype=torch.int32)
    count[1:] += (x[0, :2, 0] > 0).long()
    return x[0, :, 0] * count


def _one_of_several(x: Tensor) -> Tensor:
    y = x * 1.5
    a, b, _ = y.split([1, 2, 1])
    c, d = a[0].unbind(-1)
    b.copy_(a)
    c.fill_(7.0)
    d.sub_(c)
    return y * a[0] + b[0]


def _swapped_with_itself(x: Tensor) -> Tensor:
    y = x * 1.0
    y[0], y[1] = y[1].clone(), y[0] * 2
    y[2:].masked_fill_(y[2:] > 10, 0.5)
    y[3].index_put_((torch.tensor([0, 2]),), y[1, :2] + 1)
    return y


SNIPPETS: dict[str, Callable[[Tensor], Tensor]] = {
    "select": _through(lambda x: x[1]),
    "last of an axis": _through(lambda x: x[..., -1]),
    "slice": _through(lambda x: x[1:3]),
    "slice with steps": _through(lambda x: x[::2, 1:]),
    "row of a slice": _through(lambda x: x[1:][1]),
    "narrow": _through(lambda x: x.narrow(1, 1, 2)),
    "narrow from the end": _through(lambda x: x.narrow(1, -2, 1)),
    "transpose": _through(lambda x: x.transpose(0, 2)[1]),
    "transpose of a matrix": _through(lambda x: x[0].t()[1]),
    "permute": _through(lambda x: x.permute(2, -3, 1)[1:]),
    "view": _through(lambda x: x.view(-1, 2)[5]),
    "flatten": _through(lambda x: x.flatten(1)[:, 3:]),
    "unflatten": _through(lambda x: x.unflatten(0, (2, 2))[1]),
    "squeeze": _through(lambda x: x[:, :1].squeeze(1)),
    "unsqueeze": _through(lambda x: x[None]),
    "diagonal": _through(lambda x: x.diagonal(0, 0, 1)),
    "unbind": _through(lambda x: x.unbind(1)[2]),
    "split": _through(lambda x: x.split(3)[1]),
    "split along another axis": _through(lambda x: x.split([1, 2], dim=1)[1]),
    "chunk": _through(lambda x: x.chunk(2)[0]),
    "detach": _through(lambda x: x.detach()[0]),
    "no cast": _through(lambda x: x.float()[0]),
    "a copy": _through(lambda x: x[:, :, 0].contiguous()),
    "rows": _rows,
    "whole": _whole_changes_views,
    "input": _input,
    "another type": _of_another_type,
    "several": _one_of_several,
    "swapped": _swapped_with_itself,
}


@pytest.mark.parametrize("name", SNIPPETS)
def test_the_program_gives_what_torch_gives(name: str) -> None:
    run = SNIPPETS[name]
    program = _program(run)
    assert _changes(program) == []
    for x in (X, X.flip(0) * 3):
        assert torch.equal(_run(program, x.clone()), run(x.clone()))


def test_a_weight_that_is_changed_is_what_it_was_before() -> None:
    weight = nn.Parameter(torch.ones(2))

    def run(x: Tensor) -> Tensor:
        weight.data *= 0.5
        y = x * weight
        weight.detach()[1] += 1
        return y + weight

    with torch.no_grad():
        program = record(Says(run), [X.clone()], [], changes=False)
        assert _changes(program) == []
        weight.copy_(torch.ones(2))
        (leaf,) = (each for each in program.leaves.values() if each.value is not None)
        assert leaf.value.tolist() == [1.0, 1.0]
        assert torch.equal(_run(program, X), X * 0.5 + torch.tensor([0.5, 1.5]))


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM, nn.RNN])
def test_layers_of_torch_are_taken_apart(kind: type[nn.RNN]) -> None:
    torch.manual_seed(0)
    layer = kind(2, 5).eval()
    with torch.no_grad():
        program = record(Says(lambda x: layer(x)[0]), [X.clone()], [], changes=False)
        names = {
            str(node.target).partition(".")[2].partition(".")[0] for node in program.graph.nodes
        }
        assert not names & {"gru", "lstm", "rnn_tanh", "mkldnn_rnn_layer"}
        torch.testing.assert_close(_run(program, X), layer(X)[0])


def _of_a_part_by_strides(x: Tensor) -> Tensor:
    y = x * 2
    y.as_strided((2,), (5,)).add_(1)
    return y


def _given_out(x: Tensor) -> Tensor:
    y = torch.zeros(4, 3, 2)
    torch.add(x, x, out=y)
    return y


def _transposed_in_place(x: Tensor) -> Tensor:
    y = x * 2
    y.transpose_(0, 1)
    return y


@pytest.mark.parametrize("run", [_of_a_part_by_strides, _given_out, _transposed_in_place])
def test_what_cannot_be_written_is_given_up(run: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises((NotRecordedError, SharedError)):
        _program(run)


class _SaysFirst(Says):
    """A function of the first of two inputs."""

    def forward(self, x: Tensor, *_: Tensor) -> Tensor:
        return self.function(x)


def test_memory_that_was_shared_before_is_given_up() -> None:
    weight = torch.ones(2, 2)
    rows = weight[1:]  # no operator of the program takes it
    x = X.clone()

    def of_a_constant(x: Tensor) -> Tensor:
        weight.mul_(0.5)
        return x * rows[0]

    def of_an_input(x: Tensor) -> Tensor:
        x += 1
        return x

    with torch.no_grad():
        with pytest.raises(SharedError):
            record(Says(of_a_constant), [X.clone()], [], changes=False)
        with pytest.raises(SharedError):
            record(_SaysFirst(of_an_input), [x, x[1:]], [], changes=False)
