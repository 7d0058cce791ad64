"""From a torch module to an ONNX file."""
