"""Boxes of a drawing: their texts, and the room that these take in a fixed-width font."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

from synapse_onnx.report._layered import Block

#: kind of a box -> what it is called in the legend, and its colour in the theme of the report
KINDS = {
    "end": ("input or output", "ink"),
    "synapse": ("synapse", "runtime"),
    "neuron": ("neuron", "torch"),
    "delay": ("delay", "ok"),
    "layer": ("other layer", "other"),
    "state": ("state of a stream", "soft"),
    "plain": ("standard operator", "soft"),
}

#: width of a column of the font, relative to its size; and the height of a line. Fonts differ:
#: DejaVu Sans Mono, Menlo and Courier have 0.60, so that 0.61 fits them all
ASPECT, LEADING = 0.61, 1.45
#: sizes of the font, in px
TITLE, TEXT = 13.0, 11.0
#: columns at which a text is wrapped
COLUMNS = 40
#: room around a text; length of the lines between a box and a side box
PADDING, LOOP = 10.0, 30.0


@dataclass
class Box:
    """A rectangle with text.

    Attributes:
        key: unlike that of any other box.
        name: name of its node, input, output, state or layer.
        kind: one of ``KINDS``.
        title: lines in bold.
        lines: lines below.
        left: a side box on a loop: the feedback.
        right: the same on the other side: the states.
        labels: texts of its outlets, next to the lines that begin there.
    """

    key: str
    name: str
    kind: str
    title: list[str]
    lines: list[str] = field(default_factory=list)
    left: Box | None = None
    right: Box | None = None
    labels: list[str] = field(default_factory=list)

    @property
    def width(self) -> float:
        """Return what its text takes."""
        texts = [text_width(line, TITLE) for line in self.title]
        texts += [text_width(line, TEXT) for line in self.lines]
        return max(texts, default=0.0) + 2 * PADDING

    @property
    def height(self) -> float:
        """Return what its text takes."""
        return LEADING * (TITLE * len(self.title) + TEXT * len(self.lines)) + PADDING

    def block(self) -> Block:
        """Return the room for the box, its side boxes and the labels of its outlets."""
        left, right = (side.width + LOOP if side else 0.0 for side in (self.left, self.right))
        rooms = [text_width(label, TEXT) + 2 * PADDING for label in self.labels]
        # an outlet is in the middle of its share, and its label in the right half of that
        share = max([self.width / max(len(rooms), 1), *(2 * room for room in rooms[:-1])])
        main = max(self.width, share * len(rooms)) if len(rooms) > 1 else self.width
        outlets = tuple(left + share * (i + 0.5) for i in range(len(rooms)))
        ends = [outlet + room for outlet, room in zip(outlets, rooms, strict=True)]
        heights = [box.height for box in (self, self.left, self.right) if box]
        width = max([left + main + right, *ends])
        return Block(width, max(heights), (left, left + main), outlets)


def text_width(text: str, size: float) -> float:
    """Width of a text in the fixed-width font; wide characters of East Asia take two columns."""
    columns = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
    return columns * size * ASPECT


def wrapped(name: str) -> list[str]:
    """Wrap a name after a dot, slash or underscore, or anywhere if it has none."""
    lines = [""]
    for part in re.findall(r"[^./_\s]*[./_\s]?", name):
        if lines[-1] and len(lines[-1]) + len(part) > COLUMNS:
            lines.append("")
        lines[-1] += part
        while len(lines[-1]) > COLUMNS:
            lines[-1:] = [lines[-1][:COLUMNS], lines[-1][COLUMNS:]]
    return lines


def packed(texts: Sequence[str]) -> list[str]:
    """Put texts on as few lines as they need."""
    lines: list[str] = []
    for text in texts:
        if lines and len(lines[-1]) + len(text) + 2 <= COLUMNS:
            lines[-1] += f", {text}"
        else:
            lines += wrapped(text)
    return lines
