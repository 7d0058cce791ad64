"""The four forms of a synapse op: real, quantised, complex, quantised complex.

A synapse is a linear map L over every time step. A file such as ``conv.py`` states L once, for
torch and for ONNX; the four ops follow from it here:

====================  =========================================================
``X``                 y = L(x, w)
``QuantizedX``        y = step * L(x, w_int)
``ComplexX``          real = L(x, w_real), imag = L(x, w_imag), one pass over x
``QuantizedComplexX``  the two above together
====================  =========================================================

In the quantised forms the sum over integers is exact in float32 while
``sum(|w_int|) * max|x| < 2**24`` (``freeze`` proves it), and the step is multiplied once, behind
the sum, so that torch and ONNX Runtime agree to the last bit whatever order they add in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from synapse_onnx.ops._registry import TORCH_NAMESPACE, OpDef, Sample, register
from synapse_onnx.ops._symbolic import node, time_first, time_last

FLOAT32_RTOL = 1e-5  # sums of float products: another order of addition, another last bits


@dataclass(frozen=True)
class ConvolutionArgs:
    """Arguments of ``aten.convolution`` behind which every synapse stands."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    transposed: bool
    groups: int

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return the convolution of a 5-d input with a 5-d weight."""
        return torch.ops.aten.convolution(
            x, weight, None, self.stride, self.padding, self.dilation,
            self.transposed, [0, 0, 0], self.groups,
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

    Subclasses give ``name``, ``geometry`` (the schema of the arguments behind the weights),
    :meth:`convolution`, :meth:`attributes`, the ONNX text of the map and sample calls.
    """

    name: ClassVar[str]
    #: torch schema of the geometry arguments, "" or e.g. "int[] stride, int[] padding"
    geometry: ClassVar[str] = ""
    #: type of each ONNX attribute
    attribute_types: ClassVar[dict[str, Any]] = {}
    #: how many axes of a weight step come behind the output channel in the torch layout
    step_shape: ClassVar[tuple[int, ...]] = (-1, 1, 1, 1)

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

    def attributes(self, *geometry: Any) -> dict[str, Any]:
        """Return the node's attributes for the torch op's geometry arguments."""
        return {}

    def text(self, weights: Sequence[str], outputs: Sequence[str]) -> str:
        """Return ONNX statements from ``x`` and float weights to outputs, all in one pass."""
        raise NotImplementedError

    def step_text(self, step: str) -> str:
        """Return an ONNX expression of the step, broadcast against an output."""
        return step

    def samples(self) -> Sequence[tuple[str, Tensor, Tensor, tuple[Any, ...]]]:
        """Return (id, x, float weight, geometry) of some calls."""
        raise NotImplementedError


def _gradient_mask(context: Any, *positions: int) -> list[bool]:
    return [bool(context.needs_input_grad[i]) for i in positions]


def register_forms(linear: Linear, doc: str) -> tuple[OpDef, ...]:
    """Register the four forms of a synapse and return them."""
    return tuple(
        _register(linear, doc, is_complex=is_complex, quantized=quantized)
        for is_complex in (False, True)
        for quantized in (False, True)
    )


def _register(linear: Linear, doc: str, *, is_complex: bool, quantized: bool) -> OpDef:
    parts = ("real", "imag") if is_complex else ("",)
    weights = tuple(f"weight_{part}" if part else "weight" for part in parts)
    steps = tuple(f"step_{part}" if part else "step" for part in parts) if quantized else ()
    outputs = parts if is_complex else ("y",)
    count = len(parts)
    prefix = ("Quantized" if quantized else "") + ("Complex" if is_complex else "")
    name = prefix + linear.name
    tensors = ("x", *weights, *steps)
    behind = 1 + len(weights) + len(steps)  # position of the first geometry argument

    def split(
        args: Sequence[Any],
    ) -> tuple[Tensor, Sequence[Tensor], Sequence[Tensor], Sequence[Any]]:
        return args[0], args[1 : 1 + count], args[1 + count : behind], args[behind:]

    def scale(y: Tensor, step: Tensor) -> Tensor:
        return y * step.to(y.dtype).reshape(linear.step_shape)

    def compute(*args: Any) -> Any:
        x, ws, ss, geometry = split(args)
        ys = [linear.apply(x, w.to(x.dtype), *geometry) for w in ws]
        if quantized:
            ys = [scale(y, s) for y, s in zip(ys, ss, strict=True)]
        return tuple(ys) if is_complex else ys[0]

    def setup_context(context: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, ws, ss, geometry = split(inputs)
        context.save_for_backward(x, *ws, *ss)
        context.geometry = geometry

    def backward(context: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, ws, ss, _ = split((*context.saved_tensors, *context.geometry))
        grad_x: Tensor | None = None
        grad_ws: list[Tensor | None] = []
        for i, (grad, w) in enumerate(zip(grads, ws, strict=True)):
            mask = [context.needs_input_grad[0], not quantized and context.needs_input_grad[1 + i]]
            if quantized:
                grad = scale(grad, ss[i])
            part, grad_w = linear.vjp(grad, x, w.to(x.dtype), mask, *context.geometry)
            grad_ws.append(grad_w)
            if part is not None:
                grad_x = part if grad_x is None else grad_x + part
        return (grad_x, *grad_ws, *(None,) * (len(ss) + len(context.geometry)))

    schema_inputs = ", ".join(f"Tensor {tensor}" for tensor in tensors)
    returns = "(Tensor, Tensor)" if is_complex else "Tensor"
    torch_name = _snake(name)
    op = torch.library.custom_op(
        f"{TORCH_NAMESPACE}::{torch_name}",
        compute,
        mutates_args=(),
        schema=f"({schema_inputs}{', ' if linear.geometry else ''}{linear.geometry}) -> {returns}",
    )
    op.register_fake(compute)
    op.register_autograd(backward, setup_context=setup_context)

    def symbolic(*args: Any) -> Any:
        x, ws, ss, geometry = split(args)
        rank = len(x.shape)
        result = node(name, time_first(x), *ws, *ss, **linear.attributes(*geometry))
        if is_complex:
            return tuple(time_last(y, rank) for y in result)
        return time_last(result, rank)

    def body(opset: int) -> str:
        del opset  # the operators used are the same from opset 18 on
        lines = [f"{weight}_f = Cast<to = 1>({weight})" for weight in weights]
        sums = tuple(f"{out}_sum" for out in outputs) if quantized else outputs
        lines.append(linear.text([f"{weight}_f" for weight in weights], sums))
        for out, total, step in zip(outputs, sums, steps, strict=quantized):
            lines.append(linear.step_text(step))
            lines.append(f"{out} = Mul({total}, {step}_b)")
        return "\n".join(lines)

    def samples() -> list[Sample]:
        result = []
        for id_, x, weight, geometry in linear.samples():
            both = [weight, weight.flip(0) * 0.5][:count]
            if not quantized:
                result.append(Sample(id_, (x, *both, *geometry), FLOAT32_RTOL))
                continue
            ints = [torch.round(w * 32).clamp(-128, 127).to(torch.int8) for w in both]
            channels = linear.apply(x, weight, *geometry).shape[1] if linear.step_shape else 1
            per_channel = torch.linspace(0.1, 0.7, channels if weight.shape[:2] != (1, 1) else 1)
            for kind, step in (("tensor", torch.tensor([2 / 64])), ("channel", per_channel)):
                calls = (x, *ints, *[step] * count, *geometry)
                result.append(Sample(f"{id_}-{kind}", calls))
        return result

    return register(
        OpDef(
            name=name,
            torch_op=getattr(getattr(torch.ops, TORCH_NAMESPACE), torch_name).default,
            inputs=tensors,
            outputs=outputs,
            attributes=linear.attribute_types,
            symbolic=symbolic,
            body=body,
            samples=samples,
            doc=_form_doc(doc, is_complex=is_complex, quantized=quantized),
        )
    )


def _form_doc(doc: str, *, is_complex: bool, quantized: bool) -> str:
    """The docstring of a form: the family's equation and what the form adds to it."""
    added = []
    if quantized:
        added.append("Weights are integers; every sum is multiplied once by its step.")
    if is_complex:
        added.append("Two weights, real and imaginary, over one pass of a real input.")
    return " ".join([" ".join(doc.split()), *added])


def _snake(name: str) -> str:
    """CamelCase -> snake_case."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


class Images(Linear):
    """A synapse over images: a 2-d convolution of every (time step, sample) pair.

    Torch sees (N, C, H, W, T) and a kernel of (h, w, 1); ONNX sees (T, N, C, H, W) as one batch
    of T*N images. With ``per_channel`` every channel is an image of its own (pooling).
    """

    operator: ClassVar[str]  # Conv or ConvTranspose
    per_channel: ClassVar[bool] = False
    geometry = "int[] stride, int[] padding, int[] dilation, int groups"
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

    def attributes(self, *geometry: Any) -> dict[str, Any]:
        """Return the attributes of ONNX Conv and ConvTranspose."""
        stride, padding, dilation, groups = geometry
        return {
            "strides": list(stride),
            "pads": [*padding, *padding],
            "dilations": list(dilation),
            "group": groups,
        }

    def step_text(self, step: str) -> str:
        """Per-channel steps stand before height and width."""
        return f"{step}_b = Reshape({step}, step_shape)"

    def text(self, weights: Sequence[str], outputs: Sequence[str]) -> str:
        """Reshape to images, convolve once with all weights, split the channels, reshape back."""
        lead = 3 if self.per_channel else 2
        lines = [
            "flat = Constant<value_ints = [-1]>()",
            "one = Constant<value_ints = [1]>()",
            "last = Constant<value_ints = [4]>()",
            "step_shape = Constant<value_ints = [-1, 1, 1]>()",
            f"lead = Shape<start = 0, end = {lead}>(x)",
            f"image = Shape<start = {lead}>(x)",
            f"batch = Concat<axis = 0>(flat, {'one, ' if self.per_channel else ''}image)",
            "images = Reshape(x, batch)",
            # the weight's inert time axis goes; a cast comes first for the sake of int4
            *(f"{w}_4 = Squeeze({w}, last)" for w in weights),
        ]
        kernel = f"{weights[0]}_4"
        if len(weights) == 2:
            kernel = "kernel"
            lines += self._join(*(f"{w}_4" for w in weights))
        lines.append(
            f"maps = {self.operator}<strides: ints = @strides, pads: ints = @pads, "
            f"dilations: ints = @dilations, group: int = @group>(images, {kernel})"
        )
        if len(weights) == 1:
            lines += [
                f"inner = Shape<start = {lead - 1}>(maps)",
                "whole = Concat<axis = 0>(lead, inner)",
                f"{outputs[0]} = Reshape(maps, whole)",
            ]
            return "\n".join(lines)
        lines += [
            "two = Constant<value_ints = [2]>()",
            "plane = Shape<start = 2>(maps)",
            # channels are (group, part, channel of the group): the parts lie inside the groups
            "parted = Concat<axis = 0>(lead, groups, two, flat, plane)",
            "paired = Reshape(maps, parted)",
            f"first, second = Split<axis = {lead + 1}, num_outputs = 2>(paired)",
            f"whole = Concat<axis = 0>(lead, {'' if self.per_channel else 'flat, '}plane)",
            f"{outputs[0]} = Reshape(first, whole)",
            f"{outputs[1]} = Reshape(second, whole)",
        ]
        return "\n".join(lines)

    def _join(self, first: str, second: str) -> list[str]:
        """ONNX statements that put two kernels into one, group by group."""
        groups = [
            "group_count = Constant<value_int: int = @group>()",
            "groups = Reshape(group_count, one)",
        ]
        if self.operator == "ConvTranspose":  # (C, O / groups, h, w): outputs are axis 1 already
            return [*groups, f"kernel = Concat<axis = 1>({first}, {second})"]
        return [
            *groups,
            f"fan_in = Shape<start = 1>({first})",
            "grouped = Concat<axis = 0>(groups, flat, fan_in)",
            f"first_g = Reshape({first}, grouped)",
            f"second_g = Reshape({second}, grouped)",
            "both = Concat<axis = 1>(first_g, second_g)",
            "joined = Concat<axis = 0>(flat, fan_in)",
            "kernel = Reshape(both, joined)",
        ]


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
