"""Options of an export: checked when they are given, and recorded in the file."""

from __future__ import annotations

from dataclasses import dataclass

from synapse_onnx.errors import InputError
from synapse_onnx.model.layout import LAYOUTS

__all__ = ["INPUT_TYPES", "OPSETS", "Options"]

#: supported opsets: int4 needs 21, and 24 is the newest that torch's exporter writes
OPSETS = range(21, 25)

#: element types that inputs can have
INPUT_TYPES = ("float32", "uint8")


@dataclass(frozen=True)
class Options:
    """How a network is compiled. With equal options, the same network gives the same bytes.

    Attributes:
        streaming: whether every state is an input and an output of the graph.
        dynamic: whether the batch size N and the number of time steps T are open.
        layout: layout of the file's inputs and outputs: "NCT", "TNC" or "NTC".
        opset: opset of the standard operators, 21 to 24.
        input_type: element type of the inputs: "float32", or "uint8".
        axes: axes of the module's own inputs and outputs, one of the layouts.
        open_time: whether the network takes any number of time steps; where it takes one number
            alone, T is fixed and N may be open.
        steps: whether the network takes single steps, and was looped over time.

    Raises:
        InputError: an option has a value that is not supported.
    """

    streaming: bool = False
    dynamic: bool = True
    layout: str = "NCT"
    opset: int = OPSETS[0]
    input_type: str = "float32"
    axes: str = LAYOUTS[0]
    open_time: bool = True
    steps: bool = False

    def __post_init__(self) -> None:
        for name in ("layout", "axes"):
            value = getattr(self, name)
            if value not in LAYOUTS:
                raise InputError(f"export: {name} must be {' or '.join(LAYOUTS)}, got {value!r}")
        if self.input_type not in INPUT_TYPES:
            raise InputError(
                f"export: input_type must be {' or '.join(INPUT_TYPES)}, got {self.input_type!r}"
            )
        if self.opset not in OPSETS:
            raise InputError(f"export: opset must be {OPSETS[0]} to {OPSETS[-1]}, got {self.opset}")
