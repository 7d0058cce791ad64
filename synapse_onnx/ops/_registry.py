"""The registry of ops: what one op is, and how export, tests and docs find it.

An op is declared once, in a file of its own below ``synapse_onnx/ops``, as an :class:`OpDef`.
The registry imports every such file by itself; nothing else lists ops by hand.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx
import onnx.defs
import onnx_ir as ir
import torch

from synapse_onnx._discovery import public_modules
from synapse_onnx.errors import RegistryError
from synapse_onnx.model.graph import DOMAIN
from synapse_onnx.ops._writer import Signature, Writer

DOMAIN_VERSION = 1
TORCH_NAMESPACE = "synapse"

_ONNX_TYPES = [
    f"tensor({kind})"
    for kind in ("float", "double", "bool", "uint8", "int4", "int8", "int16", "int32", "int64")
]


@dataclass(frozen=True)
class Sample:
    """One call of a torch op: positional arguments, as its schema wants them."""

    id: str
    args: tuple[Any, ...]
    #: largest difference of torch and ONNX, relative to torch's largest value; 0 means equal
    rtol: float = 0.0


@dataclass(frozen=True)
class OpDef:
    """One op: torch op, ONNX node, ONNX function body and sample inputs, declared together.

    The ONNX node is time-major: where the torch op takes or returns a sequence in
    ``(N, C[, H, W], T)``, the node takes or returns ``(T, N, C[, H, W])``.

    Attributes:
        name: name of the node in domain ``ai.synapse``.
        torch_op: the overload that the exporter meets, ``torch.ops.synapse.<name>.default``.
        inputs: names of the node's tensor inputs, in order.
        outputs: names of the node's outputs, in order.
        attributes: name -> ``int``, ``float``, ``[int]`` (the type, for ints) of each attribute.
        symbolic: the function that the exporter calls in place of the torch op; it gets the
            torch op's arguments and returns the values of its outputs.
        body: writes the ONNX function, with standard operators of ``w.opset`` alone, and returns
            the values of its outputs; ``w.text`` takes ONNX's textual syntax.
        samples: sample calls, for the parity tests.
        doc: the equation, from the docstring of the file.
        exact: whether equal inputs give equal outputs everywhere, to the last bit: True, False
            (sums of floats), or None where it hangs on the sums of the layer (its integers, its
            step, the size of its input).
        spikes: whether its first output is 0 or 1 wherever its attribute ``graded`` is 0.
        arithmetic: (attributes of a node, its constant inputs, by name; what its body leaves out)
            -> in a few words, the numbers in which its body computes, and why in no shorter ones.
        omits: (attributes of a node, its constant inputs), by name -> what its body may leave out:
            states of which it keeps nothing, and the like.
    """

    name: str
    torch_op: torch._ops.OpOverload
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    symbolic: Callable[..., Any]
    body: Callable[[Writer], Sequence[ir.Value]]
    samples: Callable[[], Sequence[Sample]]
    doc: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    exact: bool | None = False
    spikes: bool = False
    arithmetic: (
        Callable[[Mapping[str, Any], Mapping[str, onnx.TensorProto], frozenset[str]], str] | None
    ) = None
    omits: Callable[[Mapping[str, Any], Mapping[str, onnx.TensorProto]], frozenset[str]] | None = (
        None
    )

    def function(
        self, opset: int, *omits: frozenset[str], streaming: bool = False
    ) -> onnx.FunctionProto:
        """Return the ONNX function of this op for an opset.

        Args:
            opset: opset of the standard operators.
            omits: what the nodes of a model may leave out, one set for each kind of node; without
                any the body serves every node.
            streaming: whether calls of a single time step are usual.

        Raises:
            RegistryError: the body is not valid ONNX text.
        """
        w = Writer(
            Signature(self.name, self.inputs, self.outputs, self.attributes),
            opset,
            omits,
            streaming,
        )
        function = w.function(self.body(w))
        function.doc_string = self.doc
        proto: onnx.FunctionProto = ir.to_proto(function)
        return proto

    def schema(self) -> onnx.defs.OpSchema:
        """Return the node's signature for the exporter.

        It is never registered with ONNX: a registered schema without an inference function would
        switch off shape inference through the function body.
        """
        schema = onnx.defs.OpSchema
        kinds = {
            int: schema.AttrType.INT,
            float: schema.AttrType.FLOAT,
            (int,): schema.AttrType.INTS,
        }

        def parameters(
            names: tuple[str, ...], letter: str
        ) -> list[onnx.defs.OpSchema.FormalParameter]:
            return [schema.FormalParameter(name, f"{letter}{i}") for i, name in enumerate(names)]

        return schema(
            self.name,
            DOMAIN,
            DOMAIN_VERSION,
            inputs=parameters(self.inputs, "I"),
            outputs=parameters(self.outputs, "O"),
            type_constraints=[
                (f"{letter}{i}", _ONNX_TYPES, "")
                for letter, names in (("I", self.inputs), ("O", self.outputs))
                for i in range(len(names))
            ],
            attributes=[
                schema.Attribute(name, kinds[kind], required=True)
                for name, kind in self.attributes.items()
            ],
        )


_OPS: dict[str, OpDef] = {}


def register(op: OpDef) -> OpDef:
    """Add an op to the registry and return it.

    Raises:
        RegistryError: another op has this name, or this torch op.
    """
    for other in _OPS.values():
        if other.name == op.name or other.torch_op is op.torch_op:
            raise RegistryError(
                f"op {op.name} ({op.torch_op}) is registered twice: "
                f"{other.name} ({other.torch_op}) is there already"
            )
    _OPS[op.name] = op
    return op


#: packages whose files declare ops, and whether these files are imported
_packages: dict[str, bool] = {}


def add_package(name: str) -> None:
    """Let :func:`all_ops` import all files of a package, which register the ops that they declare.

    The package calls this with its own name, when it is imported itself.
    """
    _packages.setdefault(name, False)


add_package(__package__)


def all_ops() -> dict[str, OpDef]:
    """Return every op by name, sorted; imports the op files on the first call.

    Neurons are among them once :mod:`synapse_onnx.neuron` is imported.
    """
    for name in [name for name, done in _packages.items() if not done]:
        for module in public_modules(sys.modules[name].__path__):
            importlib.import_module(f"{name}.{module}")
        _packages[name] = True
    return dict(sorted(_OPS.items()))


def get_op(name: str) -> OpDef:
    """Return an op by the name of its node.

    Raises:
        RegistryError: no op has this name.
    """
    ops = all_ops()
    if name not in ops:
        raise RegistryError(f"no op is named {name!r}; there are: {', '.join(ops)}")
    return ops[name]


def iter_used(op_types: Iterator[tuple[str, str]]) -> list[OpDef]:
    """Return the ops among (domain, op type) pairs, each once, sorted by name."""
    used = {kind for domain, kind in op_types if domain == DOMAIN}
    return [get_op(kind) for kind in sorted(used)]
