"""Blocks of a synapse and its neuron: dense, convolution, pooling and their transposes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from synapse_onnx.block._block import DEFAULT_HOOK, NeuronBlock, Output
from synapse_onnx.synapse.layer import Hook, IntOrPair

__all__ = ["Conv", "ConvT", "Dense", "Pool", "Unpool"]


class _SynapticBlock(NeuronBlock):
    """A block of synapse, neuron, step delay and axonal delay, in this order."""

    def _build(
        self,
        synapse: Any,
        neuron_params: Mapping[str, Any],
        pre_hook_fx: Any,
        delay: bool,
        delay_shift: bool | None,
        mask: Tensor | None = None,
    ) -> None:
        self.synapse, self.neuron = synapse, self._neuron(neuron_params)
        self._hook(synapse, pre_hook_fx, mask)
        self._delays(delay, delay_shift)

    def forward(self, x: Tensor) -> Output:
        """Return the spikes of an input; with ``count_log`` also the mean spike rate."""
        return self._sent(self.neuron(self.synapse(x)))


class Dense(_SynapticBlock):
    """Dense synapse and neuron.

    Args:
        neuron_params: arguments of the neuron, by name; see ``synapse_onnx.neuron``.
        in_neurons: number of inputs; (W, H) or (W, H, C) for an image (N, C, H, W, T).
        out_neurons: number of neurons.
        weight_scale: factor on the initial weights.
        weight_norm: train length and direction of the weights apart.
        pre_hook_fx: hook of the weight, by default the neuron's ``quantize_8bit``; None for none.
        delay: learn an axonal delay for each channel, 0 to 62 time steps, after the neuron.
        delay_shift: send spikes one time step later, as on Loihi. None: True, and False for a
            sigma-delta neuron.
        mask: (outputs, inputs), 0 where there is no synapse; None keeps all.
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
        delay: bool = False,
        delay_shift: bool | None = None,
        mask: Tensor | None = None,
        count_log: bool = False,
    ) -> None:
        super().__init__(count_log)
        synapse = self.synapses.Dense(in_neurons, out_neurons, weight_scale, weight_norm)
        self._build(synapse, neuron_params, pre_hook_fx, delay, delay_shift, mask)


class Conv(_SynapticBlock):
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
        weight_scale, weight_norm, pre_hook_fx, delay, delay_shift, count_log: as of :class:`Dense`.
    """

    #: name of the synapse in ``synapse_onnx.synapse``
    layer: ClassVar[str] = "Conv"

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
        synapse = getattr(self.synapses, self.layer)(
            in_features, out_features, kernel_size, stride, padding, dilation, groups,
            weight_scale, weight_norm,
        )  # fmt: skip
        self._build(synapse, neuron_params, pre_hook_fx, delay, delay_shift)


class ConvT(Conv):
    """Transposed convolution and neuron, for images (N, C, H, W, T).

    Args:
        neuron_params, in_features, out_features, kernel_size: as of :class:`Conv`.
        stride: stride of the output, int or (height, width), in pixels.
        padding: pixels cut off at both ends of both axes of the output, likewise.
        dilation, groups, weight_scale, weight_norm, pre_hook_fx: as of :class:`Conv`.
        delay, delay_shift, count_log: likewise.
    """

    layer = "ConvTranspose"


class Pool(_SynapticBlock):
    """Sum pooling and neuron, for images (N, C, H, W, T).

    A norm among the neuron's arguments is left out: there are no weights to fold it into.

    Args:
        neuron_params: arguments of the neuron, by name; see ``synapse_onnx.neuron``.
        kernel_size: size of the window, int or (height, width), in pixels.
        stride: stride of the window, likewise; None is the kernel's size.
        padding: zeros added at both ends of both axes, likewise.
        dilation: distance of the window's taps, likewise.
        weight_scale: the weight.
        weight_norm: split the weight into length and direction.
        pre_hook_fx, delay, delay_shift, count_log: as of :class:`Dense`.
        merge_channels: lava-dl's arithmetic, bit for bit; see :class:`synapse_onnx.synapse.Pool`.
    """

    layer: ClassVar[str] = "Pool"

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
        synapse = getattr(self.synapses, self.layer)(
            kernel_size, stride, padding, dilation, weight_scale, weight_norm,
            merge_channels=merge_channels,
        )  # fmt: skip
        self._build(synapse, neuron_params, pre_hook_fx, delay, delay_shift)

    def _neuron(self, params: Mapping[str, Any]) -> Any:
        return super()._neuron({**params, "norm": None} if "norm" in params else params)


class Unpool(Pool):
    """Unpooling and neuron, for images (N, C, H, W, T).

    A norm among the neuron's arguments is left out: there are no weights to fold it into.

    Args:
        neuron_params, kernel_size: as of :class:`Pool`.
        stride: stride of the windows in the output, likewise; None is the kernel's size.
        padding: pixels cut off at both ends of both axes of the output, likewise.
        dilation, weight_scale, weight_norm, pre_hook_fx, delay, delay_shift, count_log: as of
            :class:`Pool`.
        merge_channels: lava-dl's arithmetic, bit for bit; see :class:`synapse_onnx.synapse.Unpool`.
    """

    layer = "Unpool"
