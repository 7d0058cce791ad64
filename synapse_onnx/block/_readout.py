"""Blocks whose output is a current: affine, and the decoder of sigma-delta networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from synapse_onnx.block._block import DEFAULT_HOOK, NeuronBlock, Output
from synapse_onnx.synapse.layer import Hook

__all__ = ["Affine", "Decoded"]


class Affine(NeuronBlock):
    """Dense synapse whose current is the output: a readout without spikes.

    Args:
        neuron_params: arguments of the neuron, by name; its threshold is never reached.
        in_neurons: number of inputs; (W, H) or (W, H, C) for an image (N, C, H, W, T).
        out_neurons: number of outputs.
        weight_scale: factor on the initial weights.
        weight_norm: train length and direction of the weights apart.
        pre_hook_fx: function applied to the weight before use; by default the neuron's
            ``quantize_8bit``. None uses the weight as it is.
        dynamics: filter the current by the neuron: the output is its voltage, or its imaginary
            part. False: the output is the current, or its imaginary part.
        mask: (outputs, inputs), 0 where there is no synapse; None keeps all.
        count_log: also return None, in the place of a spike rate.
    """

    def __init__(
        self,
        neuron_params: Mapping[str, Any],
        in_neurons: int | Sequence[int],
        out_neurons: int,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Hook | None = DEFAULT_HOOK,
        dynamics: bool = True,
        mask: Tensor | None = None,
        count_log: bool = False,
    ) -> None:
        super().__init__(count_log)
        self.dynamics = dynamics
        neuron = self._neuron(neuron_params)
        neuron.as_readout()
        self.synapse = self.synapses.Dense(in_neurons, out_neurons, weight_scale, weight_norm)
        self.neuron = neuron
        if not dynamics:
            neuron.settle()  # it never runs, so that it would never draw its parameters
        self._hook(self.synapse, pre_hook_fx, mask)

    def forward(self, x: Tensor) -> Output:
        """Return the filtered current (N, out_neurons, T)."""
        z = self.synapse(x)
        if self.dynamics:
            z = self.neuron(z)
        elif self.synapse.complex:
            z = z[1]
        return self._logged(z, spikes=False)

    @property
    def shape(self) -> torch.Size:
        """Shape of the outputs."""
        return torch.Size([self.synapse.out_channels])


class Decoded(NeuronBlock):
    """Dense synapse and sigma decoder: the output of a sigma-delta network.

    Args:
        neuron_params: arguments of the neuron, by name; see ``synapse_onnx.neuron``.
        in_neurons: number of inputs; (W, H) or (W, H, C) for an image (N, C, H, W, T).
        out_neurons: number of outputs.
        weight_scale: factor on the initial weights.
        weight_norm: train length and direction of the weights apart.
        pre_hook_fx: function applied to the weight before use; by default the neuron's
            ``quantize_8bit``. None uses the weight as it is.
        count_log: also return the mean rate of positive outputs, a scalar tensor.
    """

    def __init__(
        self,
        neuron_params: Mapping[str, Any],
        in_neurons: int | Sequence[int],
        out_neurons: int,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Hook | None = DEFAULT_HOOK,
        count_log: bool = False,
    ) -> None:
        super().__init__(count_log)
        neuron = self._neuron(neuron_params)
        neuron.as_decoder()
        self.synapse = self.synapses.Dense(in_neurons, out_neurons, weight_scale, weight_norm)
        self.neuron = neuron
        self._hook(self.synapse, pre_hook_fx)

    def forward(self, x: Tensor) -> Output:
        """Return the summed current (N, out_neurons, T)."""
        return self._logged(self.neuron(self.synapse(x)))
