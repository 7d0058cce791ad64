"""The parts of the NIR reader and writer: see :mod:`synapse_onnx.readers.nir`."""
