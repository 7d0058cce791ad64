"""Every rule of operators over a whole sequence, against a loop over the steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from synapse_onnx.compiler.loops import whole_sequence
from synapse_onnx.compiler.loops.whole_sequence import Steps, over_steps

aten = torch.ops.aten

#: the number of steps, which is no size of a step
STEPS = 5


@dataclass(frozen=True)
class Each:
    """A value (...) that every step has of its own."""

    shape: tuple[int, ...]


def each(*shape: int) -> Each:
    return Each(shape)


def _weights(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


#: operator -> calls of a step: arguments, and maybe keyword arguments at the end
SAMPLES: Mapping[Any, list[tuple[Any, ...]]] = {
    aten._to_copy.default: [(each(2, 3), {"dtype": torch.float64})],
    aten.linear.default: [
        (each(2, 3), _weights(4, 3), _weights(4)),
        (each(3), _weights(4, 3)),
        (each(2, 6, 3), _weights(4, 3), None),
    ],
    aten.softmax.int: [(each(2, 3), 1), (each(2, 3), -1), (each(2, 3, 4), 0)],
    aten._softmax.default: [(each(2, 3), 1, False), (each(2, 3, 4), -2, False)],
    aten.layer_norm.default: [
        (each(2, 3), [3], _weights(3), _weights(3)),
        (each(2, 3, 4), [3, 4], None, None, 1e-3),
    ],
    aten.matmul.default: [
        (each(2, 3), _weights(3, 4)),
        (each(3), _weights(3, 4)),
        (each(2, 3), _weights(3)),
        (each(2, 6, 3), _weights(3, 4)),
        (each(2, 3), each(3, 4)),
        (each(2, 2, 3), each(2, 3, 4)),
        (_weights(4, 2), each(2, 3)),
    ],
    aten.mm.default: [(each(2, 3), _weights(3, 4)), (each(2, 3), each(3, 4))],
    aten.bmm.default: [(each(2, 6, 3), each(2, 3, 4))],
    aten.addmm.default: [(_weights(4), each(2, 3), _weights(3, 4))],
    aten.conv1d.default: [(each(2, 3, 8), _weights(4, 3, 3), _weights(4), [2], [1])],
    aten.conv2d.default: [(each(2, 3, 8, 7), _weights(4, 3, 3, 3), _weights(4), [1, 2], [1, 0])],
    aten.conv3d.default: [(each(2, 3, 4, 3, 4), _weights(4, 3, 2, 2, 2))],
    aten.conv_transpose1d.default: [(each(2, 3, 8), _weights(3, 4, 3), None, [2])],
    aten.conv_transpose2d.input: [(each(2, 3, 4, 3), _weights(3, 4, 3, 3), _weights(4), [2, 2])],
    aten.conv_transpose3d.input: [(each(2, 3, 4, 3, 4), _weights(3, 4, 2, 2, 2))],
    aten.max_pool1d.default: [(each(2, 3, 8), [2])],
    aten.max_pool2d.default: [(each(2, 3, 8, 6), [2, 2], [1, 2])],
    aten.max_pool3d.default: [(each(2, 3, 4, 4, 4), [2, 2, 2])],
    aten.max_pool2d_with_indices.default: [(each(2, 3, 8, 6), [2, 2])],
    aten.avg_pool1d.default: [(each(2, 3, 8), [2])],
    aten.avg_pool2d.default: [(each(2, 3, 8, 6), [2, 3], [2, 1])],
    aten.avg_pool3d.default: [(each(2, 3, 4, 4, 4), [2, 2, 2])],
    aten.adaptive_avg_pool1d.default: [(each(2, 3, 8), [2])],
    aten.adaptive_avg_pool2d.default: [(each(2, 3, 8, 6), [2, 1])],
    aten.adaptive_max_pool2d.default: [(each(2, 3, 8, 6), [2, 1])],
    aten.upsample_nearest2d.default: [(each(2, 3, 4, 3), [8, 6])],
    aten.upsample_nearest2d.vec: [(each(2, 3, 4, 3), None, [2.0, 2.0])],
    aten.upsample_bilinear2d.vec: [(each(2, 3, 4, 3), [8, 6], False, None)],
    aten.batch_norm.default: [
        (each(*size), *[_weights(3).abs() + 0.5] * 4, False, 0.1, 1e-5, False)
        for size in ((2, 3), (2, 3, 4), (2, 3, 4, 6))
    ],
    aten._native_batch_norm_legit_no_training.default: [
        (each(2, 3, 4, 6), *[_weights(3).abs() + 0.5] * 4, 0.1, 1e-5)
    ],
    aten.group_norm.default: [(each(2, 4, 3), 2, _weights(4), _weights(4))],
    aten.instance_norm.default: [
        (each(2, 3, 4, 6), None, None, None, None, True, 0.1, 1e-5, False)
    ],
    aten.sum.default: [(each(2, 3),), (each(2, 3), {"dtype": torch.float64})],
    aten.mean.default: [(each(2, 3, 4),)],
    aten.sum.dim_IntList: [(each(2, 3), [1]), (each(2, 3), [-1], True), (each(2, 3, 4), [0, 2])],
    aten.mean.dim: [(each(2, 3), [1]), (each(2, 3, 4), [-1, -2], True), (each(2, 3), [])],
    aten.amax.default: [(each(2, 3), [1]), (each(2, 3, 4), [0, -1], True), (each(2, 3), [])],
    aten.amin.default: [(each(2, 3), [0])],
    aten.max.dim: [(each(2, 3), 1), (each(2, 3), -1, True)],
    aten.min.dim: [(each(2, 3), 0)],
    aten.argmax.default: [(each(2, 3), 1)],
    aten.cumsum.default: [(each(2, 3), 0), (each(2, 3), -1)],
    aten.flip.default: [(each(2, 3), [0]), (each(2, 3, 4), [-1, 1])],
    aten.select.int: [(each(2, 3), 1, 2), (each(2, 3), -1, 0), (each(3), 0, 1)],
    aten.slice.Tensor: [(each(2, 3), 1, 1, 3), (each(2, 6), -1, 0, 6, 2)],
    aten.index_select.default: [(each(2, 3), 1, torch.tensor([2, 0]))],
    aten.split.Tensor: [(each(2, 6), 2, 1), (each(4, 3), 2), (each(2, 6), 4, -1)],
    aten.split_with_sizes.default: [(each(2, 6), [1, 5], 1), (each(4, 3), [3, 1])],
    aten.chunk.default: [(each(2, 6), 3, 1), (each(4, 3), 2)],
    aten.unbind.int: [(each(2, 3), 1), (each(2, 3),)],
    aten.squeeze.dim: [(each(1, 3), 0), (each(2, 1), -1), (each(2, 3), 1)],
    aten.unsqueeze.default: [(each(2, 3), 0), (each(2, 3), 2), (each(2, 3), -1), (each(2, 3), -3)],
    aten.transpose.int: [(each(2, 3), 0, 1), (each(2, 3, 4), -1, 0)],
    aten.t.default: [(each(2, 3),), (each(3),)],
    aten.permute.default: [(each(2, 3, 4), [2, 0, 1]), (each(2, 3), [-1, 0])],
    aten.flatten.using_ints: [
        (each(2, 3, 4), 1, 2),
        (each(2, 3, 4), 0, -1),
        (each(2, 3, 4), 1),
        (each(2, 3, 4),),
    ],
    aten.unflatten.int: [(each(2, 6), 1, [2, 3]), (each(2, 6), -1, [3, 2])],
    aten.reshape.default: [(each(2, 6), [4, 3]), (each(2, 6), [-1])],
    aten.view.default: [(each(2, 6), [2, 2, 3])],
    aten.expand.default: [(each(1, 3), [4, 3]), (each(3), [2, 3]), (each(2, 1), [2, 6])],
    aten.cat.default: [
        ([each(2, 3), each(2, 4)], 1),
        ([each(2, 3), _weights(1, 3)],),
        ([_weights(2, 1), each(2, 3)], -1),
    ],
    aten.stack.default: [([each(2, 3), _weights(2, 3)], -1), ([each(2, 3), each(2, 3)],)],
}

#: operators without a rule of their own: element by element
ELEMENTWISE: Mapping[Any, list[tuple[Any, ...]]] = {
    aten.add.Tensor: [
        (each(2, 3), each(2, 3)),
        (each(3), each(2, 3)),
        (each(2, 3), each(3)),
        (each(2, 3), _weights(3)),
        (each(3), _weights(2, 3)),
        (_weights(2, 3), each(3)),
        (each(2, 3), each(1), {"alpha": 0.5}),
        (each(2, 3), 2.5),
    ],
    aten.mul.Tensor: [(each(2, 1), each(3)), (each(), each(2, 3))],
    aten.where.self: [(each(2, 3), each(3), _weights(2, 1))],
    aten.gt.Scalar: [(each(2, 3), 0.25)],
    aten.sigmoid.default: [(each(2, 3),)],
    aten.clamp.default: [(each(2, 3), -0.5, 0.5)],
}

CASES = [
    pytest.param(op, args, id=f"{op}-{i}")
    for table in (SAMPLES, ELEMENTWISE)
    for op, calls in table.items()
    for i, args in enumerate(calls)
]


def _at(value: Any, t: int) -> Any:
    if isinstance(value, list):
        return [_at(inner, t) for inner in value]
    return value.values[t] if isinstance(value, Steps) else value


def _filled(value: Any, draw: torch.Generator) -> Any:
    if isinstance(value, list):
        return [_filled(inner, draw) for inner in value]
    if not isinstance(value, Each):
        return value
    sequence = torch.randn((STEPS, *value.shape), generator=draw)
    return Steps(sequence)


@pytest.mark.parametrize(("op", "args"), CASES)
def test_a_rule_gives_what_a_loop_gives(op: Any, args: tuple[Any, ...]) -> None:
    kwargs: dict[str, Any] = {}
    if isinstance(args[-1], dict):
        *args, kwargs = args
    draw = torch.Generator().manual_seed(7)
    filled = [_filled(arg, draw) for arg in args]
    if op is aten.where.self:
        filled[0] = Steps(filled[0].values > 0)
    rows = [op(*(_at(arg, t) for arg in filled), **kwargs) for t in range(STEPS)]
    found = over_steps(op, filled, kwargs)
    assert found is not None, "there is no rule for this call"
    if isinstance(rows[0], Tensor):
        _compare(found, rows)
        return
    for i, part in enumerate(found):
        column = [row[i] for row in rows]
        if column[0].numel():  # what an operator saves for a gradient is empty
            _compare(part, column)


def _compare(found: Tensor, rows: list[Tensor]) -> None:
    torch.testing.assert_close(found, torch.stack(rows), rtol=1e-5, atol=1e-5)


def test_every_rule_has_a_sample() -> None:
    assert SAMPLES.keys() == whole_sequence._RULES.keys()


@pytest.mark.parametrize(
    ("op", "args"),
    [
        pytest.param(aten.linear.default, (_weights(2, 3), each(4, 3)), id="weights of a step"),
        pytest.param(
            aten.addmm.default, (each(4), each(2, 3), _weights(3, 4)), id="bias of a step"
        ),
        pytest.param(aten.conv2d.default, (each(3, 8, 7), _weights(4, 3, 3, 3)), id="no batch"),
        pytest.param(aten.matmul.default, (each(2, 3), each(6, 3, 2)), id="other ranks"),
        pytest.param(aten.argmax.default, (each(2, 3),), id="argmax of all"),
        pytest.param(aten.sort.default, (each(2, 3),), id="no rule"),
    ],
)
def test_what_has_no_rule_is_left_to_the_loop(op: Any, args: tuple[Any, ...]) -> None:
    draw = torch.Generator().manual_seed(7)
    assert over_steps(op, [_filled(arg, draw) for arg in args], {}) is None
