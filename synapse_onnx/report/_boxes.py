"""Boxes of a drawing: their texts, and the room that these take in a fixed-width font."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

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
        labels: value that leaves its bottom -> text beside the line that begins there.
        x: of its middle.
        y: the same.
    """

    key: str
    name: str
    kind: str
    title: list[str]
    lines: list[str] = field(default_factory=list)
    left: Box | None = None
    right: Box | None = None
    labels: dict[str, str] = field(default_factory=dict)
    x: float = 0.0
    y: float = 0.0

    @property
    def parts(self) -> list[Box]:
        """Return it and its side boxes."""
        return [part for part in (self, self.left, self.right) if part]

    @property
    def width(self) -> float:
        """Return what its text and its outlets take."""
        return self._share * max(len(self.labels), 1)

    @property
    def height(self) -> float:
        """Return what its text takes."""
        return LEADING * (TITLE * len(self.title) + TEXT * len(self.lines)) + PADDING

    @property
    def top(self) -> float:
        """Return its upper y."""
        return self.y - self.height / 2

    @property
    def bottom(self) -> float:
        """Return its lower y."""
        return self.y + self.height / 2

    @property
    def room(self) -> float:
        """Return the height that it takes with its side boxes."""
        return max(part.height for part in self.parts)

    @property
    def reach(self) -> tuple[float, float]:
        """Return how far it, its side boxes and its labels go to the left and right of ``x``."""
        left, right = (side.width + LOOP if side else 0.0 for side in (self.left, self.right))
        labels = [self.outlets[value] + room for value, room in self._label_rooms.items()]
        return self.width / 2 + left, max([self.width / 2 + right, *labels])

    @property
    def outlets(self) -> dict[str, float]:
        """Return how far to the right of ``x`` each value leaves."""
        return {
            value: self._share * (i + 0.5) - self.width / 2 for i, value in enumerate(self.labels)
        }

    @property
    def _share(self) -> float:
        """Return how far outlets are apart, so that the label of one does not meet the next."""
        texts = [text_width(line, TITLE) for line in self.title]
        texts += [text_width(line, TEXT) for line in self.lines]
        width = max(texts, default=0.0) + 2 * PADDING
        rooms = list(self._label_rooms.values())[:-1]
        return max([width / max(len(self.labels), 1), *rooms])

    @property
    def _label_rooms(self) -> dict[str, float]:
        return {value: text_width(text, TEXT) + 2 * PADDING for value, text in self.labels.items()}


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
