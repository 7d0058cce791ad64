"""Sentences of traces that fix an open axis: which axis, to what, and where it was fixed."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from synapse_onnx.compiler._dynamic import AXES, named_symbols
from synapse_onnx.compiler._frames import caller, package, place_of
from synapse_onnx.compiler._trace_errors import running_modules
from synapse_onnx.compiler._watch import within_forward
from synapse_onnx.errors import ExportError

__all__ = ["axis_error"]

#: sizes of an axis that a condition is tried with, and of the other axes
_SIZES = range(1, 65)
_OTHER_SIZES = (2, 3, 5, 7)

#: sizes that a sentence lists
_TOLD = 4

#: where torch's own code is
_TORCH = os.path.dirname(torch.__file__)


def axis_error(
    error: Exception, frozen: nn.Module, inputs: Sequence[Tensor], shapes: Any
) -> ExportError | None:
    """Return the sentence on an axis that a network does not leave open; None for other errors.

    torch says which axis, in its own words, and not where: so the network is traced once more,
    with axes that may become fixed, and each condition on a size is noted as it arises.
    """
    text = str(error)
    violated = re.search(r"Constraints violated \(([\w, ]+)\)", text)
    # torch: "You marked N as dynamic but your code specialized it to be a constant (2)."
    constants = dict(
        re.findall(r"You marked (\w+) as dynamic but your code specialized it .*?\((\d+)\)", text)
    )
    if violated is None and not constants:
        return None
    names = list(constants) or (violated[1].split(", ") if violated else [])
    axis, condition, source, place = _cause(names, frozen, inputs, shapes)
    what = AXES.get(axis, axis)
    rank = next((x.dim() for x in inputs if x.dim() in (3, 5)), 0)
    layout = {3: " of inputs (N, C, T)", 5: " of inputs (N, C, H, W, T)"}.get(rank, "")
    where = (f", {source}{layout}" if source else "") + place
    if axis in constants:
        how = f"the module uses the {what} as a constant ({constants[axis]}){where}"
    else:
        needed = _suggested(axis, text) or condition or "some values"
        how = f"the module needs {needed} for the {what}{where}"
    return ExportError(f"{how}; keep it open in forward(), or export with dynamic=False")


def _suggested(axis: str, text: str) -> str:
    """Return the range that torch suggests for an axis: ``T = Dim('T', min=3)`` is "T >= 3"."""
    found = re.search(rf"{axis} = Dim\('{axis}'(?:, min=(\d+))?(?:, max=(\d+))?\)", text)
    least, most = found.groups() if found else (None, None)
    bounds = [f"{axis} >= {least}"] if least else []
    return " and ".join(bounds + ([f"{axis} <= {most}"] if most else []))


def _cause(
    names: Sequence[str], frozen: nn.Module, inputs: Sequence[Tensor], shapes: Any
) -> tuple[str, str, str, str]:
    """Return (axis, condition, size, place) of the first condition that fixes one of these axes.

    Example: ("T", "T >= 3", "x.shape[2]", " (__getitem__ at line 7 of net.py)").
    """
    with running_modules(frozen) as running:
        noted = _Conditions(running)
        # this trace only looks for a place: its own errors say nothing new
        with contextlib.suppress(Exception), within_forward(frozen, noted):
            automatic = _automatic(shapes)
            torch.export.export(frozen, tuple(inputs), dynamic_shapes=automatic, strict=False)
        noted.note((), "")  # conditions after the last call
    if noted.shape_env is None:
        return names[0], "", "", ""
    symbols = named_symbols(noted.shape_env)
    found = []
    for expression, place in noted.found:
        ends = {symbols.get(symbol, ("", ""))[0] for symbol in expression.free_symbols}
        hit = next((name for name in names if name in ends), None)
        tied = len(expression.args) == 2 and all(arg.is_Symbol for arg in expression.args)
        if hit is not None and not (tied and len(ends) == 1):
            vague = type(expression).__name__ == "Unequality"  # another condition says it better
            found.append(((names.index(hit), vague), hit, expression, place))
    if not found:
        return names[0], "", "", ""
    _, axis, expression, place = min(found, key=lambda each: each[0])
    source = next(
        source
        for symbol, (name, source) in symbols.items()
        if name == axis and symbol in expression.free_symbols
    )
    return axis, _in_words(expression, axis, symbols), source, place


def _in_words(expression: Any, axis: str, symbols: dict[Any, tuple[str, str]]) -> str:
    """Say for which sizes of an axis a condition holds, whatever those of other axes.

    The tracer's own form is often unreadable: ``Mod(4*N*T, 12*N) == 0`` is "a multiple of 3".
    """
    holds = [size for size in _SIZES if _holds(expression, axis, size, symbols)]
    if not 0 < len(holds) < len(_SIZES):
        return ""
    step, fails = holds[0], set(_SIZES) - set(holds)
    if len(holds) == 1:
        return f"{axis} == {step}"
    if all((size in fails) == bool(size % step) for size in _SIZES) and step > 1:
        return f"a multiple of {step}"
    least = max(fails, default=0) + 1
    if least <= _SIZES[-1] // 2:
        return f"{axis} >= {least}"
    if len(holds) == holds[-1]:
        return f"{axis} <= {holds[-1]}"
    return f"one of {', '.join(map(str, holds[:_TOLD]))}, ..."


def _holds(expression: Any, axis: str, size: int, symbols: dict[Any, tuple[str, str]]) -> bool:
    """Whether a condition holds at a size of an axis, for every size of the others."""
    for other in _OTHER_SIZES:
        values = {
            symbol: size if symbols.get(symbol, ("", ""))[0] == axis else other
            for symbol in expression.free_symbols
        }
        try:
            if not bool(expression.subs(values)):
                return False
        except (TypeError, ValueError, ZeroDivisionError):  # no truth value
            return False
    return True


def _automatic(shapes: Any) -> Any:
    """Return dynamic shapes with axes that a trace may fix."""
    if isinstance(shapes, dict):
        return dict.fromkeys(shapes, torch.export.Dim.AUTO)
    return tuple(_automatic(each) for each in shapes)


class _Conditions(TorchFunctionMode):
    """Notes conditions on sizes, and the call or the line of code in which each arises."""

    def __init__(self, running: Sequence[str]) -> None:
        super().__init__()
        self._running = running
        self.shape_env: Any = None
        self.found: list[tuple[Any, str]] = []
        self._seen = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.note(args, "")
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self.note(args, getattr(func, "__name__", str(func)))

    def note(self, args: tuple[Any, ...], call: str) -> None:
        """Note the conditions that are new since the last call."""
        if self.shape_env is None:
            mode = torch._guards.detect_fake_mode(args)
            self.shape_env = getattr(mode, "shape_env", None)
        guards = getattr(self.shape_env, "guards", ())
        for guard in guards[self._seen :]:
            frame = caller()
            line = guard.sloc.framework_loc
            place = ""
            if line is not None and not str(line.filename).startswith(_TORCH):
                place = f" (line {line.lineno} of {os.path.basename(line.filename)})"
            elif call and frame is not None and package(frame) != "synapse_onnx":
                place = f" ({call} at {place_of(frame)})"
            elif call and self._running and self._running[-1]:
                place = f" ({call} in module '{self._running[-1]}')"
            self.found.append((guard.expr, place))
        self._seen = len(guards)
