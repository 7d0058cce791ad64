"""From a torch module to an ONNX file."""

import synapse_onnx.neuron  # noqa: F401 - the registry of ops has those of the neurons then
