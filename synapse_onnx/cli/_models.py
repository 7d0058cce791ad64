"""Inputs, outputs and metadata of a model, for the commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from synapse_onnx.cli._arrays import Array, random_spikes
from synapse_onnx.errors import InputError, ModelError
from synapse_onnx.formatting import shape_text
from synapse_onnx.model.layout import axes_of

if TYPE_CHECKING:
    import onnx

    from synapse_onnx.model.metadata import Metadata

__all__ = [
    "dtype_of",
    "generated_inputs",
    "inputs_of",
    "layout_of",
    "outputs_of",
    "read_metadata",
    "shape_time_last",
]


def read_metadata(model: onnx.ModelProto) -> Metadata | None:
    """Read the metadata of a model; None for a model of another tool."""
    from synapse_onnx.model.metadata import Metadata

    try:
        return Metadata.read(model)
    except ModelError:
        return None


def layout_of(model: onnx.ModelProto) -> str:
    """Return the layout of inputs and outputs; torch's for a model of another tool."""
    metadata = read_metadata(model)
    return metadata.layout if metadata else "NCT"


def _values(values: Sequence[onnx.ValueInfoProto]) -> dict[str, tuple[str, list[int | str]]]:
    """Return name -> (element type, shape) of inputs or outputs; open axes are names."""
    import onnx

    entries: dict[str, tuple[str, list[int | str]]] = {}
    for value in values:
        kind = value.type.tensor_type
        shape: list[int | str] = [
            dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?"
            for dim in kind.shape.dim
        ]
        if kind.elem_type not in onnx.TensorProto.DataType.values():
            raise ModelError(f"{value.name} is of an unknown type, {kind.elem_type}")
        name = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
        entries[value.name] = (name, shape)
    return entries


def inputs_of(model: onnx.ModelProto) -> dict[str, tuple[str, list[int | str]]]:
    """Return the inputs without states and initialisers, which old models list as inputs."""
    hidden = {tensor.name for tensor in model.graph.initializer} | _carried(model)
    return _values([value for value in model.graph.input if value.name not in hidden])


def outputs_of(model: onnx.ModelProto) -> dict[str, tuple[str, list[int | str]]]:
    """Return the outputs without states."""
    hidden = _carried(model)
    return _values([value for value in model.graph.output if value.name not in hidden])


def _carried(model: onnx.ModelProto) -> set[str]:
    """Names of the states of a streaming model, inputs and outputs."""
    metadata = read_metadata(model)
    return metadata.carried if metadata else set()


def dtype_of(kind: str) -> Any:
    """Return NumPy's type of an ONNX element type."""
    import onnx

    try:
        return onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.DataType.Value(kind.upper()))
    except KeyError as error:
        raise ModelError(
            f"an input of the model is of type {kind}, no tensor of numbers"
        ) from error


def shape_time_last(shape: list[int | str], layout: str) -> list[int | str]:
    """Return the shape of an input in torch's layout."""
    return [*shape[1:], shape[0]] if axes_of(layout, len(shape))[1] == 0 else shape


def generated_inputs(
    model: onnx.ModelProto, *, samples: int, steps: int, rate: float, seed: int
) -> list[Array]:
    """Make random spikes for every input, (N, C[, H, W], T), in the types of the model."""
    layout = layout_of(model)
    ends = inputs_of(model)
    sizes = [
        _concrete_shape(name, shape_time_last(shape, layout), samples, steps)
        for name, (_, shape) in ends.items()
    ]
    kinds = [dtype_of(kind) for kind, _ in ends.values()]
    return random_spikes(sizes, rate=rate, seed=seed, dtypes=kinds)


def _concrete_shape(name: str, shape: Sequence[int | str], samples: int, steps: int) -> list[int]:
    """Choose sizes for the open axes: batch first, time last where there are three or more."""
    sizes: list[int] = []
    for axis, size in enumerate(shape):
        if isinstance(size, int):
            sizes.append(size)
        elif axis == 0:
            sizes.append(samples)
        elif axis == len(shape) - 1 >= 2:
            sizes.append(steps)
        else:
            raise InputError(
                f"input {name}: axis {axis} of {shape_text(shape)} is open, so spikes cannot be "
                f"generated; give them by --input"
            )
    return sizes
