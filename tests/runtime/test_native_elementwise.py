"""The native kernel of Scans: every operator and random bodies against ONNX Runtime, bit by bit."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from random_bodies import TYPES, random_body
from scans import Array, Body, assert_same, by_operators, by_the_kernel, kernel_session
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.report.kernels import profile_kernels
from synapse_onnx.runtime import native

pytestmark = pytest.mark.skipif(
    native.problem() is not None, reason=f"there are no native kernels: {native.problem()}"
)
LETTERS = {"f": np.float32, "d": np.float64, "i": np.int32, "l": np.int64, "b": np.bool_}
_CASTS = {"CastToFloat": 1, "CastToDouble": 11, "CastToInt32": 6, "CastToInt64": 7, "CastToBool": 9}
#: computed in doubles and rounded; in float64 the C library's
SMOOTH: dict[str, Callable[[Array], Array]] = {
    "Exp": np.exp,
    "Log": np.log,
    "Tanh": np.tanh,
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}
#: ONNX Runtime gives either zero of 0 and -0
ANY_ZERO = ("Max", "Min", "Where")
SPECIAL = (0.0, -0.0, np.nan, np.inf, -np.inf, 1e-40, -1e-40, 0.5, 1.5, 2.5, -0.5, 3e9, -3e9, 1e19)


def values(letter: str, shape: tuple[int, ...], seed: int) -> Array:
    rng = np.random.default_rng(seed)
    if letter == "b":
        return rng.random(shape) < 0.5
    if letter in "il":
        large = np.iinfo(LETTERS[letter]).max
        return np.where(rng.random(shape) < 0.2, large, rng.integers(-9, 9, shape)).astype(
            LETTERS[letter]
        )
    drawn = np.where(rng.random(shape) < 0.4, rng.choice(SPECIAL, shape), rng.normal(0, 3, shape))
    return drawn.astype(LETTERS[letter])


def body_of(op: str, letters: str, size: int, steps: int = 3) -> Body:
    """An operator of sequences; its result is put out, and a state holds the input before."""
    arrays = {f"x{i}": values(c, (steps, size), 7 * i + size) for i, c in enumerate(letters)}
    body = Body({"before": values(letters[0], (size,), 5)}, arrays)
    inputs, attributes = list(arrays), {}
    if op in _CASTS:
        op, attributes = "Cast", {"to": _CASTS[op]}
    if op in ("Fmod", "Mod"):
        attributes = {"fmod": int(op == "Fmod")}
        op = "Mod"
    if op in ("Div", "Mod") and letters[0] in "il":
        body.captured["c"] = np.array(-3, LETTERS[letters[0]])
        inputs[1] = "c"
    if op == "Clip":
        low, high = (-1, 2) if letters[0] in "il" else (-1.5, 2)
        body.captured |= {n: np.array(v, LETTERS[letters[0]]) for n, v in (("c", low), ("e", high))}
        inputs[1:] = ["c", "e"]
    body.constants = set(body.captured)
    result = body.add(op, *inputs, **attributes)
    body.next_states, body.outputs = ["x0"], [result, "before"]
    return body


EXACT = [
    pytest.param(op, letters, id=f"{op}-{letters}")
    for op, letters in native.elementwise()
    if op not in SMOOTH
]


@pytest.mark.parametrize("size", [1, 13, 64, 130, 1031])
@pytest.mark.parametrize(("op", "letters"), EXACT)
def test_an_operator_gives_the_bits_of_onnx_runtime(op: str, letters: str, size: int) -> None:
    body = body_of(op, letters, size)
    if op == "Pow":  # of finite numbers above 0: of others the C library's own cases count
        body.sequences = {n: np.abs(np.nan_to_num(a, posinf=2)) + 0.1 for n, a in
                          body.sequences.items()}  # fmt: skip
    model = body.model()
    found, wanted = by_the_kernel(model, body.feeds()), by_operators(model, body.feeds())
    if op in ANY_ZERO and letters[-1] in "fd":
        found[1], wanted[1] = found[1] + 0, wanted[1] + 0
    assert_same(found, wanted)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("op", SMOOTH)
def test_smooth_functions_are_the_nearest_floats(op: str, kind: type) -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, size, 40_000) for size in (1e-5, 0.1, 1, 5, 40)])
    x = (np.abs(x) if op == "Log" else x).astype(kind)
    body = Body({}, {"x": np.concatenate([x, np.array(SPECIAL, kind)])[None]})
    body.outputs = [body.add(op, "x")]
    (found,) = by_the_kernel(body.model(), body.feeds())
    with np.errstate(all="ignore"):
        exact = SMOOTH[op](body.sequences["x"].astype(np.float64))
        rounded = exact.astype(kind)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(rounded))
    known = np.isfinite(rounded)
    np.testing.assert_array_equal(
        found[~known & ~np.isnan(found)], rounded[~known & ~np.isnan(found)]
    )
    limit = 0.501 if kind is np.float32 else 3
    units = np.spacing(np.abs(rounded[known]))
    # NumPy's own logistic function underflows before the smallest subnormal
    assert (np.abs(found[known] - exact[known]) <= limit * units).all()
    # ONNX Runtime's own, which approximates in floats
    if kind is np.float32:
        (theirs,) = by_operators(body.model(), body.feeds())
        near = known & np.isfinite(theirs)
        np.testing.assert_allclose(found[near], theirs[near], rtol=4e-7, atol=2e-7)


_INNER = ("Add", "Sub", "Mul", "Max", "Greater", "GreaterOrEqual")
_OUTER = ("Add", "Sub", "Mul", "Min", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Where")


@pytest.mark.parametrize("slot", [0, 1])
@pytest.mark.parametrize(("outer", "inner"), [*itertools.product(_OUTER, _INNER)])
def test_two_operators_in_one_loop_round_as_each_alone(outer: str, inner: str, slot: int) -> None:
    body = Body({}, {f"x{i}": values("f", (4, 77), i) for i in range(4)})

    def of(op: str, *inputs: str) -> str:
        result = body.add(op, *inputs)
        return body.add("Cast", result, to=1) if op.startswith(("G", "L")) else result

    first = of(inner, "x0", "x1")
    if outer == "Where":
        condition = body.add(("Greater", "LessOrEqual")[slot], first, "x2")
        result = body.add("Where", condition, "x3", first)
    else:
        result = of(outer, *((first, "x2") if slot == 0 else ("x2", first)))
        products = body.add("Mul", "x0", "x1"), body.add("Mul", "x2", "x3")
        if outer in ("Add", "Sub"):
            body.outputs.append(body.add(outer, *products))
    zero = body.captured["zero"] = np.zeros((), np.float32)
    assert zero == 0
    body.outputs.append(body.add("Add", result, "zero"))
    model = body.model()
    assert_same(by_the_kernel(model, body.feeds()), by_operators(model, body.feeds()))


def compare(seed: int) -> None:
    body = random_body(seed)
    model = body.model()
    found = by_the_kernel(model, body.feeds(), threads=(1, 1, 8)[seed % 3])
    assert_same(found, by_operators(model, body.feeds()))


@pytest.mark.parametrize("seed", range(80))
def test_random_bodies(seed: int) -> None:
    compare(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 4000, 100))
def test_more_random_bodies(seed: int) -> None:
    for more in range(seed, seed + 100):
        compare(more)


def test_random_bodies_have_all_types_and_change() -> None:
    bodies = [random_body(seed) for seed in range(80)]
    seen = {a.dtype.type for b in bodies for a in (*b.states.values(), *b.sequences.values())}
    assert seen == {np.dtype(kind).type for kind in TYPES}
    assert {node.op_type for b in bodies for node in b.nodes} > {"Where", "Cast", "Max", "Relu"}


# -- states ------------------------------------------------------------------------------------


def shifted() -> Body:
    """States that are exchanged and handed on, that stay, of bools, and one that counts."""
    rng = np.random.default_rng(3)
    row = rng.normal(size=(5, 3, 70)).astype(np.float32)
    states: dict[str, Array] = {f"s{i}": np.full((3, 70), i, np.float32) for i in range(5)}
    states |= {"spiked": row[0] > 1, "steps": np.array(10, np.int64), "seen": row[1] > 0}
    body = Body(states, {"x": row, "gate": row > 0.5, "factor": row[:, 0, 0]})
    body.captured = {"one": np.array(1, np.int64), "level": np.float32(0.3) * np.ones((3, 1), "f")}
    body.constants = {"one", "level"}
    steps = body.add("Add", "steps", "one")
    v = body.add("Sub", body.add("Mul", "s4", "factor"), body.add("Cast", "steps", to=1))
    v = body.add("Where", "spiked", "x", v)
    body.next_states = ["s1", "s0", "x", "s3", v, body.add("Greater", v, "level"), steps, "gate"]
    body.outputs = [v, "s0", "steps", "seen", "level", "factor", v, "spiked"]
    return body


@pytest.mark.parametrize("threads", [1, 8])
def test_states_that_move(threads: int) -> None:
    body = shifted()
    model = body.model()
    assert_same(by_the_kernel(model, body.feeds(), threads), by_operators(model, body.feeds()))


def test_any_chunks_give_the_whole() -> None:
    body = shifted()
    model = body.model()
    wanted = by_operators(model, body.feeds())
    session = kernel_session(model)
    count, feeds = len(body.states), body.feeds()
    parts = []
    for begin, end in ((0, 1), (1, 1), (1, 2), (2, 5)):  # one without any step
        chunk = {n: a[begin:end] if n.startswith("all_") else a for n, a in feeds.items()}
        results = session.run(None, chunk)
        feeds |= {f"first_{n}": a for n, a in zip(body.states, results[:count], strict=True)}
        parts.append(results[count:])
    rows = [np.concatenate(row) for row in zip(*parts, strict=True)]
    assert_same([*results[:count], *rows], wanted)


def test_without_steps_states_stay() -> None:
    body = shifted()
    body.sequences = {name: array[:0] for name, array in body.sequences.items()}
    found = by_the_kernel(body.model(), body.feeds())
    assert_same(found[: len(body.states)], list(body.states.values()))
    assert [len(row) for row in found[len(body.states) :]] == [0] * len(body.outputs)


def test_a_state_that_would_change_its_shape_is_an_error() -> None:
    body = Body({"v": np.zeros((1, 4), "f")}, {"x": np.ones((2, 3, 4), "f")})
    result = body.add("Add", "v", "x")
    body.next_states, body.outputs = ["v"], ["v"]
    model = body.model()
    (scan,) = model.graph.node
    scan.attribute[0].g.node[1].input[0] = result  # behind what the model declares
    with pytest.raises(Exception, match=r"a state changes its shape from \(1, 4\) to \(3, 4\)"):
        by_the_kernel(model, body.feeds())


def test_sequences_of_different_lengths_are_an_error() -> None:
    body = shifted()
    model, feeds = body.model(), body.feeds()
    feeds["all_gate"] = feeds["all_gate"][:4]
    with pytest.raises(Exception, match="sequences of 5 and 4 steps"):
        by_the_kernel(model, feeds)


# -- networks ----------------------------------------------------------------------------------


def izhikevich(x: Tensor, state: dict[str, Tensor]) -> Any:
    v, u = state["v"], state["u"]
    v = v + 0.04 * v * v + 5 * v + 140 - u + 30 * x
    u = u + 0.02 * (0.2 * v - u)
    s = v >= 30
    return s.float(), {"v": torch.where(s, -65.0, v), "u": u + 8 * s}


def k_lif(x: Tensor, state: dict[str, Tensor]) -> Any:
    v = state["v"] + (x - state["v"]) / 2
    v = torch.relu(2 * v)
    s = (v >= 1).float()
    return s, {"v": v - s}


def adaptive(x: Tensor, state: dict[str, Tensor]) -> Any:
    v = 0.9 * state["v"] + x
    threshold = 1 + 0.7 * state["a"]
    s = (v > threshold).float()
    return s, {"v": v - threshold * s, "a": 0.95 * state["a"] + 0.05 * s}


def refractory(x: Tensor, state: dict[str, Tensor]) -> Any:
    waits = state["w"] > 0
    v = torch.where(waits, 0.0, 0.9 * state["v"] + x)
    s = v > 1
    return s.float(), {"v": v * ~s, "w": torch.where(s, 3.0, torch.relu(state["w"] - 1))}


def readout(x: Tensor, state: dict[str, Tensor]) -> Any:
    i = 0.8 * state["i"] + x
    v = state["v"] + 0.1 * ((0.5 - state["v"]) + i)
    return v, {"v": v, "i": i}


NEURONS: dict[str, tuple[Any, dict[str, float]]] = {
    "izhikevich": (izhikevich, {"v": -65.0, "u": -13.0}),
    "k_lif": (k_lif, {"v": 0.0}),
    "adaptive": (adaptive, {"v": 0.0, "a": 0.25}),
    "refractory": (refractory, {"v": 0.0, "w": 0.0}),
    "readout": (readout, {"v": 0.0, "i": 0.0}),
}


def network(name: str) -> nn.Module:
    function, states = NEURONS[name]
    return nn.Sequential(so.neuron.step(function, states=states)).eval()


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", NEURONS)
def test_neurons_without_a_kernel_of_their_own(name: str, streaming: bool) -> None:
    torch.manual_seed(0)
    net, x = network(name), torch.rand(3, 90, 40) * 1.5
    model = so.export(net, x, streaming=streaming)
    with_kernels, without = (
        so.Session(model, native=choice, threads=8) for choice in (True, False)
    )
    assert with_kernels.kernels == ("Scan",)
    assert set(with_kernels.native_nodes.values()) == {"ElementwiseScan"}
    assert without.kernels == ()
    assert without.native_nodes == {}
    expected = net(x).numpy()
    assert expected.mean() > 0
    np.testing.assert_array_equal(with_kernels.run(x.numpy()), expected)
    np.testing.assert_array_equal(without.run(x.numpy()), expected)
    report = so.verify(net, model, x)
    assert report.ok, report
    assert any("portable" in str(row) for row in str(report).splitlines())
    if streaming:
        stream = with_kernels.stream(batch=3)
        steps = [stream.step(x[..., t].numpy()) for t in range(40)]
        np.testing.assert_array_equal(np.stack(steps, -1), expected)


@pytest.mark.parametrize("shape", [(1, 6, 1), (1, 6, 9), (0, 6, 9), (5, 6, 1), (2, 6, 33)])
@pytest.mark.parametrize("name", NEURONS)
def test_batches_and_lengths_of_any_size(name: str, shape: tuple[int, ...]) -> None:
    model = so.export(network(name), torch.rand(2, 6, 8))
    x = np.random.default_rng(1).random(shape, np.float32)
    x.flat[::7] = (np.nan, np.inf, -np.inf, 1e30, 2.0)[len(name) % 5]
    # Session refuses arrays without an element
    sessions = [so.Session(model, native=choice).session for choice in (True, False)]
    found, wanted = (session.run(None, {"input": x}) for session in sessions)
    assert_same(found, wanted)


class Loops(nn.Module):
    """A loop in torch code that stays a Scan, images before it and a leaky readout behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(2, 3, 3, padding=1), nn.Linear(108, 10)
        self.decay = nn.Parameter(torch.linspace(0.5, 0.95, 3)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        v, out = torch.zeros(x.shape[1], 3, 6, 6), torch.zeros(x.shape[1], 10)
        rows = []
        for frame in x:
            v = self.decay * v + self.conv(frame)
            s = (v > 0.4).float()
            v = v - 0.3 * s
            out = 0.9 * out + self.fc(s.flatten(1))
            rows.append(out)
        return torch.stack(rows)


def test_a_loop_that_was_found_and_a_readout() -> None:
    torch.manual_seed(1)
    net, x = Loops().eval(), torch.rand(12, 3, 2, 6, 6)
    model = so.export(net, x, axes="TNC")
    session = so.Session(model, native=True)
    assert sorted(session.native_nodes.values()) == ["ElementwiseScan"] * 2
    np.testing.assert_array_equal(
        session.run(x.numpy()), so.Session(model, native=False).run(x.numpy())
    )
    assert so.verify(net, model, x).ok
    found = profile_kernels(model, [x.numpy()], native=True)
    assert {k.op: k.calls for k in found if k.native} == {"ElementwiseScan": 2}
