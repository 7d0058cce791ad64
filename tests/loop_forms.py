"""Traces and forms of functions on (T, N, 3), without an export."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx.compiler._trace import quiet
from synapse_onnx.compiler._trace_errors import running_modules
from synapse_onnx.compiler.loops.families import find_form
from synapse_onnx.compiler.loops.form import Family, Form, parts_of
from synapse_onnx.compiler.loops.order import Order
from synapse_onnx.compiler.loops.reading import Reading, read
from synapse_onnx.compiler.loops.recorder import record
from synapse_onnx.compiler.loops.terms import Pool, Size

__all__ = ["OTHER", "SIZES", "Function", "Run", "families_of", "form_of", "reading_of"]

Run = Callable[..., Any]

FORWARDS = Order()

#: three lengths and another batch size; no channel has one of these sizes
SIZES = [Size(5, 4), Size(6, 4), Size(7, 4), Size(6, 2)]

#: a size that no form is made from
OTHER = Size(9, 11)


class Function(nn.Module):
    """A function as a module, with parameters that it may read."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run
        self.decay = nn.Parameter(torch.tensor([0.5, 0.25, 0.125]))
        self.fc = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


def reading_of(
    run: Run, size: Size = SIZES[0], pool: Pool | None = None, order: Order = FORWARDS
) -> Reading:
    """The trace of a function at a size, with steps in an order."""
    x = torch.rand(size.steps, size.batch, 3)
    with torch.no_grad(), quiet():
        function = Function(run).eval()
        with running_modules(function) as running:
            program = record(function, [x], running, changes=False)
    return read(program, Pool() if pool is None else pool, size.steps, order)


def form_of(run: Run, order: Order = FORWARDS) -> tuple[Form, Pool]:
    """The form that the traces of a function have in common."""
    pool = Pool()
    return find_form({size: reading_of(run, size, pool, order) for size in SIZES}, pool), pool


def families_of(form: Form) -> list[Family]:
    return [part for part in parts_of(form.outputs) if isinstance(part, Family)]
