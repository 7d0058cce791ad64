"""Native kernels of neurons: any size, any value, threads, and what is refused."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from of_one_node import (
    EQUATIONS,
    OPS,
    assert_equal,
    cuba,
    currents,
    expected,
    model_of,
    run,
    session_of,
    split,
    time_first,
)
from pairwise import pairwise

from synapse_onnx.runtime import native

pytestmark = pytest.mark.skipif(
    native.problem() is not None, reason=f"there are no native kernels: {native.problem()}"
)
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
