"""Metadata of a model, in its ``metadata_props``: written by export, read without torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx

from synapse_onnx.errors import ModelError
from synapse_onnx.model.guard import read_states
from synapse_onnx.model.options import Options

__all__ = ["LAYER", "Metadata", "entries_of", "layer_of"]

_PREFIX = "synapse_onnx."

#: key of a node's metadata: path of the module that the node computes
LAYER = f"{_PREFIX}layer"


def layer_of(node: onnx.NodeProto) -> str | None:
    """Return the path of the module that a node computes; None if it has none."""
    return next((prop.value for prop in node.metadata_props if prop.key == LAYER), None)


def entries_of(model: onnx.ModelProto) -> dict[str, str]:
    """Return the metadata of a model as they are stored: name -> text."""
    props = {prop.key: prop.value for prop in model.metadata_props}
    return {k.removeprefix(_PREFIX): v for k, v in props.items() if k.startswith(_PREFIX)}


#: entries that a file has only where they are not these: files without them are older
_LEFT_OUT = {"axes": "NCT", "loops": False, "open_time": True, "steps": False}


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
        dynamic: whether batch size and number of time steps are open.
        states: for a streaming model, one entry a state: names of its "input" and "output",
            "dtype", "shape" (None for the batch), and its initial value, "start".
        chunk: for a streaming model, the number that the steps of a call must be a multiple of;
            only the last call of a sequence may have fewer.
        layout: layout of inputs and outputs: "NCT", "TNC" or "NTC".
        input_type: element type of the inputs: "float32", or "uint8" in place of floats.
        axes: axes that the network's own forward is written for, one of the layouts.
        open_time: whether the network takes any number of time steps.
        steps: whether the network takes single steps, and was looped over time.
        loops: whether the network loops over time in torch code, and the loop was found.
        layers: one entry a layer of this package, in the order of registration: its path and its
            ``describe()``.
        exact: names of graph outputs that are exact if the inputs of all layers are on a grid
            within their bounds.
        notes: sentences on layers that are rounded.
    """

    version: str
    torch_version: str
    opset: int
    regime: str
    streaming: bool = False
    dynamic: bool = True
    states: tuple[Mapping[str, Any], ...] = ()
    chunk: int = 1
    layout: str = "NCT"
    input_type: str = "float32"
    axes: str = "NCT"
    open_time: bool = True
    steps: bool = False
    loops: bool = False
    layers: tuple[Mapping[str, Any], ...] = ()
    exact: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def options(self) -> Options:
        """The options that the model was exported with: its network compiles to it again.

        Raises:
            InputError: the file has an option of another version, or a damaged one.
        """
        return Options(
            self.streaming,
            self.dynamic,
            self.layout,
            self.opset,
            self.input_type,
            self.axes,
            self.open_time,
            self.steps,
        )

    @property
    def carried(self) -> set[str]:
        """Names of the graph's inputs and outputs that are states, which no caller sees."""
        return {str(state[side]) for state in self.states for side in ("input", "output")}

    def write(self, model: onnx.ModelProto) -> None:
        """Store the metadata in a model, replacing earlier ones."""
        props = {}
        for name, value in sorted(vars(self).items()):
            if name in _LEFT_OUT and value == _LEFT_OUT[name]:
                continue
            text = json.dumps(value, sort_keys=True, default=dict)
            props[_PREFIX + name] = value if isinstance(value, str) else text
        onnx.helper.set_model_props(model, props)

    @classmethod
    def read(cls, model: onnx.ModelProto) -> Metadata:
        """Read the metadata of a model.

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
                dynamic=bool(json.loads(props.get(_PREFIX + "dynamic", "true"))),
                states=tuple(read_states(props.get(_PREFIX + "states", "[]"))),
                chunk=int(props.get(_PREFIX + "chunk", "1")),
                layout=props.get(_PREFIX + "layout", "NCT"),
                input_type=props.get(_PREFIX + "input_type", "float32"),
                axes=props.get(_PREFIX + "axes", "NCT"),
                open_time=json.loads(props.get(_PREFIX + "open_time", "true")) is True,
                steps=json.loads(props.get(_PREFIX + "steps", "false")) is True,
                loops=json.loads(props.get(_PREFIX + "loops", "false")) is True,
                layers=tuple(_layers(json.loads(props[_PREFIX + "layers"]))),
                exact=tuple(_texts(json.loads(props[_PREFIX + "exact"]))),
                notes=tuple(_texts(json.loads(props[_PREFIX + "notes"]))),
            )
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ModelError(
                "the model carries no synapse-onnx metadata; it was not written by this tool"
            ) from error

    @classmethod
    def find(cls, model: onnx.ModelProto) -> Metadata | None:
        """Read the metadata of a model; None for a model of another tool."""
        try:
            return cls.read(model)
        except ModelError:
            return None


def _texts(value: Any) -> list[str]:
    if not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
        raise ValueError("must be a list of texts")
    return value


def _layers(value: Any) -> list[dict[str, Any]]:
    """Return layers whose entries have the types that this tool writes."""
    if not (isinstance(value, list) and all(map(_is_layer, value))):
        raise ValueError("must be a list of layers")
    return value


def _is_layer(layer: Any) -> bool:
    if not (isinstance(layer, dict) and isinstance(layer.get("path"), str)):
        return False
    for facts in (layer, layer.get("feedback")):
        if isinstance(facts, dict) and "steps" in facts:  # in files of November 2026 and before
            facts.setdefault("scales", facts.pop("steps"))
    lists = [layer[key] for key in ("scales", "weight_shape") if layer.get(key) is not None]
    spans = [layer[key] for key in ("threshold", "delays") if layer.get(key) is not None]
    return (
        all(isinstance(item, list) for item in (*lists, *(layer.get("scales") or [])))
        and all(map(_numbers, (*lists, *spans)))
        and all(map(_flat, (*spans, layer.get("weight_shape"))))
    )


def _numbers(value: Any) -> bool:
    """Whether a value is a finite number, or a list of numbers or of lists of them."""
    if isinstance(value, list):
        return all(_numbers(item) for item in value)
    return isinstance(value, int | float) and math.isfinite(value)


def _flat(value: Any) -> bool:
    return not isinstance(value, list) or not any(isinstance(item, list) for item in value)
