"""Layers of a cycle as plain torch modules that compute one time step, (N, C[, H, W]).

The layers are those that :mod:`synapse_onnx.readers._nir.primitives` makes; a neuron runs its own
equation. A cycle of several of them is a loop over time, which an export finds again.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from synapse_onnx import neuron, synapse
from synapse_onnx.block.base import Bias
from synapse_onnx.ops.arithmetic import Float
from synapse_onnx.readers._nir import modules

__all__ = ["NeuronStep", "steps_of"]


class NeuronStep(nn.Module):
    """One time step of a lif neuron, with its states as an argument.

    Args:
        layer: the neuron.
    """

    def __init__(self, layer: neuron.lif.Neuron) -> None:
        super().__init__()
        self.equation, self.readout = layer.equation, layer.readout
        self.constants = SimpleNamespace(**layer.constants())
        self.surrogate = layer._surrogate
        self.names = layer.states
        for name in layer.decays:
            self.register_buffer(name, layer.parameter_value(name).detach().clone())

    def forward(self, x: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the output (N, C[, H, W]), and the states after the step."""
        a = Float(1.0, *self.surrogate, graded=False)
        p = {
            parameter.name: a.parameter(getattr(self, parameter.name), x, parameter)
            for parameter in self.equation.parameters
        }
        before = dict(zip(self.names, states, strict=True))
        current, parameters, states_before = (
            SimpleNamespace(**table) for table in ({"x": x}, p, before)
        )
        after, variables = self.equation.step(a, current, parameters, states_before, self.constants)
        if self.readout:
            y = variables[self.equation.readout]
        else:
            y = self.equation.fire(a, SimpleNamespace(**variables), self.constants)
        return y, tuple(after[name] for name in self.names)


class _OneStep(nn.Module):
    """One time step of a module of torch code that takes a sequence."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x.unsqueeze(-1))
        return y.squeeze(-1)


class _Add(nn.Module):
    """A bias, one a channel."""

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        bias: Any = self.bias
        y: Tensor = x + bias.reshape(-1, *(1,) * (x.dim() - 2))
        return y


class _Windows(nn.Module):
    """Sums over whole windows of each channel, divided by a count."""

    def __init__(self, layer: modules.PoolWindows) -> None:
        super().__init__()
        pool = layer.pool
        self.count = layer.count
        self.kernel, self.stride, self.padding = (
            tuple(int(n) for n in size[:2])
            for size in (pool.kernel_size, pool.stride, pool.padding)
        )

    def forward(self, x: Tensor) -> Tensor:
        # a convolution with ones, for an average times its count is not always the sum
        ones = x.new_ones(x.shape[1], 1, *self.kernel)
        y = nn.functional.conv2d(x, ones, None, self.stride, self.padding, 1, x.shape[1])
        return y if self.count == 1 else y / self.count


def steps_of(layer: nn.Module) -> list[nn.Module]:
    """Return modules that compute one time step of a layer, one after another."""
    if isinstance(layer, nn.Sequential):
        return [step for part in layer for step in steps_of(part)]
    for kind, make in _STEPS.items():
        if isinstance(layer, kind):
            return [make(layer)]
    return [_OneStep(layer)]


def _dense(layer: Any) -> nn.Module:
    weight = layer.effective_weight.detach().flatten(1)
    step = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    step.weight.data = weight.clone()
    return step


def _conv(layer: Any) -> nn.Module:
    weight = layer.effective_weight.detach()[..., 0]
    kernel, stride, padding, dilation = (
        (int(size[0]), int(size[1]))
        for size in (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    )
    step = nn.Conv2d(
        weight.shape[1] * layer.groups, weight.shape[0], kernel, stride, padding, dilation,
        layer.groups, bias=False,
    )  # fmt: skip
    step.weight.data = weight.clone()
    return step


#: class of a layer -> what makes its step; the first that fits is taken
_STEPS: dict[type, Callable[[Any], nn.Module]] = {
    neuron.lif.Neuron: NeuronStep,
    synapse.Dense: _dense,
    synapse.Conv: _conv,
    Bias: lambda layer: _Add(-layer.mean.detach()),
    modules.PoolWindows: _Windows,
    nn.Identity: lambda layer: layer,
}
