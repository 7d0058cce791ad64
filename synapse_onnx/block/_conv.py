"""The blocks of convolution and transposed convolution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synapse_onnx.block._block import DEFAULT_HOOK
from synapse_onnx.block._synaptic import SynapticBlock
from synapse_onnx.synapse.layer import Hook, IntOrPair

__all__ = ["Conv", "ConvT"]


class Conv(SynapticBlock):
    """Convolution and neuron, for images (N, C, H, W, T).

    Args:
        neuron_params: arguments of the neuron, by name; see ``synapse_onnx.neuron``.
        in_features: input channels.
        out_features: output channels.
        kernel_size: size of the kernel, int or (height, width), in pixels.
        stride: stride, likewise.
        padding: zeros added at both ends of both axes, likewise.
        dilation: distance of the kernel's taps, likewise.
        groups: blocks of channels that are connected among themselves only.
        weight_scale: factor on the initial weights.
        weight_norm: train length and direction of the weights apart.
        pre_hook_fx: function applied to the weight before use; by default the neuron's
            ``quantize_8bit``. None uses the weight as it is.
        delay: learn an axonal delay for each channel, 0 to 62 time steps, after the neuron.
        delay_shift: send spikes one time step later, as on Loihi. None: True, and False for a
            sigma-delta neuron.
        count_log: also return the mean spike rate, a scalar tensor.
    """

    layer = "Conv"

    def __init__(
        self,
        neuron_params: Mapping[str, Any],
        in_features: int,
        out_features: int,
        kernel_size: IntOrPair,
        stride: IntOrPair = 1,
        padding: IntOrPair = 0,
        dilation: IntOrPair = 1,
        groups: int = 1,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Hook | None = DEFAULT_HOOK,
        delay: bool = False,
        delay_shift: bool | None = None,
        count_log: bool = False,
    ) -> None:
        super().__init__(count_log)
        arguments = {
            "in_features": in_features, "out_features": out_features, "kernel_size": kernel_size,
            "stride": stride, "padding": padding, "dilation": dilation, "groups": groups,
            "weight_scale": weight_scale, "weight_norm": weight_norm,
        }  # fmt: skip
        self._build(neuron_params, arguments, pre_hook_fx, delay, delay_shift)


class ConvT(Conv):
    """Transposed convolution and neuron, for images (N, C, H, W, T).

    Args:
        neuron_params: arguments of the neuron, by name; see ``synapse_onnx.neuron``.
        in_features: input channels.
        out_features: output channels.
        kernel_size: size of the kernel, int or (height, width), in pixels.
        stride: stride of the output, likewise.
        padding: pixels cut off at both ends of both axes of the output, likewise.
        dilation: distance of the kernel's taps, likewise.
        groups: blocks of channels that are connected among themselves only.
        weight_scale: factor on the initial weights.
        weight_norm: train length and direction of the weights apart.
        pre_hook_fx: function applied to the weight before use; by default the neuron's
            ``quantize_8bit``. None uses the weight as it is.
        delay: learn an axonal delay for each channel, 0 to 62 time steps, after the neuron.
        delay_shift: send spikes one time step later, as on Loihi. None: True, and False for a
            sigma-delta neuron.
        count_log: also return the mean spike rate, a scalar tensor.
    """

    layer = "ConvTranspose"
