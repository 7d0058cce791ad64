"""Damaged files and random arguments for the command line, and what it does not refuse.

    python tests/fuzz --count 10000 --seed 1 --keep /tmp/found

A case is a call of the command line in a fresh folder, made from the seed and its number alone. It
runs in a process forked from this one, which has imported everything once. A case is at fault if it
ends by a traceback, a signal, an exit code other than 0, 1 or 2, or not within 10 seconds, if it
takes more than 2 GiB, writes more than one line to stderr, or leaves half a file.
"""

from . import calls
from ._cases import Case, Cases
from ._damage import npy
from .calls import OLD, child, run, whole

__all__ = ["OLD", "Case", "Cases", "calls", "child", "npy", "run", "whole"]
