"""The dense block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from synapse_onnx.block._block import DEFAULT_HOOK
from synapse_onnx.block._synaptic import SynapticBlock
from synapse_onnx.synapse.layer import Hook

__all__ = ["Dense"]


class Dense(SynapticBlock):
    """Dense synapse and neuron.

    Args:
        neuron_params: arguments of the neuron, by name; see ``synapse_onnx.neuron``.
        in_neurons: number of inputs; (W, H) or (W, H, C) for an image (N, C, H, W, T).
        out_neurons: number of neurons.
        weight_scale: factor on the initial weights.
        weight_norm: train length and direction of the weights apart.
        pre_hook_fx: function applied to the weight before use; by default the neuron's
            ``quantize_8bit``. None uses the weight as it is.
        delay: learn an axonal delay for each channel, 0 to 62 time steps, after the neuron.
        delay_shift: send spikes one time step later, as on Loihi. None: True, and False for a
            sigma-delta neuron.
        mask: (outputs, inputs), 0 where there is no synapse; None keeps all.
        count_log: also return the mean spike rate, a scalar tensor.
    """

    layer = "Dense"

    def __init__(
        self,
        neuron_params: Mapping[str, Any],
        in_neurons: int | Sequence[int],
        out_neurons: int,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Hook | None = DEFAULT_HOOK,
        delay: bool = False,
        delay_shift: bool | None = None,
        mask: Tensor | None = None,
        count_log: bool = False,
    ) -> None:
        super().__init__(count_log)
        arguments = {
            "in_neurons": in_neurons, "out_neurons": out_neurons,
            "weight_scale": weight_scale, "weight_norm": weight_norm,
        }  # fmt: skip
        self._build(neuron_params, arguments, pre_hook_fx, delay, delay_shift, mask)
