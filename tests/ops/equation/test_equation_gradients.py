"""Gradients of equations: those in fixed point are those in floats, and surrogates."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from forms import OPS, TWINS
from torch import Tensor

import synapse_onnx as so
from synapse_onnx.ops.equation import NeuronOp


def test_gradients_of_the_float_neurons_states_below_threshold() -> None:
    op = OPS["CubaFloat"]
    *tensors, _, tau, scale, graded = op.samples()[1].args
    args = [tensor.double().requires_grad_() for tensor in tensors]

    def states(*args: Tensor) -> tuple[Tensor, ...]:
        return op.torch_op(*args, 1e9, tau, scale, graded)[1:]

    assert torch.autograd.gradcheck(states, args)


@pytest.mark.parametrize("form", TWINS)
def test_the_gradient_in_fixed_point_is_that_in_floats(form: NeuronOp) -> None:
    """Below a threshold that nothing reaches; a gradient goes straight through a rounding."""
    twin, scale, high = form.e.op(form.kind, "float"), 4096, 1 << 20
    (args,) = (sample.args for sample in form.samples() if sample.id == "channels")
    given = dict(zip((*form.inputs, *form.tail), args, strict=True))
    given["threshold"] = high if "threshold" not in form.states else given["threshold"]
    floats: dict[str, Any] = {}
    for state in form.e.states:
        if state.start:
            given[state.name] = given[state.name] + high
        floats[state.name] = given[state.name] / scale
    for name in form.e.constants:
        given[name] = high if name.endswith("threshold") else given[name]
        floats[name] = given[name] / scale
    for parameter in form.table:
        if parameter not in twin.table:  # Loihi's bias, a norm: such as change nothing
            neutral = 1 if parameter.name == "gain" else 0
            given[parameter.name] = torch.full_like(given[parameter.name], neutral)
        value = given[parameter.name]
        floats[parameter.name] = value if parameter.level else value / 4096
    leaves = [*form.e.currents, *(p.name for p in twin.table)]
    found = []
    for side, numbers in ((form, given), (twin, given | floats)):
        values = numbers | {n: numbers[n].clone().requires_grad_() for n in leaves}
        outputs = side(*(values[n] for n in (*side.inputs, *side.tail)))[: len(side.sequences)]
        draw = torch.Generator().manual_seed(0)
        loss = sum(((y * torch.randn(y.shape, generator=draw)).sum() for y in outputs), 0)
        found.append(torch.autograd.grad(loss, [values[n] for n in leaves], allow_unused=True))
    for name, fixed, plain in zip(leaves, *found, strict=True):
        if plain is None or float(plain.abs().max()) == 0:
            assert fixed is None or float(fixed.abs().max()) == 0, name
            continue
        level = name in form.e.currents or next(p for p in twin.table if p.name == name).level
        unit = 1 if level else 4096
        assert float((unit * fixed - plain).abs().max()) <= 0.02 * float(plain.abs().max()), name


@pytest.mark.parametrize("graded", [False, True])
def test_the_surrogate_gradient_of_a_phase_is_slayers(graded: bool) -> None:
    draw = torch.Generator().manual_seed(3)
    real, imag = (torch.randn(2, 3, 1, generator=draw).requires_grad_() for _ in range(2))
    limit, tau, scale = 0.25, 0.7, 1.3
    op = OPS["RfFloat"]
    decays, states = [torch.tensor([0.5])] * 2, [torch.zeros(2, 3)] * (len(op.inputs) - 4)
    op.torch_op(real, imag, *decays, *states, limit, tau, scale, graded)[0].sum().backward()
    x, y = real.detach(), imag.detach()
    above = x - limit
    near_y = torch.exp(-y.abs() / tau) / 2 / tau
    near_x = torch.exp(-above.abs() / tau) / 2 / tau
    if graded:
        near_x = torch.exp(torch.minimum(above, torch.zeros(())) / tau)
    step = 0.5 * (1 + torch.sign(above) * (1 - 2 * tau * near_x))
    torch.testing.assert_close(real.grad, scale * near_x * near_y)
    torch.testing.assert_close(imag.grad, -scale * torch.sign(y) / tau * near_y * step)
    assert (above > 0).any()
    assert (above < 0).any()


@pytest.mark.parametrize("name", ["Alif", "Adrf"])
def test_a_threshold_has_the_opposite_gradient_of_its_voltage(name: str) -> None:
    """What adapts is taken off what reaches it, so every part has the surrogate's slope."""
    op, dynamics = OPS[f"{name}Float"], OPS[f"{name}DynamicsFloat"]
    args = op.samples()[1].args
    tensors, rest = args[: len(op.inputs)], args[len(op.inputs) :]
    first = [
        t[..., :1] if n in ("x", "x_real", "x_imag") else t
        for n, t in zip(op.inputs, tensors, strict=True)
    ]
    leaves = [t.clone().requires_grad_() for t in first]
    limits = [n for n in op.inputs if n in ("threshold", "refractory")]
    assert len(limits) == 2
    s = op.torch_op(*leaves, *rest)[0]
    wanted = [leaves[op.inputs.index(n)] for n in limits]
    found = torch.autograd.grad(s.sum(), wanted)
    traces = dynamics.torch_op(*leaves, *rest[: len(dynamics.attributes)])
    membrane = dict(zip(dynamics.outputs, traces, strict=True))
    # d s / d limit is minus d s / d membrane, which a current alone moves by one
    current = leaves[0]
    slope = torch.autograd.grad(op.torch_op(*leaves, *rest)[0].sum(), current)[0]
    for name_, gradient in zip(limits, found, strict=True):
        part = membrane[f"{name_}_trace"]
        leaf = leaves[op.inputs.index(name_)]
        moved = torch.autograd.grad((part * slope).sum(), leaf, retain_graph=True)[0]
        torch.testing.assert_close(gradient, -moved)


@pytest.mark.parametrize("name", ["Cuba", "CubaFloat"])
def test_the_fused_neuron_has_the_gradient_of_the_composed_one(name: str) -> None:
    neuron = so.neuron.cuba.Neuron(
        0.5, 0.25, 0.05, requires_grad=True, regime="slayer" if name == "Cuba" else "float"
    )
    x = torch.randn(2, 3, 25, generator=torch.Generator().manual_seed(0))
    weight = torch.linspace(-1, 1, 25)
    grads = []
    for training in (True, False):
        neuron.train(training)
        leaf = x.clone().requires_grad_()
        loss = (neuron(leaf) * weight).sum()
        grads.append(torch.autograd.grad(loss, (leaf, neuron.current_decay, neuron.voltage_decay)))
    for composed, fused in zip(*grads, strict=True):
        assert float(composed.abs().sum()) > 0
        torch.testing.assert_close(composed, fused)
