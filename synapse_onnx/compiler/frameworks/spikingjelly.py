"""SpikingJelly: modules of step mode "m" take whole sequences.

Since 2.0 a neuron runs a whole sequence in one operator of its own, ``sj_lif::forward``, in which a
tracer sees no loop. The kernel of that operator on the CPU is a loop in plain torch:
``spikingjelly._ops.lif`` has the operator as ``_forward`` and its module ``_cpu`` the kernel as
``_forward_impl``. So the kernel is called in place of the operator, with the same values.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode

from synapse_onnx.compiler.frameworks._framework import Framework

__all__ = ["FRAMEWORK"]

#: the package of an operator -> the operator is ``_forward`` in it
_PACKAGES = "spikingjelly._ops."


def _reset(module: Any) -> None:
    """Reset a module of whole sequences, and what it calls step by step, such as a container's.

    The states of other modules of single steps are their network's.
    """
    steps = any(kind.__name__ == "MultiStepModule" for kind in type(module).__mro__)
    if getattr(module, "step_mode", "m" if steps else "s") == "m":
        parts: Any = nn.Module.modules(module)
        for part in parts:
            if hasattr(part, "reset"):
                part.reset()


def _start(module: Any) -> None:
    if hasattr(module, "reset"):
        module.reset()


def _takes_sequences(module: Any) -> bool:
    return getattr(module, "step_mode", None) == "m"


def _kernel(operator: OpOverload) -> Callable[..., Any] | None:
    """Return the Python code of an operator on the CPU; None where none is known.

    The packages are imported by the first call of a neuron, so they are looked for at each.
    """
    for name, package in list(sys.modules.items()):
        if name.startswith(_PACKAGES) and getattr(package, "_forward", None) is operator:
            kernel = getattr(getattr(package, "_cpu", None), "_forward_impl", None)
            return kernel if callable(kernel) else None
    return None


class _KernelsCalled(TorchFunctionMode):
    """Calls the kernels of SpikingJelly's operators; a mode holds in its own thread alone."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch."""
        kernel = None
        if isinstance(func, OpOverload) and func.namespace.startswith("sj_"):
            kernel = _kernel(func)
        return (func if kernel is None else kernel)(*args, **(kwargs or {}))


FRAMEWORK = Framework(
    "spikingjelly",
    reset=_reset,
    start=_start,
    takes_sequences=_takes_sequences,
    in_plain_torch=_KernelsCalled,
)
