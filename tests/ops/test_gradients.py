"""Gradients of synapses, axons and integrators: derivatives, surrogates, straight paths."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from forms import OPS, is_of_an_equation
from torch import Tensor

from synapse_onnx import ops

#: their gradient is no derivative: a surrogate, or one that leaves rounding and resets out
SURROGATES = {"Delta", "LeakyIntegrator", "Spike"}
SMOOTH = [
    pytest.param(op, sample, id=f"{name}-{sample.id}")
    for name, op in OPS.items()
    if not name.startswith("Quantized") and name not in SURROGATES and not is_of_an_equation(op)
    for sample in op.samples()
    # gradcheck runs the op twice an element, and its small steps are lost in large numbers
    if sample.args[0].numel() < 700 and sample.id != "large"
]


@pytest.mark.parametrize(("op", "sample"), SMOOTH)
def test_gradients_are_derivatives(op: ops.OpDef, sample: ops.Sample) -> None:
    args = [
        a.double().requires_grad_() if isinstance(a, Tensor) and a.is_floating_point() else a
        for a in sample.args
    ]
    assert torch.autograd.gradcheck(op.torch_op, args, fast_mode=True)


@pytest.mark.parametrize(
    "op", [op for name, op in OPS.items() if name.startswith("Quantized")], ids=lambda op: op.name
)
def test_gradients_of_quantised_synapses_are_those_of_their_weights(op: ops.OpDef) -> None:
    plain = OPS[op.name.removeprefix("Quantized").removeprefix("Biased")]
    weights = [i for i, name in enumerate(op.inputs) if re.fullmatch("weight(_real|_imag)?", name)]
    steps = [i for i, name in enumerate(op.inputs) if name.startswith("weight_scale")]
    sample = next(s for s in op.samples() if s.id.endswith("-tensor"))
    floats = [sample.args[w] * sample.args[s] for w, s in zip(weights, steps, strict=True)]
    biased, grads = op.inputs[-1] == "bias", []
    for torch_op, middle in (
        (op.torch_op, sample.args[1 : len(op.inputs)]),
        (plain.torch_op, floats),
    ):
        x = sample.args[0].double().requires_grad_()
        y = torch_op(x, *middle, *sample.args[len(op.inputs) :])
        if biased and torch_op is plain.torch_op:
            bias = sample.args[len(op.inputs) - 1]
            y = y + bias.double().reshape(-1, *[1] * (y.dim() - 2))
        loss = sum((part.sin().sum() for part in (y if isinstance(y, tuple) else (y,))), 0)
        grads.append(torch.autograd.grad(loss, x)[0])
    torch.testing.assert_close(grads[0], grads[1])


def test_the_fixed_point_integrator_has_the_gradient_of_its_equation() -> None:
    """Rounding apart, it is the float integrator without the reset's path."""
    x = torch.randn(2, 3, 30, generator=torch.Generator().manual_seed(0))
    weight = torch.linspace(-1, 1, 30)
    grads = []
    for fixed in (True, False):
        x_, decay = x.clone().requires_grad_(), torch.tensor([200.0, 900.0, 4000.0])
        decay.requires_grad_()
        if fixed:
            state = torch.full((2, 3), 1000)
            y, _ = torch.ops.synapse.leaky_integrator(x_, decay, state, 4096, (1 << 63) - 1)
        else:
            state = torch.full((2, 3), 1000 / 4096)
            y, _ = torch.ops.synapse.leaky_integrator_float(x_, decay / 4096, state, float("inf"))
        grads.append(torch.autograd.grad((y * weight).sum(), (x_, decay)))
    torch.testing.assert_close(grads[0][0], grads[1][0])
    torch.testing.assert_close(grads[0][1], grads[1][1], rtol=2e-2, atol=1e-4)


@pytest.mark.parametrize("shape", [(2, 3, 20), (1, 3, 2, 2, 12)], ids=["neurons", "images"])
@pytest.mark.parametrize("channels", [False, True], ids=["shared", "channels"])
def test_resets_have_no_gradient_of_their_own(channels: bool, shape: tuple[int, ...]) -> None:
    """In fixed point what is reset counts as constant, and the state's path as if none were."""
    draw = torch.Generator().manual_seed(1)
    x = torch.randint(-24, 40, shape, generator=draw) / 32
    weight, last = torch.randn(shape, generator=draw), torch.zeros(shape[:-1])
    start = torch.randint(-4096, 4096, shape[:-1], generator=draw)
    decay = torch.tensor([500.0, 1000.0, 2000.0] if channels else [800.0])
    found = [x.clone().requires_grad_(), decay.clone().requires_grad_()]
    y, _ = torch.ops.synapse.leaky_integrator(*found, start, 4096, 3000)
    assert 0 < (y >= 3000 / 4096).sum() < y.numel()
    (y * weight).sum().backward()
    plain = [x.clone().requires_grad_(), decay.clone().requires_grad_()]
    keep = (1 - plain[1] / 4096).reshape(-1, *(1,) * (len(shape) - 3))
    state = straight = start / 4096
    total = torch.zeros(())
    for t in range(shape[-1]):
        before = straight + (state - straight).detach() if t else state
        straight = before * keep + plain[0][..., t]
        value = y[..., t].detach()  # with its rounding
        straight = straight + (value - straight).detach()
        state = torch.where(value < 3000 / 4096, value, last)
        total = total + (straight * weight[..., t]).sum()
    total.backward()
    for a, b in zip(found, plain, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("cumulative", [False, True], ids=["changes", "cumulative"])
@pytest.mark.parametrize("channels", [False, True], ids=["shared", "channels"])
def test_the_gradient_of_the_delta_encoder_is_slayers(channels: bool, cumulative: bool) -> None:
    """What is sent follows the input straight; the threshold has a surrogate."""
    draw = torch.Generator().manual_seed(2)
    x = torch.randint(-24, 40, (2, 3, 12), generator=draw) / 32
    weight, tau, gradient = torch.randn(2, 3, 12, generator=draw), 0.7, 1.3
    states = [torch.randint(-24, 40, (2, 3), generator=draw) / 32 for _ in range(3)]
    threshold = torch.tensor([0.5, 0.7, 0.9] if channels else [0.6])
    leaves = [value.clone().requires_grad_() for value in (x, threshold, states[0])]
    args = (leaves[0], leaves[1], leaves[2], states[1], states[2], 64, cumulative, tau, gradient)
    (torch.ops.synapse.delta(*args)[0] * weight).sum().backward()
    grad_x, grad_level = np.zeros((2, 3, 12)), np.zeros(3)
    crossed = 0
    for n, c in np.ndindex(2, 3):
        level = float(threshold.expand(3)[c])
        pre, rest, error = (float(state[n, c]) for state in states)
        for t in range(12):
            g, change = float(weight[n, c, t]), float(x[n, c, t]) - pre + rest
            error += change
            sends = abs(error if cumulative else change) >= level
            error = 0.0 if sends and change else error
            pre, rest = float(x[n, c, t]), 0.0 if sends else change
            grad_x[n, c, t] += g
            if t:
                grad_x[n, c, t - 1] -= g
            above = abs(change) - level
            crossed += above > 0
            slope = -change * gradient * np.exp(-abs(above) / tau) / level
            grad_level[c] += g * (slope if above > 0 else -np.sign(change))
    assert 0 < crossed < x.numel()
    np.testing.assert_allclose(leaves[0].grad, grad_x, rtol=1e-5, atol=1e-5)
    expected = grad_level if channels else [grad_level.sum()]
    np.testing.assert_allclose(leaves[1].grad, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(leaves[2].grad, -weight[..., 0])


@pytest.mark.parametrize("graded", [False, True])
def test_the_surrogate_gradient_is_slayers(graded: bool) -> None:
    v = torch.linspace(-2, 3, 41).reshape(1, 1, 41).requires_grad_()
    threshold, tau, scale = 0.5, 0.7, 1.3
    torch.ops.synapse.spike(v, threshold, tau, scale, graded).sum().backward()
    distance = v.detach() - threshold
    expected = scale / 2 / tau * torch.exp(-distance.abs() / tau)
    if graded:
        expected = scale * torch.exp(torch.clamp(distance, max=0) / tau)
    torch.testing.assert_close(v.grad, expected)
