"""Something else in the place of functions of torch, while a network runs or is copied."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.overrides import TorchFunctionMode

__all__ = ["FunctionMode"]


class FunctionMode(TorchFunctionMode):
    """While it is active, :meth:`call` stands for every function of torch, in its thread alone."""

    @abstractmethod
    def call(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Return what a function of torch returns."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call :meth:`call`."""
        return self.call(func, args, kwargs or {})
