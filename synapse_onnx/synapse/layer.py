"""Real synapses: Dense, Conv, Pool, ConvTranspose, Unpool.

Every weight has five axes, the last for time and of size 1, as in lava-dl's checkpoints. All
synapses share one life cycle: weight norm on or off, a hook on the weights (``pre_hook_fx``), and
a frozen form in which the weights are integers with a scale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx._view import view
from synapse_onnx.errors import InputError, ShapeError
from synapse_onnx.ops import OpDef, conv, conv_transpose, dense, pool, unpool
from synapse_onnx.synapse._generic import GenericLayer
from synapse_onnx.synapse._weights import Hook

__all__ = [
    "Conv",
    "ConvTranspose",
    "Dense",
    "GenericLayer",
    "Hook",
    "IntOrPair",
    "Pool",
    "Unpool",
]

#: an int for height and width, or (height, width)
IntOrPair = int | Sequence[int]


class Dense(GenericLayer, nn.Conv3d):
    """Dense synapse: every input is connected to every output.

    Args:
        in_neurons: number of inputs; (W, H) or (W, H, C) for an image, which makes a kernel of
            (H, W, 1).
        out_neurons: number of outputs.
        weight_scale: factor on the initial weights.
        weight_norm: train length and direction of the weights apart.
        pre_hook_fx: function applied to the weight (out_neurons, C, H, W, 1) before use, for
            example ``synapse_onnx.quantize.q8``; None uses the weight as it is.

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
        width, height, channels = (_count("in_neurons", size) for size in sizes)
        outputs = _count("out_neurons", out_neurons)
        self._start(channels, outputs, {"kernel_size": (height, width, 1)})
        self._set_up(weight_scale, weight_norm, pre_hook_fx)

    def check(self, input: Tensor) -> None:
        """Take (N, C, T), and (N, C, H, W, T) with images no smaller than the kernel."""
        if input.dim() not in (3, 5):
            self._refuse_shape(input)
        if input.dim() == 3 and self.kernel_size != (1, 1, 1):
            height, width, _ = self.kernel_size
            raise ShapeError(
                f"Dense: this synapse was made for images of (H, W) = ({height}, {width}) and "
                f"takes (N, C, H, W, T), got {tuple(input.shape)}"
            )
        self._check_channels(input)
        if input.dim() == 5:
            self._gathered_rows(input.shape[2], input.shape[3])

    def prepare(self, input: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Flatten an image that the kernel covers; a larger one is convolved, as in lava-dl."""
        if input.dim() == 3 or tuple(input.shape[2:4]) != self.kernel_size[:2]:
            return input, lambda y: y
        n, c, h, w, t = input.shape
        return view(input, n, c * h * w, t), lambda y: y.unsqueeze(2).unsqueeze(3)

    def forms(self, x: Tensor) -> tuple[OpDef, ...]:
        """Dense ops for (N, C, T), convolutions for images larger than the kernel."""
        return self.ops if x.dim() == 3 else conv.OPS

    def geometry(self, x: Tensor) -> tuple[Any, ...]:
        """A dense op has no geometry."""
        return () if x.dim() == 3 else super().geometry(x)


class _Convolution(GenericLayer):
    """A synapse with a kernel for each pair of channels."""

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
        _count("groups", groups)
        for name, value in (("in_features", in_features), ("out_features", out_features)):
            if _count(name, value) % groups:
                raise InputError(f"{name} must be divisible by groups, got {value} and {groups}")
        axes = _axes(kernel_size, stride, padding, dilation)
        self._start(in_features, out_features, axes, groups)
        self._set_up(weight_scale, weight_norm, pre_hook_fx)


class Conv(_Convolution, nn.Conv3d):
    """Convolution synapse, the same at every time step.

    Args:
        in_features: input channels.
        out_features: output channels.
        kernel_size: size of the kernel, an int or a pair (height, width), in pixels.
        stride: stride, likewise.
        padding: zeros added at both ends of both axes, likewise.
        dilation: distance of the kernel's taps, likewise.
        groups: blocks of channels that are connected among themselves only.
        weight_scale: factor on the initial weights.
        weight_norm: train length and direction of the weights apart.
        pre_hook_fx: function applied to the weight (out_features, in_features / groups, height,
            width, 1) before use; None uses the weight as it is.

    Raises:
        InputError: an argument is not as described.

    Example:
        >>> import torch
        >>> Conv(2, 8, (3, 5), padding=(1, 2))(torch.zeros(1, 2, 16, 20, 9)).shape
        torch.Size([1, 8, 16, 20, 9])
    """

    ops = conv.OPS

    @property
    def kernel(self) -> tuple[int, ...]:
        """Size of the kernel, the same as ``kernel_size``: (height, width, 1)."""
        return self.kernel_size

    def check(self, input: Tensor) -> None:
        """Also refuse a kernel larger than the padded input."""
        super().check(input)
        self._gathered_rows(input.shape[2], input.shape[3])


class ConvTranspose(_Convolution, nn.ConvTranspose3d):  # type: ignore[misc]
    """Transposed convolution synapse, the same at every time step.

    Args:
        in_features, out_features, kernel_size: as of :class:`Conv`.
        stride: stride of the output, an int or a pair (height, width), in pixels.
        padding: pixels cut off at both ends of both axes of the output, likewise.
        dilation, groups, weight_scale, weight_norm: as of :class:`Conv`.
        pre_hook_fx: function applied to the weight (in_features, out_features / groups, height,
            width, 1) before use; None uses the weight as it is.

    Raises:
        InputError: an argument is not as described.

    Example:
        >>> import torch
        >>> ConvTranspose(8, 2, 2, stride=2)(torch.zeros(1, 8, 5, 6, 9)).shape
        torch.Size([1, 2, 10, 12, 9])
    """

    ops = conv_transpose.OPS

    @property
    def channel_axis(self) -> int | None:  # type: ignore[override]
        """None for groups: their outputs share axis 1, and a channel has no scale of its own."""
        return 1 if self.groups == 1 else None

    @property
    def fan_in_axes(self) -> tuple[int, ...]:
        """One output sums over the input channels of all groups at most."""
        return (0, 2, 3, 4)

    def check(self, input: Tensor) -> None:
        """Also refuse padding that leaves no output."""
        super().check(input)
        self._spread_rows(input.shape[2], input.shape[3])


class _Window(GenericLayer):
    """A synapse of one kernel, ``weight_scale`` everywhere, that serves every channel.

    Attributes:
        merge_channels: whether channels and rows are one axis of C * H rows, as in lava-dl.
    """

    channel_axis = None

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
        self._start(1, 1, _axes(kernel_size, stride, padding, dilation))
        self.merge_channels = merge_channels
        self.weight = nn.Parameter(torch.ones_like(self.weight), requires_grad=False)
        self._set_up(weight_scale, weight_norm, pre_hook_fx)

    def _check_channels(self, input: Tensor) -> None:
        """Any number of channels will do."""

    def _check_merged(self, input: Tensor, rows: int) -> None:
        """Refuse merged rows of the output that cannot be given back to the channels."""
        if self.merge_channels and rows % input.shape[1]:
            raise ShapeError(
                f"{type(self).__name__}: with merge_channels the {rows} output rows cannot be "
                f"shared among {input.shape[1]} channels; this geometry needs merge_channels=False"
            )

    def prepare(self, input: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Merge (N, C, H, W, T) to (N, 1, C * H, W, T) with ``merge_channels``."""
        if not self.merge_channels:
            return input, lambda y: y
        n, c, h, w, t = input.shape
        rows = view(input, n, 1, c * h, w, t)
        return rows, lambda y: view(y, n, c, y.shape[2] // c, *y.shape[3:])


class Pool(_Window, nn.Conv3d):
    """Sum pooling synapse: one kernel, ``weight_scale`` everywhere, not trained.

    Every channel is pooled by itself, whatever kernel, stride, padding and dilation. Where
    height or width is no multiple of the kernel, zeros are added at the bottom or right up to
    the next multiple, so that no spike is lost.

    Args:
        kernel_size: size of the window, an int or a pair (height, width), in pixels.
        stride: stride of the window, likewise; None is the kernel's size.
        padding: zeros added at both ends of both axes, likewise.
        dilation: distance of the window's taps, likewise.
        weight_scale: the weight.
        weight_norm: split the weight into length and direction.
        pre_hook_fx: function applied to the weight (1, 1, height, width, 1) before use; None uses
            the weight as it is.
        merge_channels: lava-dl's arithmetic, bit for bit: channels and rows are one axis of
            C * H rows, and ``H % kernel`` (not ``-H % kernel``) zeros are added. The result is
            the same as ours for a kernel of 2 or a size that the kernel divides, with no padding
            and stride equal to the kernel; otherwise windows run across channels. For networks
            that were trained with it (lava-dl issues 101 and 293).

    Raises:
        InputError: an argument is not as described.

    Example:
        >>> import torch
        >>> Pool(2)(torch.ones(1, 1, 3, 4, 1)).squeeze()
        tensor([[4., 4.],
                [2., 2.]])
    """

    ops = pool.OPS

    def _missing(self, input: Tensor) -> tuple[int, int]:
        """Rows and columns of zeros to add at the bottom and right."""
        sign = 1 if self.merge_channels else -1
        sizes = zip(input.shape[2:4], self.kernel_size[:2], strict=True)
        below, right = (sign * size % kernel for size, kernel in sizes)
        return below, right

    def check(self, input: Tensor) -> None:
        """Also refuse a window larger than the padded input."""
        super().check(input)
        below, right = self._missing(input)
        rows = (input.shape[1] if self.merge_channels else 1) * (input.shape[2] + below)
        self._check_merged(input, self._gathered_rows(rows, input.shape[3] + right))

    def prepare(self, input: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Add the missing rows and columns; merge channels and rows with ``merge_channels``."""
        below, right = self._missing(input)
        x = nn.functional.pad(input, (0, 0, 0, right, 0, below)) if below or right else input
        return super().prepare(x)


class Unpool(_Window, nn.ConvTranspose3d):  # type: ignore[misc]
    """Unpooling synapse: every input is spread over a window, by ``weight_scale``, not trained.

    Every channel is unpooled by itself.

    Args:
        kernel_size: size of the window, an int or a pair (height, width), in pixels.
        stride: stride of the windows in the output, likewise; None is the kernel's size.
        padding: pixels cut off at both ends of both axes of the output, likewise.
        dilation, weight_scale, weight_norm, pre_hook_fx: as of :class:`Pool`.
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

    def check(self, input: Tensor) -> None:
        """Also refuse padding that leaves no output."""
        super().check(input)
        rows = (input.shape[1] if self.merge_channels else 1) * input.shape[2]
        self._check_merged(input, self._spread_rows(rows, input.shape[3]))


def _axes(
    kernel_size: IntOrPair, stride: IntOrPair | None, padding: IntOrPair, dilation: IntOrPair
) -> dict[str, tuple[int, int, int]]:
    """Return the four by name, each (height, width, inert value for time)."""
    stride = kernel_size if stride is None else stride
    return {
        "kernel_size": (*_pair("kernel_size", kernel_size, 1), 1),
        "stride": (*_pair("stride", stride, 1), 1),
        "padding": (*_pair("padding", padding, 0), 0),
        "dilation": (*_pair("dilation", dilation, 1), 1),
    }


def _pair(name: str, value: IntOrPair, least: int) -> tuple[int, int]:
    """Return (height, width); refuse what is no such pair of ints, or below ``least``."""
    values = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(values) != 2 or not all(_is_int(v) for v in values):
        raise InputError(f"{name} must be an int or a pair (height, width) of ints, got {value!r}")
    if min(values) < least:
        raise InputError(f"{name} must be at least {least}, got {value!r}")
    return int(values[0]), int(values[1])


def _count(name: str, value: int) -> int:
    if not _is_int(value) or value < 1:
        raise InputError(f"{name} must be a positive int, got {value!r}")
    return int(value)


def _is_int(value: object) -> bool:
    """Take NumPy's integers too, but not True and False."""
    return isinstance(value, Integral) and not isinstance(value, bool)
