"""Networks whose steps have no common form: each is refused with a sentence that says why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from looping import Looping, example, spike
from torch import Tensor, nn

import synapse_onnx as so

Run = Callable[[Looping, Tensor], Any]


def _loop(
    step: Callable[[Looping, Tensor, int, Any], Any],
) -> Run:
    """A network whose step takes the input, t and the voltage, and returns spikes and voltage."""

    def run(net: Looping, x: Tensor) -> Tensor:
        v: Any = torch.zeros(x.shape[1], 11)
        out = []
        for t in range(len(x)):
            k, v = step(net, x, t, v)
            out.append(k)
        return torch.stack(out)

    return run


def _plain(net: Looping, x: Tensor, t: int, v: Tensor) -> Any:
    return spike(v, net.fc(x[t]))


def _special(net: Looping, x: Tensor, t: int, v: Tensor) -> Any:
    return spike(v * 0 if t == 7 else v, net.fc(x[t]))


def _special_late(net: Looping, x: Tensor, t: int, v: Tensor) -> Any:
    _, v = spike(v * 0 if t == 20 else v, net.fc(x[t]))
    return v, v


def _branch(net: Looping, x: Tensor, t: int, v: Tensor) -> Any:
    k, v = spike(v, net.fc(x[t]))
    if k.sum() > 3:
        v = v * 0
    return k, v


def _item(net: Looping, x: Tensor, t: int, v: Tensor) -> Any:
    return spike(v, net.fc(x[t]) * x[t].sum().item())


def _random(net: Looping, x: Tensor, t: int, v: Tensor) -> Any:
    return spike(v, net.fc(x[t]) + 10 * torch.rand(11))


def _square(net: Looping, x: Tensor, t: int, v: Tensor) -> Any:
    return spike(v, net.fc(x[t]) / len(x) ** 2)


def _window(net: Looping, x: Tensor, t: int, v: Tensor) -> Any:
    return spike(v, net.fc(x[: t + 1].sum(0)))


def _longer_than_6(net: Looping, x: Tensor) -> Tensor:
    return _loop(_plain)(net, x) * (2.0 if len(x) > 6 else 1.0)


def _counter(net: Looping, x: Tensor) -> Tensor:
    net.count += 1
    return _loop(_plain)(net, x) + net.count


REFUSED: dict[str, tuple[Run, str]] = {
    "t == 7": (_loop(_special), "is computed in another way than the later ones"),
    "t == 20": (_loop(_special_late), "with 24 steps of 6 samples it computes something else"),
    "T > 6": (_longer_than_6, "code looks at the number of steps"),
    "T squared": (_loop(_square), "a number is 144, 169, 196"),
    "a branch on data": (_loop(_branch), "a branch or size depends on the values of a tensor"),
    ".item()": (_loop(_item), "a value of a tensor is read as"),
    "randomness": (_loop(_random), "two calls with the same input differ"),
    "a counter": (_counter, "the output depends on earlier calls, through count"),
    "a window that grows": (_loop(_window), "steps that are not one after the other"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_with_the_reason(name: str) -> None:
    run, reason = REFUSED[name]
    net, (x,) = Looping(run).eval(), example("plain")
    state = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(so.ExportError) as error:
        so.export(net, x)
    message = str(error.value)
    assert reason in message
    assert "\n" not in message
    if message.startswith("forward() loops over time"):
        assert "see 'How loops are found' in the documentation" in message
    for key, value in net.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_a_late_step_that_few_outputs_show_is_refused() -> None:
    """Spikes of the example do not change; 81 of 16,500 spikes of other inputs do."""

    def step(net: Looping, x: Tensor, t: int, v: Tensor) -> Any:
        return spike(v * 0 if t == 20 else v, net.fc(x[t]))

    with pytest.raises(so.ExportError):
        so.export(Looping(_loop(step)).eval(), example("plain")[0])


def test_a_number_of_steps_that_an_attribute_holds_is_fixed() -> None:
    def run(net: Looping, x: Tensor) -> Tensor:
        v, out = torch.zeros(x.shape[1], 11), []
        for t in range(net.steps):
            k, v = spike(v, net.fc(x[t]))
            out.append(k)
        return torch.stack(out)

    model = so.export(Looping(run).eval(), example("plain", 6)[0])
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == [6, "N", 7]


def test_the_line_of_the_step_is_named() -> None:
    net = Looping(REFUSED["T squared"][0]).eval()
    place = rf"line {_square.__code__.co_firstlineno + 1} of test_loop_refused\.py"
    with pytest.raises(so.ExportError, match=rf"no common form at {place}"):
        so.export(net, example("plain")[0])


def test_a_stream_needs_outputs_with_time() -> None:
    def counted(net: Looping, x: Tensor) -> Tensor:
        v, count = torch.zeros(x.shape[1], 11), torch.zeros(x.shape[1], 11)
        for x_t in x:
            s, v = spike(v, net.fc(x_t))
            count = count + s
        return count / len(x)

    with pytest.raises(so.ExportError, match=r"streaming: output 0 of shape .* has no time axis"):
        so.export(Looping(counted).eval(), example("plain")[0], streaming=True)


class _BesideALayer(nn.Module):
    """A layer of this package on the whole sequence, and a loop after it: (N, C, T)."""

    def __init__(self, *, listed: bool = False) -> None:
        super().__init__()
        neuron = {"threshold": 1.0, "current_decay": 0.25, "voltage_decay": 0.05}
        self.dense = so.block.cuba.Dense(neuron, 7, 11, weight_scale=3)
        self.listed = listed

    def forward(self, x: Tensor) -> Any:
        v, out = 0.0, []
        for x_t in self.dense(x).unbind(-1):
            k, v = spike(v, x_t)
            out.append(k)
        return out if self.listed else torch.stack(out, -1)


@pytest.mark.usefixtures("compiled_once")
def test_a_stream_keeps_the_states_of_layers_or_of_a_loop() -> None:
    net, x = _BesideALayer().eval(), example("plain")[0].permute(1, 2, 0)
    assert so.verify(net, so.export(net, x), x).ok
    with pytest.raises(so.ExportError, match=r"streaming: dense\.neuron keeps states, and"):
        so.export(net, x, streaming=True)


def test_a_list_of_steps_has_a_time_axis_or_is_refused() -> None:
    net, x = _BesideALayer(listed=True).eval(), example("plain")[0].permute(1, 2, 0)
    with pytest.raises(so.ExportError, match="returns more tensors for more steps; return one"):
        so.export(net, x)


def test_a_stream_has_no_backward_pass() -> None:
    def both(net: Looping, x: Tensor) -> Tensor:
        run = _loop(_plain)
        return torch.cat([run(net, x), run(net, x.flip(0)).flip(0)], -1)

    with pytest.raises(so.ExportError, match="code between the layers looks at more than one time"):
        so.export(Looping(both).eval(), example("plain")[0], streaming=True)


def test_a_refused_network_is_unrolled_where_time_is_fixed() -> None:
    net, (x,) = Looping(REFUSED["t == 7"][0]).eval(), example("plain")
    model = so.export(net, x, dynamic=False, axes="TNC")
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in dims] == [9, 2, 7]
    with torch.no_grad():
        assert (torch.from_numpy(so.Session(model).run(x.numpy())) == net(x)).all()


def _masked(read: Callable[[Tensor, Tensor], Tensor]) -> Looping:
    """A neuron that some inputs hold at minus infinity, of whose spikes and voltage one is read."""

    def run(net: Looping, x: Tensor) -> Tensor:
        v, out = torch.zeros(x.shape[1], 11), []
        for y in net.fc(x).masked_fill(net.fc(x) < -0.5, -torch.inf):
            v = 0.9 * v + y
            k = (v > 1).float()
            out.append(read(k, v))
            v = v - k
        return torch.stack(out)

    return Looping(run)


@pytest.mark.parametrize("read", [lambda k, _: k, lambda _, v: v], ids=["spikes", "voltages"])
def test_an_infinite_voltage_is_that_of_the_network(read: Callable[..., Tensor]) -> None:
    """A neuron of this package has a current, of which it keeps 0 times infinity: no number.

    So it does not stand for a neuron whose infinite voltage is read.
    """
    network, (x,) = _masked(read), example("plain")
    assert torch.isinf(network.fc(x).masked_fill(network.fc(x) < -0.5, -torch.inf)).any()
    model = so.export(network, x)
    assert so.verify(network, model, x).ok
    np.testing.assert_array_equal(so.Session(model).run(x.numpy()), network(x).detach().numpy())
