"""The parts of the conversion of lava-dl: see :mod:`synapse_onnx.readers.frameworks.lava_dl`."""
