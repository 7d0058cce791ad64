"""Names of values and nodes, each used once in a graph."""

from __future__ import annotations

import re

__all__ = ["unique"]


def unique(name: str, taken: set[str | None]) -> str:
    """Return a name that is not taken, and take it.

    Another one has the next number at its end: ``axis_0`` becomes ``axis_1``, ``x`` ``x#2``.
    """
    stem, number = name, 1
    if match := re.fullmatch(r"(.*_)(\d+)", name):
        stem, number = match[1], int(match[2])
    while name in taken:
        number += 1
        name = f"{stem}{number}" if match else f"{stem}#{number}"
    taken.add(name)
    return name
