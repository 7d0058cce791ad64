"""The parts of the reader of ``.net`` files: see :mod:`synapse_onnx.readers.net`."""
