"""The ops of a synapse: real, quantised, complex, quantised complex, quantised with a bias.

A synapse is a linear map L over every time step. A file such as ``conv.py`` states L once, for
torch and for ONNX; the ops follow from it here:

====================  =========================================================
``X``                 y = L(x, w)
``QuantizedX``        y = weight_scale * L(x, w_int)
``ComplexX``          real = L(x, w_real), imag = L(x, w_imag), one pass over x
``QuantizedComplexX``  the two above together
``QuantizedBiasedX``  y = weight_scale * L(x, w_int) + bias, of Dense, Conv and ConvTranspose
====================  =========================================================

In the quantised ops the sum over integers is exact in float32 while
``sum(|w_int|) * max|x| < 2**24`` (``freeze`` proves it), and the scale is multiplied once, after
the sum, so that torch and ONNX Runtime agree to the last bit whatever order they add in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx
import onnx_ir as ir
import torch
from torch import Tensor

from synapse_onnx.formatting import snake_case
from synapse_onnx.ops._contiguous import contiguous_results
from synapse_onnx.ops._linear import Linear
from synapse_onnx.ops._registry import TORCH_NAMESPACE, OpDef, Sample, register
from synapse_onnx.ops._symbolic import node, time_first, time_last
from synapse_onnx.ops._writer import FLOAT, Writer

__all__ = ["register_synapse", "seeded", "spikes"]

FLOAT32_RTOL = 1e-5  # sums of float products: another order of addition, another last bits


def register_synapse(linear: Linear, doc: str) -> tuple[OpDef, ...]:
    """Register the ops of a synapse and return them: X, QuantizedX, ComplexX, both, with a bias."""
    ops = [
        _SynapseOp(linear, doc, is_complex=is_complex, quantized=quantized)
        for is_complex in (False, True)
        for quantized in (False, True)
    ]
    if linear.biased:
        ops.append(_SynapseOp(linear, doc, is_complex=False, quantized=True, biased=True))
    return tuple(op.register() for op in ops)


class _SynapseOp:
    """One of the ops that follow from one linear map."""

    def __init__(
        self, linear: Linear, doc: str, *, is_complex: bool, quantized: bool, biased: bool = False
    ) -> None:
        self.linear, self.is_complex, self.quantized = linear, is_complex, quantized
        suffixes = ("_real", "_imag") if is_complex else ("",)
        self.count = len(suffixes)
        self.weights = tuple(f"weight{suffix}" for suffix in suffixes)
        self.weight_scales = (
            tuple(f"weight_scale{suffix}" for suffix in suffixes) if quantized else ()
        )
        #: the bias of the one output, if there is one
        self.biases = ("bias",) if biased else ()
        self.outputs = ("real", "imag") if is_complex else ("y",)
        kinds = f"{'Quantized' * quantized}{'Complex' * is_complex}{'Biased' * biased}"
        self.name = f"{kinds}{linear.name}"
        self.doc = _doc(doc, is_complex=is_complex, quantized=quantized, biased=biased)

    def split(
        self, args: Sequence[Any]
    ) -> tuple[Any, Sequence[Any], Sequence[Any], Sequence[Any], Sequence[Any]]:
        """Split arguments into input, weights, scales, biases and geometry."""
        scales = 1 + len(self.weights)
        biases = scales + len(self.weight_scales)
        geometry = biases + len(self.biases)
        return (
            args[0], args[1:scales], args[scales:biases], args[biases:geometry], args[geometry:],
        )  # fmt: skip

    def scale(self, y: Tensor, scale: Tensor) -> Tensor:
        """Multiply an output by its scale."""
        return y * scale.to(y.dtype).reshape(self.linear.scale_shape)

    # -- torch -----------------------------------------------------------------------------

    def compute(self, *args: Any) -> Any:
        """The torch op."""
        x, weights, scales, biases, geometry = self.split(args)
        ys = [self.linear.apply(x, weight.to(x.dtype), *geometry) for weight in weights]
        if self.quantized:
            ys = [self.scale(y, scale) for y, scale in zip(ys, scales, strict=True)]
        if biases:
            ys[0] = ys[0] + biases[0].to(x.dtype).reshape(self.linear.scale_shape)
        return tuple(ys) if self.is_complex else ys[0]

    def fake(self, *args: Any) -> Any:
        """The torch op for tensors without numbers, which an export computes several times."""
        x, weights, _, _, geometry = self.split(args)
        ys = [x.new_empty(self.linear.shape(x, weight, *geometry)) for weight in weights]
        return tuple(ys) if self.is_complex else ys[0]

    def setup_context(self, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep what the backward pass needs."""
        x, weights, scales, biases, geometry = self.split(inputs)
        ctx.save_for_backward(x, *weights, *scales, *biases)
        ctx.geometry = geometry

    def backward(self, ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return gradients of input and float weights; integers, scales and biases have none."""
        x, weights, scales, biases, geometry = self.split((*ctx.saved_tensors, *ctx.geometry))
        grad_x: Tensor | None = None
        grad_weights: list[Tensor | None] = []
        for i, weight in enumerate(weights):
            needed = ctx.needs_input_grad
            mask = [needed[0], needed[1 + i] and not self.quantized]
            grad = self.scale(grads[i], scales[i]) if self.quantized else grads[i]
            part, grad_weight = self.linear.vjp(grad, x, weight.to(x.dtype), mask, *geometry)
            grad_weights.append(grad_weight)
            if part is not None:
                grad_x = part if grad_x is None else grad_x + part
        rest = len(scales) + len(biases) + len(geometry)
        return (grad_x, *grad_weights, *(None,) * rest)

    # -- ONNX ------------------------------------------------------------------------------

    def symbolic(self, *args: Any) -> Any:
        """Emit the node between two transposes."""
        x, weights, scales, biases, geometry = self.split(args)
        rank = len(x.shape)
        attributes = self.linear.attributes(x.shape[1], *geometry)
        if self.quantized:
            attributes |= self.linear.facts(weights)
        if biases:
            attributes |= dict.fromkeys(self.linear.biased_attributes, biases[0].shape[0])
        result = node(self.name, time_first(x), *weights, *scales, *biases, **attributes)
        if self.is_complex:
            return tuple(time_last(y, rank) for y in result)
        return time_last(result, rank)

    def body(self, w: Writer) -> list[ir.Value]:
        """Write the function body; its operators are the same from opset 18 on."""
        if not self.quantized:
            return self.linear.float_product(w, self.weights, self.outputs)
        if self.biases:
            return [self.linear.biased_product(w, self.outputs[0])]
        sums = self.linear.integer_product(w, self.weights, [f"{out}_sum" for out in self.outputs])
        scales = [w.input(name, FLOAT) for name in self.weight_scales]
        triples = zip(sums, scales, self.outputs, strict=True)
        return [self.linear.scaled(w, total, scale, out) for total, scale, out in triples]

    def arithmetic(
        self,
        attributes: Mapping[str, Any],
        constants: Mapping[str, onnx.TensorProto],
        omits: frozenset[str],
    ) -> str:
        """Say in which numbers a node is computed."""
        known = self._known(constants)
        return self.linear.arithmetic(attributes, known) if self.quantized else "floats"

    def omits(
        self, attributes: Mapping[str, Any], constants: Mapping[str, onnx.TensorProto]
    ) -> frozenset[str]:
        """Return what a quantised node may leave out."""
        return self.linear.omits(attributes, self._known(constants))

    def _known(self, constants: Mapping[str, onnx.TensorProto]) -> list[onnx.TensorProto]:
        """Return the weights if all are constants."""
        known = [constants[name] for name in self.weights if name in constants]
        return known if len(known) == self.count else []

    # -- registration ----------------------------------------------------------------------

    def samples(self) -> list[Sample]:
        """Return the linear map's samples; quantised ones with one scale and with several."""
        result = []
        for id_, x, weight, geometry in self.linear.samples():
            both = [weight, weight.flip(0) * 0.5][: self.count]
            if not self.quantized:
                result.append(Sample(id_, (x, *both, *geometry), FLOAT32_RTOL))
                continue
            integers = [torch.round(w * 32).clamp(-128, 127).to(torch.int8) for w in both]
            one_kernel = weight.shape[:2] == (1, 1)
            channels = 1 if one_kernel else self.linear.apply(x, weight, *geometry).shape[1]
            scales = {
                "tensor": torch.tensor([2 / 64]),
                "channel": torch.linspace(0.1, 0.7, channels),
            }
            for kind, scale in scales.items():
                bias = [torch.linspace(-2, 3, channels)] * len(self.biases)
                args = (x, *integers, *[scale] * self.count, *bias, *geometry)
                result.append(Sample(f"{id_}-{kind}", args))
        return result

    def register(self) -> OpDef:
        """Register the torch op with torch and the whole with our registry."""
        tensors = ("x", *self.weights, *self.weight_scales, *self.biases)
        arguments = [f"Tensor {tensor}" for tensor in tensors]
        arguments += [self.linear.geometry] if self.linear.geometry else []
        returns = "(Tensor, Tensor)" if self.is_complex else "Tensor"
        added = self.linear.quantized_attributes if self.quantized else ()
        of_bias = self.linear.biased_attributes if self.biases else ()
        torch_name = snake_case(self.name)
        op = torch.library.custom_op(
            f"{TORCH_NAMESPACE}::{torch_name}",
            contiguous_results(self.compute),
            mutates_args=(),
            schema=f"({', '.join(arguments)}) -> {returns}",
        )
        op.register_fake(self.fake)
        op.register_autograd(self.backward, setup_context=self.setup_context)
        return register(
            OpDef(
                name=self.name,
                torch_op=getattr(getattr(torch.ops, TORCH_NAMESPACE), torch_name).default,
                inputs=tensors,
                outputs=self.outputs,
                attributes={
                    **self.linear.attribute_types,
                    **dict.fromkeys((*added, *of_bias), int),
                },
                symbolic=self.symbolic,
                body=self.body,
                samples=self.samples,
                doc=self.doc,
                exact=None if self.quantized else False,
                arithmetic=self.arithmetic,
                omits=self.omits if added else None,
            )
        )


def _doc(doc: str, *, is_complex: bool, quantized: bool, biased: bool) -> str:
    """The docstring of an op: the family's equation and what the op adds to it."""
    added = []
    if quantized:
        added.append("Weights are integers; every sum is multiplied once by its scale.")
    if biased:
        added.append("Then the bias of its output is added.")
    if is_complex:
        added.append("Two weights, real and imaginary, over one pass of a real input.")
    return " ".join([" ".join(doc.split()), *added])


def seeded(seed: int) -> Callable[..., Tensor]:
    """Return a function that draws float32 tensors of normal values, the same every time."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return draw


def spikes(seed: int, *shape: int) -> Tensor:
    """Return random 0/1 spikes, float32, the same every time."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(*shape, generator=generator) < 0.3).to(torch.float32)
