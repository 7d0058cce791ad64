"""Blocks whose neurons see their own spikes one step later: recurrent, k winners take all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx import synapse
from synapse_onnx._layer import Deployable
from synapse_onnx.block._block import DEFAULT_HOOK, NeuronBlock, Output
from synapse_onnx.errors import InputError
from synapse_onnx.ops.normalize import normalize
from synapse_onnx.synapse.layer import Hook

__all__ = ["KWTA", "Bias", "Recurrent"]


class _FeedbackBlock(NeuronBlock):
    """A block whose neurons see their own spikes one step later."""

    #: whether a call starts from the last spikes of the one before, where states persist
    keeps_spikes = True

    def _looped(self, current: Any) -> Output:
        """Run the neurons on the current that comes from outside."""
        if self.neuron.persistent_state and not self.keeps_spikes:
            self.neuron.spikes_state = self.neuron.spikes_state.new_zeros(1)
        return self._sent(self.neuron(current))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Leave out lava-dl's buffer ``spike_state``: it holds the zeros that it starts from."""
        kept = {k: v for k, v in state_dict.items() if k != f"{prefix}spike_state"}
        state_dict.pop(f"{prefix}spike_state", None)
        super()._load_from_state_dict(kept, prefix, *rest)


class Recurrent(_FeedbackBlock):
    """Dense synapse and neurons that a second Dense synapse connects to themselves.

    current[t] = input_synapse(x[t]) + recurrent_synapse(s[t-1]). The last spikes are a state of
    the neuron, kept from call to call with ``persistent_state``.

    Args:
        neuron_params: arguments of the neuron, by name; a norm is not possible.
        in_neurons: number of inputs; (W, H) or (W, H, C) for an image (N, C, H, W, T).
        out_neurons: number of neurons.
        weight_scale: factor on the initial weights of both synapses.
        weight_norm: train length and direction of both weights apart.
        pre_hook_fx: hook of both weights, by default the neuron's ``quantize_8bit``; None for none.
        requires_grad: learn the weights.
        delay: learn an axonal delay for each channel, 0 to 62 time steps, after the neuron.
        delay_shift: send spikes one time step later, as on Loihi. None: True, and False for a
            sigma-delta neuron.
        count_log: also return the mean spike rate, a scalar tensor.
    """

    def __init__(
        self,
        neuron_params: Mapping[str, Any],
        in_neurons: int | Sequence[int],
        out_neurons: int,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Hook | None = DEFAULT_HOOK,
        requires_grad: bool = True,
        delay: bool = False,
        delay_shift: bool | None = None,
        count_log: bool = False,
    ) -> None:
        super().__init__(count_log)
        self.num_neurons = out_neurons
        make = self.synapses.Dense
        self.input_synapse = make(in_neurons, out_neurons, weight_scale, weight_norm)
        self.recurrent_synapse = make(out_neurons, out_neurons, weight_scale, weight_norm)
        self.neuron = self._neuron(neuron_params)
        for each in (self.input_synapse, self.recurrent_synapse):
            self._hook(each, pre_hook_fx)
            each.requires_grad_(requires_grad)
        self.neuron.feed_back(self.recurrent_synapse)
        self._delays(delay, delay_shift)

    def forward(self, x: Tensor) -> Output:
        """Return the spikes of an input; with ``count_log`` also the mean spike rate."""
        return self._looped(self.input_synapse(x))


class Bias(Deployable):
    """A constant added to a current at every time step.

    Args:
        bias: float32, one for all (1,) or one a channel (C,), in the unit of the current.
    """

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", -bias, persistent=False)
        self.register_buffer("std", torch.ones(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return a current (N, C[, H, W], T) with the bias added."""
        y: Tensor = normalize(x, self.mean, self.std)
        return y

    def describe(self) -> dict[str, Any]:
        """Return kind and bias."""
        mean: Any = self.mean
        return {"kind": "Bias", "bias": (-mean).tolist()}


class _Lateral(synapse.Dense):
    """Synapse of neurons among themselves whose weight follows from a parameter of its block."""

    def __init__(self, count: int, weight_of: Callable[[], Tensor]) -> None:
        super().__init__(count, count)
        del self.weight
        self._weight_of: Callable[[], Tensor] | None = weight_of

    def __getattr__(self, name: str) -> Any:
        own = name in self.__dict__["_parameters"] or name in self.__dict__["_buffers"]
        weight_of = self.__dict__.get("_weight_of")
        if name == "weight" and not own and weight_of:
            return weight_of()
        return super().__getattr__(name)

    def settle(self) -> None:
        """Store the weight that follows from the parameter."""
        if self._weight_of is not None:
            # register_parameter refuses a name that already gives a value
            weight = nn.Parameter(self.weight.detach().clone(), requires_grad=False)
            self._parameters["weight"] = weight
            self._weight_of = None

    def freeze(self) -> None:
        self.settle()
        super().freeze()


class _LateralPair(synapse.complex.Dense):
    """The same for complex currents: the feedback is real, and its imaginary part is zero."""

    def __init__(self, real: _Lateral, imag: _Lateral) -> None:
        Deployable.__init__(self)
        self.real, self.imag = real, imag

    def freeze(self) -> None:
        for part in (self.real, self.imag):
            part.settle()
        super().freeze()


class KWTA(_FeedbackBlock):
    """k winners take all: a neuron excites itself and inhibits the others.

    current[t] = synapse(x[t]) + W s[t-1] + b with W = self_excitation on the diagonal and -1
    elsewhere, and b = threshold (n - 2 k) / n / scale, both quantised to 8 bits.
    Both are added to the real current of a resonator, for which lava-dl's own block fails.
    Source: lava-dl, ``slayer/block/base.py``.

    Args:
        neuron_params: arguments of the neuron, by name; a norm is not possible.
        in_neurons: number of inputs; (W, H) or (W, H, C) for an image (N, C, H, W, T).
        out_neurons: number n of neurons.
        num_winners: number k of neurons that may spike together, 1 to n.
        self_excitation: weight of a neuron's own last spike, 0 to 1.
        weight_scale, weight_norm, pre_hook_fx: as of :class:`Dense`.
        delay_shift: send spikes one time step later, as on Loihi. None: True, and False for a
            sigma-delta neuron.
        requires_grad: learn the self-excitation.
        count_log: also return the mean spike rate, a scalar tensor.
    """

    def __init__(
        self,
        neuron_params: Mapping[str, Any],
        in_neurons: int | Sequence[int],
        out_neurons: int,
        num_winners: int,
        self_excitation: float = 0.5,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Hook | None = DEFAULT_HOOK,
        delay_shift: bool | None = None,
        requires_grad: bool = True,
        count_log: bool = False,
    ) -> None:
        super().__init__(count_log)
        if not (isinstance(num_winners, int) and 0 < num_winners <= out_neurons):
            raise InputError(f"num_winners must be 1 to {out_neurons}, got {num_winners!r}")
        if not 0 <= self_excitation <= 1:
            raise InputError(f"self_excitation must lie in [0, 1], got {self_excitation}")
        self.num_neurons, self.num_winners = out_neurons, num_winners
        self.synapse = self.synapses.Dense(in_neurons, out_neurons, weight_scale, weight_norm)
        self.neuron = self._neuron(neuron_params)
        self._hook(self.synapse, pre_hook_fx)
        self.self_excitation = nn.Parameter(
            torch.tensor([float(self_excitation)]), requires_grad=requires_grad
        )
        lateral = _Lateral(out_neurons, self.lateral_weight)
        self.lateral: _Lateral | _LateralPair = lateral
        if self.neuron.complex:
            self.lateral = _LateralPair(lateral, _Lateral(out_neurons, self.no_weight))
        self.lateral.pre_hook_fx = self.neuron.quantize_8bit
        self.neuron.feed_back(self.lateral)
        self.set_bias()
        self._delays(False, delay_shift)

    def set_bias(self) -> None:
        """Compute the bias from the neuron's threshold, in lava-dl's order of operations."""
        level = self.neuron.threshold * (self.num_neurons - 2 * self.num_winners)
        level = torch.tensor([level / self.num_neurons / self.neuron.w_scale])
        self.bias = Bias(self.neuron.quantize_8bit(level))

    def lateral_weight(self) -> Tensor:
        """Return the weights between the neurons, before the hook, five axes.

        A step of an optimiser may have left the self-excitation outside 0 to 1; it is brought back.
        """
        with torch.no_grad():
            self.self_excitation.clamp_(0, 1)
        excitation = 1 + self.self_excitation
        eye = torch.eye(self.num_neurons, device=excitation.device)
        return (excitation * eye - 1).reshape(self.num_neurons, self.num_neurons, 1, 1, 1)

    def no_weight(self) -> Tensor:
        """Return the imaginary weights between resonators: none."""
        return self.self_excitation.new_zeros(self.num_neurons, self.num_neurons, 1, 1, 1)

    def forward(self, x: Tensor) -> Output:
        """Return the spikes of an input; with ``count_log`` also the mean spike rate."""
        z = self.synapse(x)
        # spikes and bias are real: they are added to the real current only
        return self._looped((self.bias(z[0]), z[1]) if self.neuron.complex else self.bias(z))
