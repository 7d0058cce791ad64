"""Whose code is running, for sentences that name a line of the user's."""

from __future__ import annotations

import os
import sys
from types import FrameType

__all__ = ["caller", "is_users", "package", "place_of"]


def caller() -> FrameType | None:
    """Return the innermost frame outside torch and the caller's file."""
    frame: FrameType | None = sys._getframe(1)
    watching = sys._getframe(1).f_globals
    while frame is not None and (
        package(frame) == "torch"
        or frame.f_code.co_filename.startswith("<")  # code that torch generates
        or frame.f_globals is watching
    ):
        frame = frame.f_back
    return frame


def place_of(frame: FrameType) -> str:
    """Return file and line of a frame, for a sentence."""
    return f"line {frame.f_lineno} of {os.path.basename(frame.f_code.co_filename)}"


def package(frame: FrameType) -> str:
    """Return the package that a frame's code belongs to."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def is_users(frame: FrameType) -> bool:
    """Whether a frame's code is the user's."""
    return package(frame) not in ("torch", "synapse_onnx", "sympy")
