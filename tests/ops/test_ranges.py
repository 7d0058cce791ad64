"""A neuron's loops in 32 bits: each is taken only where every state fits, and gives the same.

The choice is part of the graph. Which loop gave the spikes shows where its spikes are turned into
their opposite: they come out changed if, and only if, that loop was taken.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from graphs import all_nodes
from torch import Tensor

from synapse_onnx import ops
from synapse_onnx.ops.arithmetic.fixed import NO_THRESHOLD

SCALE = 4096
LIMIT = 1 << 23  # states below this are computed in 32 bits
#: products below this, in units of the last bit of their decay, are exact in float32
SHORT = 1 << 24


def turned(nodes: Any, loop: str) -> int:
    """Turn the spikes of a loop, by the name of its body, into their opposite."""
    count = 0
    for i, node in reversed(list(enumerate(nodes))):
        for attribute in node.attribute:
            if node.op_type == "Scan" and attribute.g.name == loop:
                made = {name: n for n in attribute.g.node for name in n.output}
                numbers = made[attribute.g.output[-1].name].op_type == "Cast"
                spikes, node.output[-1] = node.output[-1], "right"
                if numbers:
                    one = onnx.helper.make_node("Constant", [], ["one"], value_float=1.0)
                    rest = [one, onnx.helper.make_node("Sub", ["one", "right"], [spikes])]
                else:
                    rest = [onnx.helper.make_node("Not", ["right"], [spikes])]
                for new in reversed(rest):
                    nodes.insert(i + 1, new)
                count += 1
            else:
                count += turned(attribute.g.node, loop)
    return count


#: what a body leaves out that serves any node
NOTHING: frozenset[str] = frozenset()

#: name -> (how many currents, how many states)
SIZES = {"Cuba": (1, 2), "Alif": (1, 4), "Rf": (2, 2), "RfIz": (2, 2), "Adrf": (2, 4),
         "AdrfIz": (2, 4)}  # fmt: skip


def of_equation(name: str) -> str:
    """The op of the slayer regime: "Cuba" of "CubaLoihi"."""
    return "Cuba" if name.startswith("Cuba") else name


def levels(name: str, threshold: int) -> dict[str, int]:
    """The constants of a neuron of some threshold."""
    if SIZES[of_equation(name)][1] == 4:
        return {"base_threshold": threshold, "threshold_step": threshold // 2}
    return {"threshold": threshold} | ({"below": threshold - 1} if name == "RfIz" else {})


@cache
def session(
    name: str, ranks: tuple[int, ...], threshold: int, loop: str, omits: frozenset[str] = NOTHING
) -> Any:
    """One node with its function, inputs and sizes left open; the spikes of a loop turned."""
    op = ops.get_op(name)
    count = SIZES[of_equation(name)][1]
    kinds = [onnx.TensorProto.FLOAT] * (len(op.inputs) - count) + [onnx.TensorProto.INT64] * count
    infos = [
        onnx.helper.make_tensor_value_info(key, kind, [None] * rank)
        for key, kind, rank in zip(op.inputs, kinds, ranks, strict=True)
    ]
    attributes = {"scale": SCALE, "graded": 0, **levels(name, threshold)}
    node = onnx.helper.make_node(name, op.inputs, op.outputs, domain=ops.DOMAIN, **attributes)
    outs = [onnx.helper.make_value_info(key, onnx.TypeProto()) for key in op.outputs]
    function = op.function(21, *([omits] if omits else []))
    if loop and omits:
        assert turned(function.node, loop) == 1
    elif loop:
        # one for spikes, one for graded ones, which the node does not ask for
        branch = next(
            a.g for n in function.node for a in n.attribute
            if a.name == "else_branch" and n.input[0] == "is_graded"
        )  # fmt: skip
        assert turned(branch.node, loop) == 1
    graph = onnx.helper.make_graph([node], "one", infos, outs)
    opsets = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid(ops.DOMAIN, 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, functions=[function])
    model.ir_version = 10
    return ort.InferenceSession(model.SerializeToString())


def run(name: str, x: tuple[Tensor, ...], decays: tuple[Tensor, ...], states: tuple[Tensor, ...],
        threshold: int, omits: frozenset[str] = NOTHING) -> str:  # fmt: skip
    """Run in torch and ONNX Runtime, hold them equal, and return the loop that was taken.

    With ``omits`` the body is that of a file whose nodes leave this out.
    """
    op = ops.get_op(name)
    values = dict(zip(op.inputs, (*x, *decays, *states), strict=True))
    ranks = tuple(value.dim() for value in values.values())
    feeds = {key: value.numpy() for key, value in values.items()}
    for key in op.inputs[: len(x)]:
        feeds[key] = np.moveaxis(feeds[key], -1, 0)
    spikes, *last = session(name, ranks, threshold, "", omits).run(None, feeds)
    rest = (SCALE, *levels(name, threshold).values(), 1.0, 1.0, False)
    expected, *states_after = op.torch_op(*values.values(), *rest)
    np.testing.assert_array_equal(np.moveaxis(spikes, 0, -1), expected.numpy())
    for found, state in zip(last, states_after, strict=True):
        np.testing.assert_array_equal(found, state.numpy())
    loops = ["narrow", "wide", *(["short"] if of_equation(name) == "Cuba" else [])]
    taken = []
    for loop in loops:
        graph = f"no_current_{loop}_step" if "current" in omits else f"{loop}_step"
        other, *_ = session(name, ranks, threshold, graph, omits).run(None, feeds)
        if not np.array_equal(other, spikes):
            np.testing.assert_array_equal(other, 1 - spikes)
            taken.append(loop)
    (one,) = taken
    return one


def states_of(name: str, x: tuple[Tensor, ...], decays: tuple[Tensor, ...],
              states: tuple[Tensor, ...], threshold: int = NO_THRESHOLD) -> int:  # fmt: skip
    """The largest state of a sequence, from torch's int64 loop, step by step."""
    op, largest = ops.get_op(name), max(int(state.abs().max()) for state in states)
    for t in range(x[0].shape[-1]):
        step = (value[..., t : t + 1] for value in x)
        rest = (SCALE, *levels(name, threshold).values(), 1.0, 1.0, False)
        _, *states = op.torch_op(*step, *decays, *states, *rest)
        largest = max(largest, *(int(state.abs().max()) for state in states))
    return largest


def case(name: str, seed: int, level: float, steps: int = 40) -> tuple[Any, ...]:
    """Random currents of a size, decays and states, all drawn anew."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return 2 * torch.rand(shape, generator=generator) - 1

    currents, count = SIZES[of_equation(name)]
    x = tuple((level * draw(2, 3, steps) + level * (seed % 3 - 1)) for _ in range(currents))
    if currents == 2:
        length, angle = 4095 * torch.rand(1, generator=generator), 0.2 + (seed % 7) / 5
        angle = torch.tensor([angle])
        decays = (torch.round(length * angle.sin()), torch.round(length * angle.cos()))
    choices = torch.tensor([0.0, 1.0, 40.0, 400.0, 1500.0, 4095.0, 4096.0])
    own = count - 2 if currents == 2 else count
    picks = torch.randint(len(choices), (own, 3), generator=generator)
    decays = (*(decays if currents == 2 else ()), *(choices[row] for row in picks))
    states = tuple((level * SCALE * draw(2, 3)).to(torch.int64) for _ in range(count))
    return x, decays, states


@pytest.mark.parametrize("level", [0.5, 5.0, 50.0, 500.0, 5e3, 1e6])
@pytest.mark.parametrize("name", SIZES)
def test_32_bits_are_taken_only_where_states_fit(name: str, level: float) -> None:
    taken = []
    for seed in range(12):
        x, decays, states = case(name, seed, level)
        threshold = int(2 * level * SCALE)
        narrow = run(name, x, decays, states, threshold) == "narrow"
        taken.append(narrow)
        if narrow:
            never = NO_THRESHOLD if name in ("Cuba", "Rf") else threshold
            assert states_of(name, x, decays, states, never) < LIMIT
    assert all(taken) if level == 0.5 else not any(taken) if level >= 5e3 else True


def cuba(x: float, *, decays: tuple[float, float], steps: int = 4, state: int = 0) -> bool:
    currents = (torch.full((1, 1, steps), x),)
    start = torch.full((1, 1), state)
    values = (torch.tensor([float(decays[0])]), torch.tensor([float(decays[1])]))
    return run("Cuba", currents, values, (torch.zeros_like(start), start), NO_THRESHOLD) == "narrow"


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
    x = torch.zeros(1, 1, 4)
    x[..., 2] = value
    decays, state = torch.tensor([400.0]), torch.zeros(1, 1, dtype=torch.int64)
    feeds = {"x": x.movedim(-1, 0).numpy(), "current": state.numpy(), "voltage": state.numpy()}
    feeds |= {"current_decay": decays.numpy(), "voltage_decay": decays.numpy()}
    right, turned_wide = (
        session("Cuba", (3, 1, 1, 2, 2), 5000, loop).run(None, feeds)[0]
        for loop in ("", "wide_step")
    )
    np.testing.assert_array_equal(turned_wide, 1 - right)


def test_a_loop_reads_all_that_it_computes() -> None:
    """What a step computes and nobody reads is left out of the loop, as Where in CUBA's is."""
    for name in ("Cuba", "Rf", "Alif"):
        for loop in loops(ops.get_op(name).function(21).node):
            read = {i for node in loop.node for i in node.input} | {o.name for o in loop.output}
            assert all(set(node.output) <= read for node in loop.node)
            assert name != "Cuba" or "Where" not in {node.op_type for node in loop.node}


def resonator(threshold: int, start: int) -> str:
    """The loop of a neuron whose spikes reset it to just below the threshold."""
    x = tuple(torch.zeros(1, 1, 4) for _ in range(2))
    states = torch.zeros(1, 1, dtype=torch.int64), torch.full((1, 1), start)
    return run("RfIz", x, (torch.tensor([0.0]), torch.tensor([2048.0])), states, threshold)


def test_the_level_of_a_reset_counts() -> None:
    """A threshold that no such state reaches does not; one far below zero resets to there."""
    assert resonator(1 << 20, 100) == "narrow"
    assert resonator(NO_THRESHOLD, 100) == "narrow"
    assert resonator(-(1 << 24), 100) == "wide"
    assert resonator(-100, 100) == "narrow"


@pytest.mark.parametrize("name", ["Alif", "Adrf", "AdrfIz"])
def test_spikes_at_every_step_count(name: str) -> None:
    """Without leak a threshold grows by its step, and what is added to it by twice that."""
    currents, _ = SIZES[of_equation(name)]
    x = tuple(torch.zeros(1, 1, 40) for _ in range(currents))
    kept = (
        [torch.tensor([0.0])] * 4 if currents == 1 else [torch.tensor([v]) for v in (0.0, 4095.0)]
    )
    kept = (kept + [torch.tensor([0.0])] * 2)[:4]
    states = tuple(torch.zeros(1, 1, dtype=torch.int64) for _ in range(4))
    # 40 steps: the threshold is bounded by 22 of it, and what is added by twice 40 times that
    assert run(name, x, tuple(kept), states, 4000) == "narrow"
    assert run(name, x, tuple(kept), states, 5200) == "wide"


def test_floats_have_one_loop_and_no_bound() -> None:
    kinds = {node.op_type for node in all_nodes(ops.get_op("AlifFloat").function(21).node)}
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
    taken = run("Cuba", x, decays, (state, state), int(2 * level * SCALE))
    assert taken == ("narrow" if level == 1.0 else "wide")


# -- products in float32 -----------------------------------------------------------------------

NEURONS = 3000  # more than from which on it is worth it


def many(x: float, *, kept: tuple[int, int], steps: int, threshold: int, spread: float = 0.0,
         neurons: int = NEURONS) -> str:  # fmt: skip
    """The loop that many neurons take under currents of about a size, decays given as 1 - decay."""
    generator = torch.Generator().manual_seed(0)
    noise = spread * (2 * torch.rand(1, neurons, steps, generator=generator) - 1)
    decays = tuple(torch.tensor([4096.0 - k]) for k in kept)
    state = torch.zeros(1, neurons, dtype=torch.int64)
    return run(
        "Cuba", (torch.full((1, neurons, steps), x) + noise,), decays, (state, state), threshold
    )


@pytest.mark.parametrize(
    ("kept", "loop"),
    [
        ((3072, 3840), "short"),  # 3/4 and 15/16
        ((3072, 3841), "narrow"),  # 3841 / 4096 has twelve bits
        ((3073, 3840), "narrow"),
        ((0, 3968), "short"),  # a current that decays at once, 31/32
        ((0, 4096), "short"),  # and a voltage that stays
    ],
)
def test_decays_of_few_bits_are_multiplied_in_float32(kept: tuple[int, int], loop: str) -> None:
    assert many(0.5, kept=kept, steps=30, threshold=8 * SCALE, spread=4.0) == loop


@pytest.mark.parametrize(
    ("name", "norm"),
    [("CubaLoihi", [0.5]), ("CubaBiased", [-0.25]), ("CubaNormed", [0.3, 1.7])],
    ids=["loihi", "biased", "normed"],
)
@pytest.mark.parametrize("level", [4.0, 60.0])
def test_every_regime_multiplies_in_float32(name: str, norm: list[float], level: float) -> None:
    """In integers with a bias or a norm between the states, too; not where states may be large."""
    x = level * (2 * torch.rand(1, NEURONS, 30) - 1)
    rest = [torch.tensor([value]) for value in (1024.0, 256.0, *norm)]
    state = torch.zeros(1, NEURONS, dtype=torch.int64)
    taken = run(name, (x,), tuple(rest), (state, state), 8 * SCALE)
    assert taken == ("short" if level == 4.0 else "wide")


def test_what_24_bits_do_not_hold_is_not_tried() -> None:
    """Nothing is left of either state, so no product is too large; on Loihi a current wraps."""
    for units, loop in ((LIMIT - 1, "short"), (LIMIT, "wide")):
        assert many(-units / SCALE, kept=(0, 0), steps=3, threshold=0) == loop


@pytest.mark.parametrize(
    ("name", "norm", "units", "loop"),
    [
        ("CubaLoihi", [0.0], LIMIT - 1, "short"),
        ("CubaLoihi", [0.0], LIMIT + 1000, "wide"),  # it wraps
        ("CubaNormed", [0.0, 2.0**-10], LIMIT - 1, "short"),
        (
            "CubaNormed",
            [0.0, 2.0**-10],
            1 << 32,
            "wide",
        ),  # no int32 holds it, and the norm hides it
    ],
    ids=["loihi", "loihi wraps", "normed", "normed too large"],
)
def test_a_current_of_which_nothing_is_kept_must_fit(
    name: str, norm: list[float], units: int, loop: str
) -> None:
    """In the body of a file whose nodes keep nothing of it, where it multiplies nothing."""
    x = torch.full((1, NEURONS, 1), units / SCALE)
    rest = tuple(torch.tensor([value]) for value in (4096.0, 2048.0, *norm))
    state = torch.zeros(1, NEURONS, dtype=torch.int64)
    omits = frozenset({"graded", "current"})
    assert run(name, (x,), rest, (state, state), 8 * SCALE, omits) == loop


def test_few_neurons_are_not_worth_the_question() -> None:
    assert many(0.5, kept=(3072, 3840), steps=9, threshold=8 * SCALE, neurons=2048) == "narrow"
    assert many(0.5, kept=(3072, 3840), steps=9, threshold=8 * SCALE, neurons=2049) == "short"


def fallen(units: int, steps: int) -> int:
    """The voltage after steps of a current of so many units, of which nothing is kept."""
    voltage = 0
    for _ in range(steps):
        voltage = -(-voltage * 3840 // 4096) - units
    return voltage


def test_a_voltage_that_falls_too_low_is_noticed() -> None:
    """No bound tells, the loop itself does: the largest fall that is exact, and one unit more."""
    steps = 60
    units = max(n for n in range(60_000, 80_000) if -fallen(n, steps) * 15 < SHORT)
    assert -fallen(units + 1, steps) * 15 >= SHORT
    for fall, loop in ((units, "short"), (units + 1, "narrow")):
        taken = many(-fall / SCALE, kept=(0, 3840), steps=steps, threshold=SCALE)
        assert taken == loop


@pytest.mark.parametrize("threshold", [SHORT // 15 - SCALE, SHORT // 15 + SCALE, NO_THRESHOLD])
def test_a_threshold_that_no_float32_reaches_is_not_tried(threshold: int) -> None:
    taken = many(0.5, kept=(0, 3840), steps=20, threshold=threshold)
    assert taken == ("short" if threshold < SHORT // 15 else "narrow")


def test_a_state_that_starts_high_is_not_tried() -> None:
    decays, x = (torch.tensor([4096.0]), torch.tensor([256.0])), torch.zeros(1, NEURONS, 3)
    for start, loop in ((SHORT // 15, "short"), (SHORT // 15 + 1, "narrow")):
        states = torch.zeros(1, NEURONS, dtype=torch.int64), torch.full((1, NEURONS), -start)
        assert run("Cuba", (x,), decays, states, SCALE) == loop
