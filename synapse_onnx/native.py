"""Native kernels: the library of custom ops that an install may bring, found and asked.

A model needs none: its ops carry their bodies in the file. ONNX Runtime prefers a registered kernel
to the body of the same name, so the same file runs faster where the library is there.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from synapse_onnx._version import __version__

__all__ = ["instructions", "kernels", "library", "problem", "status", "together", "used_by"]

#: the file's name without the suffix, which is the platform's
_NAME = "synapse_onnx_kernels"

#: value of SYNAPSE_ONNX_LIBRARY that leaves the kernels out
_NONE = "none"

_ABSENT = (
    "synapse-onnx was installed without them; install a C++ compiler and ONNX Runtime's headers "
    "(libonnxruntime-dev), then synapse-onnx once more with SYNAPSE_ONNX_NATIVE=1, which says "
    "what is missing"
)
_AGAIN = "install synapse-onnx once more, or correct SYNAPSE_ONNX_LIBRARY where it is set"


class _Library(NamedTuple):
    """What a library says of itself, or why it is not used."""

    kernels: tuple[str, ...] = ()
    instructions: str = ""
    problem: str | None = None
    together: tuple[str, ...] = ()


def library() -> Path | None:
    """Return the library's path, whether or not it can be used; None where there is none.

    The environment variable SYNAPSE_ONNX_LIBRARY names another one than the install's, or is
    "none", so that models run without.
    """
    named = os.environ.get("SYNAPSE_ONNX_LIBRARY")
    if named == _NONE:
        return None
    if named:
        return Path(named).absolute()
    # an editable install has two folders: the checkout's, and site-packages with what was built
    for folder in sys.modules[__name__.rpartition(".")[0]].__path__:
        for suffix in (".so", ".dylib", ".dll"):
            path = Path(folder, "_native", _NAME + suffix)
            if path.is_file():
                return path
    return None


def kernels() -> tuple[str, ...]:
    """Return the names of the ops that have a kernel; none where the library cannot be used."""
    return _found().kernels


def together() -> tuple[str, ...]:
    """Return the names of the ops that compute two nodes of a file at once, as "AAndB".

    No file has them: :func:`fusion.fused` puts them into a model that is to be run.
    """
    return _found().together


def instructions() -> str:
    """Return the name of the vector instructions that the kernels use here, as "avx512"."""
    return _found().instructions


def problem() -> str | None:
    """Say in a sentence why there are no kernels here; None where there are."""
    return _found().problem


def status() -> str:
    """Say in a sentence which kernels there are, or why there are none."""
    found = _found()
    if found.problem is not None:
        return f"no native kernels: {found.problem}"
    return f"native kernels: {len(found.kernels)} ({found.instructions}), {library()}"


def used_by(model: Any) -> tuple[str, ...]:
    """Return the names of the ops of an ``onnx.ModelProto`` that have a kernel here, sorted."""
    ops = {node.op_type for node in model.graph.node if node.domain == "ai.synapse"}
    return tuple(sorted(ops & set(kernels())))


def _found() -> _Library:
    path = library()
    if path is not None:
        return _load(path)
    left_out = os.environ.get("SYNAPSE_ONNX_LIBRARY") == _NONE
    return _Library(problem=f"SYNAPSE_ONNX_LIBRARY is {_NONE}" if left_out else _ABSENT)


@functools.cache
def _load(path: Path) -> _Library:
    """Load a library, once, and ask it."""
    if not path.is_file():
        return _Library(problem=f"{path} (SYNAPSE_ONNX_LIBRARY) is no file")
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        return _Library(problem=f"{path} cannot be loaded: {error}; {_AGAIN}")
    try:
        version = _text(loaded, "version")
        names, instructions = _text(loaded, "kernels"), _text(loaded, "instructions")
        together = _text(loaded, "together")
    except AttributeError:
        return _Library(problem=f"{path} is no library of synapse-onnx; {_AGAIN}")
    if version != __version__:
        return _Library(
            problem=f"{path} is of version {version} and synapse-onnx of {__version__}; {_AGAIN}"
        )
    return _Library(_names(names), instructions, together=_names(together))


def _names(joined: str) -> tuple[str, ...]:
    return tuple(name for name in joined.split(",") if name)


def _text(loaded: ctypes.CDLL, what: str) -> str:
    function = getattr(loaded, f"synapse_onnx_{what}")
    function.restype = ctypes.c_char_p
    return (function() or b"").decode()
