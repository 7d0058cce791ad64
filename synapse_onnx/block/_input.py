"""The input block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx.block._block import NeuronBlock, Output

__all__ = ["Input"]


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
