"""Blocks at the ends of a network: its input, and readouts that give a current."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx.block._block import DEFAULT_HOOK, NeuronBlock, Output
from synapse_onnx.synapse.layer import Hook

__all__ = ["Affine", "Decoded", "Input"]


class Input(NeuronBlock):
    """Input of a network: an optional transformation and an optional neuron.

    The input is quantised to 8 bits on the neuron's scale, multiplied by ``weight`` and shifted by
    ``bias`` (both are learned, and quantised likewise); the result is the neuron's current. Without
    a neuron the input is passed on as it is.

    Args:
        neuron_params: arguments of the neuron, by name; None for no neuron.
        weight: initial factor on the input, a number; None for no factor.
        bias: initial bias, a number, in the unit of the input; None for no bias.
        delay_shift: send spikes one time step later, as on Loihi. None: True, and False for a
            sigma-delta neuron.
        count_log: also return the mean spike rate, a scalar tensor.
    """

    def __init__(
        self,
        neuron_params: Mapping[str, Any] | None = None,
        weight: float | None = None,
        bias: float | None = None,
        delay_shift: bool | None = None,
        count_log: bool = False,
    ) -> None:
        super().__init__(count_log)
        self.neuron = None if neuron_params is None else self._neuron(neuron_params)
        if self.neuron is not None and hasattr(self.neuron, "as_encoder"):
            self.neuron.as_encoder()
        for name, value in (("weight", weight), ("bias", bias)):
            parameter = None
            if value is not None:
                parameter = nn.Parameter(torch.as_tensor([value], dtype=torch.float32))
            self.register_parameter(name, parameter)
        self.pre_hook_fx = _unhooked if self.neuron is None else self.neuron.quantize_8bit
        self._delays(False, delay_shift)
        self.input_shape: torch.Size | None = None

    def forward(self, x: Any) -> Output:
        """Return the spikes of an input; a pair (real, imag) where the neuron is a resonator."""
        if self.neuron is not None:
            pair = isinstance(x, tuple | list)
            currents = [self._transformed(part) for part in (x if pair else (x,))]
            x = self.neuron(tuple(currents) if pair else currents[0])
        self.input_shape = x.shape[1:-1]
        return self._sent(x)

    def _transformed(self, x: Tensor) -> Tensor:
        weight: Any = self.weight
        bias: Any = self.bias
        z = self.pre_hook_fx(x)
        if weight is not None:
            z = z * self.pre_hook_fx(weight)
        return z if bias is None else z + self.pre_hook_fx(bias)

    @property
    def shape(self) -> torch.Size | None:
        """Shape of the input, (C[, H, W]); None before the first one."""
        return self.input_shape


def _unhooked(x: Tensor) -> Tensor:
    return x


class Affine(NeuronBlock):
    """Dense synapse whose current is the output: a readout without spikes.

    Args:
        neuron_params: arguments of the neuron, by name; its threshold is never reached.
        in_neurons: number of inputs; (W, H) or (W, H, C) for an image (N, C, H, W, T).
        out_neurons: number of outputs.
        weight_scale, weight_norm, pre_hook_fx: as of :class:`Dense`.
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
        self.synapse = self.synapses.Dense(in_neurons, out_neurons, weight_scale, weight_norm)
        self.neuron = self._neuron(neuron_params)
        self.neuron.as_readout()
        if not dynamics:
            self.neuron.settle()  # it never runs, so that it would never draw its parameters
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
        weight_scale, weight_norm, pre_hook_fx: as of :class:`Dense`.
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
        self.synapse = self.synapses.Dense(in_neurons, out_neurons, weight_scale, weight_norm)
        self.neuron = self._neuron(neuron_params)
        self.neuron.as_decoder()
        self._hook(self.synapse, pre_hook_fx)

    def forward(self, x: Tensor) -> Output:
        """Return the summed current (N, out_neurons, T)."""
        return self._logged(self.neuron(self.synapse(x)))
