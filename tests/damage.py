"""Files whose bytes are changed at random."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import synapse_onnx as so


def refusals(
    load: Callable[[Path], Any], good: bytes, path: Path, *, rounds: int, most: int
) -> int:
    """Load damaged copies of a file; return how many were refused. Other errors are not caught."""
    draw, refused = np.random.default_rng(0), 0
    for _ in range(rounds):
        data = bytearray(good)
        for place in draw.integers(0, len(data), draw.integers(1, most)):
            data[place] = draw.integers(0, 256)
        path.write_bytes(bytes(data))
        try:
            load(path)
        except so.SynapseError:
            refused += 1
    return refused
