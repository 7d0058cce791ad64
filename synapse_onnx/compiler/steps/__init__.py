"""Modules that take one step and keep their states between calls: looped over time."""

from synapse_onnx.compiler.steps.sequences import OverTime, over_time

__all__ = ["OverTime", "over_time"]
