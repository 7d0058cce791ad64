"""CUBA with a norm between current and voltage: one op where float32 is exact, else two."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from of_one_node import assert_equal, cuba, expected, feeds_of, model_of, sequences_of
from pairwise import pairwise
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx import ops

pytestmark = pytest.mark.usefixtures("compiled_once")

MeanOnly, WgtScale = so.neuron.norm.MeanOnlyBatchNorm, so.neuron.norm.WgtScaleBatchNorm


def made(norm: Any = MeanOnly, channels: int = 5, **more: Any) -> so.neuron.cuba.Neuron:
    given = {"threshold": 0.6, "current_decay": 0.25, "voltage_decay": 0.05, **more}
    neuron = so.neuron.cuba.Neuron(**given, norm=norm).eval()
    neuron.norm.num_features = channels
    neuron.norm.running_mean = torch.linspace(-0.4, 0.5, channels)
    return neuron


def frozen(neuron: nn.Module) -> so.neuron.cuba.Neuron:
    found: so.neuron.cuba.Neuron = so.freeze(neuron)
    return found


def currents(*shape: int, size: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator) * size


def nodes(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node if node.domain == "ai.synapse"]


def plainly(neuron: so.neuron.cuba.Neuron, x: Tensor) -> np.ndarray:
    """State the steps in Python's integers, with float32 where the norm stands."""
    scale, level = neuron.s_scale, int(neuron.constants()["threshold"])
    keep = [4096 - int(getattr(neuron, f"{name}_decay")[0]) for name in ("current", "voltage")]
    mean, std = neuron.norm.running_mean.numpy(), neuron.norm.frozen_std.numpy()[0]
    out = np.zeros(x.shape, dtype=np.float32)
    for n, c in np.ndindex(*x.shape[:2]):
        u = v = 0
        for t in range(x.shape[-1]):
            taken = int(np.float32(scale) * np.float32(x[n, c, t]))
            u = int(u * keep[0] / 4096) + taken
            normed = (np.float32(u) / np.float32(scale) - mean[c % mean.size]) / std
            v = int(v * keep[1] / 4096) + int(np.float32(scale) * normed)
            out[n, c, t] = v >= level
            v = 0 if v >= level else v
    return out


def off_the_grid(**more: Any) -> so.neuron.cuba.Neuron:
    neuron = made(**more)
    neuron.norm.pre_hook_fx = None
    neuron.norm.running_mean = torch.tensor([0.1, 0.0, 0.25, 1 / 3, -0.7])
    return neuron


def with_a_deviation(**more: Any) -> so.neuron.cuba.Neuron:
    neuron = made(WgtScale, **more)
    neuron.norm.running_var = torch.tensor([0.2])  # 1/2
    return neuron


def above_one(**more: Any) -> so.neuron.cuba.Neuron:
    neuron = with_a_deviation(**more)
    neuron.norm.running_var = torch.tensor([3.0])  # 2
    return neuron


#: norms -> the op that they are within
WITHIN = {
    "whole means": (made, "CubaBiased"),
    "means off the grid": (off_the_grid, "CubaNormed"),
    "deviation below one": (with_a_deviation, "CubaNormed"),
    "deviation above one": (above_one, "CubaNormed"),
}


# currents of 3e6 lead beyond 2^32, where float32 holds no difference of 64, the unit of a mean
@pytest.mark.parametrize("size", [0.3, 3e6])
@pytest.mark.parametrize("made_by", [make for make, _ in WITHIN.values()], ids=WITHIN)
def test_the_steps(made_by: Any, size: float) -> None:
    neuron = frozen(made_by(threshold=0.6 if size < 1 else 9e6))
    x = currents(2, 5, 30, size=size)
    expected = plainly(neuron, x)
    assert 0.02 < expected.mean() < 0.9
    assert neuron.norm_bias is not None
    np.testing.assert_array_equal(neuron(x).numpy(), expected)


@pytest.mark.parametrize(
    ("norm", "shape", "graded", "size"),
    pairwise(WITHIN, ((2, 5, 40), (2, 5, 3, 2, 9)), (False, True), (0.3, 3e6)),
)
def test_one_op_equals_the_integrators(
    norm: str, shape: tuple[int, ...], graded: bool, size: float
) -> None:
    make, name = WITHIN[norm]
    neuron = make(threshold=0.6 if size < 1 else 9e6, graded_spike=graded)
    x = currents(*shape, size=size)
    model = so.export(neuron, x)
    assert nodes(model) == [name]
    expected = neuron(x)  # not frozen: the integrators and the norm
    assert 0 < int((expected != 0).sum()) < expected.numel()
    one = frozen(neuron)
    assert torch.equal(one(x), expected)
    found = so.Session(model).run(x.numpy())
    np.testing.assert_array_equal(found, expected.numpy())


@pytest.mark.parametrize(("make", "name"), WITHIN.values(), ids=WITHIN)
def test_the_gradient_is_that_of_the_integrators(make: Any, name: str) -> None:
    neuron, x = make(), currents(2, 5, 20, size=0.3)
    found = []
    for side in (neuron, frozen(neuron)):
        leaf = x.clone().requires_grad_()
        (side(leaf) * torch.linspace(-1, 1, 20)).sum().backward()
        assert leaf.grad is not None
        found.append(leaf.grad)
    assert float(found[0].abs().max()) > 0
    assert float((found[0] - found[1]).abs().max()) <= 1e-5 * float(found[0].abs().max()), name


@pytest.mark.parametrize(("make", "name"), WITHIN.values(), ids=WITHIN)
def test_a_stream_goes_on(make: Any, name: str) -> None:
    neuron, x = make(), currents(2, 5, 24, size=0.3)
    model = so.export(neuron, x, streaming=True)
    assert nodes(model) == [name]
    assert so.verify(neuron, model, x).ok


def test_a_deviation_of_one_is_none() -> None:
    neuron = made(WgtScale)
    neuron.norm.running_var = torch.tensor([0.9])
    assert nodes(so.export(neuron, currents(2, 5, 9))) == ["CubaBiased"]


def by_three() -> so.neuron.cuba.Neuron:
    neuron = made(WgtScale)
    neuron.norm.std = lambda variance: torch.tensor([3.0])
    return neuron


APART = {
    "no power of two": by_three,
    "scale": lambda: made(scale=48),
    "float": lambda: made(regime="float"),
}


@pytest.mark.parametrize("make", APART.values(), ids=APART)
def test_other_norms_stay_between_the_integrators(make: Any) -> None:
    neuron, x = make(), currents(2, 5, 30, size=0.4)
    model = so.export(neuron, x)
    assert "Normalize" in nodes(model)
    assert not {"CubaBiased", "CubaNormed"} & set(nodes(model))
    assert so.verify(neuron, model, x).ok


def test_training_keeps_the_norm() -> None:
    neuron = made().train()
    neuron(currents(3, 5, 20))
    assert neuron.norm_bias is None
    assert frozen(neuron).norm_bias is not None
    assert neuron.norm_bias is None


@pytest.mark.parametrize("mean", [float("inf"), float("nan"), 3e38])
def test_a_mean_beyond_floats_stays_a_norm(mean: float) -> None:
    neuron = made()
    neuron.norm.pre_hook_fx = None
    neuron.norm.running_mean[2] = mean
    assert frozen(neuron).norm_bias is None


def test_a_mean_beyond_integers_is_a_float() -> None:
    neuron, x = made(), currents(2, 5, 9)
    neuron.norm.pre_hook_fx = None
    neuron.norm.running_mean[2] = 1e25
    one = frozen(neuron)
    assert one.norm_gain is not None
    assert torch.equal(one(x), neuron(x))


def test_another_number_of_channels_is_refused() -> None:
    with pytest.raises(so.ShapeError, match="expected 5 channels"):
        frozen(made())(currents(2, 4, 9))


def test_the_mean_that_no_input_moved_is_one_for_all() -> None:
    neuron = so.neuron.cuba.Neuron(0.6, 0.25, 0.05, norm=MeanOnly).eval()
    x = currents(2, 3, 12, size=0.3)
    model = so.export(neuron, x)
    assert nodes(model) == ["CubaBiased"]
    np.testing.assert_array_equal(so.Session(model).run(x.numpy()), neuron(x).numpy())


def test_the_forms_are_of_spikes_alone() -> None:
    names = [name for name in ops.all_ops() if name.endswith(("Biased", "Normed"))]
    assert sorted(names) == ["CubaBiased", "CubaNormed"]


@pytest.mark.parametrize("bias", [0.1, -3e4, 1e38, float("inf"), float("nan")])
@pytest.mark.parametrize("gain", [-2.0, 0.3, 1e4, 1e30, float("inf"), float("nan")])
def test_the_op_takes_any_norm(bias: float, gain: float) -> None:
    """States that are no integers of 32 bits take the loop in 64."""
    op = ops.get_op("CubaNormed")
    norm = (torch.tensor([bias]), torch.tensor([gain]))
    args = cuba(currents(2, 7, 12))
    args = (*args[:3], *norm, *args[3:])
    model = model_of(op, args, sequences_of(op))
    model.functions.append(op.function(21))
    session = ort.InferenceSession(model.SerializeToString())
    assert_equal(session.run(None, feeds_of(op, args, session)), expected(op, args))
