"""sinabs: layers keep their states in buffers, and are reset before each sequence."""

from __future__ import annotations

from typing import Any

from synapse_onnx.compiler.frameworks._framework import Framework

__all__ = ["FRAMEWORK"]


def _reset(module: Any) -> None:
    if hasattr(module, "reset_states"):
        module.reset_states()


FRAMEWORK = Framework("sinabs", reset=_reset)
