"""A model cut before every layer, so that each can be given inputs of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from synapse_onnx.errors import ModelError
from synapse_onnx.model.branches import with_branches
from synapse_onnx.model.layout import has_time, time_first
from synapse_onnx.model.metadata import Metadata
from synapse_onnx.runtime.providers import first_line
from synapse_onnx.runtime.session import Session

__all__ = ["CutModel"]

#: end of the name of a value that a node computes where the layers behind it get another one
_UNUSED = "#before_cut"


@dataclass
class CutModel:
    """A copy of a model in which chosen values are inputs, and others are outputs.

    Attributes:
        model: the copy.
        types: types of values, by name; those of its inputs are among them.
        chosen: names of the values that are inputs.
        added: those of them that were no inputs before.
        outputs: name of a value in the model -> name of the copy's output.
    """

    model: onnx.ModelProto
    types: Mapping[str, onnx.TypeProto]
    chosen: Collection[str]
    added: Collection[str]
    outputs: Mapping[str, str]

    @classmethod
    def of(
        cls,
        model: onnx.ModelProto,
        types: Mapping[str, onnx.TypeProto],
        inputs: Collection[str],
        outputs: Sequence[str],
    ) -> CutModel:
        """Cut a model.

        Args:
            model: the model; it is not changed.
            types: the types of its values, by name; those of ``inputs`` are among them.
            inputs: names of values that become inputs. What computed them stays, and goes nowhere.
            outputs: names of values that the copy returns, as they are computed.
        """
        copied = onnx.ModelProto()
        copied.CopyFrom(model)
        graph = copied.graph
        given = {value.name for value in graph.input}
        moved = {name: f"{name}{_UNUSED}" for name in inputs if name not in given}
        for node in graph.node:
            node.output[:] = [moved.get(name, name) for name in node.output]
        kept = [value for value in graph.value_info if value.name not in moved]
        del graph.value_info[:], graph.output[:]
        graph.value_info.extend(kept)
        for name in moved:
            graph.input.append(onnx.ValueInfoProto(name=name, type=types[name]))
        shown = {name: moved.get(name, name) for name in outputs}
        for name, output in shown.items():
            value = onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None)
            if name in types:
                value.type.CopyFrom(types[name])
            graph.output.append(value)
        metadata = Metadata.find(copied)
        if metadata is not None:  # a session hides the states of a stream
            states = tuple({**state, "output": ""} for state in metadata.states)
            replace(metadata, states=states).write(copied)
        return cls(copied, types, set(inputs), moved, shown)

    def session(
        self, providers: Sequence[str] | None, *, native: bool | None, branches: bool
    ) -> Session:
        """Open the copy in ONNX Runtime; see :class:`Session`.

        With ``branches`` it also returns which branches its function bodies took.
        """
        return Session(with_branches(self.model) if branches else self.model, providers, native)

    def as_array(self, name: str, sequence: NDArray[Any]) -> NDArray[Any]:
        """Bring a sequence (N, C[, H, W], T) to the layout and the type of a chosen value."""
        kind = self.types[name].tensor_type
        array = np.moveaxis(sequence, -1, 0)
        sizes = [dim.dim_value for dim in kind.shape.dim][2:]
        array = array.reshape(*array.shape[:2], *sizes)  # flat where axes have size one
        return np.ascontiguousarray(array, dtype=self.dtype_of(name))

    def dtype_of(self, name: str) -> np.dtype[Any]:
        """Return the type of a value's elements."""
        return np.dtype(
            onnx.helper.tensor_dtype_to_np_dtype(self.types[name].tensor_type.elem_type)
        )

    def run(
        self, session: Session, inputs: Sequence[NDArray[Any]], chosen: Mapping[str, NDArray[Any]]
    ) -> dict[str, NDArray[Any]]:
        """Run the copy.

        Args:
            session: one of :meth:`session`.
            inputs: inputs of the network itself, of which only the sizes count, time last.
            chosen: the chosen values, as :meth:`as_array` returns them.

        Returns:
            The outputs, by the names of the values in the model, and what tells of branches.

        Raises:
            ModelError: ONNX Runtime failed.
        """
        names = [name for name in session.inputs if name not in self.added]
        feeds = {
            name: time_first(array, session.layout).astype(self.dtype_of(name))
            for name, array in zip(names, inputs, strict=True)
        }
        feeds |= chosen
        with_axes = [array for array in inputs if array.ndim]
        batched = [array for array in with_axes if has_time(array.ndim)] or with_axes
        feeds |= session.fresh_states(batched[0].shape[0] if batched else 1)
        try:
            arrays = session.session.run(list(session.outputs), feeds)
        except Exception as error:  # its classes differ from version to version
            raise ModelError(f"ONNX Runtime failed: {first_line(error)}") from error
        results = dict(zip(session.outputs, arrays, strict=True))
        named = {name: results.pop(output) for name, output in self.outputs.items()}
        return named | results
