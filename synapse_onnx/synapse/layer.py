"""Real synapses: Dense, Conv, Pool, ConvTranspose, Unpool.

Every weight has five axes, the last for time and of size 1, as in lava-dl's checkpoints. All
synapses share one life cycle, in :class:`GenericLayer`: weight norm on or off, a hook on the
weights (``pre_hook_fx``), and a frozen form in which the weights are integers with a step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from synapse_onnx._layer import Deployable
from synapse_onnx.errors import InputError, QuantizationError, ShapeError
from synapse_onnx.ops import conv, conv_transpose, dense, pool, unpool
from synapse_onnx.ops._registry import OpDef
from synapse_onnx.quantize import Grid, find_grid, is_power_of_two, stored_bits
from synapse_onnx.synapse._geometry import IntOrPair, count, geometry

__all__ = ["Conv", "ConvTranspose", "Dense", "GenericLayer", "Pool", "Unpool"]

#: a function of the weight that returns the weight to use, of the same shape
Hook = Callable[[Tensor], Tensor]

#: integers up to this are exact in float32, and so is any sum of integers that stays below
FLOAT32_EXACT = 1 << 24


class GenericLayer(Deployable):
    """Abstract synapse.

    Attributes:
        complex: False; the complex synapses hold two of these.
        weight_norm_enabled: whether the weight is ``weight_g * weight_v / |weight_v|``, the norm
            taken over all axes but the first.
        weight: the weight before the hook, five axes (integers in the frozen form).
        step: None, or in the frozen form the step of the integers, shape (1,) or (channels,).
    """

    complex: bool = False
    #: real, quantised, complex and quantised complex op of this synapse
    ops: ClassVar[tuple[OpDef, ...]]
    #: axis of the output channels in the weight; None where one kernel serves all channels
    channel_axis: int | None = 0
    #: rank of the input and its layout, for messages
    layout: ClassVar[str] = "(N, C, H, W, T)"

    #: five axes; a Parameter, or integers in the frozen form, or computed under weight norm
    weight: Any
    weight_g: Any
    weight_v: Any
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Any
    dilation: tuple[int, ...]
    groups: int
    in_channels: int
    out_channels: int

    def __init__(self) -> None:
        super().__init__()
        self.weight_norm_enabled = False
        self._pre_hook_fx: Hook | None = None
        self.step: Tensor | None
        self.weight_high: Tensor | None
        self.register_buffer("step", None)
        self.register_buffer("weight_high", None)

    def _set_up(self, weight_scale: float, weight_norm: bool, pre_hook_fx: Hook | None) -> None:
        """Finish a constructor: scale the weight, set the hook, switch weight norm on."""
        if weight_scale != 1:
            with torch.no_grad():
                self.weight.mul_(weight_scale)
        self._pre_hook_fx = pre_hook_fx
        if weight_norm:
            self.enable_weight_norm()

    # -- weight norm -------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        # with weight norm the weight is no parameter but follows from two
        if name == "weight" and "weight_v" in self.__dict__.get("_parameters", {}):
            return torch._weight_norm(self.weight_v, self.weight_g, 0)
        return super().__getattr__(name)

    def enable_weight_norm(self) -> None:
        """Split the weight into length ``weight_g`` and direction ``weight_v``."""
        if self.weight_norm_enabled:
            return
        self._refuse_if_frozen("weight norm")
        weight = self.weight.detach()
        grad = self.weight.requires_grad
        del self.weight
        length = torch.norm_except_dim(weight, 2, 0)
        self.weight_g = nn.Parameter(length, requires_grad=grad)
        self.weight_v = nn.Parameter(weight.clone(), requires_grad=grad)
        self.weight_norm_enabled = True

    def disable_weight_norm(self) -> None:
        """Fold ``weight_g`` and ``weight_v`` back into one weight."""
        if not self.weight_norm_enabled:
            return
        weight = self.weight.detach().clone()
        grad = self.weight_v.requires_grad
        del self.weight_g, self.weight_v
        self.weight = nn.Parameter(weight, requires_grad=grad)
        self.weight_norm_enabled = False

    @property
    def grad_norm(self) -> float:
        """Norm of the weight's gradient over the number of weights; 0 where there is none."""
        tensor = self.weight_g if self.weight_norm_enabled else self.weight
        if tensor.grad is None:
            return 0.0
        return float(torch.linalg.vector_norm(tensor.grad)) / int(tensor.grad.numel())

    # -- hook --------------------------------------------------------------------------------

    @property
    def pre_hook_fx(self) -> Hook | None:
        """The function applied to the weight before it is used, usually a quantiser."""
        return self._pre_hook_fx

    @pre_hook_fx.setter
    def pre_hook_fx(self, fx: Hook | None) -> None:
        if fx is not None:
            self._refuse_if_frozen("pre_hook_fx")
        self._pre_hook_fx = fx

    def _refuse_if_frozen(self, what: str) -> None:
        if self.step is not None:
            raise InputError(
                f"{type(self).__name__}: {what} cannot be set on frozen integer weights; set it on "
                f"the network before freeze()"
            )

    @property
    def shape(self) -> torch.Size:
        """Shape of the weight, five axes."""
        shape: torch.Size = self.weight.shape
        return shape

    @property
    def effective_weight(self) -> Tensor:
        """The weight in use: weight norm and hook applied, the step multiplied in if frozen.

        Raises:
            QuantizationError: the hook returned no tensor, or one of another shape.
        """
        weight: Tensor = self.weight
        if self.step is not None:
            integers = weight.to(torch.float32)
            if self.weight_high is not None:
                integers = integers + 256 * self.weight_high.to(torch.float32)
            axis = self.channel_axis or 0
            return integers * self.step.reshape([-1 if i == axis else 1 for i in range(5)])
        if self._pre_hook_fx is None:
            return weight
        hooked = self._pre_hook_fx(weight)
        if not isinstance(hooked, Tensor):
            raise QuantizationError(
                f"pre_hook_fx must return a tensor, got {type(hooked).__name__}"
            )
        if hooked.shape != weight.shape:
            raise QuantizationError(
                f"pre_hook_fx returned shape {tuple(hooked.shape)} for a weight of shape "
                f"{tuple(weight.shape)}; it must keep the shape"
            )
        return hooked

    def weight_and_step(self) -> tuple[Tensor, Tensor]:
        """Return integers and their step in the frozen form, else the weight in use and ones."""
        if self.step is not None and self.weight_high is None:
            return self.weight, self.step
        return self.effective_weight, torch.ones(1, device=self.weight.device)

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
        form = 2 * (len(layers) - 1)
        ops, geometry = self.forms(x), self.geometry(x)
        if layers[0].step is None:
            y = ops[form].torch_op(x, *(each.effective_weight for each in layers), *geometry)
            return y if len(layers) == 2 else (y,)
        weights, steps = [each.weight for each in layers], [each.step for each in layers]
        y = ops[form + 1].torch_op(x, *weights, *steps, *geometry)
        ys = y if len(layers) == 2 else (y,)
        if layers[0].weight_high is not None:
            # sums that float32 cannot hold in one piece: high and low byte each by itself
            highs = [each.weight_high for each in layers]
            coarse = [256 * step for step in steps if step is not None]
            high = ops[form + 1].torch_op(x, *highs, *coarse, *geometry)
            pairs = zip(high if len(layers) == 2 else (high,), ys, strict=True)
            ys = tuple(h + low for h, low in pairs)
        return tuple(ys)

    def check(self, input: Tensor) -> None:
        """Raise ShapeError where the input does not fit this synapse."""
        name = type(self).__name__
        if input.dim() != 5:
            raise ShapeError(
                f"{name}: expected an input of shape {self.layout}, got {tuple(input.shape)}"
            )
        self._check_channels(input)

    def _check_channels(self, input: Tensor) -> None:
        if input.shape[1] != self.in_channels:
            raise ShapeError(
                f"{type(self).__name__}: expected {self.in_channels} input channels "
                f"(axis 1 of {self.layout}), got {input.shape[1]}"
            )

    def _check_kernel(self, height: int, width: int) -> None:
        for axis, size in enumerate((height, width)):
            reach = self.dilation[axis] * (self.kernel_size[axis] - 1) + 1
            padded = size + 2 * self.padding[axis]
            if reach > padded:
                raise ShapeError(
                    f"{type(self).__name__}: the kernel reaches over {reach} pixels of "
                    f"{('height', 'width')[axis]} and the padded input has {padded}; "
                    f"give a larger input, more padding or a smaller kernel"
                )

    def prepare(self, input: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Return what the op takes, and the function that brings its output back."""
        return input, lambda y: y

    def forms(self, x: Tensor) -> tuple[OpDef, ...]:
        """Return the four ops of this synapse for an input that :meth:`prepare` returned."""
        return self.ops

    def geometry(self, x: Tensor) -> tuple[Any, ...]:
        """Return the arguments of the op behind the weights."""
        return (
            list(self.stride[:2]), list(self.padding[:2]), list(self.dilation[:2]), self.groups,
        )  # fmt: skip

    # -- checkpoints and deployment ----------------------------------------------------------

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Switch weight norm on where the checkpoint was trained with it."""
        if f"{prefix}weight_g" in state_dict and not self.weight_norm_enabled:
            self.enable_weight_norm()
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @property
    def fan_in_axes(self) -> tuple[int, ...]:
        """Axes of the weight over which one output's sum runs."""
        return tuple(axis for axis in range(5) if axis != self.channel_axis)

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
        if self.step is not None:
            parts.append(f"{self.weight.dtype}".replace("torch.", "weights="))
        return ", ".join(parts)


def freeze_together(*layers: GenericLayer) -> None:
    """Freeze one synapse, or the two of a complex one, which must end in the same form.

    Raises:
        InputError: a weight is NaN or infinite.
        QuantizationError: a hook does not return a weight of the same shape.
    """
    if layers[0].step is not None:
        return  # frozen already
    weights = []
    for layer in layers:
        if layer.weight.dtype != torch.float32:
            raise InputError(
                f"{type(layer).__name__}: the weight is {layer.weight.dtype}, and models are "
                f"exported in float32; call .float() on the network first"
            )
        if not bool(torch.isfinite(layer.weight).all()):
            raise InputError(f"{type(layer).__name__}: the weight has NaN or infinite values")
        weight = layer.effective_weight.detach().clone()
        if not bool(torch.isfinite(weight).all()):
            raise InputError(
                f"{type(layer).__name__}: pre_hook_fx returned NaN or infinite weights"
            )
        weights.append(weight)
    grids = [_grid_of(layer, weight) for layer, weight in zip(layers, weights, strict=True)]
    for layer in layers:
        layer.disable_weight_norm()
        layer.pre_hook_fx = None
    found = [grid for grid in grids if grid is not None]
    if len(found) < len(layers):
        for layer, weight in zip(layers, weights, strict=True):
            layer.weight = nn.Parameter(weight, requires_grad=False)
        return
    dtype = max((grid.integers.dtype for grid in found), key=lambda d: d.itemsize)
    wide = any(
        largest_sum(grid.integers, layer.fan_in_axes) >= FLOAT32_EXACT
        for layer, grid in zip(layers, found, strict=True)
    )
    for layer, grid in zip(layers, found, strict=True):
        _store(layer, grid, dtype, wide=wide)


def _grid_of(layer: GenericLayer, weight: Tensor) -> Grid | None:
    """The grid that a layer's weights are stored on; None keeps them float.

    Without a hook a grid was not meant: it is taken where it changes no output (a pooling
    kernel of ones, say), which is where its steps are powers of two.
    """
    grid = find_grid(weight, layer.channel_axis)
    if grid is None or (layer.pre_hook_fx is None and not is_power_of_two(grid.step)):
        return None
    return grid


def _store(layer: GenericLayer, grid: Grid, dtype: torch.dtype, *, wide: bool) -> None:
    """Replace a layer's weight by integers and step; two bytes apart where sums are wide."""
    device = layer.weight.device
    integers = grid.integers.to(device=device, dtype=dtype)
    del layer.weight
    if wide:
        high = (integers.to(torch.int32) + 128) >> 8
        layer.weight_high = high.to(torch.int16)  # -128 to 128: one too many for int8
        integers = (integers.to(torch.int32) - 256 * high).to(torch.int8)
    layer.register_buffer("weight", integers)
    layer.step = grid.step.to(device)


def largest_sum(integers: Tensor, axes: Sequence[int]) -> int:
    """Return the largest ``sum(|w|)`` over the weights of one output."""
    return int(integers.to(torch.int64).abs().sum(dim=list(axes)).max())


def describe_together(*layers: GenericLayer) -> dict[str, Any]:
    """Describe one frozen synapse, or the two of a complex one.

    ``input_bound`` is the largest input, in units of its own grid, with which every sum of the
    quantised synapse is exact in float32.
    """
    first = layers[0]
    result: dict[str, Any] = {
        "kind": type(first).__name__,
        "complex": len(layers) == 2,
        "weight_shape": list(first.shape),
        "quantized": first.step is not None,
    }
    if first.step is None:
        return result
    parts = [
        part for each in layers for part in (each.weight, each.weight_high) if part is not None
    ]
    sums = [largest_sum(part, first.fan_in_axes) for part in parts]
    steps = [each.step for each in layers if each.step is not None]
    return result | {
        "bits": 16 if len(parts) > len(layers) else _bits(parts),
        "wide": first.weight_high is not None,
        "steps": [step.tolist() for step in steps],
        "power_of_two": all(is_power_of_two(step) for step in steps),
        "input_bound": (FLOAT32_EXACT - 1) // max(1, *sums),
    }


def _bits(parts: Sequence[Tensor]) -> int:
    low, high = min(int(p.min()) for p in parts), max(int(p.max()) for p in parts)
    return stored_bits(low, high)


class Dense(nn.Conv3d, GenericLayer):
    """Dense synapse.

    Args:
        in_neurons: number of inputs; (W, H) or (W, H, C) for an image, which makes a kernel of
            (H, W, 1).
        out_neurons: number of outputs.
        weight_scale: factor on the initial weights.
        weight_norm: train length and direction of the weights apart.
        pre_hook_fx: function applied to the weight before use, for example
            ``synapse_onnx.quantize.q8``.

    Raises:
        InputError: ``in_neurons`` or ``out_neurons`` is not as described.

    Example:
        >>> import torch
        >>> Dense(200, 10)(torch.zeros(4, 200, 50)).shape
        torch.Size([4, 10, 50])
        >>> Dense((34, 34, 2), 10)(torch.zeros(4, 2, 34, 34, 50)).shape
        torch.Size([4, 10, 1, 1, 50])
    """

    ops = dense.OPS
    layout = "(N, C, T) or (N, C, H, W, T)"

    def __init__(
        self,
        in_neurons: int | Sequence[int],
        out_neurons: int,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Hook | None = None,
    ) -> None:
        if not isinstance(in_neurons, Sequence):
            sizes: tuple[int, ...] = (1, 1, in_neurons)
        else:
            sizes = (*in_neurons, 1) if len(in_neurons) == 2 else tuple(in_neurons)
        if len(sizes) != 3:
            raise InputError(f"in_neurons must be an int, (W, H) or (W, H, C), got {in_neurons!r}")
        width, height, channels = (count("in_neurons", size) for size in sizes)
        super().__init__(
            channels, count("out_neurons", out_neurons), (height, width, 1), bias=False
        )
        self._set_up(weight_scale, weight_norm, pre_hook_fx)

    forward = GenericLayer.forward
    extra_repr = GenericLayer.extra_repr

    def check(self, input: Tensor) -> None:
        """Take (N, C, T), and (N, C, H, W, T) with images no smaller than the kernel."""
        if input.dim() not in (3, 5):
            raise ShapeError(
                f"Dense: expected an input of shape {self.layout}, got {tuple(input.shape)}"
            )
        if input.dim() == 3 and self.kernel_size != (1, 1, 1):
            height, width, _ = self.kernel_size
            raise ShapeError(
                f"Dense: this synapse was made for images of (H, W) = ({height}, {width}) and "
                f"takes (N, C, H, W, T), got {tuple(input.shape)}"
            )
        self._check_channels(input)
        if input.dim() == 5:
            self._check_kernel(input.shape[2], input.shape[3])

    def prepare(self, input: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Flatten an image that the kernel covers; a larger one is convolved as lava-dl does."""
        if input.dim() == 3 or tuple(input.shape[2:4]) != self.kernel_size[:2]:
            return input, lambda y: y
        return input.flatten(1, 3), lambda y: y.reshape(y.shape[0], y.shape[1], 1, 1, y.shape[2])

    def forms(self, x: Tensor) -> tuple[OpDef, ...]:
        """Dense ops for (N, C, T), convolutions for images larger than the kernel."""
        return self.ops if x.dim() == 3 else conv.OPS

    def geometry(self, x: Tensor) -> tuple[Any, ...]:
        """A dense op has no geometry."""
        return () if x.dim() == 3 else super().geometry(x)


class Conv(nn.Conv3d, GenericLayer):
    """Convolution synapse, the same at every time step.

    ``kernel_size``, ``stride``, ``padding`` and ``dilation`` are ints or pairs (height, width).

    Args:
        in_features: input channels.
        out_features: output channels.
        kernel_size: size of the kernel.
        stride: stride.
        padding: zeros added at both ends of both axes.
        dilation: distance of the kernel's taps.
        groups: blocks of channels that are connected among themselves alone.
        weight_scale: factor on the initial weights.
        weight_norm: train length and direction of the weights apart.
        pre_hook_fx: function applied to the weight before use.

    Attributes:
        kernel: the kernel, the same as ``kernel_size``: (height, width, 1).

    Raises:
        InputError: an argument is not as described.

    Example:
        >>> import torch
        >>> Conv(2, 8, (3, 5), padding=(1, 2))(torch.zeros(1, 2, 16, 20, 9)).shape
        torch.Size([1, 8, 16, 20, 9])
    """

    ops = conv.OPS

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: IntOrPair,
        stride: IntOrPair = 1,
        padding: IntOrPair = 0,
        dilation: IntOrPair = 1,
        groups: int = 1,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Hook | None = None,
    ) -> None:
        _check_groups(in_features, out_features, groups)
        super().__init__(
            in_features,
            out_features,
            *geometry(kernel_size, stride, padding, dilation),
            groups,
            bias=False,
        )
        self._set_up(weight_scale, weight_norm, pre_hook_fx)

    forward = GenericLayer.forward
    extra_repr = GenericLayer.extra_repr

    @property
    def kernel(self) -> tuple[int, ...]:
        """Size of the kernel: (height, width, 1)."""
        return self.kernel_size

    def check(self, input: Tensor) -> None:
        """Also refuse a kernel larger than the padded input."""
        super().check(input)
        self._check_kernel(input.shape[2], input.shape[3])


class ConvTranspose(nn.ConvTranspose3d, GenericLayer):
    """Transposed convolution synapse, the same at every time step.

    ``kernel_size``, ``stride``, ``padding`` and ``dilation`` are ints or pairs (height, width).

    Args:
        in_features: input channels.
        out_features: output channels.
        kernel_size: size of the kernel.
        stride: stride of the output.
        padding: pixels cut off at both ends of both axes of the output.
        dilation: distance of the kernel's taps.
        groups: blocks of channels that are connected among themselves alone.
        weight_scale: factor on the initial weights.
        weight_norm: train length and direction of the weights apart.
        pre_hook_fx: function applied to the weight before use.

    Raises:
        InputError: an argument is not as described.

    Example:
        >>> import torch
        >>> ConvTranspose(8, 2, 2, stride=2)(torch.zeros(1, 8, 5, 6, 9)).shape
        torch.Size([1, 2, 10, 12, 9])
    """

    ops = conv_transpose.OPS
    channel_axis: int | None = 1

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: IntOrPair,
        stride: IntOrPair = 1,
        padding: IntOrPair = 0,
        dilation: IntOrPair = 1,
        groups: int = 1,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Hook | None = None,
    ) -> None:
        _check_groups(in_features, out_features, groups)
        kernel, step, cut, spread = geometry(kernel_size, stride, padding, dilation)
        super().__init__(
            in_features, out_features, kernel, step, cut, groups=groups, bias=False, dilation=spread
        )
        if groups > 1:
            # the groups' outputs share axis 1 of the weight: no step of a channel of its own
            self.channel_axis = None
        self._set_up(weight_scale, weight_norm, pre_hook_fx)

    forward = GenericLayer.forward  # type: ignore[assignment]
    extra_repr = GenericLayer.extra_repr

    @property
    def fan_in_axes(self) -> tuple[int, ...]:
        """One output sums over the input channels of all groups at most."""
        return (0, 2, 3, 4)

    def check(self, input: Tensor) -> None:
        """Also refuse padding that leaves no output."""
        super().check(input)
        _check_transposed(self, input)


class Pool(nn.Conv3d, GenericLayer):
    """Sum pooling synapse: one kernel, ``weight_scale`` everywhere, not trained.

    Every channel is pooled by itself, whatever kernel, stride, padding and dilation. Where
    height or width is no multiple of the kernel, zeros are added at the bottom or right up to
    the next multiple, so that no spike is lost.

    Args:
        kernel_size: size of the window, int or (height, width).
        stride: stride of the window; the kernel's size by default.
        padding: zeros added at both ends of both axes.
        dilation: distance of the window's taps.
        weight_scale: the weight.
        weight_norm: split the weight into length and direction.
        pre_hook_fx: function applied to the weight before use.
        merge_channels: lava-dl's arithmetic, bit for bit: channels and rows are one axis of
            C * H rows, and ``H % kernel`` (not ``-H % kernel``) zeros are added. The same as
            ours for a kernel of 2 or a size that the kernel divides, with no padding and stride
            equal to the kernel; otherwise windows run across channels. For networks that were
            trained with it (lava-dl issues 101 and 293).

    Raises:
        InputError: an argument is not as described.

    Example:
        >>> import torch
        >>> Pool(2)(torch.ones(1, 1, 3, 4, 1)).squeeze()
        tensor([[4., 4.],
                [2., 2.]])
    """

    ops = pool.OPS
    channel_axis = None
    merge_channels: bool

    def __init__(
        self,
        kernel_size: IntOrPair,
        stride: IntOrPair | None = None,
        padding: IntOrPair = 0,
        dilation: IntOrPair = 1,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Hook | None = None,
        merge_channels: bool = False,
    ) -> None:
        super().__init__(1, 1, *geometry(kernel_size, stride, padding, dilation), bias=False)
        _set_up_window(self, merge_channels)
        self._set_up(weight_scale, weight_norm, pre_hook_fx)

    forward = GenericLayer.forward
    extra_repr = GenericLayer.extra_repr

    def _check_channels(self, input: Tensor) -> None:
        """Pooling takes any number of channels."""

    def _missing(self, input: Tensor) -> tuple[int, int]:
        """Rows and columns of zeros to add at the bottom and right."""
        sizes = zip(input.shape[2:4], self.kernel_size[:2], strict=True)
        if self.merge_channels:
            below, right = (size % kernel for size, kernel in sizes)
        else:
            below, right = (-size % kernel for size, kernel in sizes)
        return below, right

    def check(self, input: Tensor) -> None:
        """Also refuse a window larger than the padded input."""
        super().check(input)
        below, right = self._missing(input)
        rows = (input.shape[1] if self.merge_channels else 1) * (input.shape[2] + below)
        self._check_kernel(rows, input.shape[3] + right)
        if self.merge_channels:
            reach = self.dilation[0] * (self.kernel_size[0] - 1) + 1
            padded = rows + 2 * int(self.padding[0])
            _check_merged(self, input, (padded - reach) // self.stride[0] + 1)

    def prepare(self, input: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Add the missing rows and columns; merge channels and rows if lava-dl's way is asked."""
        below, right = self._missing(input)
        x = nn.functional.pad(input, (0, 0, 0, right, 0, below)) if below or right else input
        return _merged(x) if self.merge_channels else (x, lambda y: y)


class Unpool(nn.ConvTranspose3d, GenericLayer):
    """Unpooling synapse: every input is spread over a window, by ``weight_scale``, not trained.

    Every channel is unpooled by itself.

    Args:
        kernel_size: size of the window, int or (height, width).
        stride: stride of the windows in the output; the kernel's size by default.
        padding: pixels cut off at both ends of both axes of the output.
        dilation: distance of the window's taps.
        weight_scale: the weight.
        weight_norm: split the weight into length and direction.
        pre_hook_fx: function applied to the weight before use.
        merge_channels: lava-dl's arithmetic, bit for bit, on one axis of C * H rows; the same as
            ours where stride equals kernel and padding is 0.

    Raises:
        InputError: an argument is not as described.

    Example:
        >>> import torch
        >>> Unpool((1, 2))(torch.tensor([1.0, 3.0]).reshape(1, 1, 1, 2, 1)).squeeze()
        tensor([1., 1., 3., 3.])
    """

    ops = unpool.OPS
    channel_axis = None
    merge_channels: bool

    def __init__(
        self,
        kernel_size: IntOrPair,
        stride: IntOrPair | None = None,
        padding: IntOrPair = 0,
        dilation: IntOrPair = 1,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Hook | None = None,
        merge_channels: bool = False,
    ) -> None:
        kernel, step, cut, spread = geometry(kernel_size, stride, padding, dilation)
        super().__init__(1, 1, kernel, step, cut, bias=False, dilation=spread)
        _set_up_window(self, merge_channels)
        self._set_up(weight_scale, weight_norm, pre_hook_fx)

    forward = GenericLayer.forward  # type: ignore[assignment]
    extra_repr = GenericLayer.extra_repr

    def _check_channels(self, input: Tensor) -> None:
        """Unpooling takes any number of channels."""

    def check(self, input: Tensor) -> None:
        """Also refuse padding that leaves no output."""
        super().check(input)
        rows = (input.shape[1] if self.merge_channels else 1) * input.shape[2]
        height = _check_transposed(self, input, rows)
        if self.merge_channels:
            _check_merged(self, input, height)

    def prepare(self, input: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Merge channels and rows if lava-dl's way is asked."""
        return _merged(input) if self.merge_channels else (input, lambda y: y)


def _check_groups(in_features: int, out_features: int, groups: int) -> None:
    count("groups", groups)
    for name, value in (("in_features", in_features), ("out_features", out_features)):
        if count(name, value) % groups:
            raise InputError(f"{name} must be divisible by groups, got {value} and {groups}")


def _set_up_window(layer: Pool | Unpool, merge_channels: bool) -> None:
    """Set a pooling kernel to ones, not trained."""
    layer.merge_channels = merge_channels
    layer.weight = nn.Parameter(torch.ones_like(layer.weight), requires_grad=False)


def _check_transposed(layer: GenericLayer, input: Tensor, rows: int | None = None) -> int:
    """Refuse padding that leaves no output; return the output's height."""
    heights: list[int] = []
    for axis, size in enumerate((rows or input.shape[2], input.shape[3])):
        reach = layer.dilation[axis] * (layer.kernel_size[axis] - 1) + 1
        out = (size - 1) * layer.stride[axis] - 2 * layer.padding[axis] + reach
        heights.append(out)
        if out < 1:
            raise ShapeError(
                f"{type(layer).__name__}: padding {layer.padding[axis]} leaves no output in "
                f"{('height', 'width')[axis]} for an input of {size}; give a larger input or less "
                f"padding"
            )
    return heights[0]


def _check_merged(layer: GenericLayer, input: Tensor, rows: int) -> None:
    """Refuse merged rows that cannot be given back to the channels."""
    if rows % input.shape[1]:
        raise ShapeError(
            f"{type(layer).__name__}: with merge_channels the {rows} output rows cannot be shared "
            f"among {input.shape[1]} channels; this geometry needs merge_channels=False"
        )


def _merged(x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """One axis of C * H rows, and the way back."""
    n, c, h, w, t = x.shape
    merged = x.reshape(n, 1, c * h, w, t)
    return merged, lambda y: y.reshape(y.shape[0], c, y.shape[2] // c, y.shape[3], y.shape[4])
