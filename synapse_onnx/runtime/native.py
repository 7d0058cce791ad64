"""Native kernels: libraries of custom ops for ONNX Runtime, found and queried.

They are optional: a file holds the function body of every op. ONNX Runtime prefers a registered
kernel to the function of the same name, so the same file runs faster. There is one library for the
CPU and one for CUDA, each with kernels of its own execution provider only: a CPU kernel would move
its node off the GPU.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from synapse_onnx._version import __version__
from synapse_onnx.model.graph import DOMAIN
from synapse_onnx.model.tiles import body_of, is_in_tiles
from synapse_onnx.runtime.elementwise import OP, Signatures, replaceable, signatures_of

__all__ = [
    "CPU",
    "CUDA",
    "elementwise",
    "instructions",
    "kernels",
    "library",
    "nodes_of",
    "problem",
    "status",
    "together",
    "used_by",
]

#: execution providers with native kernels, by ONNX Runtime's names
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"

#: name of the library without the platform's suffix; that for CUDA ends in _cuda
_NAME = "synapse_onnx_kernels"

#: value of SYNAPSE_ONNX_LIBRARY that turns the kernels off
_NONE = "none"

_ABSENT = (
    "synapse-onnx was installed without them; install a C++ compiler and ONNX Runtime's headers "
    "(libonnxruntime-dev), then synapse-onnx once more with SYNAPSE_ONNX_NATIVE=1, which says "
    "what is missing"
)
_ABSENT_CUDA = (
    "synapse-onnx was installed without them; install it once more with SYNAPSE_ONNX_CUDA=1, which "
    "says what is missing, where nvcc is found"
)
_VARIABLES = {CPU: "SYNAPSE_ONNX_LIBRARY", CUDA: "SYNAPSE_ONNX_CUDA_LIBRARY"}


class _Library(NamedTuple):
    """Contents of a library, or the reason why it is not used."""

    kernels: tuple[str, ...] = ()
    instructions: str = ""
    problem: str | None = None
    together: tuple[str, ...] = ()
    elementwise: Signatures = MappingProxyType({})


def library(provider: str = CPU) -> Path | None:
    """Return the path of a provider's library, whether or not it can be used; None without one.

    The environment variables SYNAPSE_ONNX_LIBRARY and SYNAPSE_ONNX_CUDA_LIBRARY replace those of
    the install. If the first is "none", models run without native kernels.
    """
    if os.environ.get(_VARIABLES[CPU]) == _NONE:
        return None
    if named := os.environ.get(_VARIABLES[provider]):
        return Path(named).absolute()
    name = _NAME + ("_cuda" if provider == CUDA else "")
    # an editable install has two folders: the checkout's, and site-packages with what was built
    for folder in sys.modules["synapse_onnx"].__path__:
        for suffix in (".so", ".dylib", ".dll"):
            path = Path(folder, "_native", name + suffix)
            if path.is_file():
                return path
    return None


def kernels(provider: str = CPU) -> tuple[str, ...]:
    """Return the names of the ops that have a kernel; empty if the library cannot be used."""
    return _contents(provider).kernels


def together(provider: str = CPU) -> tuple[str, ...]:
    """Return the names of the ops that compute two nodes at once, as "AAndB".

    No file holds them: :func:`fusion.fused` puts them into a model before it is loaded.
    """
    return _contents(provider).together


def elementwise(provider: str = CPU) -> Signatures:
    """Return the operators of a Scan's body that a kernel computes, or none.

    No file holds its op: :func:`elementwise.replaced` puts it into a model before it is loaded.
    """
    return _contents(provider).elementwise


def instructions(provider: str = CPU) -> str:
    """Return the instruction sets of the kernels, as "avx512", or "sm_75 sm_80 sm_90"."""
    return _contents(provider).instructions


def problem(provider: str = CPU) -> str | None:
    """Return one sentence on why a provider has no kernels; None if it has some."""
    return _contents(provider).problem


def status(provider: str = CPU) -> str:
    """Return one sentence on the kernels of a provider, or on why it has none."""
    contents, where = _contents(provider), " for CUDA" if provider == CUDA else ""
    if contents.problem is not None:
        return f"no native kernels{where}: {contents.problem}"
    kinds = f"{len(contents.kernels)} ({contents.instructions})"
    return f"native kernels{where}: {kinds}, {library(provider)}"


def nodes_of(model: Any, provider: str = CPU) -> dict[str, str]:
    """Return the nodes of an ``onnx.ModelProto`` that have a kernel here: name -> op."""
    own = {*kernels(provider), *together(provider)}
    own |= {OP} if elementwise(provider) else set()
    return {
        node.name: node.op_type
        for node in model.graph.node
        if node.domain == DOMAIN and node.op_type in own
    }


def used_by(model: Any, provider: str = CPU) -> tuple[str, ...]:
    """Return the names of the ops of an ``onnx.ModelProto`` that have a kernel here, sorted.

    "Scan" is among them where a kernel runs the loop of a neuron that has none of its own.
    """
    own = kernels(provider)
    nodes = (
        node
        for outer in model.graph.node
        for node in (body_of(outer).node if is_in_tiles(outer) else [outer])
    )
    ops = {node.op_type for node in nodes if node.domain == DOMAIN}
    loops = {"Scan"} if replaceable(model, elementwise(provider)) else set()
    return tuple(sorted(ops & set(own) | loops))


def _contents(provider: str) -> _Library:
    path = library(provider)
    if path is not None:
        return _load(path, _VARIABLES[provider])
    if os.environ.get(_VARIABLES[CPU]) == _NONE:
        return _Library(problem=f"{_VARIABLES[CPU]} is {_NONE}")
    return _Library(problem=_ABSENT_CUDA if provider == CUDA else _ABSENT)


@functools.cache
def _load(path: Path, variable: str) -> _Library:
    """Load a library, once, and read its contents."""
    again = f"install synapse-onnx once more, or correct {variable} where it is set"
    if not path.is_file():
        return _Library(problem=f"{path} ({variable}) is no file")
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        return _Library(problem=f"{path} cannot be loaded: {error}; {again}")
    said = {}
    try:
        for what in ("version", "kernels", "instructions", "together"):
            function = getattr(loaded, f"synapse_onnx_{what}")
            function.restype = ctypes.c_char_p
            said[what] = (function() or b"").decode()
    except AttributeError:
        return _Library(problem=f"{path} is no library of synapse-onnx; {again}")
    if (version := said["version"]) != __version__:
        return _Library(
            problem=f"{path} is of version {version} and synapse-onnx of {__version__}; {again}"
        )
    names, together = (tuple(filter(None, said[w].split(","))) for w in ("kernels", "together"))
    return _Library(names, said["instructions"], None, together, _elementwise_of(loaded))


def _elementwise_of(loaded: ctypes.CDLL) -> Signatures:
    """Return the operators that a library has for the bodies of Scans; that for CUDA has none."""
    function = getattr(loaded, "synapse_onnx_elementwise", None)
    if function is None:
        return {}
    function.restype = ctypes.c_char_p
    return signatures_of((function() or b"").decode())
