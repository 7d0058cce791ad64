"""A drawing of a model's graph: one self-contained SVG, without script, font or link.

A node is a box, with what the metadata say of its layer; a value is a line with its shape. States
of a stream and the feedback of a recurrent neuron are loops at the side of their box.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

import onnx

from synapse_onnx.errors import ModelError
from synapse_onnx.report._boxes import (
    ASPECT,
    KINDS,
    LEADING,
    LOOP,
    PADDING,
    TEXT,
    TITLE,
    Box,
    text_width,
)
from synapse_onnx.report._diagram import Diagram
from synapse_onnx.report._layout import Layout
from synapse_onnx.report.page import theme

if TYPE_CHECKING:
    from synapse_onnx.report.activity import Activity

__all__ = ["to_svg"]

#: room around the drawing
_MARGIN = 24.0


def to_svg(model: onnx.ModelProto, activity: Activity | None = None) -> str:
    """Draw the graph of a model.

    Every box is a ``g`` with the name of its node, input, output or state as ``data-name``, every
    line a ``path`` with the name of its value as ``data-value``. Colours follow the reader's light
    or dark theme.

    Args:
        model: any ONNX model; of one that synapse-onnx wrote, boxes say more.
        activity: what it did with an input; rates are written into the boxes.

    Returns:
        An SVG document.

    Raises:
        ModelError: the graph has a cycle, so it is no model.
    """
    diagram = Diagram(model, activity)
    boxes = diagram.boxes
    try:
        layout = Layout(boxes, diagram.lines)
    except ValueError as error:
        raise ModelError("the model cannot be drawn: the graph has a cycle") from error
    shapes = []
    for (source, value, target), route in zip(diagram.lines, layout.routes, strict=True):
        ends = f'data-from="{_xml(source)}" data-to="{_xml(target)}"'
        shapes.append(
            f'<path class="line" data-value="{_xml(value)}" {ends} d="{_curve(route)}"/>'
            + _arrow(*route[-1], 0, 1)
        )
    for box in boxes.values():
        shapes += _unit(box)
    foot, wide, high = _foot(diagram, layout.width)
    width, height = max(layout.width, wide) + 2 * _MARGIN, layout.height + high + 2 * _MARGIN
    name = _xml(model.graph.name or "model")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="synapse-onnx-graph" role="img" '
        f'aria-label="graph of {name}" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="{-_MARGIN:g} {-_MARGIN:g} {width:.0f} {height:.0f}">\n'
        f"<style>\n{_style()}</style>\n"
        f'<rect class="paper" x="{-_MARGIN:g}" y="{-_MARGIN:g}" width="{width:.0f}" '
        f'height="{height:.0f}"/>\n'
        + "\n".join(shapes)
        + f'\n<g transform="translate(0 {layout.height:.1f})">\n{foot}\n</g>\n</svg>\n'
    )


def _unit(box: Box) -> Iterator[str]:
    """Draw a box, its side boxes with their loops, and the labels of its outlets."""
    yield _rectangle(box)
    for side, sign in ((box.left, -1), (box.right, 1)):
        if side:
            edge = box.x + sign * box.width / 2
            side.x, side.y = edge + sign * (LOOP + side.width / 2), box.y
            yield _rectangle(side)
            yield _loop(side, edge, sign)
    for value, label in box.labels.items():
        if label:
            place = f'x="{box.x + box.outlets[value] + 7:.1f}" y="{box.y + box.room / 2 + 14:.1f}"'
            yield f'<text class="shape" {place}>{_xml(label)}</text>'


def _rectangle(box: Box) -> str:
    """Draw one box; its full name shows where the pointer rests on it."""
    parts = [
        f'<g class="box {box.kind}" data-key="{_xml(box.key)}" data-name="{_xml(box.name)}">'
        f"<title>{_xml(box.name)}</title>"
        f'<rect x="{box.x - box.width / 2:.1f}" y="{box.top:.1f}" width="{box.width:.1f}" '
        f'height="{box.height:.1f}" rx="5"/>'
    ]
    y = box.top + PADDING / 2
    for line, size, kind in (
        *((line, TITLE, "title") for line in box.title),
        *((line, TEXT, "text") for line in box.lines),
    ):
        y += size * LEADING
        place = f'x="{box.x:.1f}" y="{y - size * 0.4:.1f}"'
        parts.append(f'<text class="{kind}" {place}>{_xml(line)}</text>')
    return "".join(parts) + "</g>"


def _loop(side_box: Box, edge: float, sign: int) -> str:
    """Draw the two lines between a box and its side box: there, and back."""
    far, above, below = edge + sign * LOOP, side_box.y - 7, side_box.y + 7
    there, back = f"M{edge:.1f} {above:.1f}H{far:.1f}", f"M{far:.1f} {below:.1f}H{edge:.1f}"
    return (
        f'<path class="loop" data-loop="{_xml(side_box.key)}" d="{there}{back}"/>'
        + _arrow(far, above, sign, 0)
        + _arrow(edge, below, -sign, 0)
    )


def _curve(points: Sequence[tuple[float, float]]) -> str:
    """Write a line: down where x stays, else a curve that begins and ends downwards."""
    (x, y), *others = points
    parts = [f"M{x:.1f} {y:.1f}"]
    for to, below in others:
        if abs(to - x) >= 0.05:
            half = (y + below) / 2
            parts.append(f"C{x:.1f} {half:.1f} {to:.1f} {half:.1f} {to:.1f} {below:.1f}")
        elif below - y >= 0.05:
            if parts[-1][0] == "V":  # goes on straight
                parts.pop()
            parts.append(f"V{below:.1f}")
        x, y = to, below
    return "".join(parts)


def _arrow(x: float, y: float, right: int, down: int) -> str:
    """Draw the head of an arrow that ends here, in the direction given."""
    back, side = 7, 3.5
    corners = (
        (x, y),
        (x - right * back - down * side, y - down * back - right * side),
        (x - right * back + down * side, y - down * back + right * side),
    )
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)
    return f'<polygon class="head" points="{points}"/>'


def _foot(diagram: Diagram, width: float) -> tuple[str, float, float]:
    """Draw the legend and the notes; return them with their width and height."""
    shown = {part.kind for box in diagram.boxes.values() for part in box.parts}
    parts, x, y, widest = [], 0.0, TEXT * 2, 0.0
    for kind, (text, _) in KINDS.items():
        if kind not in shown:
            continue
        long = text_width(text, TEXT) + 24
        if x and x + long > max(width, 330.0):
            x, y = 0.0, y + TEXT * 1.8
        parts.append(
            f'<g class="key {kind}"><rect x="{x:.1f}" y="{y - 9:.1f}" width="11" height="11" '
            f'rx="2"/><text class="note" x="{x + 17:.1f}" y="{y:.1f}">{text}</text></g>'
        )
        x += long + 10
        widest = max(widest, x)
    for note in diagram.notes:
        columns = int(max(width, widest, 330.0) / (TEXT * ASPECT))
        for line in textwrap.wrap(note, columns, break_on_hyphens=False):
            y += TEXT * 1.8
            parts.append(f'<text class="note" x="0" y="{y:.1f}">{_xml(line)}</text>')
            widest = max(widest, text_width(line, TEXT))
    return "\n".join(parts), widest, y + TEXT


def _style() -> str:
    root = ".synapse-onnx-graph"
    rules = [
        f"{root} text {{ font-family: ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, "
        f"monospace; fill: var(--ink); text-anchor: middle; font-size: {TEXT:g}px; }}",
        f"{root} .title {{ font-size: {TITLE:g}px; font-weight: 600; }}",
        f"{root} .plain .title {{ font-weight: 400; font-size: {TEXT:g}px; }}",
        f"{root} .shape, {root} .note {{ text-anchor: start; fill: var(--soft); }}",
        f"{root} .paper {{ fill: var(--paper); }}",
        f"{root} .line, {root} .loop {{ fill: none; stroke: var(--soft); stroke-width: 1.4; }}",
        f"{root} .loop, {root} .state rect {{ stroke-dasharray: 4 3; }}",
        f"{root} .head {{ fill: var(--soft); }}",
        f"{root} rect {{ fill-opacity: .12; stroke-width: 1.4; }}",
        f"{root} .paper {{ fill-opacity: 1; }}",
    ]
    rules += [
        f"{root} .{kind} rect {{ fill: var(--{colour}); stroke: var(--{colour}); }}"
        for kind, (_, colour) in KINDS.items()
    ]
    return theme(root) + "\n".join(rules) + "\n"


def _xml(text: str) -> str:
    """Escape a text; what XML has no way to write becomes a question mark in a diamond."""
    return escape(re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text))
