"""Execution providers: which there are, what each is given to run, and with which options."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synapse_onnx.errors import InputError, SynapseError
from synapse_onnx.model.graph import DOMAIN
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

#: the oldest ONNX Runtime that computes what it should: 1.29 crashes in streams, 1.23 refuses
#: shapes of states, 1.20 has no int4
_OLDEST = (1, 30)

#: execution providers where none is named
DEFAULT = ("CPUExecutionProvider",)

#: execution providers whose memory is that of a GPU of NVIDIA's, as ONNX Runtime names it
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
    """Return the provider whose kernels may take part: no kernel takes a node off the first one."""
    if set(providers) == {native_kernels.CPU}:
        return native_kernels.CPU
    if native_kernels.CUDA in providers and providers[0] in _DEVICES:
        return native_kernels.CUDA
    return None


def library_for(native: bool | None, providers: Sequence[str]) -> Path | None:
    """Return the library of native kernels to register; None to run the bodies."""
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
    if path is not None:  # that there is none is nothing to warn of
        warnings.warn(f"no native kernels: {problem}", stacklevel=3)
    return None


def memory_of(provider: str) -> str:
    """Return the name of the memory that a provider computes in, as ONNX Runtime calls it."""
    return _DEVICES.get(provider, "cpu")


def is_gpu(provider: str) -> bool:
    """Return whether a provider has a memory of its own."""
    return provider in _DEVICES


def _options(threads: int | None, profile: str | None) -> onnxruntime.SessionOptions:
    options = onnxruntime_module().SessionOptions()
    options.log_severity_level = 4  # errors come as exceptions
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
    """Return ONNX Runtime's session, and the model that it runs."""
    options = _options(threads, profile)
    if library is not None:
        options.register_custom_ops_library(str(library))
    ran = _lowered(model, providers, library)
    given = ran.SerializeToString() if source is None or ran is not model else source
    chosen = [_with_options(name) for name in providers]
    return onnxruntime_module().InferenceSession(given, options, providers=chosen), ran


def _lowered(
    model: onnx.ModelProto, providers: Sequence[str], library: Path | None
) -> onnx.ModelProto:
    """Return what ONNX Runtime is given: the model as it is, or lowered for where it runs."""
    if not _DEVICES.keys().isdisjoint(providers):
        kept = () if library is None else native_kernels.kernels(native_kernels.CUDA)
        return for_cuda(model, kept)
    if library is not None:
        return fused(model, native_kernels.together()) or model
    return model


def for_cuda(model: onnx.ModelProto, kept: Sequence[str] = ()) -> onnx.ModelProto:
    """Return a copy for CUDA: one flat graph, whose dense products are of floats.

    CUDA has no product of uint8. Within functions its Scan takes too little memory for states
    whose sizes are symbols (ONNX Runtime's issue 27887), so there are none.

    Args:
        model: the model as it is in its file; it stays as it is.
        kept: ops that stay nodes, without a function: native kernels compute them, or nothing.
    """
    import onnx.inliner

    copied = copy.deepcopy(model)
    for node in copied.graph.node:
        for attribute in node.attribute:
            if node.domain == DOMAIN and attribute.name == "integers":
                attribute.i = 0
    whole = [(DOMAIN, name) for name in kept]
    flat = onnx.inliner.inline_selected_functions(copied, whole, exclude=True)
    del flat.functions[:]
    return flat


def _with_options(provider: str) -> str | tuple[str, dict[str, str]]:
    """Name an execution provider, with the options that sums of integers in floats need."""
    if provider == "CUDAExecutionProvider":
        return provider, {"use_tf32": "0"}  # its products keep 10 bits, too few for exact sums
    return provider


def first_line(error: Exception) -> str:
    """Message of ONNX Runtime without its codes, [ONNXRuntimeError] : 7 : INVALID_PROTOBUF."""
    lines = str(error).strip().splitlines()
    if not lines:
        return type(error).__name__
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", lines[0])
