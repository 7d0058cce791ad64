"""Which outputs of a model are compared, and which layers serve other outputs alone."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Sequence

import onnx

from synapse_onnx.errors import InputError, ModelError
from synapse_onnx.model.graph import needed_for
from synapse_onnx.model.metadata import Metadata

__all__ = ["Scope"]


class Scope:
    """The outputs that the caller chose, and the values that they need.

    Args:
        model: the model.
        names: names of its outputs, without those of states.
        outputs: names of the outputs to compare; None for all.

    Raises:
        InputError: ``outputs`` names no output, or one that the model lacks.

    Attributes:
        left_out: names of the outputs that are not compared.
    """

    def __init__(
        self, model: onnx.ModelProto, names: Sequence[str], outputs: Sequence[str] | None
    ) -> None:
        self._compared = _checked(names, outputs)
        self.left_out = [name for name in names if name not in self._compared]
        self._needed = _values_for(model, self._compared)
        self._spared = _values_for(model, self.left_out) - self._needed

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


def _values_for(model: onnx.ModelProto, outputs: Collection[str]) -> set[str]:
    """Return the names of the values that outputs need, at this call of a stream or a later one."""
    states: dict[str, str] = {}
    with contextlib.suppress(ModelError):  # a model of another exporter has no metadata
        states = {str(s["input"]): str(s["output"]) for s in Metadata.read(model).states}
    return needed_for(model.graph, outputs, states)
