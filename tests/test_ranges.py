"""A neuron's 32-bit loop: it is taken only where every state fits, and gives the same integers.

The proof is part of the graph, so it is asked for in the graph: the condition of the ``If`` that
chooses the loop becomes an output.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnxruntime as ort
import pytest
import torch
from graphs import all_nodes
from torch import Tensor

from synapse_onnx import ops
from synapse_onnx.fixed import NO_THRESHOLD

SCALE = 4096
LIMIT = 1 << 23  # states below this are computed in 32 bits


def model_of(name: str, values: dict[str, Tensor], attributes: dict[str, int]) -> bytes:
    """One node with its function, inlined; the choice of the loop is the last output."""
    op = ops.get_op(name)
    infos = [
        onnx.helper.make_tensor_value_info(
            key, onnx.helper.np_dtype_to_tensor_dtype(value.numpy().dtype), [None] * value.dim()
        )
        for key, value in values.items()
    ]
    node = onnx.helper.make_node(name, op.inputs, op.outputs, domain=ops.DOMAIN, **attributes)
    outs = [onnx.helper.make_value_info(key, onnx.TypeProto()) for key in op.outputs]
    graph = onnx.helper.make_graph([node], "one", infos, outs)
    opsets = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid(ops.DOMAIN, 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, functions=[op.function(21)])
    model.ir_version = 10
    flat = onnx.inliner.inline_local_functions(model)
    (choice,) = (
        node.input[0]
        for node in flat.graph.node
        if any(a.name == "then_branch" and "in_32_bits" in a.g.name for a in node.attribute)
    )
    flat.graph.output.append(onnx.helper.make_tensor_value_info(choice, onnx.TensorProto.BOOL, []))
    return flat.SerializeToString()


def run(name: str, x: tuple[Tensor, ...], decays: tuple[Tensor, ...], states: tuple[Tensor, ...],
        threshold: int) -> bool:  # fmt: skip
    """Run in torch and ONNX Runtime, hold them equal, and return whether 32 bits were taken."""
    op = ops.get_op(name)
    values = dict(zip(op.inputs, (*x, *decays, *states), strict=True))
    attributes = {"scale": SCALE, "threshold": threshold, "graded": 0}
    session = ort.InferenceSession(model_of(name, values, attributes))
    count = len(x)
    feeds = {key: value.numpy() for key, value in values.items()}
    for key in op.inputs[:count]:
        feeds[key] = np.moveaxis(feeds[key], -1, 0)
    spikes, *last, narrow = session.run(None, feeds)
    expected, *states_after = op.torch_op(*values.values(), SCALE, threshold, 1.0, 1.0, False)
    np.testing.assert_array_equal(np.moveaxis(spikes, 0, -1), expected.numpy())
    for found, state in zip(last, states_after, strict=True):
        np.testing.assert_array_equal(found, state.numpy())
    return bool(narrow)


def states_of(name: str, x: tuple[Tensor, ...], decays: tuple[Tensor, ...],
              states: tuple[Tensor, ...]) -> int:  # fmt: skip
    """The largest state of a sequence without resets, from torch's int64 loop, step by step."""
    op, largest = ops.get_op(name), max(int(state.abs().max()) for state in states)
    for t in range(x[0].shape[-1]):
        step = (value[..., t : t + 1] for value in x)
        _, *states = op.torch_op(*step, *decays, *states, SCALE, NO_THRESHOLD, 1.0, 1.0, False)
        largest = max(largest, *(int(state.abs().max()) for state in states))
    return largest


def case(name: str, seed: int, level: float, steps: int = 40) -> tuple[Any, ...]:
    """Random currents of a size, decays and states, all drawn anew."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return 2 * torch.rand(shape, generator=generator) - 1

    currents = 2 if name.startswith("Rf") else 1
    x = tuple((level * draw(2, 3, steps) + level * (seed % 3 - 1)) for _ in range(currents))
    if currents == 2:
        length, angle = 4095 * torch.rand(1, generator=generator), 0.2 + (seed % 7) / 5
        angle = torch.tensor([angle])
        decays = (torch.round(length * angle.sin()), torch.round(length * angle.cos()))
    else:
        choices = torch.tensor([0.0, 1.0, 40.0, 400.0, 1500.0, 4095.0, 4096.0])
        picks = torch.randint(len(choices), (2, 3), generator=generator)
        decays = (choices[picks[0]], choices[picks[1]])
    states = tuple((level * SCALE * draw(2, 3)).to(torch.int64) for _ in range(2))
    return x, decays, states


@pytest.mark.parametrize("level", [0.5, 5.0, 50.0, 500.0, 5e3, 1e6])
@pytest.mark.parametrize("name", ["Cuba", "Rf"])
def test_32_bits_are_taken_only_where_states_fit(name: str, level: float) -> None:
    taken = []
    for seed in range(12):
        x, decays, states = case(name, seed, level)
        narrow = run(name, x, decays, states, int(2 * level * SCALE))
        taken.append(narrow)
        if narrow:
            assert states_of(name, x, decays, states) < LIMIT
    assert all(taken) if level == 0.5 else not any(taken) if level >= 5e3 else True


def cuba(x: float, *, decays: tuple[float, float], steps: int = 4, state: int = 0) -> bool:
    currents = (torch.full((1, 1, steps), x),)
    start = torch.full((1, 1), state)
    values = (torch.tensor([decays[0]]), torch.tensor([decays[1]]))
    return run("Cuba", currents, values, (torch.zeros_like(start), start), NO_THRESHOLD)


def test_the_border() -> None:
    """Where nothing of the state is left, the bound is the current itself."""
    last = (LIMIT - 1) / SCALE
    assert cuba(last, decays=(4096, 4096))
    assert not cuba(LIMIT / SCALE, decays=(4096, 4096))
    assert cuba(-last, decays=(4096, 4096))
    assert not cuba(-LIMIT / SCALE, decays=(4096, 4096))


def test_states_count() -> None:
    assert cuba(0.0, decays=(4096, 4096), state=LIMIT - 1)
    assert not cuba(0.0, decays=(4096, 4096), state=LIMIT)
    assert not cuba(0.0, decays=(4096, 4096), state=-(1 << 63))


def test_what_never_decays_is_bounded_by_time() -> None:
    """Without leak currents add up twice: x T (T + 1) / 2, bounded by x T T."""
    assert cuba(20.0, decays=(0, 0), steps=10)
    assert not cuba(20.0, decays=(0, 0), steps=200)


def test_a_state_that_grows_has_no_bound() -> None:
    """A negative decay is out of range for a neuron, but not for the op."""
    assert not cuba(0.5, decays=(-1, 4096))
    assert not cuba(0.5, decays=(4096, -1))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_what_is_no_state_is_left_to_64_bits(value: float) -> None:
    op = ops.get_op("Cuba")
    x = torch.zeros(4, 1, 1)
    x[2] = value
    decays = torch.tensor([400.0])
    state = torch.zeros(1, 1, dtype=torch.int64)
    values = dict(zip(op.inputs, (x, decays, decays, state, state), strict=True))
    session = ort.InferenceSession(
        model_of("Cuba", values, {"scale": SCALE, "threshold": 5000, "graded": 0})
    )
    *_, narrow = session.run(None, {key: v.numpy() for key, v in values.items()})
    assert not narrow


def test_a_loop_reads_all_that_it_computes() -> None:
    """What a step computes and nobody reads is left out of the loop, as Where in CUBA's is."""
    for name in ("Cuba", "Rf", "Alif"):
        for loop in loops(ops.get_op(name).function(21).node):
            read = {i for node in loop.node for i in node.input} | {o.name for o in loop.output}
            assert all(set(node.output) <= read for node in loop.node)
            assert name != "Cuba" or "Where" not in {node.op_type for node in loop.node}


def test_a_neuron_without_a_bound_has_one_loop_and_computes_none() -> None:
    kinds = {node.op_type for node in ops.get_op("Alif").function(21).node}
    assert "Scan" in kinds
    assert not kinds & {"ReduceMax", "ReduceMin"}


def loops(nodes: Any) -> list[onnx.GraphProto]:
    scans = (node for node in all_nodes(nodes) if node.op_type == "Scan")
    return [a.g for scan in scans for a in scan.attribute if a.name == "body"]


@pytest.mark.parametrize("level", [1.0, 4096.0])
def test_a_voltage_at_the_threshold_is_reset(level: float) -> None:
    """1, 2 and 1 again, in the loop of 32 bits and in that of 64."""
    x, state = (torch.full((1, 1, 6), level),), torch.zeros(1, 1, dtype=torch.int64)
    decays = (torch.tensor([4096.0]), torch.tensor([0.0]))
    narrow = run("Cuba", x, decays, (state, state), int(2 * level * SCALE))
    assert narrow == (level == 1.0)
