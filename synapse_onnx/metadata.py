"""What a model says of itself in ``metadata_props``: read without torch, written by export."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx

from synapse_onnx.errors import ModelError

__all__ = ["LAYER", "Metadata", "layer_of"]

_PREFIX = "synapse_onnx."

#: metadata of a node of an op of ours: path of the module that it computes
LAYER = f"{_PREFIX}layer"


def layer_of(node: onnx.NodeProto) -> str | None:
    """Return the path of the module that a node computes; None where it does not say."""
    return next((prop.value for prop in node.metadata_props if prop.key == LAYER), None)


@dataclass(frozen=True)
class Metadata:
    """Metadata of an exported model.

    Attributes:
        version: version of synapse-onnx that wrote the model.
        torch_version: version of torch that traced it.
        opset: opset of the standard operators.
        regime: "slayer" or "loihi" where every value is on an integer grid and all arithmetic is
            exact, "float" where no neuron is in fixed point, else "mixed".
        streaming: whether states are inputs and outputs.
        states: of a streaming model, one entry a state: names of its "input" and "output",
            "dtype", "shape" (None for the batch), and the number that it has at the "start".
        layout: of inputs and outputs: "NCT", or "TNC" with time first.
        input_type: "uint8" where bytes stand for the module's floats, else "float32".
        chunk: of a streaming model, the number that the steps of a call must be a multiple of;
            only the last call of a sequence may have fewer.
        layers: one entry a layer of ours, in the order of registration: its path and what
            ``describe`` says of it.
        exact: names of graph outputs that are exact whenever the layers' inputs are on a grid
            within their bounds.
        notes: sentences on what could not be proved or was left out.
    """

    version: str
    torch_version: str
    opset: int
    regime: str
    streaming: bool = False
    states: tuple[Mapping[str, Any], ...] = ()
    chunk: int = 1
    layout: str = "NCT"
    input_type: str = "float32"
    layers: tuple[Mapping[str, Any], ...] = ()
    exact: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default_factory=tuple)

    def write(self, model: onnx.ModelProto) -> None:
        """Store this in a model, replacing what it said before."""
        values = {
            "version": self.version,
            "torch_version": self.torch_version,
            "opset": str(self.opset),
            "regime": self.regime,
            "streaming": json.dumps(self.streaming),
            "states": json.dumps([dict(state) for state in self.states], sort_keys=True),
            "chunk": str(self.chunk),
            "layout": self.layout,
            "input_type": self.input_type,
            "layers": json.dumps([dict(layer) for layer in self.layers], sort_keys=True),
            "exact": json.dumps(list(self.exact)),
            "notes": json.dumps(list(self.notes)),
        }
        onnx.helper.set_model_props(model, {_PREFIX + key: values[key] for key in sorted(values)})

    @classmethod
    def read(cls, model: onnx.ModelProto) -> Metadata:
        """Read what a model says of itself.

        Raises:
            ModelError: the model was not written by synapse-onnx.
        """
        props = {prop.key: prop.value for prop in model.metadata_props}
        try:
            return cls(
                version=props[_PREFIX + "version"],
                torch_version=props[_PREFIX + "torch_version"],
                opset=int(props[_PREFIX + "opset"]),
                regime=props[_PREFIX + "regime"],
                streaming=bool(json.loads(props[_PREFIX + "streaming"])),
                states=tuple(json.loads(props.get(_PREFIX + "states", "[]"))),
                chunk=int(props.get(_PREFIX + "chunk", "1")),
                layout=props.get(_PREFIX + "layout", "NCT"),
                input_type=props.get(_PREFIX + "input_type", "float32"),
                layers=tuple(json.loads(props[_PREFIX + "layers"])),
                exact=tuple(json.loads(props[_PREFIX + "exact"])),
                notes=tuple(json.loads(props[_PREFIX + "notes"])),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                "the model carries no synapse-onnx metadata; it was not written by this tool"
            ) from error
