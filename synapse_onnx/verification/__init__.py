"""The proof that torch and ONNX Runtime agree."""
