"""The native delta encoder and sigma decoder: any size, chunks, and what is refused."""

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
    run,
    session_of,
    whole,
)
from onnx import helper
from torch import Tensor

from synapse_onnx import ops
from synapse_onnx.runtime import native

pytestmark = pytest.mark.skipif(
    native.problem() is not None, reason=f"there are no native kernels: {native.problem()}"
)

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
