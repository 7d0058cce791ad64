"""The main neuron of every framework, under its class path: what convert reads, and its equation.

They run without the frameworks, and stand for them where these are not installed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


def at(path: str, **fields: Any) -> Any:
    """Return a decorator that moves a class to a module."""

    def move(kind: type) -> type:
        kind.__module__, kind.__qualname__ = path, kind.__name__
        for name, value in fields.items():
            setattr(kind, name, value)
        return kind

    return move


class Step(torch.autograd.Function):
    """1 above zero, with the gradient of fast sigmoid."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grads[0] / (4 * x.abs() + 1) ** 2


@at("snntorch._neurons.leaky")
class Leaky(nn.Module):
    """snnTorch: the reset of a spike comes in the next step."""

    def __init__(
        self, beta: Any, threshold: Any = 1.0, reset_mechanism: str = "subtract",
        learn_beta: bool = False, **options: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        self.beta = nn.Parameter(torch.as_tensor(beta), requires_grad=learn_beta)
        self.register_buffer("threshold", torch.as_tensor(threshold))
        self.register_buffer("mem", torch.zeros(0), persistent=False)
        self.spike_grad, self.reset_mechanism = Step.apply, reset_mechanism
        self.inhibition, self.output, self.state_quant = False, False, False
        self.init_hidden, self.reset_delay, self.graded_spikes_factor = True, True, 1.0
        names = {"subtract": self._base_sub, "zero": self._base_zero}
        self.state_function = names[reset_mechanism]
        vars(self).update(options)

    def _base_sub(self, x: Tensor, spiked: Tensor) -> Tensor:
        return self.beta.clamp(0, 1) * self.mem + x - spiked * self.threshold

    def _base_zero(self, x: Tensor, spiked: Tensor) -> Tensor:
        return self.beta.clamp(0, 1) * ((1 - spiked) * self.mem) + x

    def forward(self, x: Tensor) -> Tensor:
        if self.mem.shape != x.shape:
            self.mem = torch.zeros_like(x)
        self.mem = self.state_function(x, self.spike_grad(self.mem - self.threshold))
        spikes: Tensor = self.spike_grad(self.mem - self.threshold)
        return spikes


def heaviside(x: Tensor) -> Tensor:
    return (x >= 0).to(x.dtype)


@at("spikingjelly.activation_based.neuron.lif")
class LIFNode(nn.Module):
    """SpikingJelly: it spikes at the threshold, and is reset within the step."""

    def __init__(
        self, tau: float = 2.0, decay_input: bool = True, v_threshold: float = 1.0,
        v_reset: float | None = 0.0, step_mode: str = "s", store_v_seq: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.tau, self.decay_input, self.step_mode = tau, decay_input, step_mode
        self.v_threshold, self.v_reset, self.store_v_seq = v_threshold, v_reset, store_v_seq
        self.surrogate_function, self.detach_reset = heaviside, False
        self.v: Any = v_reset or 0.0

    def step(self, x: Tensor) -> Tensor:
        home = self.v_reset or 0.0
        v = self.v - (self.v - home) / self.tau + (x / self.tau if self.decay_input else x)
        spikes = heaviside(v - self.v_threshold)
        self.v = v - spikes * self.v_threshold if self.v_reset is None else torch.where(
            spikes > 0, torch.full_like(v, self.v_reset), v)  # fmt: skip
        return spikes

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.step(step) for step in x]) if self.step_mode == "m" else (
            self.step(x))  # fmt: skip


@at("spikingjelly.activation_based.layer.stateless_wrapper")
class Conv2d(nn.Conv2d):
    """SpikingJelly: torch's, over (T, N, C, H, W) in mode "m"."""

    def __init__(self, *args: Any, step_mode: str = "s", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.step_mode = step_mode

    def forward(self, x: Tensor) -> Tensor:
        if self.step_mode == "s":
            return super().forward(x)
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class Parameters(NamedTuple):
    """What norse.torch.LIFParameters holds."""

    tau_syn_inv: Tensor = torch.tensor(200.0)
    tau_mem_inv: Tensor = torch.tensor(100.0)
    v_leak: Tensor = torch.tensor(0.0)
    v_th: Tensor = torch.tensor(1.0)
    v_reset: Tensor = torch.tensor(0.0)
    method: str = "super"
    alpha: Tensor = torch.tensor(100.0)


@at("norse.torch.module.lif")
class LIFCell(nn.Module):
    """Norse: takes the input and the state, and returns the output and the state."""

    def __init__(self, p: Any = None, dt: float = 0.001) -> None:
        super().__init__()
        self.p, self.dt = Parameters() if p is None else p, dt

    def forward(self, x: Tensor, state: Any = None) -> Any:
        p = self.p
        v, i = (p.v_leak + torch.zeros_like(x), torch.zeros_like(x)) if state is None else state
        i = i + x
        v = v + self.dt * p.tau_mem_inv * (p.v_leak - v + i)
        spikes = (v > p.v_th).to(x.dtype)
        return spikes, ((1 - spikes) * v + spikes * p.v_reset, i - self.dt * p.tau_syn_inv * i)


@at("norse.torch.module.sequential")
class SequentialState(nn.Sequential):
    """Norse: hands states on."""

    return_hidden = False

    def forward(self, x: Tensor, state: Any = None) -> Any:
        states = [None] * len(self) if state is None else state
        for i, layer in enumerate(self):
            if isinstance(layer, LIFCell | SequentialState):
                x, states[i] = layer(x, states[i])
            else:
                x = layer(x)
        return x, states


@at("sinabs.activation.spike_generation")
class MultiSpike:
    """sinabs: as many spikes as the threshold fits the voltage."""


@at("sinabs.activation.spike_generation")
class SingleSpike:
    """sinabs: one spike at most."""


@at("sinabs.activation.reset_mechanism")
class MembraneSubtract:
    """sinabs: a spike takes the threshold off."""

    subtract_value: float | None = None


@at("sinabs.layers.lif")
class LIF(nn.Module):
    """sinabs: over (N, T, ...); the current decays behind the input."""

    def __init__(
        self, tau_mem: float, tau_syn: float | None = None, spike_threshold: float = 1.0,
        spike_fn: Any = MultiSpike, min_v_mem: float | None = None, norm_input: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.tau_mem = nn.Parameter(torch.tensor(tau_mem))
        self.tau_syn = None if tau_syn is None else nn.Parameter(torch.tensor(tau_syn))
        self.spike_threshold, self.spike_fn = torch.tensor(spike_threshold), spike_fn
        self.reset_fn, self.min_v_mem, self.norm_input = MembraneSubtract(), min_v_mem, norm_input
        self.train_alphas, self.record_states = False, False
        self.surrogate_grad_fn = lambda v, level: torch.exp(-(v - level).abs())

    @property
    def alpha_mem_calculated(self) -> Tensor:
        return torch.exp(-1 / self.tau_mem)

    @property
    def alpha_syn_calculated(self) -> Tensor | None:
        return None if self.tau_syn is None else torch.exp(-1 / self.tau_syn)

    def forward(self, x: Tensor) -> Tensor:
        v, i, outputs = torch.zeros_like(x[:, 0]), torch.zeros_like(x[:, 0]), []
        alpha, kept = self.alpha_mem_calculated, self.alpha_syn_calculated
        for t in range(x.shape[1]):
            i = x[:, t] if kept is None else kept * (i + x[:, t])
            v = alpha * v + ((1 - alpha) * i if self.norm_input else i)
            n = (v > 0) * torch.trunc(v / self.spike_threshold)
            n = n.clamp(max=1) if self.spike_fn is SingleSpike else n
            v = v - n * self.spike_threshold
            v = v if self.min_v_mem is None else v.clamp(min=self.min_v_mem)
            outputs.append(n)
        return torch.stack(outputs, 1)


@at("rockpool.nn.modules.torch.lif_torch")
class StepPWL:
    """Rockpool: counts spikes."""

    @classmethod
    def apply(cls, x: Tensor, level: Tensor, most: Tensor) -> Tensor:
        return ((x >= level) * torch.floor(x / level)).clamp(max=float(most))


@at("rockpool.nn.modules.torch.lif_torch")
class LIFTorch(nn.Module):
    """Rockpool: over (N, T, C); alpha is of the voltage, beta of the current."""

    def __init__(
        self, shape: int, alpha: float = 0.9, beta: float = 0.8, bias: float = 0.0,
        threshold: float = 1.0, max_spikes_per_dt: float = 2.0**16, noise_std: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.size_in, self.size_out, self.n_synapses = shape, shape, 1
        self.alpha = nn.Parameter(torch.full((shape,), alpha))
        self.beta = nn.Parameter(torch.full((shape, 1), beta))
        self.bias, self.threshold = nn.Parameter(torch.tensor(bias)), torch.tensor(threshold)
        self.max_spikes_per_dt, self.noise_std = torch.tensor(max_spikes_per_dt), noise_std
        self.spike_generation_fn = StepPWL.apply

    def forward(self, x: Tensor) -> Tensor:
        v, i, outputs = torch.zeros_like(x[:, 0]), torch.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            i = (i + x[:, t]) * self.beta[:, 0]
            v = self.alpha * v + i + self.bias
            n = self.spike_generation_fn(v, self.threshold, self.max_spikes_per_dt)
            v = v - n * self.threshold
            outputs.append(n)
        return torch.stack(outputs, 1)


@at("rockpool.nn.modules.torch.linear_torch")
class LinearTorch(nn.Module):
    """Rockpool: its weight is (inputs, outputs)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(inputs, outputs) - 0.3), None

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


@at("rockpool.nn.combinators.sequential")
class TorchSequential(nn.Module):
    """Rockpool: a network with names of its own, that returns states too."""

    def __init__(self, *layers: Any) -> None:
        super().__init__()
        for i, layer in enumerate(layers):
            self.add_module(f"{i}_{type(layer).__name__}", layer)

    def forward(self, x: Tensor) -> Any:
        for layer in self.children():
            x = layer(x)
        return x, {}, {}
