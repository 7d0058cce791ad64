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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import onnx
import torch
from torch import Tensor

from synapse_onnx.errors import ExportError
from synapse_onnx.formatting import snake_case
from synapse_onnx.model.graph import places_along
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
        y: Tensor = torch.ops.aten.convolution(
            x, weight, None, self.stride, self.padding, self.dilation,
            self.transposed, [0, 0, 0], self.groups,
        )  # fmt: skip
        return y

    def size(self, pixels: int, kernel: int, axis: int) -> int:
        """Return the size of an output along an axis behind the channels."""
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

    Subclasses give ``name``, ``geometry`` (the schema of the arguments behind the weights),
    :meth:`convolution`, :meth:`attributes`, the ONNX text of the map and sample calls.
    """

    name: ClassVar[str]
    #: torch schema of the geometry arguments, "" or e.g. "int[] stride, int[] padding"
    geometry: ClassVar[str] = ""
    #: type of each ONNX attribute
    attribute_types: ClassVar[dict[str, Any]] = {}
    #: names of ONNX attributes that quantised forms have besides, all integers
    quantized_attributes: ClassVar[tuple[str, ...]] = ()
    #: shape that brings a step an output channel to torch's layout of an output
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

    def text(self, weights: Sequence[str], outputs: Sequence[str]) -> str:
        """Return ONNX statements from ``x`` and float weights to outputs, all in one pass."""
        raise NotImplementedError

    def cast_text(self, weights: Sequence[str], outputs: Sequence[str]) -> str:
        """Return ONNX statements from ``x`` and weights of any type to outputs in float."""
        floats = [f"{weight}_f" for weight in weights]
        # a cast comes first: ONNX Runtime reshapes no int4
        casts = [f"{weight}_f = Cast<to = 1>({weight})" for weight in weights]
        return "\n".join([*casts, self.text(floats, outputs)])

    def integer_text(
        self, weights: Sequence[str], outputs: Sequence[str], left: frozenset[str] = frozenset()
    ) -> str:
        """Return the same for integer weights, by sums of integers where that is faster.

        ``left`` is what of :meth:`form` every node may leave out.
        """
        return self.cast_text(weights, outputs)

    def form(
        self, values: Mapping[str, Any], weights: Sequence[onnx.TensorProto]
    ) -> frozenset[str]:
        """Return what a quantised node may leave out; ``weights`` is empty if not all are known."""
        return frozenset()

    def scale_text(self, total: str, step: str, out: str) -> str:
        """Return ONNX statements for ``out = total * step``, in no way fused into the sum."""
        raise NotImplementedError

    def arithmetic(self, values: Mapping[str, Any], weights: Sequence[onnx.TensorProto]) -> str:
        """Say in which numbers a quantised node is computed; see :class:`OpDef`."""
        return "floats; there is no fast integer operator"

    def samples(self) -> Sequence[tuple[str, Tensor, Tensor, tuple[Any, ...]]]:
        """Return (id, x, float weight, geometry) of some calls."""
        raise NotImplementedError


def register_forms(linear: Linear, doc: str) -> tuple[OpDef, ...]:
    """Register the four forms of a synapse and return them: X, QuantizedX, ComplexX, both."""
    return tuple(
        _Form(linear, doc, is_complex=is_complex, quantized=quantized).register()
        for is_complex in (False, True)
        for quantized in (False, True)
    )


class _Form:
    """One of the four ops that follow from one linear map."""

    def __init__(self, linear: Linear, doc: str, *, is_complex: bool, quantized: bool) -> None:
        self.linear, self.is_complex, self.quantized = linear, is_complex, quantized
        suffixes = ("_real", "_imag") if is_complex else ("",)
        self.count = len(suffixes)
        self.weights = tuple(f"weight{suffix}" for suffix in suffixes)
        self.steps = tuple(f"step{suffix}" for suffix in suffixes) if quantized else ()
        self.outputs = ("real", "imag") if is_complex else ("y",)
        self.name = f"{'Quantized' * quantized}{'Complex' * is_complex}{linear.name}"
        self.doc = _form_doc(doc, is_complex=is_complex, quantized=quantized)

    def split(self, args: Sequence[Any]) -> tuple[Any, Sequence[Any], Sequence[Any], Sequence[Any]]:
        """Split arguments into input, weights, steps and geometry."""
        behind = 1 + len(self.weights)
        last = behind + len(self.steps)
        return args[0], args[1:behind], args[behind:last], args[last:]

    def scale(self, y: Tensor, step: Tensor) -> Tensor:
        """Multiply an output by its step."""
        return y * step.to(y.dtype).reshape(self.linear.step_shape)

    # -- torch -----------------------------------------------------------------------------

    def compute(self, *args: Any) -> Any:
        """The torch op."""
        x, weights, steps, geometry = self.split(args)
        ys = [self.linear.apply(x, weight.to(x.dtype), *geometry) for weight in weights]
        if self.quantized:
            ys = [self.scale(y, step) for y, step in zip(ys, steps, strict=True)]
        return tuple(ys) if self.is_complex else ys[0]

    def fake(self, *args: Any) -> Any:
        """The torch op for tensors without numbers, which an export computes several times."""
        x, weights, _, geometry = self.split(args)
        ys = [x.new_empty(self.linear.shape(x, weight, *geometry)) for weight in weights]
        return tuple(ys) if self.is_complex else ys[0]

    def setup_context(self, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep what the backward pass needs."""
        x, weights, steps, geometry = self.split(inputs)
        ctx.save_for_backward(x, *weights, *steps)
        ctx.geometry = geometry

    def backward(self, ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return gradients of input and float weights; integers and steps have none."""
        x, weights, steps, geometry = self.split((*ctx.saved_tensors, *ctx.geometry))
        grad_x: Tensor | None = None
        grad_weights: list[Tensor | None] = []
        for i, weight in enumerate(weights):
            needed = ctx.needs_input_grad
            mask = [needed[0], needed[1 + i] and not self.quantized]
            grad = self.scale(grads[i], steps[i]) if self.quantized else grads[i]
            part, grad_weight = self.linear.vjp(grad, x, weight.to(x.dtype), mask, *geometry)
            grad_weights.append(grad_weight)
            if part is not None:
                grad_x = part if grad_x is None else grad_x + part
        return (grad_x, *grad_weights, *(None,) * (len(steps) + len(geometry)))

    # -- ONNX ------------------------------------------------------------------------------

    def symbolic(self, *args: Any) -> Any:
        """Emit the node between two transposes."""
        x, weights, steps, geometry = self.split(args)
        rank = len(x.shape)
        attributes = self.linear.attributes(x.shape[1], *geometry)
        if self.quantized:
            attributes |= self.linear.facts(weights)
        result = node(self.name, time_first(x), *weights, *steps, **attributes)
        if self.is_complex:
            return tuple(time_last(y, rank) for y in result)
        return time_last(result, rank)

    def body(self, opset: int, *special: frozenset[str], single: bool = False) -> str:
        """Return the function body; its operators are the same from opset 18 on."""
        del opset, single
        if not self.quantized:
            return self.linear.cast_text(self.weights, self.outputs)
        sums = [f"{out}_sum" for out in self.outputs]
        left = frozenset.intersection(*special) if special else frozenset()
        lines = [self.linear.integer_text(self.weights, sums, left)]
        for out, total, step in zip(self.outputs, sums, self.steps, strict=True):
            lines.append(self.linear.scale_text(total, step, out))
        return "\n".join(lines)

    def arithmetic(
        self, attributes: Mapping[str, Any], constants: Mapping[str, onnx.TensorProto]
    ) -> str:
        """Say in which numbers a node is computed."""
        known = self._known(constants)
        return self.linear.arithmetic(attributes, known) if self.quantized else "floats"

    def form(
        self, attributes: Mapping[str, Any], constants: Mapping[str, onnx.TensorProto]
    ) -> frozenset[str]:
        """Return what a quantised node may leave out."""
        return self.linear.form(attributes, self._known(constants))

    def _known(self, constants: Mapping[str, onnx.TensorProto]) -> list[onnx.TensorProto]:
        """Return the weights if all are constants."""
        known = [constants[name] for name in self.weights if name in constants]
        return known if len(known) == self.count else []

    # -- registration ----------------------------------------------------------------------

    def samples(self) -> list[Sample]:
        """Return the linear map's samples; quantised ones with one step and with several."""
        result = []
        for id_, x, weight, geometry in self.linear.samples():
            both = [weight, weight.flip(0) * 0.5][: self.count]
            if not self.quantized:
                result.append(Sample(id_, (x, *both, *geometry), FLOAT32_RTOL))
                continue
            integers = [torch.round(w * 32).clamp(-128, 127).to(torch.int8) for w in both]
            one_kernel = weight.shape[:2] == (1, 1)
            channels = 1 if one_kernel else self.linear.apply(x, weight, *geometry).shape[1]
            steps = {
                "tensor": torch.tensor([2 / 64]),
                "channel": torch.linspace(0.1, 0.7, channels),
            }
            for kind, step in steps.items():
                args = (x, *integers, *[step] * self.count, *geometry)
                result.append(Sample(f"{id_}-{kind}", args))
        return result

    def register(self) -> OpDef:
        """Register the torch op with torch and the whole with our registry."""
        tensors = ("x", *self.weights, *self.steps)
        arguments = [f"Tensor {tensor}" for tensor in tensors]
        arguments += [self.linear.geometry] if self.linear.geometry else []
        returns = "(Tensor, Tensor)" if self.is_complex else "Tensor"
        added = self.linear.quantized_attributes if self.quantized else ()
        torch_name = snake_case(self.name)
        op = torch.library.custom_op(
            f"{TORCH_NAMESPACE}::{torch_name}",
            self.compute,
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
                    **dict.fromkeys(added, int),
                },
                symbolic=self.symbolic,
                body=self.body,
                samples=self.samples,
                doc=self.doc,
                exact=None if self.quantized else False,
                arithmetic=self.arithmetic,
                form=self.form if added else None,
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

    def scale_text(self, total: str, step: str, out: str) -> str:
        """Per-channel steps stand before height and width; a Reshape lies behind the sum."""
        return f"{step}_b = Reshape({step}, step_shape)\n{out} = Mul({total}, {step}_b)"

    def text(self, weights: Sequence[str], outputs: Sequence[str]) -> str:
        """Reshape to images, convolve once with all weights, split the channels, reshape back."""
        merged = self.per_channel and not self.grouped
        lead = 3 if merged else 2
        lines = [
            "flat = Constant<value_ints = [-1]>()",
            "one = Constant<value_ints = [1]>()",
            "last = Constant<value_ints = [4]>()",
            "step_shape = Constant<value_ints = [-1, 1, 1]>()",
            f"lead = Shape<start = 0, end = {lead}>(x)",
            f"image = Shape<start = {lead}>(x)",
            f"batch = Concat<axis = 0>(flat, {'one, ' if merged else ''}image)",
            "images = Reshape(x, batch)",
            # the weight's inert time axis goes; a cast comes first for the sake of int4
            *(f"{w}_4 = Squeeze({w}, last)" for w in weights),
        ]
        kernel = f"{weights[0]}_4"
        if self.grouped or len(weights) == 2:
            kernel = "kernel"
            lines += [
                "group_count = Constant<value_int: int = @group>()",
                "groups = Reshape(group_count, one)",
                *self._join([f"{w}_4" for w in weights]),
            ]
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
            f"whole = Concat<axis = 0>(lead, {'' if merged else 'flat, '}plane)",
            f"{outputs[0]} = Reshape(first, whole)",
            f"{outputs[1]} = Reshape(second, whole)",
        ]
        return "\n".join(lines)

    def _join(self, kernels: Sequence[str]) -> list[str]:
        """ONNX statements that put the kernels into one, group by group."""
        both = ", ".join(kernels)
        if self.grouped:
            return [
                f"one_channel = Concat<axis = 0>({both})",
                "once_each = Constant<value_ints = [1, 1, 1]>()",
                "copies = Concat<axis = 0>(groups, once_each)",
                "kernel = Tile(one_channel, copies)",
            ]
        if self.operator == "ConvTranspose":  # (C, O / groups, h, w): outputs are axis 1 already
            return [f"kernel = Concat<axis = 1>({both})"]
        return [
            f"fan_in = Shape<start = 1>({kernels[0]})",
            "grouped = Concat<axis = 0>(groups, flat, fan_in)",
            *(f"{kernel}_g = Reshape({kernel}, grouped)" for kernel in kernels),
            f"both = Concat<axis = 1>({', '.join(f'{kernel}_g' for kernel in kernels)})",
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
