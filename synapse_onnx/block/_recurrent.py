"""Neurons that see their own spikes one step later; the recurrent block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from synapse_onnx.block._block import DEFAULT_HOOK, NeuronBlock, Output
from synapse_onnx.synapse.layer import Hook

__all__ = ["FeedbackBlock", "Recurrent"]


class FeedbackBlock(NeuronBlock):
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


class Recurrent(FeedbackBlock):
    """Dense synapse and neurons that a second Dense synapse connects to themselves.

    current[t] = input_synapse(x[t]) + recurrent_synapse(s[t-1]). The last spikes are a state of
    the neuron, kept from call to call with ``persistent_state``.

    Args:
        neuron_params: arguments of the neuron, by name; a norm is not possible.
        in_neurons: number of inputs; (W, H) or (W, H, C) for an image (N, C, H, W, T).
        out_neurons: number of neurons.
        weight_scale: factor on the initial weights of both synapses.
        weight_norm: train length and direction of both weights apart.
        pre_hook_fx: function applied to both weights before use; by default the neuron's
            ``quantize_8bit``. None uses the weights as they are.
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
        neuron = self._neuron(neuron_params)
        make = self.synapses.Dense
        self.input_synapse = make(in_neurons, out_neurons, weight_scale, weight_norm)
        self.recurrent_synapse = make(out_neurons, out_neurons, weight_scale, weight_norm)
        self.neuron = neuron
        for each in (self.input_synapse, self.recurrent_synapse):
            self._hook(each, pre_hook_fx)
            each.requires_grad_(requires_grad)
        self.neuron.feed_back(self.recurrent_synapse)
        self._delays(delay, delay_shift)

    def forward(self, x: Tensor) -> Output:
        """Return the spikes of an input; with ``count_log`` also the mean spike rate."""
        return self._looped(self.input_synapse(x))
