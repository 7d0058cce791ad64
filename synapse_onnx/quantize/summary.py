"""What ``apply`` did to a network, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["LayerRow", "Summary", "table"]


@dataclass(frozen=True)
class LayerRow:
    """One layer with weights.

    Attributes:
        path: path of the layer in the network.
        bits: width of its integers, sign included; None where it stays in floats.
        scales: number of its scales.
        error: root mean square of the rounding of its weights, relative to that of the weights.
        note: what else was done, or why nothing was.
        norm: path of the norm that was folded into it, "" without one.
        rounded: whether its weights were rounded now.
    """

    path: str
    bits: int | None
    scales: int = 0
    error: float = 0.0
    note: str = ""
    norm: str = ""
    rounded: bool = False


@dataclass(frozen=True)
class Summary:
    """What ``apply`` did; ``str`` prints it as a table.

    Attributes:
        layers: a row a layer.
        norms: path of each batch norm -> what was done with it.
        effect: largest change of an output by the folded norms alone, relative to the largest
            value, on the calibration inputs; None without them, or without a folded norm.
    """

    layers: tuple[LayerRow, ...]
    norms: dict[str, str] = field(default_factory=dict)
    effect: float | None = None

    def __str__(self) -> str:
        rows = [("layer", "weights", "scales", "rounding", "")]
        for row in self.layers:
            width = "float" if row.bits is None else f"int{row.bits}"
            numbers = ("", "") if row.bits is None else (str(row.scales), f"{row.error:.2g}")
            rows.append((row.path or "the network", width, *numbers, row.note))
        lines = table(rows)
        lines += [f"{path}: {what}" for path, what in self.norms.items()]
        if self.effect is not None:
            lines.append(f"folded norms change outputs by {self.effect:.2g} of the largest value")
        return "\n".join(lines)


def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return lines with columns of equal width; the first and the last to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *middle, last in rows:
        numbers = [cell.rjust(width) for cell, width in zip(middle, widths[1:-1], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *numbers, last]).rstrip())
    return lines
