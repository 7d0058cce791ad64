"""Axons: what carries spikes on, later or only when they change."""

from synapse_onnx.axon.delay import Delay, StepDelay
from synapse_onnx.axon.delta import Delta

__all__ = ["Delay", "Delta", "StepDelay"]
