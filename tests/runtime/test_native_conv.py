"""Native convolutions and pools: sums of integers are exact at any geometry, or it is refused."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from of_one_node import (
    GEOMETRIES,
    session_of,
    whole,
)
from onnx import helper, numpy_helper
from pairwise import pairwise

import synapse_onnx as so
from synapse_onnx import ops
from synapse_onnx.runtime import native

pytestmark = pytest.mark.skipif(
    native.problem() is not None, reason=f"there are no native kernels: {native.problem()}"
)
RNG = np.random.default_rng(0)


def convolve(
    name: str,
    x: np.ndarray,
    weight: np.ndarray,
    step: np.ndarray,
    bias: np.ndarray | None = None,
    **geometry: Any,
) -> np.ndarray:
    """Run a kernel on images (T, N, C, H, W)."""
    others = {"step": step} | ({} if bias is None else {"bias": bias})
    attributes = {"strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1], "group": 1}
    node = helper.make_node(
        name, ["x", "weight", *others], ["y"], domain=ops.DOMAIN, **(attributes | geometry)
    )
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = helper.make_graph(
        [node], "one", [helper.make_tensor_value_info("x", kind, x.shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight[..., None], "weight"),
         *(numpy_helper.from_array(value, given) for given, value in others.items())],
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


# -- sums handed out by events, and sums that collect them ----------------------------------------

#: inputs, outputs, kernel, stride, padding, dilation, height, width
SHAPES = [
    (1, 1, (1, 1), (2, 2), (0, 0), (1, 1), 1, 1),
    (3, 24, (3, 3), (2, 2), (0, 0), (1, 1), 13, 37),
    (2, 32, (3, 3), (1, 2), (1, 1), (1, 1), 9, 16),
    (5, 33, (5, 2), (3, 3), (2, 1), (2, 1), 17, 20),
    (2, 65, (2, 7), (2, 5), (0, 3), (1, 1), 7, 41),
    (2, 130, (3, 3), (2, 2), (1, 1), (1, 1), 5, 9),
    (40, 10, (3, 3), (2, 2), (1, 0), (1, 1), 6, 11),  # more rows than four words hold
    (1, 3, (1, 16), (1, 5), (0, 0), (1, 1), 2, 90),
    (1, 3, (1, 17), (1, 6), (0, 8), (1, 1), 2, 70),  # wider than eight of them in a word
    (2, 3, (3, 3), (2, 2), (1, 1), (1, 2), 8, 9),  # dilated: events are handed out
    (3, 5, (3, 3), (1, 1), (1, 1), (1, 1), 8, 9),
]


@functools.cache
def _case(index: int) -> tuple[torch.nn.Module, so.Session]:
    inputs, outputs, kernel, stride, padding, dilation, height, width = SHAPES[index]
    torch.manual_seed(index)
    synapse = so.synapse.Conv(
        inputs, outputs, kernel, stride, padding, dilation, weight_scale=3,
        pre_hook_fx=so.quantize.q8,
    )  # fmt: skip
    with torch.no_grad():
        synapse.weight.clamp_(-3.9, 3.9).view(-1)[0] = -4.0  # the largest magnitude of a byte
    synapse.eval()
    model = so.export(synapse, torch.zeros(1, inputs, height, width, 2))
    return synapse, so.Session(model, native=True)


@pytest.mark.parametrize("rate", [0.0, 0.002, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("index", range(len(SHAPES)), ids=[str(shape) for shape in SHAPES])
def test_spikes_of_any_rate(index: int, rate: float) -> None:
    synapse, session = _case(index)
    assert session.kernels == ("QuantizedConv",)
    inputs, _, _, _, _, _, height, width = SHAPES[index]
    draw = np.random.default_rng(index)
    x = (draw.random((2, inputs, height, width, 5)) < rate).astype(np.float32)
    with torch.no_grad():
        expected = synapse(torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(session.run(x), expected)


def test_images_of_other_sizes_and_numbers_in_turn() -> None:
    """Scratch memory that calls hand on fits the next one."""
    draw = np.random.default_rng(0)
    sessions = [_case(1)[1], _case(4)[1]]
    for kind in ("spikes", "graded", "large", "real", "spikes"):
        for index, session in zip((1, 4), sessions, strict=True):
            inputs, _, _, _, _, _, height, width = SHAPES[index]
            x = (draw.random((1, inputs, height, width, 3)) < 0.2).astype(np.float32)
            if kind != "spikes":
                x *= draw.integers(-9, 9, x.shape) if kind == "graded" else 1000
            if kind == "real":
                x += 0.25
            with torch.no_grad():
                expected = _case(index)[0](torch.from_numpy(x)).numpy()
            tolerance = 1e-5 * np.abs(expected).max() if kind == "real" else 0
            np.testing.assert_allclose(session.run(x), expected, rtol=0, atol=tolerance)


# -- all products, where few inputs are zero -------------------------------------------------------

#: inputs, outputs, kernel, stride, pads, dilation, height, width
DIRECT: dict[str, Any] = {
    "tokens": (16, 33, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 9, 1),
    "pixels": (7, 8, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 5, 6),
    "every second pixel": (4, 9, (1, 1), (2, 2), (0, 0, 0, 0), (1, 1), 6, 7),
    "padded pixels": (3, 4, (1, 1), (1, 1), (1, 1, 1, 1), (1, 1), 3, 4),
    "over length": (3, 17, (3, 1), (2, 1), (1, 0, 1, 0), (2, 1), 11, 1),
    "over length, padded across": (3, 5, (3, 1), (1, 1), (1, 1, 1, 1), (1, 1), 6, 1),
    "images": (5, 24, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 6, 9),
    "uneven": (2, 16, (2, 3), (2, 3), (0, 2, 3, 1), (2, 2), 8, 11),
    "pads on one side": (1, 6, (3, 3), (1, 1), (0, 0, 2, 2), (1, 1), 4, 5),
}


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("name", DIRECT)
def test_inputs_of_which_few_are_zero(name: str, level: int) -> None:
    inputs, outputs, kernel, strides, pads, dilations, height, width = DIRECT[name]
    geometry = {"strides": strides, "pads": pads, "dilations": dilations}
    draw = np.random.default_rng(level)
    weight = draw.integers(-128, 128, (outputs, inputs, *kernel)).astype(np.int8)
    step = (draw.integers(1, 9, outputs) / 64).astype(np.float32)
    shape = (6, 2, inputs, height, width)
    # dense, then sparse, then dense images: which way is taken follows from the last image
    rates = np.array([0.9, 0.9, 0.02, 0.02, 0.7, 0.7]).reshape(-1, 1, 1, 1, 1)
    x = draw.integers(1, level + 1, shape) * (draw.random(shape) < rates)
    for sign in (1, -1):
        images = (sign * x).astype(np.float32)
        found = convolve("QuantizedConv", images, weight, step, **geometry)
        np.testing.assert_array_equal(found, convolved(images, weight, step, **geometry))
    images[3, 1, 0, 0, 0] = 0.5  # one image that no integers are
    found = convolve("QuantizedConv", images, weight, step, **geometry)
    np.testing.assert_allclose(
        found, convolved(images, weight, step, **geometry), rtol=1e-5, atol=1e-3
    )


@pytest.mark.parametrize("largest", [32767, 32768, 2**31, 1e30, np.inf, np.nan])
def test_sums_beyond_32_bits_go_through_floats(largest: float) -> None:
    x = np.ones((2, 1, 6, 3, 4), np.float32)
    x[1, 0, 5, 2, 3] = largest
    weight = np.full((9, 6, 3, 3), -32768, np.int16)
    step = np.ones(9, np.float32)
    found = convolve("QuantizedConv", x, weight, step, pads=[1, 1, 1, 1])
    wanted = convolved(x, weight, step, pads=[1, 1, 1, 1])
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize("kind", ["spikes", "counts", "real", "none"])
@pytest.mark.parametrize("name", DIRECT)
def test_a_bias_is_added_after_the_scale(name: str, kind: str) -> None:
    inputs, outputs, kernel, strides, pads, dilations, height, width = DIRECT[name]
    geometry = {"strides": strides, "pads": pads, "dilations": dilations}
    draw = np.random.default_rng(5)
    weight = draw.integers(-128, 128, (outputs, inputs, *kernel)).astype(np.int8)
    step = draw.random(outputs, dtype=np.float32)
    bias = draw.normal(size=outputs).astype(np.float32)
    shape = (3, 0 if kind == "none" else 2, inputs, height, width)
    x = (draw.random(shape) < 0.3) * (draw.integers(1, 9, shape) if kind == "counts" else 1)
    x = x + (0.25 if kind == "real" else 0)
    found = convolve(
        "QuantizedBiasedConv", x.astype(np.float32), weight, step, bias, **geometry,
        out_channels=outputs,
    )  # fmt: skip
    wanted = convolved(x, weight, step, **geometry) + bias.reshape(-1, 1, 1)
    if kind == "real":
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-3)
    else:
        np.testing.assert_array_equal(found, wanted)


def test_a_bias_that_does_not_fit() -> None:
    weight, x = np.ones((5, 3, 2, 2), np.int8), np.zeros((4, 2, 3, 9, 9), np.float32)
    step, bias = np.ones(5, np.float32), np.ones(1, np.float32)
    with pytest.raises(Exception, match=r"bias of shape .*1.* does not fit 5 outputs"):
        convolve("QuantizedBiasedConv", x, weight, step, bias, out_channels=5)
