"""The ops of an equation: torch op, gradient, ONNX node and body, registered together."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import onnx
import onnx_ir as ir
import torch
from torch import Tensor

from synapse_onnx.formatting import snake_case
from synapse_onnx.ops._contiguous import blank_like, contiguous_results
from synapse_onnx.ops._neuron import register_composed_gradient, time_back
from synapse_onnx.ops._registry import TORCH_NAMESPACE, OpDef, Sample, register
from synapse_onnx.ops._symbolic import node, time_first, time_last
from synapse_onnx.ops._writer import Writer
from synapse_onnx.ops.arithmetic import ErrorBound, Float, LoihiErrorBound
from synapse_onnx.ops.equation._body import write_body
from synapse_onnx.ops.equation._declaration import NORMED, OPS, Equation
from synapse_onnx.ops.equation._interface import Interface
from synapse_onnx.ops.equation._omits import fraction_kept, node_omits, summed
from synapse_onnx.ops.equation._running import ARITHMETICS, dynamics, recurrent, spikes
from synapse_onnx.ops.equation._samples import samples

__all__ = ["NeuronOp", "register_equation"]


class NeuronOp(Interface):
    """One op of an equation: how torch computes it, and its node and body in ONNX."""

    # -- torch -----------------------------------------------------------------------------------

    def compute(
        self, *args: Any, gradient: bool = False, arithmetic: Float | None = None
    ) -> tuple[Tensor, ...]:
        """Run the op; with ``gradient`` on values that autograd follows, or on others."""
        values = dict(zip((*self.inputs, *self.tail), args, strict=True))

        def pick(names: Sequence[str]) -> list[Any]:
            return [values[name] for name in names]

        surrogate = pick(self.tail[-3:]) if self.spiking else [1.0, 1.0, False]
        usual = ARITHMETICS[self.regime][gradient]
        a = arithmetic or usual(values.get("scale", 1), *surrogate)
        constants = {name: values[name] for name in self.e.constants}
        currents = pick(self.e.currents)
        states = pick(self.states)
        parameters = {
            parameter.name: a.parameter(values[parameter.name], states[0], parameter)
            for parameter in self.table
        }
        rest = (SimpleNamespace(**parameters), states, constants)
        if self.kind == "recurrent":
            fed = (pick(self.weights), pick(self.weight_scales), values["spikes"])
            return recurrent(self.e, a, currents, *fed, *rest)
        run = spikes if self.kind == "spikes" else dynamics
        return run(self.e, a, currents, *rest)

    def error_bound(self, *args: Any, rounding: float) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Say what roundings of the currents can change, of spikes in fixed point.

        Args:
            args: those of the op.
            rounding: how far currents may be off, in units of the states.

        Returns:
            Where they could decide on a spike (N, C[, H, W], T); how many units the heights of
            graded spikes may be off, likewise; and how many units each last state, by name.
        """
        bounded = LoihiErrorBound if self.regime == "loihi" else ErrorBound
        a = bounded(args[len(self.inputs)], rounding)
        fired, *states = self.compute(*args, arithmetic=a)
        # comparisons of single steps, the same number in each, and those of the spikes of all
        single = torch.stack([where for where in a.undecided if where.dim() < fired.dim()])
        near = single.reshape(fired.shape[-1], -1, *single.shape[1:]).any(dim=1)
        for where in a.undecided:
            if where.dim() == fired.dim():
                near |= where
        return time_back(near), time_back(a.height), dict(zip(self.states, states, strict=True))

    def fake(self, *args: Any) -> tuple[Tensor, ...]:
        """Return the outputs' shapes and types, for tensors without numbers."""
        values = dict(zip((*self.inputs, *self.tail), args, strict=True))
        x = values[self.e.currents[0]]
        sequences = [blank_like(x) for _ in self.sequences]
        last = [blank_like(values[name]) for name in (*self.carried, *self.states)]
        return *sequences, *last

    def __call__(self, *args: Any) -> tuple[Tensor, ...]:
        """Run the torch op: one node where it is traced."""
        result: tuple[Tensor, ...] = self.overload(*args)
        return result

    def register(self) -> None:
        """Register the torch op and its ONNX twin."""
        torch_name = snake_case(self.name)

        @contiguous_results
        def forward(*args: Any) -> tuple[Tensor, ...]:
            # an output must not be an input: a state that no step changes is copied
            return tuple(y.clone() if any(y is x for x in args) else y for y in self.compute(*args))

        op = torch.library.custom_op(
            f"{TORCH_NAMESPACE}::{torch_name}", forward, mutates_args=(), schema=self.schema
        )
        op.register_fake(self.fake)
        register_composed_gradient(
            op, lambda *args: self.compute(*args, gradient=True), tensors=len(self.inputs)
        )
        self.overload = getattr(getattr(torch.ops, TORCH_NAMESPACE), torch_name).default
        register(
            OpDef(
                name=self.name,
                torch_op=self.overload,
                inputs=self.inputs,
                outputs=self.outputs,
                attributes=self.attributes,
                symbolic=self.symbolic,
                body=self.body,
                samples=self.samples,
                doc=self.doc,
                exact=(None if self.kind == "recurrent" else True) if self.fixed else False,
                spikes=self.spiking and not self.e.counts,
                arithmetic=self.arithmetic,
                omits=self.omits,
            )
        )

    # -- ONNX ------------------------------------------------------------------------------------

    def body(self, w: Writer) -> Sequence[ir.Value]:
        """Write the ONNX body."""
        return write_body(self, w)

    def samples(self) -> Sequence[Sample]:
        """Return sample calls."""
        return samples(self)

    def omits(
        self, attributes: Mapping[str, Any], constants: Mapping[str, onnx.TensorProto]
    ) -> frozenset[str]:
        """Return what the body of a node may leave out; see :mod:`._omits`."""
        return node_omits(self, attributes, constants)

    def symbolic(self, *args: Any) -> Any:
        """Emit the node between two transposes."""
        values = dict(zip((*self.inputs, *self.tail), args, strict=True))
        rank = len(values[self.e.currents[0]].shape)
        tensors = [
            time_first(values[name]) if name in self.e.currents else values[name]
            for name in self.inputs
        ]
        attributes = {
            name: int(values[name]) if kind is int else float(values[name])
            for name, kind in self.attributes.items()
        }
        outputs = node(self.name, *tensors, **attributes)
        count = len(self.sequences)
        return *(time_last(y, rank) for y in outputs[:count]), *outputs[count:]

    def arithmetic(
        self,
        attributes: Mapping[str, Any],
        constants: Mapping[str, onnx.TensorProto],
        omits: frozenset[str],
    ) -> str:
        """Say in which numbers the states are computed, and which states are not."""
        said = [self._bits, *(f"keeps no {name}" for name in self.states if name in omits)]
        said += [f"sums {name} up, without a loop" for name in summed(self, omits)]
        for state, name in self.e.memory.items():
            kept = fraction_kept(self, constants[name], name) if name in constants else None
            if kept is not None and kept.any() and not kept.all():
                said.append(f"keeps {state}: not all channels lose all of it")
        return "; ".join(said)

    @property
    def _bits(self) -> str:
        if not self.fixed:
            return "floats"
        if self.kind == "recurrent":
            return "64 bits; nothing bounds the spikes that are fed back"
        if not self.e.is_bounded:
            return "64 bits; nothing bounds its states"
        return "32 bits if states fit, else 64"


def register_equation(e: Equation) -> Equation:
    """Register the ops of an equation, in its regimes, and return it."""
    kinds = list(itertools.product(e.regimes, ("spikes", "dynamics", "recurrent")))
    if e.normed:
        kinds += itertools.product(NORMED, ("spikes",))
    for regime, kind in kinds:
        op = NeuronOp(e, regime, kind)
        op.register()
        OPS[e.name, kind, regime] = op
    return e
