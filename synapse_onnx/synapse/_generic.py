"""The abstract synapse: from spikes to dendrite currents, with one linear map at every step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NoReturn

from torch import Tensor

from synapse_onnx._layer import Deployable
from synapse_onnx.errors import InputError, ShapeError
from synapse_onnx.ops import OpDef
from synapse_onnx.synapse._weights import Weights, describe_together, freeze_together

__all__ = ["GenericLayer"]


class GenericLayer(Weights):
    """Abstract synapse.

    Attributes:
        complex: False; the complex synapses hold two of these.
        weight_norm_enabled: whether the weight is ``weight_g * weight_v / |weight_v|``, the norm
            taken over all axes but the first.
        weight: the weight before the hook, five axes (int8 or int16 in the quantised form).
        weight_scale: None, or in the quantised form the quantisation scale, float32 (1,) or
            (output channels,): ``weight in use = weight_scale * weight``, as in ONNX. The
            constructors' argument of this name is another thing, lava-dl's factor on the initial
            weights, and is not kept.
        weight_high: None, or the high bytes of integers whose sums float32 cannot hold in one
            piece, int16: ``weight in use = weight_scale * (256 * weight_high + weight)``.
        bias: None, or of a network in floats that was quantised what is added to each output
            channel after its scale, float32.
        in_channels: input channels.
        out_channels: output channels.
    """

    complex: bool = False
    #: real, quantised, complex and quantised complex op of this synapse; that with a bias, if any
    ops: ClassVar[tuple[OpDef, ...]]
    #: layout of the input, for messages
    layout: ClassVar[str] = "(N, C, H, W, T)"

    # set by torch's convolutions, from which the subclasses inherit after this class
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Any
    dilation: tuple[int, ...]
    groups: int
    in_channels: int
    out_channels: int
    bias: Any

    def _start(
        self, inputs: int, outputs: int, axes: Mapping[str, tuple[int, ...]], groups: int = 1
    ) -> None:
        """Begin a constructor: make the convolution that is the last of the bases."""
        super(Deployable, self).__init__(inputs, outputs, **axes, groups=groups, bias=False)

    # -- use ---------------------------------------------------------------------------------

    def forward(self, input: Tensor) -> Tensor:
        """Return the dendrite current of an input, float32.

        Args:
            input: spikes (N, C, H, W, T); Dense also takes (N, C, T).

        Raises:
            InputError: the input is no floating-point tensor.
            ShapeError: wrong rank or channel count, or a kernel larger than the padded input.
            QuantizationError: the hook does not return a weight of the same shape.
        """
        return self.run(input, self)[0]

    def run(self, input: Tensor, *layers: GenericLayer) -> tuple[Tensor, ...]:
        """Apply one or two synapses of this geometry in one pass over the input."""
        if not (isinstance(input, Tensor) and input.is_floating_point()):
            kind = input.dtype if isinstance(input, Tensor) else type(input).__name__
            raise InputError(
                f"{type(self).__name__}: expected spikes as a floating-point tensor, got {kind}"
            )
        self.check(input)
        x, restore = self.prepare(input)
        return tuple(restore(y) for y in self._compute(x, layers))

    def _compute(self, x: Tensor, layers: Sequence[GenericLayer]) -> tuple[Tensor, ...]:
        first = 2 * (len(layers) - 1)  # the ops of one synapse, then those of two
        forms = self.forms(x)
        plain, quantized = forms[first : first + 2]
        geometry = self.geometry(x)

        def apply(op: OpDef, *operands: Tensor | None) -> tuple[Tensor, ...]:
            y = op.torch_op(x, *operands, *geometry)
            return tuple(y) if len(layers) == 2 else (y,)

        scales = [each.weight_scale for each in layers if each.weight_scale is not None]
        if not scales:
            return apply(plain, *(each.effective_weight for each in layers))
        if self.bias is not None:  # of one synapse, whose sums float32 holds
            return apply(forms[-1], self.weight, *scales, self.bias)
        ys = apply(quantized, *(each.weight for each in layers), *scales)
        if layers[0].weight_high is None:
            return ys
        # sums that float32 cannot hold in one piece: high and low byte each by itself
        highs = [each.weight_high for each in layers]
        coarse = apply(quantized, *highs, *(256 * scale for scale in scales))
        return tuple(high + low for high, low in zip(coarse, ys, strict=True))

    def check(self, input: Tensor) -> None:
        """Raise ShapeError where the input does not fit this synapse."""
        if input.dim() != 5:
            self._refuse_shape(input)
        self._check_channels(input)

    def _refuse_shape(self, input: Tensor) -> NoReturn:
        raise ShapeError(
            f"{type(self).__name__}: expected an input of shape {self.layout}, got "
            f"{tuple(input.shape)}"
        )

    def _check_channels(self, input: Tensor) -> None:
        if input.shape[1] != self.in_channels:
            raise ShapeError(
                f"{type(self).__name__}: expected {self.in_channels} input channels "
                f"(axis 1 of {self.layout}), got {input.shape[1]}"
            )

    def _reach(self, axis: int) -> int:
        """Return the pixels of an axis that the kernel covers."""
        return self.dilation[axis] * (self.kernel_size[axis] - 1) + 1

    def _gathered_rows(self, height: int, width: int) -> int:
        """Return the output's height; refuse an input that the kernel does not fit into."""
        for axis, (name, size) in enumerate((("height", height), ("width", width))):
            reach, padded = self._reach(axis), size + 2 * self.padding[axis]
            if reach > padded:
                raise ShapeError(
                    f"{type(self).__name__}: the kernel reaches over {reach} pixels of {name} and "
                    f"the padded input has {padded}; give a larger input, more padding or a "
                    f"smaller kernel"
                )
        return int(height + 2 * self.padding[0] - self._reach(0)) // self.stride[0] + 1

    def _spread_rows(self, height: int, width: int) -> int:
        """Return the height of a transposed output; refuse padding that leaves no output."""
        outputs = []
        for axis, (name, size) in enumerate((("height", height), ("width", width))):
            cut = self.padding[axis]
            outputs.append((size - 1) * self.stride[axis] - 2 * cut + self._reach(axis))
            if outputs[-1] < 1:
                raise ShapeError(
                    f"{type(self).__name__}: padding {cut} leaves no output in {name} for an input "
                    f"of {size}; give a larger input or less padding"
                )
        return int(outputs[0])

    def prepare(self, input: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Return the op's input, and the function that restores the layout of its output."""
        return input, lambda y: y

    def forms(self, x: Tensor) -> tuple[OpDef, ...]:
        """Return the four ops of this synapse for an input that :meth:`prepare` returned."""
        return self.ops

    def geometry(self, x: Tensor) -> tuple[Any, ...]:
        """Return the arguments of the op that follow the weights."""
        return (
            list(self.stride[:2]), list(self.padding[:2]), list(self.dilation[:2]), self.groups,
        )  # fmt: skip

    # -- checkpoints and deployment ----------------------------------------------------------

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Enable weight norm where the checkpoint was trained with it."""
        if f"{prefix}weight_g" in state_dict and not self.weight_norm_enabled:
            self.enable_weight_norm()
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def freeze(self) -> None:
        """Turn this synapse into its deployment form, in place (see ``synapse_onnx.freeze``)."""
        freeze_together(self)

    def describe(self) -> dict[str, Any]:
        """Return kind, shape and quantisation of this frozen synapse."""
        return describe_together(self)

    def extra_repr(self) -> str:
        """Channels, geometry, hook and frozen state, for the module's repr."""
        parts = []
        if self.channel_axis is not None:
            parts.append(f"{self.in_channels}, {self.out_channels}")
        for name, default in (("kernel_size", 1), ("stride", 1), ("padding", 0), ("dilation", 1)):
            value = getattr(self, name)[:2]
            if value != (default, default):
                parts.append(f"{name}={value[0] if value[0] == value[1] else tuple(value)}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.weight_norm_enabled:
            parts.append("weight_norm=True")
        if self._pre_hook_fx is not None:
            parts.append(f"pre_hook_fx={getattr(self._pre_hook_fx, '__name__', self._pre_hook_fx)}")
        if self.weight_scale is not None:
            parts.append(f"{self.weight.dtype}".replace("torch.", "weights="))
        return ", ".join(parts)
