"""The linear map of a synapse, stated once for torch and for ONNX; one subclass a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import onnx
import onnx_ir as ir
import torch
from torch import Tensor

from synapse_onnx.model.graph import places_along
from synapse_onnx.ops._writer import FLOAT, Writer

__all__ = ["ConvolutionArgs", "Linear"]


@dataclass(frozen=True)
class ConvolutionArgs:
    """Arguments of ``aten.convolution``, which computes every synapse."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    transposed: bool
    groups: int

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return the convolution of a 5-d input with a 5-d weight."""
        y: Tensor = torch.ops.aten.convolution(
            x, weight, None, self.stride, self.padding, self.dilation,
            self.transposed, [0, 0, 0], self.groups,
        )  # fmt: skip
        return y

    def size(self, pixels: int, kernel: int, axis: int) -> int:
        """Return the size of an output along an axis after the channels."""
        return places_along(
            pixels, 2 * self.padding[axis], kernel, self.stride[axis], self.dilation[axis],
            transposed=self.transposed,
        )  # fmt: skip

    def backward(
        self, grad: Tensor, x: Tensor, weight: Tensor, mask: Sequence[bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients of input and weight, each ``None`` where the mask says so."""
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            grad, x, weight, None, self.stride, self.padding, self.dilation,
            self.transposed, [0, 0, 0], self.groups, [*mask, False],
        )  # fmt: skip
        return grad_x, grad_weight


class Linear:
    """The linear map of one kind of synapse, for torch and for ONNX; subclassed once a file.

    Subclasses give ``name``, ``geometry`` (the schema of the arguments after the weights),
    :meth:`convolution`, :meth:`attributes`, :meth:`product` and :meth:`scaled` for ONNX, and
    sample calls.
    """

    name: ClassVar[str]
    #: torch schema of the geometry arguments, "" or e.g. "int[] stride, int[] padding"
    geometry: ClassVar[str] = ""
    #: type of each ONNX attribute
    attribute_types: ClassVar[dict[str, Any]] = {}
    #: names of ONNX attributes that quantised nodes have besides, all integers
    quantized_attributes: ClassVar[tuple[str, ...]] = ()
    #: whether there is an op with a bias, and names of the ONNX attributes that it has besides
    biased: ClassVar[bool] = False
    biased_attributes: ClassVar[tuple[str, ...]] = ()
    #: shape that brings a scale an output channel to torch's layout of an output
    scale_shape: ClassVar[tuple[int, ...]] = (-1, 1, 1, 1)

    # -- torch -----------------------------------------------------------------------------

    def images(self, x: Tensor) -> Tensor:
        """Bring an input to the five axes that the convolution wants."""
        return x

    def kernel(self, weight: Tensor) -> Tensor:
        """Bring a weight to the five axes that the convolution wants."""
        return weight

    def restore(self, y: Tensor, x: Tensor) -> Tensor:
        """Bring a convolution's output back to the layout of the input ``x``."""
        return y

    def convolution(self, *geometry: Any) -> ConvolutionArgs:
        """Return the arguments of the convolution that computes the map."""
        raise NotImplementedError

    def apply(self, x: Tensor, weight: Tensor, *geometry: Any) -> Tensor:
        """Return L(x, weight)."""
        y = self.convolution(*geometry).forward(self.images(x), self.kernel(weight))
        return self.restore(y, x)

    def shape(self, x: Tensor, weight: Tensor, *geometry: Any) -> Sequence[int]:
        """Return the shape of L(x, weight), without a trace of how it is computed."""
        return self.apply(x, weight, *geometry).shape

    def vjp(
        self, grad: Tensor, x: Tensor, weight: Tensor, mask: Sequence[bool], *geometry: Any
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients of L(x, weight) for input and weight."""
        images = self.images(x)
        # images() only reshapes, so the same call brings the gradient into the inner layout
        grad_x, grad_weight = self.convolution(*geometry).backward(
            self.images(grad), images, self.kernel(weight), mask
        )
        return (
            None if grad_x is None else grad_x.reshape(x.shape),
            None if grad_weight is None else grad_weight.reshape(weight.shape),
        )

    # -- ONNX ------------------------------------------------------------------------------

    def attributes(self, channels: Any, *geometry: Any) -> dict[str, Any]:
        """Return the node's attributes for input channels and the torch op's geometry arguments."""
        return {}

    def facts(self, weights: Sequence[Any]) -> dict[str, int]:
        """Return the values of ``quantized_attributes`` for integer weights."""
        return {}

    def product(
        self, w: Writer, weights: Sequence[ir.Value], names: Sequence[str]
    ) -> list[ir.Value]:
        """Write the map of ``x`` and float weights, in one pass; return a named value of each."""
        raise NotImplementedError

    def float_product(
        self, w: Writer, weights: Sequence[str], names: Sequence[str]
    ) -> list[ir.Value]:
        """Write the map of ``x`` and inputs of any type, in floats. ::

        weight_f = Cast<to = 1>(weight)  # before all else: ONNX Runtime reshapes no int4
        """
        floats = [
            w.op("Cast", w.input(weight), to=int(FLOAT), dtype=FLOAT, name=f"{weight}_f")
            for weight in weights
        ]
        return self.product(w, floats, names)

    def integer_product(
        self, w: Writer, weights: Sequence[str], names: Sequence[str]
    ) -> list[ir.Value]:
        """Write the same for integer weights, by sums of integers where that is faster."""
        return self.float_product(w, weights, names)

    def omits(
        self, values: Mapping[str, Any], weights: Sequence[onnx.TensorProto]
    ) -> frozenset[str]:
        """Return what a quantised node may leave out; ``weights`` is empty if not all are known."""
        return frozenset()

    def scaled(self, w: Writer, total: ir.Value, scale: ir.Value, name: str) -> ir.Value:
        """Write ``name = total * scale``, in no way fused into the sum."""
        raise NotImplementedError

    def biased_product(self, w: Writer, name: str) -> ir.Value:
        """Write ``name = weight_scale * L(x, weight) + bias``, rounded after each of the two. ::

        y = Add(y_scaled, bias)
        """
        (total,) = self.integer_product(w, ["weight"], [f"{name}_sum"])
        scaled = self.scaled(w, total, w.input("weight_scale", FLOAT), f"{name}_product")
        return w.op("Add", scaled, w.input("bias", FLOAT), name=name)

    def arithmetic(self, values: Mapping[str, Any], weights: Sequence[onnx.TensorProto]) -> str:
        """Say in which numbers a quantised node is computed; see :class:`OpDef`."""
        return "floats; there is no fast integer operator"

    def samples(self) -> Sequence[tuple[str, Tensor, Tensor, tuple[Any, ...]]]:
        """Return (id, x, float weight, geometry) of some calls."""
        raise NotImplementedError
