"""The columns of the table: a title, and what it says of one network."""

from __future__ import annotations

from collections.abc import Callable

from .integers import Integers
from .measure import Measured

__all__ = ["COLUMNS", "INTEGERS"]


def _lines(measured: Measured) -> str:
    return str(measured.lines)


def _seconds(measured: Measured) -> str:
    return "" if measured.seconds is None else f"{measured.seconds:.1f}"


def _nodes(measured: Measured) -> str:
    return "" if measured.nodes is None else "{} + {}".format(*measured.nodes)


def _open(size: int | str | None) -> str:
    if size is None:
        return "-"
    return "open" if isinstance(size, str) else str(size)


def _steps(measured: Measured) -> str:
    return "" if measured.nodes is None else _open(measured.steps)


def _batch(measured: Measured) -> str:
    return "" if measured.nodes is None else _open(measured.batch)


def _flips(measured: Measured) -> str:
    return str(measured.distance.flips) if measured.sizes else ""


def _error(measured: Measured) -> str:
    return f"{measured.distance.error:.1e}" if measured.sizes else ""


def _ms(contestant: str) -> Callable[[Measured], str]:
    def column(measured: Measured) -> str:
        ms = measured.times.get(contestant)
        return "" if ms is None else f"{ms:.3g}"

    return column


def _result(measured: Measured) -> str:
    text = measured.verdict
    if measured.sentence:
        text += f": {measured.sentence}"
    if measured.rounded:
        several = "s" * (measured.rounded > 1)
        text += f" (a rounding decides in {measured.rounded} sample{several})"
    if measured.silent:
        text += f" (silent: {', '.join(measured.silent)})"
    return text


#: by title, in the order in which they are printed
COLUMNS: dict[str, Callable[[Measured], str]] = {
    "network": lambda measured: measured.name,
    "lines": _lines,
    "export s": _seconds,
    "nodes": _nodes,
    "T": _steps,
    "N": _batch,
    "recognised": lambda measured: measured.neurons,
    "flips": _flips,
    "error": _error,
    "stream": lambda measured: measured.streamed,
    "eager ms": _ms("eager"),
    "portable ms": _ms("portable"),
    "native ms": _ms("native"),
    "result": _result,
}


def _changed(integers: Integers) -> str:
    return f"{integers.changed:.2%}" + ("" if integers.spikes else " of the largest")


def _integers_ms(contestant: str) -> Callable[[Integers], str]:
    def column(integers: Integers) -> str:
        times = integers.times.get(contestant)
        if times is None:
            return ""
        before, after = times
        return f"{before:.3g}, {after:.3g}, {after / before:.2f}"

    return column


#: the same of a network with weights of 8 bits
INTEGERS: dict[str, Callable[[Integers], str]] = {
    "parameters": lambda integers: f"{integers.parameters:,}",
    "transposes of time": lambda integers: str(integers.transposes),
    "kB": lambda integers: f"{integers.kilobytes[0]:.1f}",
    "kB, 8 bits": lambda integers: f"{integers.kilobytes[1]:.1f}",
    "layers": lambda integers: "{} of {}".format(*integers.layers),
    "changed": _changed,
    "flips": lambda integers: str(integers.distance.flips),
    "error": lambda integers: f"{integers.distance.error:.1e}",
    "stream": lambda integers: integers.streamed,
    "portable ms": _integers_ms("portable"),
    "native ms": _integers_ms("native"),
}
