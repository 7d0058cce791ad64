"""Why a network has no loop that a model could hold."""

from __future__ import annotations

import torch

from synapse_onnx.compiler.loops.chance import draws_numbers
from synapse_onnx.compiler.loops.terms import Term
from synapse_onnx.ops import TORCH_NAMESPACE

__all__ = ["NUMBERS", "NoLoopError", "UndrivenError", "obstacle"]

aten = torch.ops.aten

#: operators that make a Python number of a tensor
NUMBERS = {aten.item.default, aten._local_scalar_dense.default}


class NoLoopError(Exception):
    """Why the steps of a network have no common form; the place is a line of the user's code."""

    def __init__(self, reason: str, place: str = "") -> None:
        super().__init__(reason)
        self.place = place


class UndrivenError(NoLoopError):
    """A value changes from step to step, and no input tells its step."""


def obstacle(term: Term, *, in_step: bool) -> str:
    """Say why a model cannot hold an operator, at every step or at all; "" of another one."""
    op = term.op
    if draws_numbers(op, term.args, term.kwargs):
        return "it is random; draw no random numbers in forward() in evaluation mode"
    if op in NUMBERS:
        return (
            "a value of a tensor is read as a Python number, which a model cannot; compute with "
            "tensors, and branch by torch.where"
        )
    if in_step and getattr(op, "namespace", "") == TORCH_NAMESPACE:
        return (
            "a layer of this package is called at every step, and takes whole sequences; call it "
            "once, with all steps"
        )
    return ""
