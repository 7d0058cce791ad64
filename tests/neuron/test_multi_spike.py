"""The neuron that spikes several times in a step: equation, options, gradient, export."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import synapse_onnx as so
from synapse_onnx.neuron.multi_spike import RESETS, MultiSpike

TERMS: dict[str, Any] = {
    "threshold": 0.5, "beta": 0.75, "alpha": 0.25, "gain": 1.5, "drive": 0.0625
}  # fmt: skip


def drive(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator)


def by_hand(x: Tensor, reset: str, value: float, least: float, most: float) -> Tensor:
    u, v, outputs = torch.zeros_like(x[..., 0]), torch.zeros_like(x[..., 0]), []
    for t in range(x.shape[-1]):
        u = u * TERMS["alpha"] + x[..., t] * TERMS["gain"]
        v = v * TERMS["beta"] + u + TERMS["drive"]
        n = torch.floor(v / TERMS["threshold"]).clamp(min=0, max=most)
        v = torch.where(n > 0, torch.tensor(value), v) if reset == "zero" else v - n * value
        v = v.clamp(min=least)
        outputs.append(n)
    return torch.stack(outputs, -1)


@pytest.mark.parametrize("most", [None, 1, 2])
@pytest.mark.parametrize("least", [None, -0.25])
@pytest.mark.parametrize(("reset", "value"), [*zip(RESETS, (0.0, 0.5), strict=True), ("zero", -0.1),
                                              ("subtract", 0.0), ("subtract", 0.75)])  # fmt: skip
def test_it_is_its_equation(reset: str, value: float, least: Any, most: Any) -> None:
    neuron = MultiSpike(**TERMS, reset=reset, reset_value=value, least=least, most=most).eval()
    x = drive(2, 3, 40)
    bounds = (-1e9 if least is None else least, 1e9 if most is None else most)
    y = neuron(x)
    assert torch.equal(y, by_hand(x, reset, value, *bounds))
    assert float(y.max()) > 1 or most == 1
    assert torch.equal(neuron.train()(x), y)


def test_defaults_of_the_reset() -> None:
    x = drive(2, 3, 40)
    for reset, value in (("zero", 0.0), ("subtract", 0.5)):
        assert torch.equal(MultiSpike(**TERMS, reset=reset)(x), by_hand(x, reset, value, -1e9, 1e9))


def test_at_the_threshold_and_above_it() -> None:
    x = torch.tensor([[[0.5]]])
    assert MultiSpike(0.5)(x).item() == 1
    assert MultiSpike(0.5, strict=True)(x).item() == 0


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("shape", [(2, 3, 30), (1, 2, 3, 4, 12)])
def test_it_goes_the_whole_way(reset: str, shape: tuple[int, ...]) -> None:
    level = torch.linspace(0.3, 0.6, shape[1])
    neuron = MultiSpike(**TERMS | {"threshold": level}, reset=reset, least=-0.5, most=3).eval()
    x = drive(*shape)
    for streaming in (False, True):
        model = so.export(neuron, x, streaming=streaming)
        assert so.verify(neuron, model, x).ok
    ops = [node.op_type for node in model.graph.node]
    assert ops.count("MultiLifFloat" if reset == "zero" else "MultiLifSubtractFloat") == 1


def test_its_gradient_is_a_step_from_half_the_threshold_on() -> None:
    neuron = MultiSpike(0.5, beta=0.0, requires_grad=True)
    x = torch.tensor([[[0.125, 0.25, 0.5, 1.75]]], requires_grad=True)
    neuron(x).sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [0.0, 2.0, 2.0, 2.0]
    # d(v / threshold) = -v / threshold^2, where it has a gradient
    assert neuron.v_threshold.grad.item() == pytest.approx(-(0.25 + 0.5 + 1.75) / 0.25)
    assert neuron.most.grad is None


def test_as_a_readout_it_keeps_its_floor() -> None:
    neuron = MultiSpike(1.0, beta=1.0, least=-0.5)
    neuron.as_readout()
    y = neuron(torch.tensor([[[-1.0, 0.75, 5.0]]]))
    assert y.flatten().tolist() == [-1.0, 0.25, 5.25]  # before the floor, as in sinabs


def test_its_margin_is_that_of_the_nearest_count() -> None:
    neuron = MultiSpike(0.5, beta=0.0)
    margin = neuron.margin(torch.tensor([[[0.25, 0.625, 0.9375, 1.625]]]))
    assert margin.flatten().tolist() == [-0.25, 0.125, -0.0625, 0.125]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"reset": "delayed"}, "reset must be one of zero, subtract, got 'delayed'"),
        ({"threshold": 0.0}, "threshold must be above 0, got 0.0"),
        ({"least": float("nan")}, "v_least must be finite"),
    ],
)
def test_what_cannot_be_is_refused(options: Any, sentence: str) -> None:
    with pytest.raises(so.InputError, match=sentence):
        MultiSpike(**options)
