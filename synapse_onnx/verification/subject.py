"""The two sides of a comparison: a network in torch, and a model opened in ONNX Runtime."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Sequence
from typing import Any

import onnx
import torch
from torch import nn

from synapse_onnx._layer import Deployable
from synapse_onnx._version import __version__
from synapse_onnx.compiler.arguments import Arguments
from synapse_onnx.compiler.freezer import deployables, freeze
from synapse_onnx.model.layout import axes_of
from synapse_onnx.model.limits import read_file
from synapse_onnx.runtime.session import Session
from synapse_onnx.verification.nodes import layer_nodes, with_layer_outputs
from synapse_onnx.verification.scope import Scope

__all__ = ["Subject", "provenance"]


class Subject:
    """A network and its model.

    Args:
        module: the network; it is copied.
        model: its model.
        arguments: its example arguments.
        outputs: names of the outputs to compare; None for all.
        providers: execution providers, as for :class:`Session`.
        native: as for :class:`Session`.

    Attributes:
        module: the network in evaluation mode, on the CPU, unfrozen.
        frozen: its deployment form.
        arguments: how tensors become arguments of ``forward``.
        layers: every outermost layer of ours, by path.
        descriptions: what each layer describes in its frozen form, by path.
        model: the model.
        nodes: the nodes of each layer, by path.
        session: the model in ONNX Runtime.
        traced: the same model, which also returns the values of its layers.
        scope: which outputs and layers are compared.
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
        self.module = copy.deepcopy(module).eval().cpu()
        self.arguments = arguments
        self.layers: dict[str, Deployable] = dict(deployables(self.module))
        self.frozen = freeze(module).cpu()
        self.descriptions: dict[str, dict[str, Any]] = {
            path: layer.describe() for path, layer in deployables(self.frozen)
        }
        self.model = model
        self.nodes = layer_nodes(model, self.layers)
        self.session = Session(model, providers, native)
        self.scope = Scope(model, self.session.outputs, outputs)
        self.traced = Session(with_layer_outputs(model, self.nodes), providers, native)

    def spares_layer(self, path: str) -> bool:
        """Whether a layer serves outputs that are left out, and no other."""
        return self.scope.spares(self.nodes.get(path, []))

    def is_fixed_point(self, path: str) -> bool:
        """Whether a layer is a neuron that computes in integers."""
        return str(self.descriptions[path].get("regime", "float")) != "float"

    def feeds_back(self, path: str) -> bool:
        """Whether a layer is a neuron that sees its own spikes through a synapse."""
        return "feedback" in self.descriptions[path]

    @property
    def has_fixed_length(self) -> bool:
        """Whether the graph takes sequences of one length alone."""
        return any(
            time is not None and dims[time].HasField("dim_value")
            for dims, _, time in self._input_axes()
        )

    @property
    def has_open_batch(self) -> bool:
        """Whether the graph takes batches of any size."""
        return all(
            bool(dims) and not dims[batch].HasField("dim_value")
            for dims, batch, _ in self._input_axes()
        )

    def _input_axes(self) -> list[tuple[Any, int, int | None]]:
        """Return sizes, axis of the batch and axis of time of every input of the graph."""
        axes = []
        for value in self.model.graph.input:
            if value.name in self.session.inputs:
                dims = value.type.tensor_type.shape.dim
                axes.append((dims, *axes_of(self.session.layout, len(dims))))
        return axes


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
