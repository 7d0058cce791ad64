"""Many samples on many workers: a class for engines such as Ray Data.

Neither ray nor torch is imported here: an engine makes one :class:`Predictor` a worker, and calls
it with batches.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from synapse_onnx.errors import InputError, ShapeError
from synapse_onnx.model.file import load_model, parse_model
from synapse_onnx.model.layout import axes_of
from synapse_onnx.runtime.session import Session

if TYPE_CHECKING:
    import onnx

__all__ = ["MEMORY", "Predictor", "batch_size"]

#: default bytes of a batch on a worker
MEMORY = 256 << 20


class Predictor:
    """A network for ``map_batches`` of Ray Data: made once a worker, called with its batches.

    Args:
        model: path of an .onnx file that every worker can read, or the bytes of one.
        providers: execution providers, as of :class:`synapse_onnx.Session`.
        native: native kernels, as of :class:`synapse_onnx.Session`.
        threads: threads inside an operator; 1 by default, since an engine runs a worker per core.
        keep_inputs: whether the columns of the inputs stay in the batch.

    Attributes:
        session: the :class:`synapse_onnx.Session` that runs the network.

    Raises:
        InputError: no such file.
        ModelError: not an ONNX model.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes,
        *,
        providers: Sequence[str] | None = None,
        native: bool | None = None,
        threads: int | None = 1,
        keep_inputs: bool = False,
    ) -> None:
        loaded = parse_model(model, "the model") if isinstance(model, bytes) else model
        self.session = Session(loaded, providers, native, threads=threads)
        self.keep_inputs = keep_inputs

    def __call__(self, batch: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the network on a batch.

        Args:
            batch: columns by name, one row a sample. Every input has a column of its name, with
                the batch first in any layout: (N, C[, H, W], T), or (N, T, C[, H, W]) in the
                layout "TNC". Other columns may be anything.

        Returns:
            The other columns unchanged, and a column of the name of every output.

        Raises:
            InputError: a column is missing, its rows differ in shape, or an output has the name of
                another column.
            ShapeError: rows do not have the shape of the input, or an output does not have one
                row a sample.
        """
        session = self.session
        missing = [name for name in session.inputs if name not in batch]
        if missing:
            raise InputError(
                f"the batch has no column {missing[0]}, an input of the model; its columns are "
                f"{', '.join(batch) or 'none'}"
            )
        kept = {
            name: column
            for name, column in batch.items()
            if self.keep_inputs or name not in session.inputs
        }
        taken = [name for name in session.outputs if name in kept]
        if taken:
            raise InputError(
                f"the batch has a column {taken[0]}, and the model an output of that name; rename "
                f"the column"
            )
        arrays = [_stacked(name, batch[name]) for name in session.inputs]
        results = session.run(
            *(np.moveaxis(a, 0, axes_of(session.layout, a.ndim)[0]) for a in arrays)
        )
        outputs = results if isinstance(results, tuple) else (results,)
        for name, array in zip(session.outputs, outputs, strict=True):
            axis = axes_of(session.layout, array.ndim)[0]
            if not array.ndim or array.shape[axis] != len(arrays[0]):
                raise ShapeError(
                    f"output {name} of shape {array.shape} does not hold {len(arrays[0])} rows, "
                    f"one for each sample"
                )
            kept[name] = np.moveaxis(array, axis, 0)
        return kept


def _stacked(name: str, column: NDArray[Any]) -> NDArray[Any]:
    """Return a column as one array; engines pass arrays of rows as dtype object."""
    if column.dtype != object:
        return column
    rows = [np.asarray(row) for row in column]
    for i, row in enumerate(rows):
        if row.shape != rows[0].shape:
            raise InputError(
                f"column {name} holds arrays of different shapes: row 0 of a batch has "
                f"{rows[0].shape}, row {i} has {row.shape}"
            )
    return np.stack(rows)


def batch_size(
    model: onnx.ModelProto | str | os.PathLike[str] | bytes,
    *,
    steps: int | None = None,
    memory: int = MEMORY,
) -> int:
    """Return how many samples fit into so much memory, from shapes alone.

    A sample takes twice the bytes of its inputs, its outputs and the largest array between two
    nodes of the graph: a node reads one such array and writes another. A batch has at least one
    sample. Temporary memory of a node is not known from shapes, and the model itself is not
    counted. A model with a fixed batch returns that.

    Args:
        model: an ``onnx.ModelProto``, the path of an .onnx file, or its bytes.
        steps: time steps of a sample; required if the model leaves them open.
        memory: bytes for a batch.

    Raises:
        InputError: the model leaves its time open and ``steps`` is missing, or ``memory`` or
            ``steps`` is below 1.
        ModelError: not an ONNX model.
    """
    import onnx

    if memory < 1 or (steps is not None and steps < 1):
        raise InputError(f"memory and steps must be at least 1, got {memory} and {steps}")
    if isinstance(model, bytes):
        model = parse_model(model, "the model")
    elif not isinstance(model, onnx.ModelProto):
        model = load_model(model)
    layout = next((p.value for p in model.metadata_props if p.key == "synapse_onnx.layout"), "NCT")
    graph = model.graph
    if not graph.value_info and graph.node:  # another tool's model; ours contain their shapes
        graph = onnx.shape_inference.infer_shapes(model).graph
    constant = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constant]
    batch: set[str] = set()
    for value in inputs:
        sizes = value.type.tensor_type.shape.dim
        if not sizes:
            continue
        size = sizes[axes_of(layout, len(sizes))[0]]
        if size.dim_value:
            return int(size.dim_value)
        batch.add(size.dim_param)

    def size_of(value: onnx.ValueInfoProto) -> int:
        kind = value.type.tensor_type
        sizes = [d.dim_value or (1 if d.dim_param in batch else steps) for d in kind.shape.dim]
        if None in sizes:
            raise InputError(
                f"the model leaves axis {sizes.index(None)} of {value.name} open; give steps, the "
                f"time steps of a sample"
            )
        if kind.elem_type not in onnx.helper.get_all_tensor_dtypes():
            return 0
        width = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize
        return math.prod(size or 1 for size in sizes) * width

    between = [value for value in graph.value_info if value.name not in constant]
    ends = sum(map(size_of, [*inputs, *graph.output]))
    return max(memory // (2 * max(ends + max(map(size_of, between), default=0), 1)), 1)
