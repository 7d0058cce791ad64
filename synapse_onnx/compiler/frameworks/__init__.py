"""What the compiler knows of other frameworks: one file each, found by itself."""

from synapse_onnx.compiler.frameworks._framework import (
    Framework,
    in_plain_torch,
    is_known,
    reset_states,
    sequence_module,
    start_states,
)

__all__ = [
    "Framework", "in_plain_torch", "is_known", "reset_states", "sequence_module", "start_states",
]  # fmt: skip
