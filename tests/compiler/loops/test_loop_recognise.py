"""Neurons in loops: what is a leaky integrate-and-fire neuron, and what is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from loop_forms import Function, form_of
from torch import Tensor

from synapse_onnx.compiler.loops.groups import grouped
from synapse_onnx.compiler.loops.recognise import recognise
from synapse_onnx.compiler.loops.retime import retime
from synapse_onnx.neuron import base

#: a step: the network, the state before (voltage, spike) and the input -> spike, voltage
Step = Callable[[Function, Any, Any, Tensor], tuple[Tensor, Any]]


def _loop(step: Step, *, reads: str = "spikes", start: float = 0.0) -> Callable[..., Any]:
    def run(net: Function, x: Tensor) -> Any:
        v, k = torch.full((x.shape[1], 3), start), torch.zeros(x.shape[1], 3)
        spikes, voltages = [], []
        for x_t in x:
            k, v = step(net, v, k, x_t)
            spikes.append(k)
            voltages.append(v)
        outputs = {"spikes": torch.stack(spikes), "voltages": torch.stack(voltages), "last": v}
        return tuple(outputs[name] for name in reads.split())

    return run


def _neurons(run: Callable[..., Any]) -> dict[str, base.Neuron]:
    form, _ = form_of(run)
    retime(form)
    return recognise(form)


def _subtract(net: Function, v: Any, k: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = 0.5 * v + x
    k = (v > 0.75).float()
    return k, v - 0.75 * k


def _zero(net: Function, v: Any, k: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = 0.5 * v + x
    k = (v >= 0.75).float()
    return k, v * (1 - k)


def _zero_by_where(net: Function, v: Any, k: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = v + (x - v) / 2.0
    k = torch.heaviside(v - 0.75, torch.ones(()))
    return k, torch.where(k.bool(), torch.zeros_like(v), v)


def _to_a_value(net: Function, v: Any, k: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = 0.5 * v + x
    k = (v > 0.75).float()
    return k, (1 - k) * v + k * -0.25


def _delayed_subtract(net: Function, v: Any, k: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = 0.5 * v + x - 0.75 * k
    return (v > 0.75).float(), v


def _delayed_zero(net: Function, v: Any, k: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = (0.5 * v + x) * (1 - k)
    return (v > 0.75).float(), v


def _zero_before(net: Function, v: Any, k: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = 0.5 * v * (1 - k) + x
    return (v > 0.75).float(), v


def _per_neuron(net: Function, v: Any, k: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = net.decay * v + (1 - net.decay) * x  # the product with x is outside the loop
    k = (v > net.fc.bias.detach() ** 2 + 0.5).float()
    return k, v * (1 - k)


def _constant_drive(net: Function, v: Any, k: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = 0.5 * v + x + 0.125
    k = (v > 0.75).float()
    return k, v - 0.75 * k


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (_subtract, {"reset_kind": "subtract", "beta": 0.5, "v_threshold": 0.75, "strict": True}),
        (_zero, {"reset_kind": "zero", "beta": 0.5, "v_threshold": 0.75, "strict": False}),
        (_to_a_value, {"reset_kind": "zero", "v_reset": -0.25, "v_threshold": 0.75}),
        (_delayed_subtract, {"reset_kind": "delayed", "beta": 0.5, "v_threshold": 0.75}),
        (_delayed_zero, {"reset_kind": "delayed_zero", "beta": 0.5, "v_threshold": 0.75}),
        (_zero_before, {"reset_kind": "zero", "beta": 0.5, "v_threshold": 0.75}),
        (_constant_drive, {"reset_kind": "subtract", "gain": 1.0, "drive": 0.125}),
    ],
    ids=lambda value: getattr(value, "__name__", "_as")[1:],
)
def test_a_neuron_is_recognised(step: Step, expected: dict[str, Any]) -> None:
    ((path, neuron),) = _neurons(_loop(step)).items()
    assert path == "neuron"
    for name, value in expected.items():
        found = getattr(neuron, name)
        if isinstance(value, float):  # a threshold that is not reached is the next number above
            found = pytest.approx(float(found), abs=1e-6)
        assert found == value, name
    _compare(neuron, step)


def _of_decay(decay: float) -> list[Step]:
    """Steps whose coefficients are no powers of two: equal ones differ by a rounding."""

    def subtract(net: Function, v: Any, k: Any, x: Tensor) -> tuple[Tensor, Any]:
        v = decay * v + x
        k = (v > 0.7).float()
        return k, v - 0.7 * k

    def zero(net: Function, v: Any, k: Any, x: Tensor) -> tuple[Tensor, Any]:
        v = v + (x - v) * decay
        k = (v >= 0.7).float()
        return k, v * (1 - k)

    return [subtract, zero]


@pytest.mark.parametrize("decay", [0.1, 0.3, 0.85, 0.9, 0.95, 0.99])
def test_a_neuron_is_recognised_whatever_its_decay(decay: float) -> None:
    for step in _of_decay(decay):

        def run(net: Function, x: Tensor, step: Step = step) -> Tensor:
            v, k, spikes = 0.0, 0.0, []
            for x_t in x:
                k, v = step(net, v, k, net.fc(x_t))
                spikes.append(k)
            return torch.stack(spikes)

        assert list(_neurons(run)) == ["neuron"], step.__name__


def _compare(neuron: base.Neuron, step: Step) -> None:
    """Compare the spikes of a neuron with those of its loop, on dyadic inputs."""
    net = Function(_loop(step)).eval()
    x = torch.randint(-4, 13, (40, 6, 3), generator=torch.Generator().manual_seed(0)) / 8
    with torch.no_grad():
        (expected,) = net(x)
        assert 0.05 < expected.mean() < 0.95
        torch.testing.assert_close(neuron(x.movedim(0, -1)).movedim(-1, 0), expected)


def test_where_and_a_leak_are_the_same_neuron() -> None:
    (neuron,) = _neurons(_loop(_zero_by_where)).values()
    assert (neuron.reset_kind, float(neuron.beta), float(neuron.gain)) == ("zero", 0.5, 0.5)
    assert not neuron.strict


def test_parameters_of_each_neuron() -> None:
    (neuron,) = _neurons(_loop(_per_neuron)).values()
    torch.testing.assert_close(neuron.beta, torch.tensor([0.5, 0.25, 0.125]))
    assert neuron.v_threshold.shape == (3,)


# -- what is none ----------------------------------------------------------------------------------


def _below(net: Function, v: Any, k: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = 0.5 * v + x
    k = (v < -0.75).float()
    return k, v * (1 - k)


def _half_reset(net: Function, v: Any, k: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = 0.5 * v + x
    k = (v > 0.75).float()
    return k, v - 0.5 * k


def _graded(net: Function, v: Any, k: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = 0.5 * v + x
    k = (v > 0.75).float()
    return 2 * k, v - 0.75 * k


def _quadratic(net: Function, v: Any, k: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = 0.5 * v * v + x
    k = (v > 0.75).float()
    return k, v * (1 - k)


def _two_sided(net: Function, v: Any, k: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = 0.5 * v + x
    k = (v > 0.75).float() - (v < -0.75).float()
    return k, v - 0.75 * k


def _recurrent(net: Function, v: Any, k: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = 0.5 * v + x + net.fc(k)
    k = (v > 0.75).float()
    return k, v - 0.75 * k


def _clipped(net: Function, v: Any, k: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = (0.5 * v + x).clamp(min=-1.0)
    k = (v > 0.75).float()
    return k, v - 0.75 * k


def _floored(net: Function, v: Any, k: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = torch.div(v, 2.0, rounding_mode="floor") + x
    k = (v > 0.75).float()
    return k, v - 0.75 * k


def _another_compared(net: Function, v: Any, k: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = 0.5 * v + x
    k = (v + x > 0.75).float()
    return k, v - 0.75 * k


def _half_at(net: Function, v: Any, k: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = 0.5 * v + x
    k = torch.heaviside(v - 0.75, torch.tensor(0.5))
    return k, v - 0.75 * k


def test_a_multiple_of_spikes_follows_from_spikes() -> None:
    (neuron,) = _neurons(_loop(_graded)).values()
    assert not neuron.readout


NONE = [
    _below, _half_reset, _quadratic, _two_sided, _recurrent, _clipped, _floored,
    _another_compared, _half_at,
]  # fmt: skip


@pytest.mark.parametrize("step", NONE, ids=lambda step: step.__name__[1:])
def test_what_is_another_neuron_stays_a_loop(step: Step) -> None:
    assert _neurons(_loop(step)) == {}


@pytest.mark.parametrize("step", [_subtract, _zero, _delayed_subtract, _delayed_zero])
@pytest.mark.parametrize("reads", ["voltages", "spikes voltages", "spikes last"])
def test_a_voltage_that_is_read_is_what_the_neuron_gives(reads: str, step: Step) -> None:
    """Before its reset: what is read follows from it, without a loop."""
    form, _ = form_of(_loop(step, reads=reads))
    retime(form)
    (neuron,) = recognise(form).values()
    assert neuron.readout
    assert not any(group.recurrent for group in grouped(form).values())
    net = Function(_loop(step)).eval()
    x = torch.randint(-4, 13, (40, 6, 3), generator=torch.Generator().manual_seed(0)) / 8
    with torch.no_grad():
        (spikes,) = net(x)
        voltages = neuron(x.movedim(0, -1)).movedim(-1, 0)
    level = float(neuron.v_threshold)
    torch.testing.assert_close((voltages >= level).float(), spikes)


@pytest.mark.parametrize("step", NONE, ids=lambda step: step.__name__[1:])
def test_a_voltage_of_another_neuron_stays_a_loop(step: Step) -> None:
    assert _neurons(_loop(step, reads="spikes voltages")) == {}


def test_a_start_that_is_not_zero_stays_a_loop() -> None:
    assert _neurons(_loop(_subtract, start=0.25)) == {}


def test_two_inputs_stay_a_loop() -> None:
    """The input enters the voltage, and another one the comparison."""

    def run(net: Function, x: Tensor) -> Tensor:
        y, v, out = net.fc(x), torch.zeros(x.shape[1], 3), []
        for t in range(len(x)):
            v = 0.5 * v + x[t]
            k = (v > y[t]).float()
            v = v * (1 - k)
            out.append(k)
        return torch.stack(out)

    assert _neurons(run) == {}


def test_a_parameter_that_depends_on_the_input_stays_a_loop() -> None:
    def run(net: Function, x: Tensor) -> Tensor:
        decay, v, out = x.mean(0).sigmoid(), torch.zeros(x.shape[1], 3), []
        for x_t in x:
            v = decay * v + x_t
            k = (v > 0.75).float()
            v = v * (1 - k)
            out.append(k)
        return torch.stack(out)

    assert _neurons(run) == {}
