"""Synapses over images: convolutions over height and width, pools and their transposes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import onnx_ir as ir
from torch import Tensor

from synapse_onnx.errors import ExportError
from synapse_onnx.ops._linear import ConvolutionArgs, Linear
from synapse_onnx.ops._writer import FLOAT, Writer

__all__ = ["Images"]


class Images(Linear):
    """A synapse over images: a 2-d convolution of every (time step, sample) pair.

    Torch sees (N, C, H, W, T) and a kernel of (h, w, 1); ONNX sees (T, N, C, H, W) as one batch
    of T*N images. With ``per_channel`` one kernel acts on every channel by itself (pooling), as an
    image of its own, or, where ``grouped``, as a group of the ONNX convolution: ONNX Runtime has a
    kernel for it that is several times as fast.
    """

    operator: ClassVar[str]  # Conv or ConvTranspose
    per_channel: ClassVar[bool] = False
    grouped: ClassVar[bool] = False
    geometry = "int[] stride, int[] padding, int[] dilation, int groups"
    biased_attributes = ("out_channels",)
    attribute_types: ClassVar[dict[str, Any]] = {
        "strides": (int,),
        "pads": (int,),
        "dilations": (int,),
        "group": int,
    }

    def images(self, x: Tensor) -> Tensor:
        """(N, C, H, W, T), or (N*C, 1, H, W, T) where channels are pooled each by itself."""
        return x.reshape(-1, 1, *x.shape[2:]) if self.per_channel else x

    def restore(self, y: Tensor, x: Tensor) -> Tensor:
        """Undo :meth:`images`."""
        return y.reshape(*x.shape[:2], *y.shape[2:]) if self.per_channel else y

    def convolution(self, *geometry: Any) -> ConvolutionArgs:
        """Add the inert time axis to (height, width) geometry."""
        stride, padding, dilation, groups = geometry
        return ConvolutionArgs(
            [*stride, 1], [*padding, 0], [*dilation, 1],
            self.operator == "ConvTranspose", groups,
        )  # fmt: skip

    def shape(self, x: Tensor, weight: Tensor, *geometry: Any) -> Sequence[int]:
        """(N, O, H', W', T)."""
        convolution = self.convolution(*geometry)
        channels = (
            weight.shape[1] * convolution.groups if convolution.transposed else weight.shape[0]
        )
        image = [convolution.size(x.shape[2 + i], weight.shape[2 + i], i) for i in range(2)]
        return (x.shape[0], x.shape[1] if self.per_channel else channels, *image, x.shape[4])

    def attributes(self, channels: Any, *geometry: Any) -> dict[str, Any]:
        """Return the attributes of ONNX Conv and ConvTranspose."""
        stride, padding, dilation, groups = geometry
        if self.grouped:
            if not isinstance(channels, int):
                raise ExportError(
                    f"{self.name}: the number of channels must be known at export, got {channels}"
                )
            groups = channels
        return {
            "strides": list(stride),
            "pads": [*padding, *padding],
            "dilations": list(dilation),
            "group": groups,
        }

    def scaled(self, w: Writer, total: ir.Value, scale: ir.Value, name: str) -> ir.Value:
        """Write a scale of each channel before height and width; a Reshape lies after the sum. ::

        y = Mul(total, Reshape(weight_scale, scale_shape))  # (-1, 1, 1)
        """
        shaped = w.op("Reshape", scale, w.ints(-1, 1, 1, name="scale_shape"))
        return w.op("Mul", total, shaped, name=name)

    def product(
        self, w: Writer, weights: Sequence[ir.Value], names: Sequence[str]
    ) -> list[ir.Value]:
        """Reshape to images, convolve once with all weights, split the channels, reshape back. ::

        images = Reshape(x, batch)  # (T * N, C, H, W)
        maps = Conv<strides: ints = @strides, ...>(images, kernel)
        y = Reshape(maps, whole)  # (T, N, O, H', W')
        """
        maps, lead, groups = self._maps(w, weights)
        lead_axes = 3 if self._merged else 2
        if len(weights) == 1:
            return [self._whole(w, maps, lead, names[0])]
        # channels are (group, part, channel of the group): the parts lie inside the groups
        flat, plane = w.ints(-1, name="flat"), w.op("Shape", maps, start=2, name="plane")
        parted = w.op("Concat", lead, groups, w.ints(2, name="two"), flat, plane, axis=0)
        paired = w.op("Reshape", maps, parted, name="paired")
        halves = w.split(paired, lead_axes + 1, [f"{name}_part" for name in names])
        whole = w.op("Concat", lead, *([] if self._merged else [flat]), plane, axis=0, name="whole")
        pairs = zip(halves, names, strict=True)
        return [w.op("Reshape", half, whole, name=name) for half, name in pairs]

    def biased_product(self, w: Writer, name: str) -> ir.Value:
        """Write scale and bias as a convolution of every channel by itself, with one weight. ::

        maps = Conv<strides: ints = @strides, ...>(images, kernel)
        scaled = Conv<group: int = @out_channels>(maps, gain, bias)  # gain is (O, 1, 1, 1)
        y = Reshape(scaled, whole)

        It rounds the product and the sum, as Mul and Add do, and stays in the layout in which ONNX
        Runtime convolves: with the two of them int8 networks were slower than those of floats.
        """
        maps, lead, _ = self._maps(w, [w.cast(w.input("weight"), FLOAT, "weight_f")])
        scale, bias = w.input("weight_scale", FLOAT), w.input("bias", FLOAT)
        ones = w.ints(1, 1, 1, name="once_each")
        single = w.op("Reshape", scale, w.ints(-1, 1, 1, 1, name="scale_shape"), name="single")
        every = w.op("Concat", w.op("Shape", bias, name="width"), ones, axis=0, name="every")
        gain = w.op("Expand", single, every, name="gain")
        group = ir.RefAttr("group", "out_channels", ir.AttributeType.INT)
        scaled = w.op("Conv", maps, gain, bias, group=group, name="scaled")
        return self._whole(w, scaled, lead, name)

    def _whole(self, w: Writer, maps: ir.Value, lead: ir.Value, name: str) -> ir.Value:
        """Bring maps back to (T, N, O, H', W')."""
        inner = w.op("Shape", maps, start=2 if self._merged else 1, name="inner")
        whole = w.op("Concat", lead, inner, axis=0, name="whole")
        return w.op("Reshape", maps, whole, name=name)

    @property
    def _merged(self) -> bool:
        """Whether each channel is an image of its own."""
        return self.per_channel and not self.grouped

    def _maps(self, w: Writer, weights: Sequence[ir.Value]) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Write images and their convolution; return that, the sizes before, and the groups."""
        x, flat, one = w.input("x"), w.ints(-1, name="flat"), w.ints(1, name="one")
        lead_axes = 3 if self._merged else 2
        lead = w.op("Shape", x, start=0, end=lead_axes, name="lead")
        image = w.op("Shape", x, start=lead_axes, name="image")
        parts = [flat, one, image] if self._merged else [flat, image]
        images = w.op("Reshape", x, w.op("Concat", *parts, axis=0, name="batch"), name="images")
        # the weight's inert time axis goes
        last = w.ints(4, name="last")
        kernels = [w.op("Squeeze", weight, last, name="kernel") for weight in weights]
        groups = w.op("Reshape", w.attribute("group", int), one, name="groups")
        kernel = self._join(w, kernels, groups) if self.grouped or len(weights) == 2 else kernels[0]
        references: dict[str, Any] = {
            key: ir.RefAttr(key, key, ir.AttributeType.INTS)
            for key in ("strides", "pads", "dilations")
        }
        references["group"] = ir.RefAttr("group", "group", ir.AttributeType.INT)
        maps = w.op(self.operator, images, kernel, **references, name="maps")
        return maps, lead, groups

    def _join(self, w: Writer, kernels: Sequence[ir.Value], groups: ir.Value) -> ir.Value:
        """Write one kernel of all, group by group."""
        if self.grouped:
            one_channel = w.op("Concat", *kernels, axis=0, name="one_channel")
            copies = w.op(
                "Concat", groups, w.ints(1, 1, 1, name="once_each"), axis=0, name="copies"
            )
            return w.op("Tile", one_channel, copies, name="kernel")
        if self.operator == "ConvTranspose":  # (C, O / groups, h, w): outputs are axis 1 already
            return w.op("Concat", *kernels, axis=1, name="kernel")
        flat = w.ints(-1, name="flat")
        fan_in = w.op("Shape", kernels[0], start=1, name="fan_in")
        grouped = w.op("Concat", groups, flat, fan_in, axis=0, name="grouped")
        parts = [w.op("Reshape", kernel, grouped, name="kernel_of_groups") for kernel in kernels]
        both = w.op("Concat", *parts, axis=1, name="both")
        joined = w.op("Concat", flat, fan_in, axis=0, name="joined")
        return w.op("Reshape", both, joined, name="kernel")
