"""SpikingJelly: modules of step mode "m" take whole sequences.

Since 2.0 a neuron runs a whole sequence in one operator of its own, ``sj_lif::forward``, in which a
tracer sees no loop. The kernel of that operator on the CPU is a loop in plain torch:
``spikingjelly._ops.lif`` has the operator as ``_forward`` and its module ``_cpu`` the kernel as
``_forward_impl``. So the kernel is called in place of the operator, with the same values.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch._ops import OpOverload

from synapse_onnx.compiler.frameworks._framework import Framework
from synapse_onnx.compiler.function_mode import FunctionMode

__all__ = ["FRAMEWORK"]

#: the package of an operator -> the operator is ``_forward`` in it
_PACKAGES = "spikingjelly._ops."


def _reset(module: Any) -> None:
    """Reset a module of whole sequences, and what it calls step by step, such as a container's.

    The states of other modules of single steps are their network's.
    """
    if _takes_sequences(module):
        parts: Any = nn.Module.modules(module)
        for part in parts:
            if hasattr(part, "reset"):
                part.reset()


def _start(module: Any) -> None:
    if hasattr(module, "reset"):
        module.reset()


def _takes_sequences(module: Any) -> bool:
    """Whether it is in step mode "m"; some containers have no mode, and one class for it."""
    only = any(kind.__name__ == "MultiStepModule" for kind in type(module).__mro__)
    return getattr(module, "step_mode", "m" if only else "s") == "m"


def _kernel(operator: OpOverload) -> Callable[..., Any] | None:
    """Return the Python code of an operator on the CPU; None where none is known.

    The packages are imported by the first call of a neuron, so they are looked for at each.
    """
    for name, package in list(sys.modules.items()):
        if name.startswith(_PACKAGES) and getattr(package, "_forward", None) is operator:
            kernel = getattr(getattr(package, "_cpu", None), "_forward_impl", None)
            return kernel if callable(kernel) else None
    return None


class _KernelsCalled(FunctionMode):
    """Calls the kernels of SpikingJelly's operators."""

    def call(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call a function of torch."""
        kernel = None
        if isinstance(function, OpOverload) and function.namespace.startswith("sj_"):
            kernel = _kernel(function)
        return (function if kernel is None else kernel)(*args, **kwargs)


FRAMEWORK = Framework(
    "spikingjelly",
    reset=_reset,
    start=_start,
    takes_sequences=_takes_sequences,
    in_plain_torch=_KernelsCalled,
)
