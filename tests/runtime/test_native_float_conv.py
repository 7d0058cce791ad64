"""Native convolutions with float weights: the stated order of sums, and where a dense one is taken.

The order is a sum from the bias or 0 on, input position after input position, at a position channel
after channel, each product rounded before it is added. Loops in NumPy have it, so events are
compared bit for bit.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from of_one_node import GEOMETRIES, run_floats
from pairwise import pairwise

from synapse_onnx.runtime import native

pytestmark = pytest.mark.skipif(
    native.problem() is not None, reason=f"there are no native kernels: {native.problem()}"
)

PLAIN: dict[str, Any] = {
    "strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1], "group": 1,
}  # fmt: skip


def values(kind: str, shape: tuple[int, ...], rate: float = 0.05) -> np.ndarray:
    draw = np.random.default_rng(0)
    x = (draw.random(shape) < (0 if kind == "none" else rate)).astype(np.float32)
    if kind == "graded":
        x *= draw.standard_normal(shape, dtype=np.float32)
    elif kind == "tiny":
        x *= np.float32(1e-41) * draw.integers(1, 9, shape)
        x[x == 0] = -0.0
    return x.astype(np.float32)


def weights(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def run(
    name: str, x: np.ndarray, kernels: list[np.ndarray], bias: np.ndarray | None = None, *,
    constant: bool = True, threads: int = 2, **geometry: Any,
) -> list[np.ndarray]:  # fmt: skip
    """Outputs of a node; with a bias of the node that fusion makes."""
    return run_floats(
        name, x, kernels, bias, constant=constant, threads=threads, **(PLAIN | geometry)
    )


def dense(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None, *, transposed: bool = False,
    **geometry: Any,
) -> np.ndarray:  # fmt: skip
    """The convolution of images (..., C, H, W) in torch, in float64."""
    g = PLAIN | geometry
    top, left, bottom, right = g["pads"]
    images = torch.from_numpy(x.astype(np.float64)).flatten(0, -4)
    kernel = torch.from_numpy(weight.astype(np.float64))
    options = {"stride": g["strides"], "dilation": g["dilations"], "groups": g["group"]}
    if transposed:
        y = torch.nn.functional.conv_transpose2d(images, kernel, **options)
        y = y[..., top : y.shape[-2] - bottom, left : y.shape[-1] - right]
    else:
        images = torch.nn.functional.pad(images, (left, right, top, bottom))
        y = torch.nn.functional.conv2d(images, kernel, **options)
    found = y.numpy().reshape(*x.shape[:-3], *y.shape[1:])
    return found if bias is None else found + bias[:, None, None]


def in_order(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None, *,
    transposed: bool = False, **geometry: Any,
) -> np.ndarray:  # fmt: skip
    """The same in float32, in the order of the input's positions and then channels."""
    g = PLAIN | geometry
    (top, left), groups = g["pads"][:2], g["group"]
    stride, dilation = g["strides"], g["dilations"]
    shape = dense(x, weight, transposed=transposed, **geometry).shape
    total = np.zeros(shape, np.float32)
    if bias is not None:
        total += bias[:, None, None]
    channels, each = x.shape[-3], shape[-3] // groups
    for i, j, c in itertools.product(*map(range, (x.shape[-2], x.shape[-1], channels))):
        fan = channels // groups
        outputs = slice(c // fan * each, (c // fan + 1) * each)
        for k, m in itertools.product(*map(range, weight.shape[2:])):
            kernel = weight[c, :, k, m] if transposed else weight[outputs, c % fan, k, m]
            if transposed:
                at = (i * stride[0] + k * dilation[0] - top, j * stride[1] + m * dilation[1] - left)
            else:
                at = (i + top - k * dilation[0], j + left - m * dilation[1])
                if at[0] % stride[0] or at[1] % stride[1]:
                    continue
                at = (at[0] // stride[0], at[1] // stride[1])
            if 0 <= at[0] < shape[-2] and 0 <= at[1] < shape[-1]:
                total[..., outputs, at[0], at[1]] += x[..., c, i, j, None] * kernel
    return total


FORMS = ("plain", "bias", "complex", "transposed", "transposed bias", "transposed complex")


def node_of(form: str) -> str:
    name = "ConvTranspose" if "transposed" in form else "Conv"
    return f"{name}AndBias" if "bias" in form else f"Complex{name}" if "complex" in form else name


@pytest.mark.parametrize(
    ("geometry", "form", "kind", "outputs", "batch"),
    pairwise(
        GEOMETRIES, FORMS, ("spikes", "graded", "none", "tiny"), (48, 63, 96),
        ((3, 2), (1, 1), (0, 2), (2, 0), (4,)),
    ),
)  # fmt: skip
def test_events_are_added_in_the_order_of_inputs(
    geometry: str, form: str, kind: str, outputs: int, batch: tuple[int, ...]
) -> None:
    options, transposed = GEOMETRIES[geometry], "transposed" in form
    groups, threads = options.get("group", 1), 1 if outputs == 48 else 8
    x = values(kind, (*batch, 18, 9, 11))
    sizes = (18, outputs // groups) if transposed else (outputs, 18 // groups)
    weight = weights(*sizes, 3, 3)
    bias = weights(outputs) if "bias" in form else None
    kernels = [weight, -weight[:, :, ::-1]] if "complex" in form else [weight]
    given = [np.ascontiguousarray(k[..., None] if len(batch) == 2 else k) for k in kernels]
    found = run(node_of(form), x, given, bias, threads=threads, **options)
    for value, kernel in zip(found, kernels, strict=True):
        wanted = in_order(x, kernel, bias, transposed=transposed, **options)
        np.testing.assert_array_equal(value, wanted)


@pytest.mark.parametrize("sizes", [(48, 80, 1, 1), (32, 20, 5, 2), (70, 300, 5, 5)])
def test_kernels_of_other_sizes(sizes: tuple[int, ...]) -> None:
    """Those of 70 x 300 x 5 x 5 are added some channels at a time, which is another order."""
    x, weight = values("spikes", (3, 1, sizes[1], 7, 6)), weights(*sizes)
    (found,) = run("Conv", x, [weight[..., None]])
    if sizes[1] < 300:
        np.testing.assert_array_equal(found, in_order(x, weight))
    np.testing.assert_allclose(found, dense(x, weight), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("form", FORMS)
def test_many_events_are_one_convolution(form: str, geometry: str) -> None:
    options, transposed = GEOMETRIES[geometry], "transposed" in form
    groups = options.get("group", 1)
    x = weights(3, 2, 6, 9, 11)
    weight = weights(*((6, 9 // groups) if transposed else (9, 6 // groups)), 3, 3)
    bias = weights(9) if "bias" in form else None
    kernels = [weight, -weight] if "complex" in form else [weight]
    found = run(node_of(form), x, [k[..., None] for k in kernels], bias, **options)
    for value, sign in zip(found, (1, -1), strict=False):
        wanted = sign * dense(x, weight, bias, transposed=transposed, **options)
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rate", [0.02, 1.0])
def test_the_way_is_chosen_by_counted_events(rate: float) -> None:
    """Sums in order show which it was: no dense convolution of 18 x 9 inputs has their order."""
    x, weight = values("spikes", (4, 1, 18, 9, 11), rate=rate), weights(48, 18, 3, 3)
    (found,) = run("Conv", x, [weight[..., None]])
    assert np.array_equal(found, in_order(x, weight)) == (rate < 0.4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_inputs_that_are_not_finite(value: float) -> None:
    x, weight = values("spikes", (3, 2, 18, 9, 11)), weights(48, 18, 3, 3)
    x[1, 0, 3, 4, 5] = value
    weight[5, 3] = 0.0  # 0 times infinite is NaN
    with np.errstate(invalid="ignore"):
        wanted = in_order(x, weight)
    assert np.isnan(wanted[1, 0, 5]).any()
    np.testing.assert_array_equal(run("Conv", x, [weight[..., None]])[0], wanted)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(value: float, form: str) -> None:
    """A silent input times such a weight is NaN, so no input may be left out."""
    transposed = "transposed" in form
    x, weight = (
        values("spikes", (3, 2, 18, 9, 11)),
        weights(*((18, 48) if transposed else (48, 18)), 3, 3),
    )
    weight[7, 3, 1, 1] = value
    bias = weights(48) if "bias" in form else None
    kernels = [weights(*weight.shape), weight] if "complex" in form else [weight]
    found = run(node_of(form), x, [k[..., None] for k in kernels], bias)
    wanted = dense(x, weight, bias, transposed=transposed)
    assert np.isnan(wanted).any()
    np.testing.assert_allclose(found[-1], wanted, rtol=1e-4, atol=1e-4)


def test_weights_may_come_as_an_input() -> None:
    x, weight, bias = values("spikes", (3, 2, 18, 9, 11)), weights(48, 18, 3, 3), weights(48)
    (found,) = run("ConvAndBias", x, [weight[..., None]], bias, constant=False)
    np.testing.assert_allclose(found, dense(x, weight, bias), rtol=1e-4, atol=1e-4)


def test_a_bias_of_size_0_is_none() -> None:
    x, weight = values("spikes", (3, 2, 18, 9, 11)), weights(48, 18, 3, 3)
    (found,) = run("ConvAndBias", x, [weight], np.zeros(0, np.float32))
    np.testing.assert_array_equal(found, in_order(x, weight))


def test_no_channels_give_the_bias() -> None:
    bias = weights(4)
    (found,) = run(
        "ConvAndBias", np.zeros((3, 2, 0, 5, 5), np.float32), [weights(4, 0, 3, 3)], bias
    )
    np.testing.assert_array_equal(found, np.broadcast_to(bias[:, None, None], (3, 2, 4, 3, 3)))


def test_threads_change_no_bit() -> None:
    x, weight = values("graded", (16, 3, 18, 19, 21)), weights(48, 18, 3, 3)
    one, eight = (run("Conv", x, [weight[..., None]], threads=n)[0] for n in (1, 8))
    np.testing.assert_array_equal(one, eight)


@pytest.mark.parametrize(
    ("x", "kernel", "bias", "options", "sentence"),
    [
        ((4, 2, 9, 5, 5), (5, 8, 3, 3, 1), None, {}, "a weight for 8 channels does not fit"),
        ((4, 2, 9, 5, 5), (5, 9, 3, 3), (4,), {}, "a bias of shape .4. is not one number for each"),
        ((4, 9, 5), (5, 9, 3, 3), None, {}, r"axes .T, N, C, H, W., got .4, 9, 5."),
        ((4, 2, 9, 5, 5), (5, 9, 3), None, {}, r"axes .O, C, h, w, 1., got .5, 9, 3."),
        ((4, 2, 9, 5, 5), (5, 9, 3, 3), None, {"group": 2}, "5 outputs do not part into 2 groups"),
        ((4, 2, 9, 2, 5), (5, 9, 3, 3), None, {}, "is smaller than the kernel"),
    ],
    ids=["channels", "bias", "axes", "weight", "groups", "small"],
)
def test_what_does_not_fit_is_refused(
    x: tuple[int, ...], kernel: tuple[int, ...], bias: Any, options: Any, sentence: str
) -> None:
    biases = None if bias is None else np.zeros(bias, np.float32)
    name = "Conv" if bias is None else "ConvAndBias"
    with pytest.raises(Exception, match=sentence):
        run(name, np.zeros(x, np.float32), [np.zeros(kernel, np.float32)], biases, **options)
