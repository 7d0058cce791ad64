"""Axons: delays of spikes, and the encoder that sends changes only."""

from synapse_onnx.axon.delay import Delay, StepDelay
from synapse_onnx.axon.delta import Delta

__all__ = ["Delay", "Delta", "StepDelay"]
