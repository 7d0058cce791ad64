"""Every layer alone, on generated inputs: what a layer does where no sample of the user leads.

The samples of a user reach a part of what a layer can do: the loop of 32 bits and not the one of
64, silence and not more spikes than ever. So a copy of the model is cut before every layer
(:mod:`.cut`), and each layer gets inputs of its own (:mod:`.stimuli`): zero, signed, dense, beyond
2**24 and 2**32, in one step and in many. It is compared with torch on these inputs, by its function
body and by its native kernel.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from torch import Tensor

from synapse_onnx.compiler.exactness import exact_values
from synapse_onnx.compiler.freezer import eagerly
from synapse_onnx.compiler.passes.mark_spikes import are_spikes
from synapse_onnx.errors import ModelError
from synapse_onnx.model.graph import types_of
from synapse_onnx.neuron import base
from synapse_onnx.runtime.session import Session
from synapse_onnx.verification.arrays import Agreement, Tolerance
from synapse_onnx.verification.cut import CutModel
from synapse_onnx.verification.findings import Findings
from synapse_onnx.verification.layers import compare_layer, nodes_of_call
from synapse_onnx.verification.nodes import entering_sequences
from synapse_onnx.verification.outputs import Run
from synapse_onnx.verification.replay import Replay, replay
from synapse_onnx.verification.stimuli import Domain, stimulus
from synapse_onnx.verification.subject import Subject
from synapse_onnx.verification.sums import exact_layers
from synapse_onnx.verification.trace import Call

__all__ = ["probe_layers"]

#: inputs and calls of the layers of one run; sizes are all that counts
Sizes = tuple[Sequence[Tensor], Sequence[Call]]


def probe_layers(
    subject: Subject, findings: Findings, runs: Sequence[Sizes], tolerance: Tolerance
) -> None:
    """Compare every layer alone on generated inputs of the sizes of runs.

    What differs is a problem of the report; which branches the function bodies took is noted.
    """
    runs = [run for run in runs if run[1]]
    bench = _Bench.of(subject, findings, runs[0][1]) if runs else None
    if bench is None:
        return
    by_steps = sorted(runs, key=lambda run: _steps(run[1]))
    single, short, long = by_steps[0], (by_steps[1:] or by_steps)[0], by_steps[-1]
    plan = [
        ("signed", long), ("dense", single), ("large", short), ("huge", short),
    ]  # fmt: skip
    for seed, (kind, sizes) in enumerate(plan):
        bench.probe(kind, sizes, tolerance, seed)
    findings.probed += bench.sessions


def _steps(calls: Sequence[Call]) -> int:
    return max(call.inputs[0].shape[-1] for call in calls)


class _Probed(NamedTuple):
    """A call on generated inputs, of ``total`` calls of its layer, and what torch gives there.

    ``names`` are those of its inputs in the graph.
    """

    call: Call
    total: int
    known: Replay
    names: Sequence[str]


class _Bench:
    """A model that is cut before every layer, in ONNX Runtime."""

    def __init__(
        self, subject: Subject, findings: Findings, cut: CutModel, left_out: Collection[str]
    ) -> None:
        self.subject, self.findings, self.cut = subject, findings, cut
        self.left_out = left_out
        graph = ir.serde.deserialize_graph(subject.whole.graph)
        values = {value.name: value for node in graph for value in node.outputs}
        self.spikes = {name for name in cut.chosen if are_spikes(values.get(name))}
        self.sessions: dict[str, Session] = {}
        providers, native = subject.providers, subject.native
        if subject.session.kernels:
            self.sessions["native kernels"] = cut.session(providers, native=native, branches=False)
        if subject.portable is not None or not subject.session.kernels:
            self.sessions["function bodies"] = cut.session(providers, native=False, branches=True)

    @classmethod
    def of(cls, subject: Subject, findings: Findings, calls: Sequence[Call]) -> _Bench | None:
        """Cut a model before the layers of some calls; None where it has none that can be.

        A layer cannot whose node takes something else than the layer, such as what was padded.
        """
        inputs: dict[str, None] = {}
        outputs: dict[str, None] = {}
        left_out = set()
        of_calls = [
            (call, nodes, entering_sequences(nodes, len(call.inputs)))
            for _, nodes, call in _with_nodes(subject, calls)
        ]
        ends = {name for _, nodes, _ in of_calls for node in nodes for name in node.output}
        entering = {name for _, _, names in of_calls for name in names}
        types = types_of(subject.whole, entering | ends - {""})
        for call, nodes, names in of_calls:
            if all(map(_fits, (types.get(name) for name in names), call.inputs)):
                inputs |= dict.fromkeys(names)
                outputs |= dict.fromkeys(name for node in nodes for name in node.output if name)
            else:
                left_out.add(call.path)
        if left_out:
            findings.note(
                f"{', '.join(sorted(left_out))}: not compared alone on generated inputs, for the "
                f"graph states no shape of the input, or another one than the layer's"
            )
        if not inputs:
            return None
        cut = CutModel.of(subject.whole, types, inputs, list(outputs))
        return cls(subject, findings, cut, left_out)

    def probe(self, kind: str, sizes: Sizes, tolerance: Tolerance, seed: int) -> None:
        """Compare all layers on inputs of one kind, of the sizes that they have in a run."""
        tensors, calls = sizes
        arrays: dict[str, NDArray[Any]] = {}  # in the types of the graph
        values: dict[str, NDArray[Any]] = {}  # the same as floats, which layers take in torch
        probed = []
        for total, nodes, call in _with_nodes(self.subject, calls):
            if call.path in self.left_out:
                continue
            names = entering_sequences(nodes, len(call.inputs))
            for name, x in zip(names, call.inputs, strict=True):
                if name not in arrays:
                    sequence = stimulus(kind, x.shape, self._domain(name, call), seed)
                    arrays[name] = self.cut.as_array(name, sequence)
                    values[name] = arrays[name].astype(np.float32)
            with eagerly():
                known = replay(self.subject, call, nodes, values, exact=True)
            if known.outputs is not None:
                on_these = replace(call, inputs=known.inputs, outputs=known.outputs)
                probed.append(_Probed(on_these, total, known, names))
        if arrays.keys() != self.cut.chosen:
            return  # a run in which other layers were called
        inputs = [tensor.detach().numpy() for tensor in tensors]
        for by, session in self.sessions.items():
            try:
                results = self.cut.run(session, inputs, arrays)
            except ModelError as error:
                self.findings.problem(f"probed alone with {kind} inputs, by {by}: {error}")
                continue
            self.findings.exercise.see_branches(self.subject.whole, results, probed=True)
            for sentence in self._differences(probed, values, results, tolerance):
                self.findings.problem(f"probed alone with {kind} inputs, by {by}: {sentence}")

    def _differences(
        self,
        probed: Sequence[_Probed],
        inputs: Mapping[str, NDArray[Any]],
        results: Mapping[str, NDArray[Any]],
        tolerance: Tolerance,
    ) -> list[str]:
        """Return a sentence for every layer that differs from torch."""
        found = Findings()
        exact = exact_values(
            self.cut.model, exact_layers(self.subject, found, [one.call for one in probed])
        )
        named = {name for name, output in self.cut.outputs.items() if output in exact}
        for call, total, known, names in probed:
            run = Run(
                self.subject, found, call.inputs, named,
                Tolerance(tolerance.rtol, tolerance.atol),
                Agreement(call.outputs[0].shape[0], call.inputs[0].shape[-1]),
            )  # fmt: skip
            values = {**results, **{name: inputs[name] for name in names}}
            compare_layer(run, values, call, total, known)
        return found.failures()

    def _domain(self, name: str, call: Call) -> Domain:
        layer: Any = call.layer
        unit = layer.threshold if isinstance(layer, base.Neuron) else 1.0
        return Domain(
            spikes=name in self.spikes,
            dtype=self.cut.dtype_of(name),
            unit=unit if 0 < unit < math.inf else 1.0,
            resolution=getattr(layer, "s_scale", 1),
        )


def _fits(kind: onnx.TypeProto | None, x: Tensor) -> bool:
    """Whether a sequence (N, C[, H, W], T) has the neurons of a value (T, N, ...) of the graph."""
    if kind is None or not kind.tensor_type.HasField("shape"):
        return False
    neurons: int = math.prod(dim.dim_value for dim in kind.tensor_type.shape.dim[2:])
    return neurons == math.prod(x.shape[1:-1])


def _with_nodes(
    subject: Subject, calls: Sequence[Call]
) -> Iterator[tuple[int, Sequence[onnx.NodeProto], Call]]:
    """Yield the calls that the model has nodes of, with the number of the layer's calls before."""
    totals = Counter(call.path for call in calls)
    for call in calls:
        nodes = nodes_of_call(subject, Findings(), call, totals[call.path])
        if nodes:
            yield totals[call.path], nodes, call
