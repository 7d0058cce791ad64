"""The last step of an export: ONNX's own check of the model."""

from __future__ import annotations

import onnx

from synapse_onnx.errors import ExportError

__all__ = ["check_model"]


def check_model(model: onnx.ModelProto) -> None:
    """Run ONNX's full check, with shape inference through the function bodies.

    Raises:
        ExportError: the checker refuses the model.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ExportError(f"the exported model does not pass onnx.checker: {reason}") from error
