"""The two sides of a comparison: a network in torch, and a model opened in ONNX Runtime."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from synapse_onnx._layer import Deployable
from synapse_onnx._version import __version__
from synapse_onnx.compiler.arguments import Arguments
from synapse_onnx.compiler.axes import set_axes, with_time_last
from synapse_onnx.compiler.exactness import exact_values
from synapse_onnx.compiler.frameworks import reset_states
from synapse_onnx.compiler.freezer import copied, deployables, freeze, step_neurons
from synapse_onnx.compiler.loops.find import find_loop
from synapse_onnx.errors import InputError, SynapseError
from synapse_onnx.model.branches import with_branches
from synapse_onnx.model.graph import dims_of, needed_for
from synapse_onnx.model.layout import axes_of
from synapse_onnx.model.limits import read_file
from synapse_onnx.model.metadata import Metadata
from synapse_onnx.model.tiles import without_tiles
from synapse_onnx.runtime.session import Session
from synapse_onnx.verification.liveness import unused_calls, used
from synapse_onnx.verification.nodes import (
    input_sequences,
    layer_nodes,
    output_sequences,
    with_layer_outputs,
    with_scan_values,
)
from synapse_onnx.verification.reference import Reference
from synapse_onnx.verification.trace import Call

__all__ = ["Subject", "provenance"]


class Subject:
    """A network, which is copied, and its model, and the part of them that is compared.

    The arguments are those of :func:`verify`.

    Raises:
        InputError: ``outputs`` names no output, or one that the model lacks.

    Attributes:
        module: the network in evaluation mode, on the CPU, unfrozen; or a :class:`Reference`; or
            the form of a network that loops over time in torch code.
        original: that network itself; else None.
        frozen: its deployment form; of a reference, itself.
        arguments: how tensors become arguments of ``forward``.
        layers: every outermost layer of ours, by path.
        descriptions: what each layer describes in its frozen form, by path.
        model: the model.
        whole: the model without tiles, whose nodes are looked at one by one.
        metadata: the model's metadata; None of a model that another tool wrote.
        nodes: the nodes of each layer, by path.
        providers: execution providers of its sessions.
        native: whether native kernels run them; None where they do if they are installed.
        session: the model in ONNX Runtime.
        portable: the model by its function bodies, where the session runs it by native kernels and
            the caller left the choice; it also tells which branches these took.
        traced: the same model, which also returns the values of its layers; without native kernels
            it tells of branches, too.
        left_out: names of the outputs that are not compared.
    """

    def __init__(
        self,
        module: nn.Module,
        model: onnx.ModelProto,
        arguments: Arguments,
        *,
        outputs: Sequence[str] | None,
        providers: Sequence[str] | None,
        native: bool | None,
    ) -> None:
        self.module = self.frozen = module
        if not isinstance(module, Reference):
            self.module, self.frozen = copied(module).cpu(), freeze(module).cpu()
            reset_states(self.module)
            reset_states(self.frozen)
        self.metadata = Metadata.find(model)
        axes = "NCT" if self.metadata is None else self.metadata.axes
        self.arguments = arguments = with_time_last(arguments, axes)
        self.original: nn.Module | None = None
        if isinstance(module, Reference):
            module.axes = axes
        else:
            set_axes(self.module, axes)
            set_axes(self.frozen, axes)
            self._find_loop()
        self.layers: dict[str, Deployable] = dict(deployables(self.module))
        self.descriptions: dict[str, dict[str, Any]] = {
            path: layer.describe() for path, layer in deployables(self.frozen)
        }
        self.model, self.whole = model, without_tiles(model)
        self.nodes = layer_nodes(self.whole, self.layers)
        self.providers, self.native = providers, native
        self.session = Session(model, providers, native)
        self.portable: Session | None = None
        if native is None and self.session.kernels:
            self.portable = Session(with_branches(model), providers, native=False)
        self._compared = _checked(self.session.outputs, outputs)
        self.left_out = [name for name in self.session.outputs if name not in self._compared]
        self._needed = self._values_for(self._compared)
        self._spared = self._values_for(self.left_out) - self._needed
        traced = with_layer_outputs(self.whole, self.nodes)
        if self.original is not None or any(step_neurons(self.module)):
            traced = with_scan_values(traced)
        if not self.session.kernels:
            traced = with_branches(traced)
        self.traced = Session(traced, providers, native)
        self._unused: set[tuple[str, int]] | None = None
        self._rounds_within: dict[str, bool] = {}

    def _find_loop(self) -> None:
        """Find the loop over time that the model was made of, and compare its layers."""
        if self.metadata is None or not self.metadata.loops:
            return
        try:
            streaming = self.metadata.options.streaming
            found = find_loop(self.frozen, self.arguments.tensors, streaming=streaming)
        except SynapseError:
            found = None
        if found is None:
            return  # another network, which compare_construction says
        self.original, self.module, self.frozen = self.module, found, found

    def called(self, calls: Sequence[Call], tensors: Sequence[Tensor]) -> list[Call]:
        """Return the calls of layers that the model has nodes of: those whose results are used."""
        totals = Counter(call.path for call in calls)
        if all(n == 1 and self.nodes.get(path) for path, n in totals.items()):
            return list(calls)  # to find out takes a run of its own
        if self._unused is None:
            self._unused = unused_calls(
                self.module, self.layers, self.arguments, tensors, streaming=self.session.streaming
            )
        return used(calls, self._unused, self.nodes)

    @property
    def reference(self) -> Reference | None:
        """What the model is compared with, if that is not its network."""
        return self.module if isinstance(self.module, Reference) else None

    def has_output(self, name: str) -> bool:
        """Whether an output is compared."""
        return name in self._compared

    def spares_value(self, name: str) -> bool:
        """Whether a value of the graph serves outputs that are left out, and no other."""
        return name in self._spared

    def spares(self, nodes: Iterable[onnx.NodeProto]) -> bool:
        """Whether nodes serve outputs that are left out, and no other.

        Nodes that serve no output at all are compared.
        """
        values = {name for node in nodes for name in node.output}
        return not values.isdisjoint(self._spared) and values.isdisjoint(self._needed)

    def spares_layer(self, path: str) -> bool:
        """Whether a layer serves outputs that are left out, and no other."""
        return self.spares(self.nodes.get(path, []))

    def is_fixed_point(self, path: str) -> bool:
        """Whether a layer is a neuron that computes in integers."""
        return str(self.descriptions[path].get("regime", "float")) != "float"

    def rounds_within(self, path: str) -> bool:
        """Whether a layer computes in floats between its input and its output.

        A neuron in fixed point does whose norm is a module of torch's.
        """
        nodes = self.nodes.get(path, [])
        if path not in self._rounds_within:
            entering = [name for node in nodes[:1] for name in input_sequences(node)]
            exact = exact_values(self.whole, {path: True}, entering)
            ends = [name for node in nodes[-1:] for name in output_sequences(node)]
            self._rounds_within[path] = not exact.issuperset(ends)
        return self._rounds_within[path]

    def feeds_back(self, path: str) -> bool:
        """Whether a layer is a neuron that sees its own spikes through a synapse."""
        return "feedback" in self.descriptions[path]

    @property
    def has_fixed_length(self) -> bool:
        """Whether the graph takes sequences of one length alone."""
        return any(
            time is not None and isinstance(dims[time], int) for dims, _, time in self._input_axes()
        )

    @property
    def has_open_batch(self) -> bool:
        """Whether the graph takes batches of any size."""
        return all(
            bool(dims) and not isinstance(dims[batch], int) for dims, batch, _ in self._input_axes()
        )

    def sorts(self, output: str) -> bool:
        """Whether an output depends on the order of values: by TopK, as ``topk`` and ``sort`` do.

        Of equal values torch and ONNX Runtime may take either first.
        """
        needed = self._values_for([output])
        return any(
            node.op_type == "TopK" and not needed.isdisjoint(node.output)
            for node in self.whole.graph.node
        )

    def _values_for(self, outputs: Collection[str]) -> set[str]:
        """Return the names of the values that outputs need, at this call or a later one."""
        kept = self.metadata.states if self.metadata is not None else ()
        states = {str(state["input"]): str(state["output"]) for state in kept}
        return needed_for(self.whole.graph, outputs, states)

    def _input_axes(self) -> list[tuple[list[int | str], int, int | None]]:
        """Return sizes, axis of the batch and axis of time of every input of the graph."""
        axes = []
        for value in self.model.graph.input:
            if value.name in self.session.inputs:
                dims = dims_of(value)
                axes.append((dims, *axes_of(self.session.layout, len(dims))))
        return axes


def _checked(names: Sequence[str], outputs: Sequence[str] | None) -> set[str]:
    if outputs is None:
        return set(names)
    if isinstance(outputs, str):
        raise InputError(f"verify: outputs must be a list of names, got the text {outputs!r}")
    unknown = [name for name in outputs if name not in names]
    if unknown or not outputs:
        what = f"no output {unknown[0]!r}" if unknown else "no output is named"
        raise InputError(f"verify: {what}; the model's outputs are {', '.join(names)}")
    return set(outputs)


def provenance(
    model_or_path: onnx.ModelProto | str | os.PathLike[str], session: Session
) -> dict[str, str]:
    """Return which file was compared, and which programs ran it."""
    import onnxruntime

    if isinstance(model_or_path, onnx.ModelProto):
        name, data = "in memory", model_or_path.SerializeToString()
    else:
        name, data = os.path.basename(model_or_path), read_file(model_or_path)
    kernels = ", ".join(session.kernels)
    return {
        "model": name,
        "SHA-256": hashlib.sha256(data).hexdigest(),
        "synapse-onnx": __version__,
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "ONNX Runtime": onnxruntime.__version__,
        "execution providers": ", ".join(session.session.get_providers()),
        "native kernels": f"{kernels} ({session.instructions})" if kernels else "none",
    }
