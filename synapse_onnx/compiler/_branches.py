"""Branches on sizes that a trace settles without a word, so that its graph holds one alone.

- The tracer takes sizes to be 2 or more: ``if x.shape[0] > 1`` always holds there.
- A condition on batch size and steps together, like ``x.numel() > 10**6``, is settled by the
  example. torch reports what it assumes of one axis, and drops what it assumes of two.
- So does a number that is made of both: ``math.sqrt(x.numel())`` is that of the example.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import torch

from synapse_onnx.compiler._dynamic import AXES, named_symbols
from synapse_onnx.compiler._frames import is_users, place_of
from synapse_onnx.errors import ExportError

__all__ = ["Branches"]

#: sizes of an axis that a condition is tried with
_SIZES = (1, 2, 3, 5, 64, 1000, 10**6)

#: more steps than a batch ever has
_STEPS = 10**9

_SYMBOLIC = torch.SymBool, torch.SymInt, torch.SymFloat


class Branches:
    """Records the first condition on sizes in the user's code that makes a graph a wrong one."""

    def __init__(self) -> None:
        self.error: ExportError | None = None
        self._seen: set[Any] = set()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Watch what this thread's code asks of sizes."""
        with _asked(self.on_asked):
            yield

    def on_asked(self, value: Any, frame: FrameType | None) -> None:
        """Look at a condition or a number that code in a frame turns into one of Python's."""
        if self.error is not None or frame is None or not is_users(frame):
            return
        expression, shape_env = value.node.expr, value.node.shape_env
        symbols = sorted(getattr(expression, "free_symbols", ()), key=str)
        if not symbols or expression in self._seen:
            return
        self._seen.add(expression)
        names = named_symbols(shape_env)
        axes: dict[str, list[Any]] = {}  # inputs have one batch size, and one number of steps
        for symbol in symbols:
            axes.setdefault(names[symbol][0] if symbol in names else str(symbol), []).append(symbol)
        condition = isinstance(value, torch.SymBool)
        # else torch itself says that the axis is fixed, or that the size depends on values
        silent = len(axes) > 1 and all(axis in AXES for axis in axes)
        if not (silent or (condition and shape_env._maybe_evaluate_static(expression) is not None)):
            return
        if not _varies(expression, list(axes.values())):
            return
        what = " and ".join(AXES[axis] for axis in AXES if axis in axes) or "a size"
        if condition:
            self.error = ExportError(
                f"forward() branches on the {what} at {place_of(frame)}, and a model holds one "
                f"branch alone; leave the branch out, for example by torch.where or a mask, or "
                f"export with dynamic=False"
            )
        else:
            self.error = ExportError(
                f"forward() makes a constant of the {what} at {place_of(frame)}; compute with the "
                f"size as it is, without int(), float(), math or range, or export with "
                f"dynamic=False"
            )


def _varies(expression: Any, axes: Sequence[Sequence[Any]]) -> bool:
    """Whether an expression has more than one value, for sizes that occur.

    ``axes`` are groups of symbols of one size.
    """
    values: set[Any] = set()
    for sizes in _sizes(expression, axes):
        if math.prod(sizes) <= _STEPS:
            value = _at(expression, axes, sizes)
            if value is not None:
                values.add(value)
        if len(values) > 1:
            return True
    return False


def _sizes(expression: Any, axes: Sequence[Sequence[Any]]) -> Iterator[tuple[int, ...]]:
    """Yield sizes to try, one an axis: usual ones, and those about which a comparison changes."""
    yield from itertools.product(_SIZES, repeat=len(axes))
    for comparison in _comparisons(expression):
        difference = comparison.lhs - comparison.rhs
        for place in range(len(axes)):
            for others in itertools.product(_SIZES, repeat=len(axes) - 1):
                before, after = others[:place], others[place:]
                at_1, at_2 = (
                    _at(difference, axes, (*before, size, *after), float) for size in (1, 2)
                )
                if at_1 is None or at_2 is None or at_1 == at_2:
                    continue
                zero = 1 - at_1 / (at_2 - at_1)  # of a straight line, which most sizes are on
                if 1 <= zero <= _STEPS:
                    for size in (int(zero), int(zero) + 1):
                        yield (*before, size, *after)


def _comparisons(expression: Any) -> Iterator[Any]:
    if getattr(expression, "is_Relational", False):
        yield expression
        return
    for part in expression.args:
        yield from _comparisons(part)


def _at(
    expression: Any,
    axes: Sequence[Sequence[Any]],
    sizes: Sequence[int],
    kind: Callable[[Any], Any] = str,
) -> Any:
    """Return an expression's value at sizes; None where it has none: T // (N - 1) of N = 1."""
    given = {symbol: size for symbols, size in zip(axes, sizes, strict=True) for symbol in symbols}
    try:
        value = expression.subs(given)
        return None if str(value) in ("zoo", "nan") else kind(value)
    except (ArithmeticError, AssertionError, TypeError, ValueError):
        return None


# -- what is asked of sizes ------------------------------------------------------------------------

#: how Python makes a bool, an int or a float of them
_ASKING = (
    (torch.SymBool, "__bool__"),
    (torch.SymBool, "__int__"),
    (torch.SymInt, "__int__"),
    (torch.SymInt, "__index__"),
    (torch.SymFloat, "__float__"),
)

_lock = threading.Lock()
_listeners: dict[int, list[Callable[[Any, FrameType | None], None]]] = {}
_plain: dict[Any, Any] = {(kind, name): kind.__dict__[name] for kind, name in _ASKING}


def _listened(kind: type, name: str) -> Callable[[Any], Any]:
    plain = _plain[kind, name]

    def asked(self: Any) -> Any:
        for listener in _listeners.get(threading.get_ident(), ()):
            listener(self, _outside(sys._getframe(1)))
        return plain(self)

    return asked


def _outside(frame: FrameType | None) -> FrameType | None:
    """Return the frame that asked, where a size's own methods asked on its behalf."""
    while (
        frame is not None
        and frame.f_globals.get("__name__") == "torch"
        and isinstance(frame.f_locals.get("self"), _SYMBOLIC)
    ):
        frame = frame.f_back
    return frame


@contextlib.contextmanager
def _asked(listener: Callable[[Any, FrameType | None], None]) -> Iterator[None]:
    """Call a listener for every value of a size that this thread's code asks for."""
    thread = threading.get_ident()
    with _lock:
        _listeners.setdefault(thread, []).append(listener)
        for kind, name in _ASKING:
            setattr(kind, name, _listened(kind, name))
    try:
        yield
    finally:
        with _lock:
            _listeners[thread].remove(listener)
            if not _listeners[thread]:
                del _listeners[thread]
            if not _listeners:
                for (kind, name), plain in _plain.items():
                    setattr(kind, name, plain)
