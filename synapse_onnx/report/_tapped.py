"""Values of a graph and of the steps of its loops, fetched from one run.

The body of a Scan returns what is watched in it as one more output, so that every step's value is
there: (T, N, C).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from numpy.typing import ArrayLike, NDArray

from synapse_onnx.errors import ModelError
from synapse_onnx.model.graph import dims_of, types_of, with_outputs
from synapse_onnx.runtime.session import Session

__all__ = ["Place", "Steps", "Taps", "body_of", "states_of"]

_FLOAT = onnx.TensorProto.FLOAT


@dataclass(frozen=True)
class Place:
    """A value: its name, and the name of the first output of the loop that it is in, or ""."""

    name: str
    loop: str = ""


@dataclass(frozen=True)
class Steps:
    """A value over time, one entry a call of what reads it.

    Attributes:
        values: (calls, N, ...), or (calls, ...) for a value without a batch.
        once: whether the file computes it once for all time steps.
    """

    values: NDArray[Any]
    once: bool = False


def body_of(node: onnx.NodeProto) -> onnx.GraphProto | None:
    """Return the step of a loop; None for any other node."""
    if node.op_type != "Scan" or node.domain:
        return None
    return next((a.g for a in node.attribute if a.name == "body"), None)


def states_of(node: onnx.NodeProto) -> int:
    """Return the number of states of a loop."""
    scanned = next((a.i for a in node.attribute if a.name == "num_scan_inputs"), 0)
    return len(node.input) - int(scanned)


class Taps:
    """Runs a model once, and keeps some of its values.

    Args:
        model: the model.
        sizes: time steps and batch of the inputs.
    """

    def __init__(self, model: onnx.ModelProto, sizes: tuple[int, int]) -> None:
        self._model, self._sizes = model, sizes
        self._values: dict[Place, NDArray[Any]] = {}
        self._dims: dict[str, list[int | str]] = {}

    def run(
        self,
        places: Sequence[Place],
        inputs: Sequence[ArrayLike],
        native: bool | None,
        providers: Sequence[str] | None,
    ) -> None:
        """Run the model on the inputs, and keep the values of these places."""
        stored = {tensor.name: tensor for tensor in self._model.graph.initializer}
        self._values = {
            place: onnx.numpy_helper.to_array(stored[place.name])
            for place in places
            if not place.loop and place.name in stored
        }
        wanted = dict.fromkeys(place for place in places if place not in self._values)
        outer = {place: f"{place.name}/counted" for place in wanted if not place.loop}
        types = types_of(self._model, [place.name for place in outer])
        self._dims = {
            name: dims_of(onnx.ValueInfoProto(type=kind))
            for name, kind in types.items()
            if kind.tensor_type.HasField("shape")
        }
        extended = with_outputs(self._model, {p.name: shown for p, shown in outer.items()})
        shown = dict(outer)
        for place in wanted:
            if place.loop:
                shown[place] = _with_step(extended.graph, place)
        session = Session(extended, providers, native)
        results = session.run(*inputs)
        arrays = results if isinstance(results, tuple) else (results,)
        found = dict(zip(session.outputs, arrays, strict=True))
        self._values |= {place: found[name] for place, name in shown.items()}

    def value(self, place: Place) -> NDArray[Any]:
        """Return a value as it is."""
        return self._values[place]

    def steps(self, place: Place) -> Steps:
        """Return a value step by step.

        Within the graph time comes first, (T, N, ...), or is one axis with the batch: (T * N, ...).
        """
        array = self._values[place]
        time, batch = self._sizes
        if place.loop:
            return Steps(array)
        first, second = (*map(str, self._dims.get(place.name, [])), "?", "?")[:2]
        size = array.shape[0] if array.ndim else 0
        if first == "N":
            return Steps(array[None], once=True)
        if "N" in first:  # T * N
            return Steps(array.reshape(-1, batch, *array.shape[1:]))
        if "T" in first or second == "N" or size == time:
            return Steps(array)
        if size == time * batch:  # of a file with fixed sizes
            return Steps(array.reshape(time, batch, *array.shape[1:]))
        return Steps(array[None], once=True)


def _with_step(graph: onnx.GraphProto, place: Place) -> str:
    """Return the name of a new output: a value in a loop, of every step, as floats."""
    node = next(n for n in graph.node if place.loop in n.output)
    body = body_of(node)
    if body is None:
        raise ModelError(f"{node.name} is not a loop")
    inner, outer = f"{place.name}/counted", f"{place.loop}/{place.name}/counted"
    body.node.append(onnx.helper.make_node("Cast", [place.name], [inner], to=_FLOAT))
    body.output.append(onnx.helper.make_tensor_value_info(inner, _FLOAT, None))
    for attribute in node.attribute:
        if attribute.name in ("scan_output_axes", "scan_output_directions"):
            same = attribute.ints[0] if attribute.name.endswith("directions") else 0
            attribute.ints.append(same)
    node.output.append(outer)
    graph.output.append(onnx.helper.make_tensor_value_info(outer, _FLOAT, None))
    return outer
