"""Native kernels: equal to torch and to the bodies, whatever sizes and values, and no crash.

A model that has lost its functions shows that a kernel ran: there is nothing else that could.
"""

from __future__ import annotations

import threading
from typing import Any

import networks
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from of_one_node import (
    EQUATIONS,
    assert_equal,
    cuba,
    currents,
    expected,
    feeds_of,
    model_of,
    sequences_of,
    session_of,
    split,
    time_first,
    tolerance,
    whole,
)
from onnx import helper, numpy_helper
from pairwise import pairwise
from torch import Tensor

import synapse_onnx as so
from synapse_onnx import ops
from synapse_onnx.report.kernels import profile_kernels
from synapse_onnx.runtime import native

pytestmark = pytest.mark.skipif(
    native.problem() is not None, reason=f"there are no native kernels: {native.problem()}"
)

OPS = ops.all_ops()
KERNELS = native.kernels()
CALLS = [
    pytest.param(OPS[name], sample, id=f"{name}-{sample.id}")
    for name in KERNELS
    for sample in OPS[name].samples()
]


def run(op: ops.OpDef, args: tuple[Any, ...], threads: int = 2) -> list[np.ndarray]:
    session = session_of(model_of(op, args, sequences_of(op)), threads)
    return session.run(None, feeds_of(op, args, session))


def test_every_neuron_and_every_quantised_synapse_has_a_kernel() -> None:
    assert set(KERNELS) <= set(OPS)
    assert set(EQUATIONS) <= set(KERNELS)
    assert {name for name in OPS if name.startswith("Quantized")} <= set(KERNELS)
    assert {"Delay", "Delta", "Sigma"} <= set(KERNELS)


@pytest.mark.parametrize(("op", "sample"), CALLS)
def test_a_kernel_computes_what_torch_does(op: ops.OpDef, sample: ops.Sample) -> None:
    assert_equal(run(op, sample.args), expected(op, sample.args), tolerance(op))


# -- neurons -----------------------------------------------------------------------------------

#: forms of CUBA whose step adds a bias
BIASED = ("CubaLoihi", "CubaBiased", "CubaNormed")


def with_bias(name: str, args: Any, bias: float = 0.125, gain: float = 0.5) -> tuple[Any, ...]:
    """Put a bias behind the parameters where the form has one, and a gain behind it."""
    more = {"CubaNormed": (bias, gain)}.get(name, (bias,) if name in BIASED else ())
    return (*args[:3], *(torch.tensor([value]) for value in more), *args[3:])


@pytest.mark.parametrize("neurons", [1, 7, 63, 64, 65, 255, 513, 2049, 5003])
@pytest.mark.parametrize("steps", [0, 1, 5])
def test_any_size(neurons: int, steps: int) -> None:
    for name in ("Cuba", "CubaFloat", *BIASED):
        x = currents(2, neurons, steps)
        args = cuba(x)
        if name == "CubaFloat":
            zero = torch.zeros(2, neurons)
            args = (x, torch.tensor([0.25]), torch.tensor([0.05]), zero, zero, 0.7, 1.0, 1.0, False)
        args = with_bias(name, args)
        if steps:
            assert_equal(run(OPS[name], args), expected(OPS[name], args))
        else:  # torch has nothing to stack
            y, *last = run(OPS[name], args)
            assert y.shape == (0, 2, neurons)
            for now, before in zip(last, split(args)[0][-2:], strict=True):
                np.testing.assert_array_equal(now, before.numpy())


@pytest.mark.parametrize(
    "value", [2047.0, 2048.0, 5000.0, -3e8, 3e12, -1e30, float("inf"), float("-inf"), float("nan")]
)
def test_what_32_bits_do_not_hold_is_computed_in_64(value: float) -> None:
    x = currents(1, 70, 12)
    x[0, 5, 3], x[0, 66, 0] = value, -value
    for graded in (False, True):
        assert_equal(
            run(OPS["Cuba"], cuba(x, graded=graded)), expected(OPS["Cuba"], cuba(x, graded=graded))
        )
    dynamics = (*cuba(x)[:7],)
    assert_equal(run(OPS["CubaDynamics"], dynamics), expected(OPS["CubaDynamics"], dynamics))


@pytest.mark.parametrize("state", [(1 << 23) - 1, 1 << 23, 1 << 24, 1 << 40, -(1 << 62)])
@pytest.mark.parametrize("bias", [None, 0.125, -2047.0, 3e4])
def test_states_of_any_size(state: int, bias: float | None) -> None:
    for name in ("Cuba",) if bias is None else ("CubaBiased", "CubaNormed"):
        args = with_bias(name, cuba(currents(1, 70, 12), state=state), bias or 0)
        assert_equal(run(OPS[name], args), expected(OPS[name], args))


@pytest.mark.parametrize(
    ("bias", "gain", "graded"),
    pairwise(
        (0.1, -3e4, 2e5, 1e38, float("inf"), float("nan")),
        (-2.0, 0.3, 32.0, 1e4, 1e30, float("inf"), float("nan")),
        (False, True),
    ),
)
def test_a_norm_of_any_size(bias: float, gain: float, graded: bool) -> None:
    """What it gives fits into 32 bits, or does not, where a spike then hides it."""
    args = with_bias("CubaNormed", cuba(currents(2, 70, 12)), bias, gain)
    args = (*args[:-1], graded)
    assert_equal(run(OPS["CubaNormed"], args), expected(OPS["CubaNormed"], args))


def test_a_level_that_only_a_norm_reaches() -> None:
    """In 32 bits a level counts as 2**30 at the most, and so what is beyond is not below it."""
    x = torch.full((1, 70, 6), 30.0)
    for level in (int(1.6e9), int(2e9), int(3e9)):
        args = with_bias("CubaNormed", cuba(x, level=level), 0.5, 1e4)
        found = expected(OPS["CubaNormed"], args)
        assert 0 < found[0].sum() < found[0].size
        assert_equal(run(OPS["CubaNormed"], args), found)


@pytest.mark.parametrize("name", ["Cuba", "CubaDynamics", *BIASED])
@pytest.mark.parametrize("sign", [1, -1])
def test_states_that_grow_beyond_32_bits(name: str, sign: int) -> None:
    """No current is large, and their sums are: beyond 2**24, then beyond 2**31."""
    x = torch.full((1, 70, 400), sign * 2040.0)
    x[0, :5] /= 64
    args = list(cuba(x))
    args[1], args[2] = torch.tensor([0.0]), torch.tensor([3.0])
    if name == "CubaDynamics":
        args = args[:7]
    given = with_bias(name, args)
    assert_equal(run(OPS[name], given), expected(OPS[name], given))


@pytest.mark.parametrize("decay", [0.0, 4096.0, 4097.0, -1.0, 9000.0])
def test_fractions_of_any_size(decay: float) -> None:
    args = list(cuba(currents(1, 70, 12)))
    args[1] = torch.tensor([decay])
    assert_equal(run(OPS["Cuba"], tuple(args)), expected(OPS["Cuba"], tuple(args)))


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e38])
@pytest.mark.parametrize("name", [name for name in EQUATIONS if name.endswith("Float")])
def test_floats_that_are_no_numbers(name: str, value: float) -> None:
    if name.startswith("Recurrent"):
        pytest.skip("a sum with infinity has no order that would be right")
    sample = OPS[name].samples()[0]
    x = sample.args[0].clone()
    x[0, 1, 4] = value
    args = (x, *sample.args[1:])
    assert_equal(run(OPS[name], args), expected(OPS[name], args))


def test_threads_share_a_session() -> None:
    args = cuba(currents(2, 3000, 20))
    op = OPS["Cuba"]
    session = session_of(model_of(op, args, {"x"}))
    tensors = dict(zip(op.inputs, split(args)[0], strict=True))
    feeds = {name: time_first(tensor, name, {"x"}) for name, tensor in tensors.items()}
    wanted = expected(op, args)
    wrong: list[str] = []

    def work() -> None:
        for _ in range(20):
            try:
                assert_equal(session.run(None, feeds), wanted)
            except AssertionError as error:
                wrong.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("x", (12, 70), "currents need the axes"),
        ("x", (12, 1, 71), "does not fit currents"),
        ("current", (1, 69), "a state of shape"),
        ("current_decay", (3,), "neither one value nor one for each of 70 channels"),
        ("voltage_decay", (0,), "neither one value"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, shape: tuple[int, ...], message: str) -> None:
    args = cuba(currents(1, 70, 12))
    op = OPS["Cuba"]
    model = model_of(op, args, {"x"})
    for value in model.graph.input:
        del value.type.tensor_type.shape.dim[:]
        rank = len(shape) if value.name == name else {"x": 3}.get(value.name, 1)
        rank = 2 if value.name in ("current", "voltage") else rank
        for _ in range(rank):
            value.type.tensor_type.shape.dim.add()
    tensors = dict(zip(op.inputs, split(args)[0], strict=True))
    feeds = {key: time_first(tensor, key, {"x"}) for key, tensor in tensors.items()}
    feeds[name] = np.zeros(shape, feeds[name].dtype)
    with pytest.raises(Exception, match=message):
        session_of(model).run(None, feeds)


def test_a_wrong_type_is_refused() -> None:
    args = cuba(currents(1, 70, 12))
    model = model_of(OPS["Cuba"], args, {"x"})
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    with pytest.raises(Exception, match="Type"):
        session_of(model)


# -- dense products ----------------------------------------------------------------------------

RNG = np.random.default_rng(0)


def dense(
    x: np.ndarray, weight: onnx.TensorProto, step: np.ndarray, *, constant: bool = True
) -> np.ndarray:
    node = helper.make_node(
        "QuantizedDense", ["x", "weight", "step"], ["y"], domain=ops.DOMAIN, integers=1, spikes=0
    )
    values = [("x", x), ("step", step)]
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), list(array.shape)
        )
        for name, array in values
    ]
    feeds = dict(values)
    if not constant:
        inputs.append(helper.make_tensor_value_info("weight", weight.data_type, list(weight.dims)))
        feeds["weight"] = numpy_helper.to_array(weight)
    output = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "one", inputs, [output], [weight] * constant)
    return session_of(whole(graph)).run(None, feeds)[0]


def weights(outputs: int, inputs: int, bits: int) -> tuple[onnx.TensorProto, np.ndarray]:
    half = 1 << (bits - 1)
    array = RNG.integers(-half, half, (outputs, inputs, 1, 1, 1))
    kind = {4: onnx.TensorProto.INT4, 8: onnx.TensorProto.INT8, 16: onnx.TensorProto.INT16}[bits]
    return helper.make_tensor("weight", kind, array.shape, array.flatten()), array[..., 0, 0, 0]


@pytest.mark.parametrize(
    ("bits", "sizes", "kind"),
    pairwise(
        (4, 8, 16),
        ((1, 1), (13, 10), (64, 40), (700, 129), (1031, 512)),
        ("spikes", "all", "none", "signs", "counts", "signed", "large", "uint8"),
    ),
)
def test_sums_of_integers_are_exact(bits: int, sizes: tuple[int, int], kind: str) -> None:
    inputs, outputs = sizes
    shape = (7, 3, inputs)
    x = {
        "spikes": RNG.random(shape) < 0.3,
        "all": np.ones(shape),
        "none": np.zeros(shape),
        "counts": RNG.integers(0, 128, shape),
        "signs": RNG.integers(-1, 2, shape),
        "signed": RNG.integers(-60, 60, shape),
        "large": RNG.integers(-32767, 32768, shape),
        "uint8": RNG.integers(0, 256, shape).astype(np.uint8),
    }[kind]
    x = x if kind == "uint8" else x.astype(np.float32)
    tensor, array = weights(outputs, inputs, bits)
    step = (RNG.integers(1, 9, outputs) / 64).astype(np.float32)
    sums = x.astype(np.int64) @ array.T.astype(np.int64)
    wanted = sums.astype(np.float32) * step
    np.testing.assert_array_equal(dense(x, tensor, step), wanted)


@pytest.mark.parametrize("weight", [127, -128])
def test_no_number_of_spikes_is_too_large(weight: int) -> None:
    """Bytes are summed in 16 bits for as long as they fit."""
    array = np.full((70, 1600, 1, 1, 1), weight, np.int8)
    x = np.ones((2, 1, 1600), np.float32)
    step = np.ones(1, np.float32)
    found = dense(x, numpy_helper.from_array(array, "weight"), step)
    np.testing.assert_array_equal(found, np.full((2, 1, 70), 1600.0 * weight, np.float32))


def convolve(
    name: str, x: np.ndarray, weight: np.ndarray, step: np.ndarray, **geometry: Any
) -> np.ndarray:
    """Run a kernel on images (T, N, C, H, W)."""
    attributes = {"strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1], "group": 1}
    node = helper.make_node(
        name, ["x", "weight", "step"], ["y"], domain=ops.DOMAIN, **(attributes | geometry)
    )
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = helper.make_graph(
        [node], "one", [helper.make_tensor_value_info("x", kind, x.shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight[..., None], "weight"),
         numpy_helper.from_array(step, "step")],
    )  # fmt: skip
    return session_of(whole(graph)).run(None, {"x": x})[0]


def convolved(x: np.ndarray, weight: np.ndarray, step: np.ndarray, **geometry: Any) -> np.ndarray:
    """The same in torch, in float64, where sums of integers are exact."""
    top, left, bottom, right = geometry.get("pads", [0, 0, 0, 0])
    images = torch.from_numpy(x.astype(np.float64)).flatten(0, 1)
    images = torch.nn.functional.pad(images, (left, right, top, bottom))
    maps = torch.nn.functional.conv2d(
        images,
        torch.from_numpy(weight.astype(np.float64)),
        stride=geometry.get("strides", [1, 1]),
        dilation=geometry.get("dilations", [1, 1]),
        groups=geometry.get("group", 1),
    )
    sums = maps.to(torch.float32).numpy().reshape(*x.shape[:2], *maps.shape[1:])
    return sums * step.reshape(-1, 1, 1)


GEOMETRIES: dict[str, Any] = {
    "plain": {},
    "padded": {"pads": [2, 2, 2, 2]},
    "uneven pads": {"pads": [0, 1, 2, 0]},
    "strides": {"strides": [2, 3], "pads": [1, 1, 1, 1]},
    "dilated": {"dilations": [2, 3], "pads": [2, 3, 2, 3]},
    "wide steps": {"strides": [1, 2], "dilations": [2, 1]},
    "groups": {"group": 3, "pads": [1, 1, 1, 1]},
}


@pytest.mark.parametrize(
    ("form", "kind", "bits"),
    pairwise(GEOMETRIES, ("spikes", "all", "none", "signs", "counts", "signed", "uint8"), (8, 16)),
)
def test_convolutions_of_integers_are_exact(form: str, kind: str, bits: int) -> None:
    geometry = GEOMETRIES[form]
    shape = (3, 2, 6, 9, 11)
    x = {
        "spikes": RNG.random(shape) < 0.3,
        "all": np.ones(shape),
        "none": np.zeros(shape),
        "signs": RNG.integers(-1, 2, shape),
        "counts": RNG.integers(0, 100, shape),
        "signed": RNG.integers(-60, 60, shape),
        "uint8": RNG.integers(0, 256, shape).astype(np.uint8),
    }[kind]
    x = x if kind == "uint8" else x.astype(np.float32)
    half = 1 << (bits - 1)
    outputs = 33
    weight = RNG.integers(-half, half, (outputs, 6 // geometry.get("group", 1), 3, 3))
    weight = weight.astype({8: np.int8, 16: np.int16}[bits])
    step = (RNG.integers(1, 9, outputs) / 64).astype(np.float32)
    found = convolve("QuantizedConv", x, weight, step, **geometry)
    np.testing.assert_array_equal(found, convolved(x, weight, step, **geometry))


def test_a_convolution_of_other_inputs_goes_through_floats() -> None:
    x = RNG.normal(size=(3, 2, 2, 8, 9)).astype(np.float32)
    weight = RNG.integers(-128, 128, (5, 2, 3, 3)).astype(np.int8)
    step = np.full(5, 1 / 32, np.float32)
    found = convolve("QuantizedConv", x, weight, step, pads=[1, 1, 1, 1])
    wanted = convolved(x, weight, step, pads=[1, 1, 1, 1])
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("size", [(2, 2), (8, 6), (7, 9), (33, 34)])
@pytest.mark.parametrize(
    "geometry",
    [
        {"strides": [2, 2]},
        {"strides": [2, 2], "pads": [1, 1, 1, 1]},
        {"strides": [1, 2], "pads": [1, 0, 0, 1]},
        {"dilations": [1, 1]},
    ],
)
def test_pools_of_integers_are_exact(size: tuple[int, int], geometry: dict[str, Any]) -> None:
    x = RNG.integers(-3, 4, (3, 2, 5, *size)).astype(np.float32)
    weight = RNG.integers(-8, 8, (1, 1, 2, 2)).astype(np.int8)
    for step in (np.array([0.5], np.float32), np.arange(1, 6, dtype=np.float32) / 4):
        found = convolve("QuantizedPool", x, weight, step, **geometry, group=5)
        each = np.repeat(weight, 5, axis=0)
        np.testing.assert_array_equal(found, convolved(x, each, step, **geometry, group=5))


@pytest.mark.parametrize("name", ["QuantizedConv", "QuantizedPool"])
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 2, 3, 9), "axes .T, N, C, H, W."),
        ((4, 2, 3, 1, 9), "smaller than the"),
        ((4, 2, 4, 9, 9), "does not fit an input of|neither one nor one for"),
    ],
)
def test_images_that_do_not_fit(name: str, shape: tuple[int, ...], message: str) -> None:
    weight = np.ones((5, 3, 2, 2) if name == "QuantizedConv" else (1, 1, 2, 2), np.int8)
    step = np.ones(5 if name == "QuantizedConv" else 3, np.float32)
    with pytest.raises(Exception, match=message):
        convolve(name, np.zeros(shape, np.float32), weight, step)


def test_other_inputs_go_through_floats() -> None:
    x = RNG.normal(size=(6, 2, 300)).astype(np.float32)
    x[2] = x[2] > 0  # a row of spikes among them
    x[4, 0, 7], x[5, 1, 0] = np.inf, np.nan
    tensor, array = weights(40, 300, 8)
    step = np.array([1 / 32], np.float32)
    found = dense(x, tensor, step)
    with np.errstate(invalid="ignore"):
        wanted = (x @ array.T.astype(np.float32)) * step
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(found[2], wanted[2])


def test_weights_may_come_as_an_input() -> None:
    x = (RNG.random((4, 2, 9)) < 0.4).astype(np.float32)
    tensor, array = weights(7, 9, 8)
    step = np.array([0.5], np.float32)
    np.testing.assert_array_equal(
        dense(x, tensor, step, constant=False), x @ array.T.astype(np.float32) * step
    )


@pytest.mark.parametrize(
    ("shape", "message"),
    [((4, 9), "axes .T, N, C."), ((4, 2, 10), "does not fit an input of .4, 2, 10.")],
)
def test_a_dense_input_that_does_not_fit(shape: tuple[int, ...], message: str) -> None:
    tensor, _ = weights(7, 9, 8)
    with pytest.raises(Exception, match=message):
        dense(np.zeros(shape, np.float32), tensor, np.array([0.5], np.float32))


# -- delays ------------------------------------------------------------------------------------


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


# -- sums over time ----------------------------------------------------------------------------


def sigma_model(*, functions: bool = False) -> onnx.ModelProto:
    """One Sigma of x (T, N, C) and total (N, C)."""
    node = helper.make_node("Sigma", ["x", "total"], ["y", "last_total"], domain=ops.DOMAIN)
    real, wide = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE
    inputs = [("x", real, ["T", "N", "C"]), ("total", wide, ["N", "C"])]
    outputs = [("y", real, None), ("last_total", wide, None)]
    model = whole(
        helper.make_graph(
            [node], "one", *([helper.make_tensor_value_info(*value) for value in values]
                             for values in (inputs, outputs)),
        )
    )  # fmt: skip
    if functions:
        model.functions.append(OPS["Sigma"].function(21))
    return model


@pytest.mark.parametrize("neurons", [0, 1, 7, 511, 512, 513, 5003])
@pytest.mark.parametrize("steps", [0, 1, 2, 37])
def test_sums_over_any_size(neurons: int, steps: int) -> None:
    draw = np.random.default_rng(neurons + steps)
    x = draw.normal(size=(steps, 2, neurons)).astype(np.float32)
    feeds = {"x": x, "total": draw.normal(size=(2, neurons)) * 1e6}
    total, sums = feeds["total"], np.empty((steps, 2, neurons))
    for t in range(steps):
        sums[t] = total = total + x[t]
    wanted = [sums.astype(np.float32), total]
    assert_equal(session_of(sigma_model(), threads=8).run(None, feeds), wanted)
    body = sigma_model(functions=True).SerializeToString()
    session = ort.InferenceSession(body, providers=["CPUExecutionProvider"])
    assert_equal(session.run(None, feeds), wanted)


@pytest.mark.parametrize("chunk", [1, 5, 40])
def test_a_sum_goes_on_with_the_next_chunk(chunk: int) -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(41, 2, 613)).astype(np.float32)
    session, start = session_of(sigma_model()), draw.normal(size=(2, 613))
    wanted, total, found = session.run(None, {"x": x, "total": start}), start, []
    for first in range(0, len(x), chunk):
        y, total = session.run(None, {"x": x[first : first + chunk], "total": total})
        found.append(y)
    assert_equal([np.concatenate(found), total], wanted)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("x", (12, 70), "the input needs the axes .T, N, C, ...., got .12, 70."),
        ("total", (1, 71), "a total of shape .1, 71. does not fit an input of .12, 1, 70."),
        ("total", (70,), "a total of shape .70. does not fit"),
    ],
)
def test_sums_that_do_not_fit(name: str, shape: tuple[int, ...], message: str) -> None:
    model = sigma_model()
    for value in model.graph.input:
        value.type.tensor_type.ClearField("shape")
    feeds = {"x": np.zeros((12, 1, 70), np.float32), "total": np.zeros((1, 70))}
    feeds[name] = np.zeros(shape, feeds[name].dtype)
    with pytest.raises(Exception, match=message):
        session_of(model).run(None, feeds)


@pytest.mark.parametrize("index", [0, 1])
def test_a_wrong_type_of_sums_is_refused(index: int) -> None:
    model = sigma_model()
    model.graph.input[index].type.tensor_type.elem_type = onnx.TensorProto.INT32
    with pytest.raises(Exception, match="Type"):
        session_of(model)


# -- delta encoders ----------------------------------------------------------------------------


def delta_args(*shape: int, cumulative: bool, thresholds: int = 1) -> tuple[Any, ...]:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=draw)
    x[0, 0, ..., 0], x[-1, -1, ..., -1] = float("inf"), float("nan")
    level = torch.rand(thresholds, generator=draw) + 0.1
    states = [0.3 * torch.randn(shape[:-1], generator=draw) for _ in range(3)]
    return (x, level, *states, 64, cumulative, 1.0, 1.0)


@pytest.mark.parametrize("cumulative", [False, True])
@pytest.mark.parametrize("threads", [1, 8])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (2, 613, 7), (3, 5, 4, 3, 40), (1, 2100, 33), (2, 1, 1, 1, 129)]
)
def test_encoders_of_any_size(shape: tuple[int, ...], threads: int, cumulative: bool) -> None:
    for thresholds in (1, shape[1]):
        args = delta_args(*shape, cumulative=cumulative, thresholds=thresholds)
        assert_equal(run(OPS["Delta"], args, threads), expected(OPS["Delta"], args))


def test_an_encoder_without_steps_keeps_its_states() -> None:
    args = delta_args(2, 70, 1, cumulative=True)
    none = (args[0][..., :0], *args[1:])
    sent, *last = run(OPS["Delta"], none)
    assert sent.shape == (0, 2, 70)
    for now, before in zip(last, args[2:5], strict=True):
        np.testing.assert_array_equal(now, before.numpy())


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        (1, torch.ones(3), "a threshold of shape .3. is neither one value nor one for each of 70"),
        (2, torch.ones(1, 70), "a state of shape .1, 70. does not fit an input of .4, 2, 70."),
        (4, torch.ones(70), "a state of shape .70. does not fit"),
    ],
)
def test_encoders_that_do_not_fit(place: int, value: Tensor, sentence: str) -> None:
    args = list(delta_args(2, 70, 4, cumulative=False))
    args[place] = value
    with pytest.raises(Exception, match=sentence):
        run(OPS["Delta"], tuple(args))


# -- networks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("streaming", [False, True])
def test_a_network_gives_the_same_with_kernels_and_without(streaming: bool) -> None:
    torch.manual_seed(0)
    params = {"threshold": 1.0, "current_decay": 0.25, "voltage_decay": 0.05}
    q8 = {"pre_hook_fx": so.quantize.q8}
    network = torch.nn.Sequential(
        so.block.cuba.Dense(params, 40, 64, weight_scale=3, delay=True, **q8),
        so.block.cuba.Recurrent(params, 64, 32, weight_scale=3, **q8),
        so.block.cuba.Affine(params, 32, 10, **q8),
    )
    x = networks.spikes(2, 40, 30)
    network(x)
    model = so.export(network, x, streaming=streaming)
    with_kernels, without = (so.Session(model, native=choice) for choice in (True, False))
    kernels = {"Cuba", "Delay", "RecurrentCuba", "QuantizedDense"}
    assert kernels <= set(with_kernels.kernels)
    np.testing.assert_array_equal(with_kernels.run(x.numpy()), without.run(x.numpy()))
    assert so.verify(network, model, x, native=True).ok
    if streaming:
        stream = with_kernels.stream(batch=2)
        steps = [stream.step(x[..., t].numpy()) for t in range(x.shape[-1])]
        np.testing.assert_array_equal(np.stack(steps, -1), without.run(x.numpy()))


@pytest.mark.parametrize("name", ["QuantizedConv", "QuantizedPool"])
@pytest.mark.parametrize(
    "geometry",
    [
        {"strides": [0, 1]},
        {"strides": [1, -1]},
        {"dilations": [0, 0]},
        {"pads": [-1, 0, 0, 0]},
        {"strides": [1]},
        {"strides": [1 << 40, 1]},
    ],
)
def test_geometries_that_make_no_sense(name: str, geometry: dict[str, Any]) -> None:
    weight = np.ones((1, 1, 2, 2), np.int8)
    x = np.zeros((4, 2, 1, 9, 9), np.float32)
    with pytest.raises(Exception, match="strides"):
        convolve(name, x, weight, np.ones(1, np.float32), **geometry)


@pytest.mark.parametrize("group", [0, 2, -3])
def test_groups_that_do_not_part_the_outputs(group: int) -> None:
    weight = np.ones((5, 3, 2, 2), np.int8)
    x = np.zeros((4, 2, 3, 9, 9), np.float32)
    with pytest.raises(Exception, match=r"outputs do not part into|attribute group"):
        convolve("QuantizedConv", x, weight, np.ones(5, np.float32), group=group)


def test_a_profile_tells_native_kernels_from_bodies() -> None:
    model = so.export(networks.Convolutional().eval(), torch.zeros(1, 2, 8, 8, 5))
    x = networks.spikes(2, 2, 8, 8, 7).numpy()
    found = profile_kernels(model, [x], native=True)
    ours = {kernel.op: kernel.calls for kernel in found if kernel.native}
    together = {"QuantizedDenseAndCuba": 1}
    assert ours == {"Cuba": 2, "QuantizedConv": 1, "QuantizedPool": 1, **together}
    assert not {"Scan", "Conv", "MatMul"} & {kernel.op for kernel in found}
    assert not any(kernel.native for kernel in profile_kernels(model, [x], native=False))
    ran = so.Session(model, native=True).native_nodes
    assert sorted(ran.values()) == [
        *["Cuba"] * 2,
        "QuantizedConv",
        "QuantizedDenseAndCuba",
        "QuantizedPool",
    ]
    assert so.Session(model, native=False).native_nodes == {}
