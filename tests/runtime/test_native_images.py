"""Kernels of synapses over images: the integers of NumPy, torch and the bodies, one part or two.

Convolutions that are transposed or complex, unpools and complex pools; what plain convolutions and
pools have of their own stands in test_native_conv.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from of_one_node import assert_equal, session_of, whole
from onnx import helper, numpy_helper

import synapse_onnx as so
from synapse_onnx import ops
from synapse_onnx.runtime import native

pytestmark = pytest.mark.skipif(
    native.problem() is not None, reason=f"there are no native kernels: {native.problem()}"
)

OPS = ops.all_ops()
CONVOLUTIONS = [
    f"Quantized{part}{name}" for part in ("", "Complex") for name in ("Conv", "ConvTranspose")
]
POOLS = [f"Quantized{part}{name}" for part in ("", "Complex") for name in ("Pool", "Unpool")]
#: endings of names
TRANSPOSED = ("ConvTranspose", "Unpool")
GEOMETRY: dict[str, Any] = {"strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1]}


def model(
    name: str, x: np.ndarray, weights: list[Any], steps: list[np.ndarray], **geometry: Any
) -> onnx.ModelProto:
    """One node, without a body; weights are constants, arrays without the axis of time."""
    op = OPS[name]
    tensors = [
        weight
        if isinstance(weight, onnx.TensorProto)
        else numpy_helper.from_array(weight[..., None])
        for weight in weights
    ] + [numpy_helper.from_array(step) for step in steps]
    for tensor, called in zip(tensors, op.inputs[1:], strict=True):
        tensor.name = called
    attributes = {**GEOMETRY, "group": 1, **geometry}
    node = helper.make_node(name, op.inputs, op.outputs, domain=ops.DOMAIN, **attributes)
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    inputs = [helper.make_tensor_value_info("x", kind, ["T", "N", *x.shape[2:]])]
    outputs = [helper.make_tensor_value_info(y, onnx.TensorProto.FLOAT, None) for y in op.outputs]
    return whole(helper.make_graph([node], "one", inputs, outputs, tensors))


def by_kernel(name: str, x: np.ndarray, *call: Any, threads: int = 2, **geometry: Any) -> Any:
    return session_of(model(name, x, *call, **geometry), threads).run(None, {"x": x})


def body_of(name: str, made: onnx.ModelProto) -> ort.InferenceSession:
    """A session that runs the function of the op."""
    made.functions.append(OPS[name].function(21))
    return ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])


def by_body(name: str, x: np.ndarray, *call: Any, **geometry: Any) -> Any:
    return body_of(name, model(name, x, *call, **geometry)).run(None, {"x": x})


def plain(
    name: str, x: np.ndarray, weights: list[np.ndarray], steps: list[np.ndarray], **geometry: Any
) -> list[np.ndarray]:
    """The same in NumPy, one tap of the kernel after the other, in 64-bit integers."""
    geometry = {**GEOMETRY, "group": 1, **geometry}
    (sy, sx), (dy, dx) = geometry["strides"], geometry["dilations"]
    top, left, bottom, right = geometry["pads"]
    transposed = name.endswith(TRANSPOSED)
    groups = x.shape[2] if name in POOLS else geometry["group"]
    found = []
    for weight, step in zip(weights, steps, strict=True):
        kernel = np.repeat(weight, groups, axis=0) if name in POOLS else weight
        kernel = kernel.astype(np.int64)
        images = x.astype(np.int64).reshape(*x.shape[:2], groups, -1, *x.shape[3:])
        rows, columns = kernel.shape[2:]
        reach = (dy * (rows - 1) + 1, dx * (columns - 1) + 1)
        if transposed:
            kernel = kernel.reshape(groups, -1, *kernel.shape[1:]).swapaxes(1, 2)
            size = [(n - 1) * s + r for n, s, r in zip(x.shape[3:], (sy, sx), reach, strict=True)]
        else:
            kernel = kernel.reshape(groups, -1, *kernel.shape[1:])
            images = np.pad(images, [(0, 0)] * 4 + [(top, bottom), (left, right)])
            size = [
                (n - r) // s + 1 for n, s, r in zip(images.shape[4:], (sy, sx), reach, strict=True)
            ]
        sums = np.zeros((*x.shape[:2], groups, kernel.shape[1], *size), np.int64)
        for row, column in itertools.product(range(rows), range(columns)):
            height, width = images.shape[4:] if transposed else size
            taps = (
                slice(row * dy, row * dy + (height - 1) * sy + 1, sy),
                slice(column * dx, column * dx + (width - 1) * sx + 1, sx),
            )
            seen = images if transposed else images[(..., *taps)]
            part = np.einsum("tngchw,goc->tngohw", seen, kernel[..., row, column])
            sums[(..., *taps) if transposed else ...] += part
        sums = sums.reshape(*x.shape[:2], -1, *size)
        if transposed:
            sums = sums[..., top : size[0] - bottom, left : size[1] - right]
        found.append(sums.astype(np.float32) * step.reshape(-1, 1, 1))
    return found


def drawn(
    name: str,
    x: tuple[int, ...],
    outputs: int,
    kernel: tuple[int, int],
    group: int = 1,
    bits: int = 8,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Random weights and steps for an input of a shape; one step, or one an output."""
    draw = np.random.default_rng(len(name) + sum(x) + outputs + bits)
    half, kind = 1 << (bits - 1), np.int16 if bits == 16 else np.int8
    shape = (outputs, x[2] // group)
    if name in POOLS:
        shape, outputs = (1, 1), x[2]
    elif name.endswith("Transpose"):
        shape = (x[2], outputs // group)
    parts = 2 if "Complex" in name else 1
    weights = [draw.integers(-half, half, (*shape, *kernel)).astype(kind) for _ in range(parts)]
    steps = [(draw.integers(1, 9, (outputs, 1)[i]) / 64).astype(np.float32) for i in range(parts)]
    return weights, steps


def inputs(kind: str, shape: tuple[int, ...]) -> np.ndarray:
    draw = np.random.default_rng(sum(shape))
    spikes = draw.random(shape) < 0.3
    x: Any = {
        "spikes": spikes,
        "few": draw.random(shape) < 0.02,
        "all": np.ones(shape),
        "none": np.zeros(shape),
        "signs": draw.integers(-1, 2, shape),
        "counts": draw.integers(0, 100, shape),
        "one channel graded": spikes * (1 + (np.arange(shape[2]) == shape[2] - 1)[:, None, None]),
        "uint8": draw.integers(0, 256, shape),
    }[kind]
    return np.asarray(x).astype(np.uint8 if kind == "uint8" else np.float32)


KINDS = ["spikes", "few", "all", "none", "signs", "counts", "one channel graded"]
GEOMETRIES: dict[str, Any] = {
    "plain": {},
    "padded": {"pads": [2, 2, 2, 2]},
    "uneven pads": {"pads": [0, 1, 2, 0]},
    "strides": {"strides": [2, 3], "pads": [1, 1, 1, 1]},
    "strides beyond the kernel": {"strides": [5, 4]},
    "dilated": {"dilations": [2, 3], "pads": [2, 3, 2, 3]},
    "both": {"strides": [2, 2], "dilations": [3, 2], "pads": [1, 0, 0, 1]},
    "groups": {"group": 3, "strides": [2, 1], "pads": [1, 1, 1, 1]},
}


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_are_exact(name: str, geometry: dict[str, Any], bits: int) -> None:
    shape = (3, 2, 6, 7, 9)
    call = drawn(name, shape, 21, (3, 2), geometry.get("group", 1), bits)
    session = session_of(model(name, np.zeros(shape, np.float32), *call, **geometry))
    for kind in KINDS:
        x = inputs(kind, shape)
        wanted = plain(name, x, *call, **geometry)
        assert_equal(session.run(None, {"x": x}), wanted)
        if bits == 8 and kind == "counts":
            assert_equal(by_body(name, x, *call, **geometry), wanted)
    x = inputs("uint8", shape)
    assert_equal(by_kernel(name, x, *call, **geometry), plain(name, x, *call, **geometry))


@pytest.mark.parametrize(
    ("kernel", "geometry"),
    [((2, 2), {"strides": [2, 2]}), *(((3, 2), each) for each in list(GEOMETRIES.values())[:-1])],
)
@pytest.mark.parametrize("name", POOLS)
def test_pools_are_exact(name: str, geometry: dict[str, Any], kernel: tuple[int, int]) -> None:
    shape = (3, 2, 5, 8, 11)
    call = drawn(name, shape, 0, kernel)
    # a pool's node has a group a channel
    given = geometry if name.endswith("Unpool") else geometry | {"group": 5}
    session = session_of(model(name, np.zeros(shape, np.float32), *call, **given))
    for kind in ("spikes", "few", "signs", "counts"):
        x = inputs(kind, shape)
        assert_equal(session.run(None, {"x": x}), plain(name, x, *call, **geometry))
    assert_equal(by_body(name, x, *call, **given), plain(name, x, *call, **geometry))


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize(
    ("channels", "outputs", "height", "width"),
    [
        (1, 1, 1, 1),
        (31, 16, 1, 17),
        (32, 15, 4, 4),
        (33, 17, 5, 13),
        (67, 8, 3, 16),
        (3, 40, 2, 31),
    ],
)
def test_sizes_that_fill_no_vector(
    name: str, channels: int, outputs: int, height: int, width: int
) -> None:
    shape = (5, 2, channels, height, width)
    geometry = {"strides": [2, 1], "pads": [1, 1, 1, 1]}
    call = drawn(name, shape, outputs, (3, 3))
    for kind in ("spikes", "all", "counts"):
        x = inputs(kind, shape)
        found = by_kernel(name, x, *call, threads=8, **geometry)
        assert_equal(found, plain(name, x, *call, **geometry))


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_more_weights_than_a_cache_holds(name: str) -> None:
    """They are added some channels after others."""
    shape = (2, 1, 96, 5, 6)
    call = drawn(name, shape, 33, (7, 7))
    for kind in ("spikes", "signs"):
        x = inputs(kind, shape)
        found = by_kernel(name, x, *call, pads=[3, 3, 3, 3])
        assert_equal(found, plain(name, x, *call, pads=[3, 3, 3, 3]))


@pytest.mark.parametrize("channels", [28, 29, 63, 64])
@pytest.mark.parametrize("value", [1, -1])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_sums_at_the_end_of_16_bits(name: str, value: int, channels: int) -> None:
    """Of 3 x 3 weights four meet at an output of a transposed convolution with a stride of 2."""
    weights, steps = drawn(name, (1, 1, channels), 5, (3, 3))
    weights = [np.full_like(weight, -128) for weight in weights]
    x = np.full((2, 1, channels, 4, 5), value, np.float32)
    found = by_kernel(name, x, weights, steps, strides=[2, 2])
    assert_equal(found, plain(name, x, weights, steps, strides=[2, 2]))


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_sums_beyond_32_bits_go_through_floats(name: str) -> None:
    x = np.full((2, 1, 40, 4, 5), 32767, np.float32)
    weights, steps = drawn(name, x.shape, 5, (3, 3), bits=16)
    weights = [np.full_like(weight, 32767) for weight in weights]
    found = by_kernel(name, x, weights, steps, pads=[1, 1, 1, 1])
    wanted = plain(name, x, weights, steps, pads=[1, 1, 1, 1])
    for value, reference in zip(found, wanted, strict=True):
        np.testing.assert_allclose(value, reference, rtol=1e-5)


@pytest.mark.parametrize("name", [*CONVOLUTIONS, *POOLS])
def test_what_is_no_integer(name: str) -> None:
    """Through ONNX Runtime's own convolution, as in the body: with its infinities and NaN."""
    shape = (3, 2, 4, 6, 7)
    call = drawn(name, shape, 5, (3, 3))
    geometry: dict[str, Any] = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
    if name.endswith("Pool"):
        geometry["group"] = 4
    made = model(name, np.zeros(shape, np.float32), *call, **geometry)
    kernel, body = session_of(made), body_of(name, made)
    for special in (0.25, -32768.0, np.inf, -np.inf, np.nan):
        x = inputs("spikes", shape)
        x[1, 1, 3, 2, 5] = special
        pairs = zip(kernel.run(None, {"x": x}), body.run(None, {"x": x}), strict=True)
        for value, reference in pairs:
            np.testing.assert_allclose(value, reference, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", [*CONVOLUTIONS, *POOLS])
def test_nothing_goes_in(name: str) -> None:
    for shape in ((0, 2, 4, 6, 7), (3, 0, 4, 6, 7)):
        call = drawn(name, shape, 5, (3, 3))
        found = by_kernel(name, np.zeros(shape, np.float32), *call)
        whole_shape = plain(name, np.zeros((1, 1, *shape[2:])), *call)[0].shape
        for value in found:
            assert value.shape == (*shape[:2], *whole_shape[2:])


@pytest.mark.parametrize(
    "name", [name for name in CONVOLUTIONS + POOLS if name.endswith(TRANSPOSED)]
)
def test_an_image_without_rows_adds_nothing(name: str) -> None:
    x = np.zeros((3, 2, 4, 0, 7), np.float32)
    found = by_kernel(name, x, *drawn(name, x.shape, 5, (3, 3)), strides=[2, 1])
    for value in found:
        assert value.shape[3:] == (1, 9)
        assert not value.any()


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_calls_of_other_sizes_and_numbers_in_turn(name: str) -> None:
    """Scratch memory that calls hand on fits the next one."""
    call = drawn(name, (1, 1, 3), 20, (3, 3))
    made = model(name, np.zeros((1, 1, 3, 4, 4), np.float32), *call, strides=[1, 2])
    for i in (3, 4):
        made.graph.input[0].type.tensor_type.shape.dim[i].dim_param = f"size_{i}"
    session = session_of(made)
    for kind, size in itertools.product(("all", "counts", "few"), ((3, 3), (40, 31), (5, 19))):
        x = inputs(kind, (2, 1, 3, *size))
        assert_equal(session.run(None, {"x": x}), plain(name, x, *call, strides=[1, 2]))


@pytest.mark.parametrize("name", [*CONVOLUTIONS, *POOLS])
def test_weights_of_four_bits_and_weights_that_come_as_an_input(name: str) -> None:
    x = inputs("spikes", (3, 2, 4, 6, 7))
    weights, steps = drawn(name, x.shape, 5, (3, 3), bits=4)
    narrow = [
        helper.make_tensor("", onnx.TensorProto.INT4, (*weight.shape, 1), weight.flatten())
        for weight in weights
    ]
    wanted = plain(name, x, weights, steps)
    assert_equal(by_kernel(name, x, narrow, steps), wanted)
    made = model(name, x, weights, steps)
    feeds = {"x": x}
    for constant in list(made.graph.initializer):
        if constant.name.startswith("weight"):
            made.graph.initializer.remove(constant)
            made.graph.input.append(
                helper.make_tensor_value_info(constant.name, constant.data_type, constant.dims)
            )
            feeds[constant.name] = numpy_helper.to_array(constant)
    assert_equal(session_of(made).run(None, feeds), wanted)


@pytest.mark.parametrize("name", [*CONVOLUTIONS, *POOLS])
def test_shapes_are_known_before_a_call(name: str) -> None:
    shape = (3, 2, 6, 8, 9)
    geometry = {"strides": [2, 3], "dilations": [1, 2], "pads": [1, 0, 0, 1]}
    group = 1 if name in POOLS else 3
    call = drawn(name, shape, 12, (3, 3), group)
    made = model(name, np.zeros(shape, np.float32), *call, group=group, **geometry)
    found = session_of(made).run(None, {"x": np.zeros(shape, np.float32)})
    for value, output in zip(found, session_of(made).get_outputs(), strict=True):
        assert output.shape == ["T", "N", *value.shape[2:]]
    made.graph.input[0].type.tensor_type.shape.dim[3].dim_param = "H"
    for value, output in zip(found, session_of(made).get_outputs(), strict=True):
        assert output.shape[2] == value.shape[2]
        assert isinstance(output.shape[3], str)
        assert output.shape[4] == value.shape[4]


MISFITS: list[tuple[dict[str, Any], str]] = [
    ({"x": (4, 2, 3, 9)}, "axes .T, N, C, H, W."),
    ({"x": (4, 2, 4, 9, 9)}, "does not fit an input of|neither one nor one for"),
    ({"strides": [0, 1]}, "strides and dilations must be at least 1"),
    ({"pads": [0, 0, -1, 0]}, "pads at least 0"),
    ({"dilations": [1]}, "two strides, four pads and two dilations"),
    ({"step": 4}, "neither one nor one for"),
    ({"rank": 4}, "a weight needs the"),
    ({"kind": np.float32}, "weights must be int4, int8 or int16"),
]
OF_TRANSPOSED = ({"pads": [9, 9, 9, 9]}, "no output within the pads")
OF_OTHERS = ({"x": (4, 2, 3, 1, 1)}, "smaller than the kernel")
OF_PAIRS = ({"second": (2, 1)}, "both weights need one shape")


def misfits() -> Iterator[Any]:
    """Names, what is changed in their calls, and what is said of it."""
    for name in (*CONVOLUTIONS, *POOLS):
        image = OF_TRANSPOSED if name.endswith(TRANSPOSED) else OF_OTHERS
        for case in (*MISFITS, image, *[OF_PAIRS] * ("Complex" in name)):
            yield pytest.param(name, *case, id=f"{name}-{case[0]}")


@pytest.mark.parametrize(("name", "changed", "message"), list(misfits()))
def test_what_does_not_fit_is_refused(name: str, changed: dict[str, Any], message: str) -> None:
    weights, steps = drawn(name, (1, 1, 3), 5, (2, 2))
    if "second" in changed:
        weights[1] = weights[1][:, :, : changed["second"][0], : changed["second"][1]]
    if "step" in changed:
        steps[-1] = np.ones(changed["step"], np.float32)
    weights = [weight.astype(changed.get("kind", weight.dtype)) for weight in weights]
    x = np.zeros(changed.get("x", (4, 2, 3, 9, 9)), np.float32)
    geometry = {key: value for key, value in changed.items() if key in GEOMETRY}
    made = model(name, x, weights, steps, **geometry)
    if "rank" in changed:
        del made.graph.initializer[0].dims[-1:]
    made.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(Exception, match=message):
        session_of(made).run(None, {"x": x})


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("group", [0, 2])
def test_groups_that_do_not_part_are_refused(name: str, group: int) -> None:
    x = np.zeros((4, 2, 3, 9, 9), np.float32)
    with pytest.raises(Exception, match=f"do not part into {group} groups"):
        by_kernel(name, x, *drawn(name, x.shape, 3, (2, 2)), group=group)


@pytest.mark.parametrize("name", [*CONVOLUTIONS, *POOLS])
def test_inputs_of_another_type_are_refused(name: str) -> None:
    for kind in (np.float64, np.int64):
        x = np.zeros((4, 2, 3, 9, 9), kind)
        with pytest.raises(Exception, match=r"must be float32 or uint8|Type"):
            by_kernel(name, x, *drawn(name, x.shape, 5, (2, 2)))


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Conv", (3, 4, 3, 1, 1)),
        ("ConvTranspose", (3, 4, 3, 2, 1)),
        ("Pool", (2,)),
        ("Unpool", (2,)),
    ],
)
def test_a_layer_runs_by_its_kernel(name: str, arguments: Any, is_complex: bool) -> None:
    torch.manual_seed(0)
    space = so.synapse.complex if is_complex else so.synapse
    synapse = getattr(space, name)(*arguments, weight_scale=2, pre_hook_fx=so.quantize.q8).eval()
    x = torch.from_numpy(np.moveaxis(inputs("counts", (5, 2, 3, 6, 8)), 0, -1).copy())
    session = so.Session(so.export(synapse, x), native=True)
    assert session.kernels == (f"Quantized{'Complex' * is_complex}{name}",)
    with torch.no_grad():
        expected = synapse(x)
    found = session.run(x.numpy())
    pairs = zip(found, expected, strict=True) if is_complex else [(found, expected)]
    for value, wanted in pairs:
        np.testing.assert_array_equal(value, wanted.numpy())
