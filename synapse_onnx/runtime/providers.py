"""Execution providers: the graph and the options that each one needs."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synapse_onnx.errors import InputError, SynapseError
from synapse_onnx.model.graph import DOMAIN
from synapse_onnx.model.tiles import without_tiles
from synapse_onnx.runtime import elementwise
from synapse_onnx.runtime import native as native_kernels
from synapse_onnx.runtime.fusion import fused

if TYPE_CHECKING:
    import onnx
    import onnxruntime

__all__ = [
    "DEFAULT",
    "first_line",
    "for_cuda",
    "is_gpu",
    "kernels_on",
    "library_for",
    "memory_of",
    "onnxruntime_module",
    "opened",
]

#: oldest ONNX Runtime with right results: 1.29 crashes in streams, 1.23 refuses the open shapes of
#: states, 1.20 has no cast from int4 (docs/reference/versions.md)
_OLDEST = (1, 30)

#: execution providers by default
DEFAULT = ("CPUExecutionProvider",)

#: execution providers on a GPU -> ONNX Runtime's name of its memory
_DEVICES = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda"}


def onnxruntime_module() -> Any:
    """Import ONNX Runtime.

    Raises:
        SynapseError: it is not installed, or too old.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise SynapseError(
            "ONNX Runtime is not installed: pip install 'synapse-onnx[cpu]', "
            "or 'synapse-onnx[gpu]' for CUDA (one of the two, not both)"
        ) from error
    version = onnxruntime.__version__
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
        raise SynapseError(
            f"ONNX Runtime {version} is too old, and may crash on states of a stream; install "
            f"{'.'.join(map(str, _OLDEST))} or newer"
        )
    return onnxruntime


def kernels_on(providers: Sequence[str]) -> str | None:
    """Return the provider whose native kernels may be registered, if any.

    ONNX Runtime would place a node on the CPU for a CPU kernel, and off the GPU.
    """
    if set(providers) == {native_kernels.CPU}:
        return native_kernels.CPU
    if native_kernels.CUDA in providers and providers[0] in _DEVICES:
        return native_kernels.CUDA
    return None


def library_for(native: bool | None, providers: Sequence[str]) -> Path | None:
    """Return the library of native kernels to register; None to run the function bodies.

    Args:
        native: as of :class:`synapse_onnx.Session`.
        providers: execution providers, best first.

    Raises:
        InputError: kernels are required for a provider that has none.
        SynapseError: kernels are required and missing.
    """
    provider = kernels_on(providers)
    if native and provider is None:
        others = [name for name in providers if name != native_kernels.CPU]
        raise InputError(
            f"native=True: the native kernels run on the CPU or on CUDA, and would take the model "
            f"off {others[0]}; use native=None, or one of these first"
        )
    if native is False or provider is None:
        return None
    path, problem = native_kernels.library(provider), native_kernels.problem(provider)
    if problem is None:
        return path
    if native:
        on = " for CUDA" if provider == native_kernels.CUDA else ""
        raise SynapseError(f"native=True: there are no native kernels{on}: {problem}")
    if path is not None:  # an install without kernels is no reason for a warning
        warnings.warn(f"no native kernels: {problem}", stacklevel=3)
    return None


def memory_of(provider: str) -> str:
    """Return ONNX Runtime's name of the memory that a provider computes in."""
    return _DEVICES.get(provider, "cpu")


def is_gpu(provider: str) -> bool:
    """Return whether a provider has a memory of its own."""
    return provider in _DEVICES


def _options(threads: int | None, profile: str | None) -> onnxruntime.SessionOptions:
    options = onnxruntime_module().SessionOptions()
    options.log_severity_level = 4  # errors are raised as exceptions
    if threads is not None:
        options.intra_op_num_threads = threads
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = profile
    return options


def opened(
    model: onnx.ModelProto, source: bytes | None, providers: Sequence[str], threads: int | None,
    profile: str | None, library: Path | None,
) -> tuple[onnxruntime.InferenceSession, onnx.ModelProto]:  # fmt: skip
    """Return ONNX Runtime's session, and the model that it runs, lowered for where it runs.

    ``source`` are the model's bytes, if they were read from a file; ``library`` is that of the
    native kernels to register; for the others see :class:`synapse_onnx.Session`.
    """
    options = _options(threads, profile)
    ran = model
    if any(map(is_gpu, providers)):
        kept = () if library is None else native_kernels.kernels(native_kernels.CUDA)
        ran = for_cuda(model, kept)
    elif library is not None:
        whole = without_tiles(model, native_kernels.kernels())
        ran = fused(whole, native_kernels.together()) or whole
        ran = elementwise.replaced(ran, native_kernels.elementwise()) or ran
    if library is not None:
        options.register_custom_ops_library(str(library))
    data = ran.SerializeToString() if source is None or ran is not model else source
    session = onnxruntime_module().InferenceSession(
        data, options, providers=[_with_options(name) for name in providers]
    )
    return session, ran


def for_cuda(model: onnx.ModelProto, kept: Sequence[str] = ()) -> onnx.ModelProto:
    """Return a copy for CUDA: one inlined graph, with dense products of floats.

    CUDA has no product of uint8, and is slower with tiles that suit the cache of a processor.
    Inside a function, a Scan allocates too little memory for states of symbolic size
    (https://github.com/microsoft/onnxruntime/issues/27887), so functions are inlined.

    Args:
        model: the model of the file; it is not changed.
        kept: ops that stay nodes without a function, for native kernels to compute.
    """
    import onnx.inliner

    copied = copy.deepcopy(without_tiles(model))
    for node in copied.graph.node:
        for attribute in node.attribute:
            if node.domain == DOMAIN and attribute.name == "integers":
                attribute.i = 0
    excluded = [(DOMAIN, name) for name in kept]
    inlined = onnx.inliner.inline_selected_functions(copied, excluded, exclude=True)
    del inlined.functions[:]
    return inlined


def _with_options(provider: str) -> str | tuple[str, dict[str, str]]:
    """Return a provider with the options that exact sums need."""
    if provider == "CUDAExecutionProvider":
        return provider, {"use_tf32": "0"}  # TF32 products keep 10 bits, too few for exact sums
    return provider


def first_line(error: Exception) -> str:
    """First line of an error, without codes: "[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : "."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", lines[0])
