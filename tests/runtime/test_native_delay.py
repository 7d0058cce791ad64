"""The native delay: any size, type and length, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from of_one_node import (
    OPS,
    assert_equal,
    expected,
    session_of,
    whole,
)
from onnx import helper, numpy_helper

from synapse_onnx import ops
from synapse_onnx.runtime import native

pytestmark = pytest.mark.skipif(
    native.problem() is not None, reason=f"there are no native kernels: {native.problem()}"
)


def delay_model(
    x: np.ndarray, delays: np.ndarray, line: np.ndarray, *, constant: bool = True
) -> onnx.ModelProto:
    """One Delay of x (T, N, C, ...) and line (D, N, C, ...), without a body."""
    node = helper.make_node("Delay", ["x", "delay", "line"], ["y", "last_line"], domain=ops.DOMAIN)
    kind, whole_number = helper.np_dtype_to_tensor_dtype(x.dtype), onnx.TensorProto.INT64
    frame = [f"axis_{i}" for i in range(1, x.ndim)]
    inputs = [
        helper.make_tensor_value_info("x", kind, ["T", *frame]),
        helper.make_tensor_value_info("line", kind, ["D", *frame]),
        helper.make_tensor_value_info("delay", whole_number, ["G"]),
    ]
    outputs = [helper.make_tensor_value_info(name, kind, None) for name in ("y", "last_line")]
    constants = [numpy_helper.from_array(delays, "delay")] if constant else []
    return whole(helper.make_graph([node], "one", inputs[: 3 - constant], outputs, constants))


def delay(
    x: np.ndarray, delays: np.ndarray, line: np.ndarray, *, threads: int = 2
) -> list[np.ndarray]:
    session = session_of(delay_model(x, delays, line), threads)
    return session.run(None, {"x": x, "line": line})


def delayed(x: np.ndarray, delays: np.ndarray, line: np.ndarray) -> list[np.ndarray]:
    """The same in NumPy, neuron by neuron."""
    depth, steps, sample = len(line), len(x), int(np.prod(x.shape[2:]))
    past, y = np.concatenate([line, x]), np.empty_like(x)
    rows, columns = (array.reshape(len(array), x.shape[1], sample) for array in (past, y))
    for i in range(sample):
        start = depth - delays[i * len(delays) // sample]
        columns[:, :, i] = rows[start : start + steps, :, i]
    return [y, past[steps:]]


def numbers(kind: Any, *shape: int) -> np.ndarray:
    """Values that all differ as far as the type lets them."""
    draw = np.random.default_rng(int(np.prod(shape)))
    return (draw.permutation(int(np.prod(shape))).reshape(shape) % 30011).astype(kind)


def of_groups(groups: int, depth: int, length: int = 1) -> np.ndarray:
    """Delays of 0 to depth in runs of a length, both ends among them where there is room."""
    if groups == 1:
        return np.array([(depth + 1) // 2])
    draw = np.random.default_rng(groups + depth)
    runs = draw.integers(0, depth + 1, -(-groups // length))
    runs[-1], runs[0] = 0, depth
    return np.repeat(runs, length)[:groups]


TYPES = ["float32", "float64", "bool", "uint8", "int8", "int16", "int32", "int64"]
#: axes of a sample in a step, delays, and the length of a run of equal ones
LINES = [
    ((1, 1), 1, 1),
    ((2, 13), 1, 1),
    ((3, 7), 7, 1),
    ((1, 128), 128, 1),
    ((3, 509), 509, 1),  # a prime: samples begin within tiles
    ((2, 509), 509, 17),
    ((2, 96), 96, 32),
    ((2, 5, 3, 7), 5, 1),
    ((2, 2, 32, 32), 2, 1),
    ((2, 3, 5, 7), 105, 1),
    ((0, 7), 7, 1),
]


@pytest.mark.parametrize(
    ("line_of", "depth"), [(line, (1, 7, 62)[i % 3]) for i, line in enumerate(LINES)]
)
def test_delays_of_any_size(line_of: tuple[tuple[int, ...], int, int], depth: int) -> None:
    frame, groups, length = line_of
    delays = of_groups(groups, depth, length)
    line = numbers("float32", depth, *frame)
    model = delay_model(line, delays, line)
    kernel = session_of(model)
    model.functions.append(OPS["Delay"].function(21))
    body = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for steps in (0, 1, 2, 31, 300):
        feeds = {"x": numbers("float32", steps, *frame), "line": line}
        wanted = delayed(feeds["x"], delays, line)
        assert_equal(kernel.run(None, feeds), wanted)
        if frame[0]:  # the body's Reshape takes no batch of none
            assert_equal(body.run(None, feeds), wanted)
        if feeds["x"].size:  # torch makes no view of nothing
            x, past = (torch.from_numpy(feeds[name]).movedim(0, -1) for name in feeds)
            args = (x.contiguous(), torch.from_numpy(delays), past.contiguous())
            assert_equal(expected(OPS["Delay"], args), wanted)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("groups", [1, 3, 39])
def test_delays_of_any_type(kind: str, groups: int) -> None:
    x, line = numbers(kind, 40, 2, 3, 1, 13), numbers(kind, 9, 2, 3, 1, 13)
    delays = of_groups(groups, 9)
    assert_equal(delay(x, delays, line), delayed(x, delays, line))


@pytest.mark.parametrize(
    ("steps", "depth"), [(500, 200), (130, 127), (1030, 4096), (1030, 4097), (3, 5000), (15, 62)]
)
def test_delays_of_any_length(steps: int, depth: int) -> None:
    x, line = numbers("float32", steps, 1, 67), numbers("float32", depth, 1, 67)
    delays = of_groups(67, depth)
    assert_equal(delay(x, delays, line), delayed(x, delays, line))


@pytest.mark.parametrize(
    ("frame", "groups"),
    [((5, 3, 31, 37), 1), ((5, 3, 31, 37), 3), ((5, 3, 31, 37), 3441), ((5, 331, 1, 3), 331)],
)
@pytest.mark.parametrize("steps", [1, 150])
def test_delays_on_many_threads(frame: tuple[int, ...], groups: int, steps: int) -> None:
    x, line = numbers("float32", steps, *frame), numbers("float32", 20, *frame)
    delays = of_groups(groups, 20)
    assert_equal(delay(x, delays, line, threads=8), delayed(x, delays, line))


@pytest.mark.parametrize("groups", [1, 5, 35])
@pytest.mark.parametrize("chunk", [1, 4, 50])
def test_a_line_goes_on_with_the_next_chunk(groups: int, chunk: int) -> None:
    x, line = numbers("float32", 101, 2, 5, 1, 7), numbers("float32", 11, 2, 5, 1, 7)
    delays = of_groups(groups, 11)
    session = session_of(delay_model(x, delays, line))
    wanted, last = delayed(x, delays, line)
    found = []
    for first in range(0, len(x), chunk):
        y, line = session.run(None, {"x": x[first : first + chunk], "line": line})
        found.append(y)
    assert_equal([np.concatenate(found), line], [wanted, last])


def test_a_line_without_steps_delays_nothing() -> None:
    x = numbers("float32", 5, 2, 3)
    y, last = delay(x, np.zeros(3, np.int64), x[:0])
    assert_equal([y, last], [x, x[:0]])


def test_delays_may_come_as_an_input() -> None:
    x, line = numbers("float32", 20, 2, 13), numbers("float32", 6, 2, 13)
    session = session_of(delay_model(x, of_groups(13, 6), line, constant=False))
    for delays in (of_groups(13, 6), of_groups(1, 6), of_groups(13, 6)[::-1].copy()):
        found = session.run(None, {"x": x, "line": line, "delay": delays})
        assert_equal(found, delayed(x, delays, line))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": (12, 70)}, "the input needs the axes .T, N, C, ...., got .12, 70."),
        ({"line": (5, 1, 71)}, "a line of shape .5, 1, 71. does not fit an input of .12, 1, 70."),
        ({"line": (5, 70)}, "a line of shape .5, 70. does not fit"),
        ({"line": ()}, "a line of shape .. does not fit"),
        ({"line": (4, 1, 70)}, "delays of 0 to 5 steps do not lie in 0 to 4, the steps of the l"),
        ({"delay": np.array([-1])}, "delays of -1 to -1 steps do not lie in 0 to 5"),
        ({"delay": np.full(70, 1 << 62)}, "do not lie in 0 to 5"),
        ({"delay": np.arange(4)}, "4 delays do not part the 70 neurons"),
        ({"delay": np.zeros(0, np.int64)}, "delays need the shape .G.., got .0."),
        ({"delay": np.zeros((1, 70), np.int64)}, "delays need the shape .G.., got .1, 70."),
    ],
)
@pytest.mark.parametrize("constant", [True, False])
def test_delays_that_do_not_fit(changed: dict[str, Any], message: str, constant: bool) -> None:
    feeds = {"x": np.zeros((12, 1, 70), np.float32), "line": np.zeros((5, 1, 70), np.float32),
             "delay": of_groups(70, 5)}  # fmt: skip
    for name, value in changed.items():
        feeds[name] = value if name == "delay" else np.zeros(value, np.float32)
    model = delay_model(**{"delays" if k == "delay" else k: v for k, v in feeds.items()},
                        constant=constant)  # fmt: skip
    for value in model.graph.input:
        value.type.tensor_type.ClearField("shape")
    with pytest.raises(Exception, match=message):
        session_of(model).run(None, {value.name: feeds[value.name] for value in model.graph.input})


@pytest.mark.parametrize("name", ["x", "line", "delay"])
def test_a_wrong_type_of_delays_is_refused(name: str) -> None:
    x = np.zeros((12, 1, 70), np.float32)
    model = delay_model(x, of_groups(70, 5), x[:5], constant=False)
    for value in model.graph.input:
        if value.name == name:
            value.type.tensor_type.elem_type = onnx.TensorProto.INT32
    with pytest.raises(Exception, match=r"[Tt]ype"):
        session_of(model)
