"""Changes in place that others see or not, as strides decide: a trace on numbers, and refused.

::

    w = y.transpose(1, 2).contiguous()  # a copy, but not where one of the two axes has one entry
    w += 1                              # so this changes y, or not

A model is one of both for all sizes, and its trace has no numbers, whose strides may be others. So
a network that changes what others may see is run beside its trace: with the example, with one
sample, with one step, and with one of both.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from synapse_onnx.compiler.freezer import eagerly
from synapse_onnx.compiler.loops.in_place import seen_changes
from synapse_onnx.compiler.loops.program import line_of
from synapse_onnx.compiler.roundings import differing_output
from synapse_onnx.errors import ExportError

__all__ = ["check_changes"]

#: lines that an error names
_LINES = 3


def check_changes(
    program: torch.export.ExportedProgram,
    network: Callable[..., Any],
    inputs: Sequence[Tensor],
    axes: Any,
    *,
    reads: bool,
) -> None:
    """Refuse a program that is not its network, as one of both sees a change and the other not.

    Args:
        program: the trace.
        network: calls the network, which takes ``inputs``, as it is before its first call.
        inputs: example inputs.
        axes: for every input, its open axes and their symbols; None without open axes.
        reads: whether code has read numbers of parameters, which is compared likewise.

    Raises:
        ExportError: their outputs differ.
    """
    changes = seen_changes(program.graph)
    if not changes and not reads:
        return
    functional = program.run_decompositions({})
    call = _call(network)
    for given in _sizes(inputs, axes):
        try:
            with eagerly():
                expected = call(given)
        except Exception:  # of any class: a forward() may need more steps
            continue
        found = _run(functional, [x.clone() for x in given])
        shapes = [[(y.shape, y.dtype) for y in each] for each in (expected, found)]
        if shapes[0] != shapes[1] or differing_output(call, given, expected, found) is not None:
            sizes = " and ".join(str(tuple(x.shape)) for x in given)
            if not changes:
                raise ExportError(
                    f"forward() reads numbers of parameters, and computes something else with them "
                    f"on inputs of shape {sizes}; decide by parameters alone, in __init__()"
                )
            raise ExportError(
                f"forward() changes a tensor in place{_places(changes)}, and whether another one "
                f"changes with it depends on sizes: contiguous(), reshape() and flatten() copy or "
                f"not (found on inputs of shape {sizes}); make a new tensor, y = y + 1 for y += 1"
            )


def _call(network: Callable[..., Any]) -> Any:
    def call(given: Sequence[Tensor]) -> list[Tensor]:
        outputs = network(*(x.clone() for x in given))  # which it may change in place
        return [y.clone() for y in torch.utils._pytree.tree_leaves(outputs) if y is not None]

    return call


def _sizes(inputs: Sequence[Tensor], axes: Any) -> Iterator[list[Tensor]]:
    """Yield the inputs, and parts of them: one sample, one step, one of both."""
    yield list(inputs)
    if axes is None:
        return
    opened = torch.utils._pytree.tree_leaves(axes, is_leaf=lambda each: isinstance(each, dict))
    for names in ({"N"}, {"T"}, {"N", "T"}):
        parts = []
        for x, symbols in itertools.zip_longest(inputs, opened):
            part = x
            for axis, symbol in (symbols or {}).items():
                if symbol.__name__ in names:
                    part = part.narrow(axis, 0, 1)
            parts.append(part.clone(memory_format=torch.contiguous_format))
        yield parts


def _run(program: torch.export.ExportedProgram, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the user's outputs of a program without changes in place."""
    signature = program.graph_signature
    rest = iter(inputs)
    values = []
    for spec in signature.input_specs:
        name = str(spec.target)
        is_input = spec.kind.name == "USER_INPUT"
        values.append(
            next(rest) if is_input else program.state_dict.get(name, program.constants.get(name))
        )
    results = _Interpreter(program.graph_module).run(*values, enable_io_processing=False)
    kinds = [spec.kind.name for spec in signature.output_specs]
    pairs = zip(kinds, results, strict=True)
    return [y for kind, y in pairs if kind == "USER_OUTPUT" and y is not None]


class _Interpreter(fx.Interpreter):
    """Runs a graph, but for what it claims of sizes."""

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Call a function of the graph."""
        if "_assert" in str(target) or "sym_constrain" in str(target):
            return None
        return super().call_function(target, args, kwargs)


def _places(changes: Sequence[fx.Node]) -> str:
    lines = dict.fromkeys(map(line_of, changes))
    named = [line for line in lines if line][:_LINES]
    return f" at {' and '.join(named)}" if named else ""
