"""Running a model with ONNX Runtime; needs neither torch nor the exporter."""

from synapse_onnx.runtime.session import Session
from synapse_onnx.runtime.stream import Stream

__all__ = ["Session", "Stream"]
