"""The blocks of pooling and unpooling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synapse_onnx.block._block import DEFAULT_HOOK
from synapse_onnx.block._synaptic import SynapticBlock
from synapse_onnx.synapse.layer import Hook, IntOrPair

__all__ = ["Pool", "Unpool"]


class Pool(SynapticBlock):
    """Sum pooling and neuron, for images (N, C, H, W, T).

    A norm among the neuron's arguments is left out.

    Args:
        neuron_params: arguments of the neuron, by name; see ``synapse_onnx.neuron``.
        kernel_size: size of the window, int or (height, width), in pixels.
        stride: stride of the window, likewise; None is the kernel's size.
        padding: zeros added at both ends of both axes, likewise.
        dilation: distance of the window's taps, likewise.
        weight_scale: the weight.
        weight_norm: split the weight into length and direction.
        pre_hook_fx: function applied to the weight before use; by default the neuron's
            ``quantize_8bit``. None uses the weight as it is.
        delay: learn an axonal delay for each channel, 0 to 62 time steps, after the neuron.
        delay_shift: send spikes one time step later, as on Loihi. None: True, and False for a
            sigma-delta neuron.
        count_log: also return the mean spike rate, a scalar tensor.
        merge_channels: lava-dl's arithmetic, bit for bit; see :class:`synapse_onnx.synapse.Pool`.
    """

    layer = "Pool"
    plain = True

    def __init__(
        self,
        neuron_params: Mapping[str, Any],
        kernel_size: IntOrPair,
        stride: IntOrPair | None = None,
        padding: IntOrPair = 0,
        dilation: IntOrPair = 1,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Hook | None = DEFAULT_HOOK,
        delay: bool = False,
        delay_shift: bool | None = None,
        count_log: bool = False,
        merge_channels: bool = False,
    ) -> None:
        super().__init__(count_log)
        arguments = {
            "kernel_size": kernel_size, "stride": stride, "padding": padding,
            "dilation": dilation, "weight_scale": weight_scale, "weight_norm": weight_norm,
            "merge_channels": merge_channels,
        }  # fmt: skip
        self._build(neuron_params, arguments, pre_hook_fx, delay, delay_shift)


class Unpool(Pool):
    """Unpooling and neuron, for images (N, C, H, W, T).

    A norm among the neuron's arguments is left out.

    Args:
        neuron_params: arguments of the neuron, by name; see ``synapse_onnx.neuron``.
        kernel_size: size of the window, int or (height, width), in pixels.
        stride: stride of the windows in the output, likewise; None is the kernel's size.
        padding: pixels cut off at both ends of both axes of the output, likewise.
        dilation: distance of the window's taps, likewise.
        weight_scale: the weight.
        weight_norm: split the weight into length and direction.
        pre_hook_fx: function applied to the weight before use; by default the neuron's
            ``quantize_8bit``. None uses the weight as it is.
        delay: learn an axonal delay for each channel, 0 to 62 time steps, after the neuron.
        delay_shift: send spikes one time step later, as on Loihi. None: True, and False for a
            sigma-delta neuron.
        count_log: also return the mean spike rate, a scalar tensor.
        merge_channels: lava-dl's arithmetic, bit for bit; see :class:`synapse_onnx.synapse.Unpool`.
    """

    layer = "Unpool"
